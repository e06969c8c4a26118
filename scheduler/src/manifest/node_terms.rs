//! Requirements on nodes: of pools, of volumes, and of the node affinity of pods.

use std::cmp::Reverse;

use assay_core::model::{PreferredTerm, ReasonCode, Rejection};
use assay_core::requirement::{Operator, Requirement, ValueSet};
use assay_shared::labels::kubernetes;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{self, Expression, NodeSelector};
use super::syntax;

/// Requirements of a manifest, checked.
pub(super) fn requirements(
    document: &Document,
    path: &str,
    expressions: &[Expression],
) -> Result<Vec<Requirement>, ManifestError> {
    let mut list = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        let field = format!("{path}[{index}]");
        if expression.key.is_empty() {
            return Err(document.error(&format!("{field}.key"), "expected a label key, found none"));
        }
        syntax::check_key(document, || format!("{field}.key"), &expression.key)?;
        let operator: Operator = expression
            .operator
            .parse()
            .map_err(|problem| document.error(&format!("{field}.operator"), problem))?;
        let requirement = Requirement {
            key: expression.key.clone(),
            operator,
            values: expression.values.clone(),
            min_values: expression.min_values,
        };
        // The other operators' values are numbers, or none.
        if matches!(operator, Operator::In | Operator::NotIn) {
            for (number, value) in requirement.values.iter().enumerate() {
                syntax::check_value(document, || format!("{field}.values[{number}]"), value)?;
            }
        }
        ValueSet::from_requirement(&requirement)
            .map_err(|error| document.error(&format!("{field}.values"), error.to_string()))?;
        list.push(requirement);
    }
    Ok(list)
}

/// The required terms of a node affinity that stands at `path`. What is not supported of them goes to `rejections`.
pub(super) fn required(
    document: &Document,
    path: &str,
    selector: &NodeSelector,
    rejections: &mut Vec<Rejection>,
) -> Result<Vec<Vec<Requirement>>, ManifestError> {
    let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        return Err(document.error(&path, "expected at least one term, found none"));
    }
    let mut terms = Vec::new();
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if !term.match_fields.is_empty() {
            let detail = format!("not supported: {path}.matchFields");
            rejections.push(Rejection { reason: ReasonCode::UnsupportedConstraint, detail });
        }
        if !term.match_expressions.is_empty() {
            terms.push(requirements(document, &format!("{path}.matchExpressions"), &term.match_expressions)?);
        } else if term.match_fields.is_empty() {
            terms.push(nothing());
        }
    }
    Ok(terms)
}

/// Requirements that no node satisfies: to Kubernetes a term without any matches none.
fn nothing() -> Vec<Requirement> {
    let any = Requirement { operator: Operator::Exists, ..Requirement::is_in(kubernetes::HOSTNAME, [""; 0]) };
    vec![Requirement { operator: Operator::DoesNotExist, ..any.clone() }, any]
}

/// The preferred terms of a node affinity that stands at `path`, the heaviest first.
pub(super) fn preferred(
    document: &Document,
    path: &str,
    terms: &[objects::PreferredTerm],
) -> Result<Vec<PreferredTerm>, ManifestError> {
    let mut preferred = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        if !(1..=100).contains(&term.weight) {
            let problem = format!("expected 1 to 100, found {}", term.weight);
            return Err(document.error(&format!("{path}.weight"), problem));
        }
        let expressions = &term.preference.match_expressions;
        let requirements =
            requirements(document, &format!("{path}.preference.matchExpressions"), expressions)?;
        preferred.push(PreferredTerm { weight: term.weight, requirements });
    }
    preferred.sort_by_key(|term| Reverse(term.weight));
    Ok(preferred)
}
