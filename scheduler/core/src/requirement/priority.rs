//! AKS's labels for how a machine is paid for, read as Karpenter's capacity type: `kubernetes.azure.com/scalesetpriority` and
//! `/priority` say `spot` or `regular`. One fact with three names would have to be kept in agreement everywhere else.

use std::borrow::Cow;

use assay_shared::labels::{azure, karpenter};

use super::{Operator, Requirement};
use crate::model::Labels;

const SPOT: &str = "spot";
const REGULAR: &str = "regular";
/// What AKS calls regular is everything else.
const NOT_SPOT: [&str; 2] = ["on-demand", "reserved"];

fn is_priority(key: &str) -> bool {
    [azure::AKS_SCALE_SET_PRIORITY, azure::AKS_PRIORITY].contains(&key)
}

/// A requirement on a priority as one on the capacity type; others as they are. Nodes that are not spot often lack the label,
/// so that its absence means regular.
pub(super) fn as_capacity_type(requirement: &Requirement) -> Cow<'_, Requirement> {
    let (operator, values) = match requirement.operator {
        _ if !is_priority(&requirement.key) => return Cow::Borrowed(requirement),
        Operator::In | Operator::NotIn => (requirement.operator, requirement.values.clone()),
        Operator::Exists if requirement.key == azure::AKS_SCALE_SET_PRIORITY => {
            (Operator::In, vec![SPOT.to_owned()])
        }
        Operator::DoesNotExist => (Operator::NotIn, vec![SPOT.to_owned()]),
        _ => return Cow::Borrowed(requirement),
    };
    let translated = |value: String| match value.as_str() {
        REGULAR => NOT_SPOT.map(str::to_owned).to_vec(),
        _ => vec![value],
    };
    Cow::Owned(Requirement {
        key: karpenter::CAPACITY_TYPE.to_owned(),
        operator,
        values: values.into_iter().flat_map(translated).collect(),
        min_values: requirement.min_values,
    })
}

/// The capacity type that a node's labels name by its priority, where they do not name it themselves.
pub(super) fn capacity_type(labels: &Labels) -> Option<&str> {
    let priority =
        [azure::AKS_SCALE_SET_PRIORITY, azure::AKS_PRIORITY].iter().find_map(|key| labels.get(*key));
    match priority?.as_str() {
        REGULAR => Some(NOT_SPOT[0]),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Requirements;
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_priority_is_a_capacity_type() {
        let key = azure::AKS_SCALE_SET_PRIORITY;
        let without =
            |operator| Requirement { operator, values: Vec::new(), ..Requirement::is_in(key, ["x"]) };
        let not_spot = Requirement { operator: Operator::NotIn, ..Requirement::is_in(key, [SPOT]) };
        let cases = [
            (Requirement::is_in(key, [SPOT]), "spot", "on-demand"),
            (Requirement::is_in(azure::AKS_PRIORITY, [REGULAR]), "on-demand", "spot"),
            (Requirement::is_in(azure::AKS_PRIORITY, [REGULAR]), "reserved", "spot"),
            (not_spot, "on-demand", "spot"),
            (without(Operator::Exists), "spot", "on-demand"),
            (without(Operator::DoesNotExist), "on-demand", "spot"),
        ];
        for (requirement, yes, no) in cases {
            let needs = Requirements::from_list([&requirement]).unwrap();
            let of = |value: &str| labels(&[(karpenter::CAPACITY_TYPE, value)]);
            assert!(needs.check_labels(&of(yes)).is_ok(), "{requirement}");
            assert!(needs.check_labels(&of(no)).is_err(), "{requirement}");
        }
    }

    #[test]
    fn a_node_of_aks_says_it_by_its_priority() {
        let spot = Requirements::from_list([&Requirement::is_in(karpenter::CAPACITY_TYPE, [SPOT])]).unwrap();
        assert!(spot.check_labels(&labels(&[(azure::AKS_SCALE_SET_PRIORITY, SPOT)])).is_ok());
        assert!(spot.check_labels(&labels(&[(azure::AKS_PRIORITY, REGULAR)])).is_err());
        assert!(spot.check_labels(&labels(&[])).is_err());
    }
}
