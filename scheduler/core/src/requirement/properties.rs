//! Laws of the requirement algebra, over all operators, integers and words.

use proptest::prelude::*;

use super::{Operator, Requirement, ValueSet};

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        (-3_i64..8).prop_map(|n| n.to_string()),
        prop::sample::select(vec!["a", "b", "", "07"]).prop_map(str::to_owned)
    ]
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let of = |operator, values| Requirement { key: "k".into(), operator, values, min_values: None };
    let bounds = [Operator::Gt, Operator::Lt, Operator::Gte, Operator::Lte];
    prop_oneof![
        prop::collection::vec(value(), 1..4).prop_map(move |values| of(Operator::In, values)),
        prop::collection::vec(value(), 0..4).prop_map(move |values| of(Operator::NotIn, values)),
        Just(of(Operator::Exists, Vec::new())),
        Just(of(Operator::DoesNotExist, Vec::new())),
        (prop::sample::select(bounds.to_vec()), -3_i64..8)
            .prop_map(move |(operator, n)| of(operator, vec![n.to_string()])),
        prop::sample::select(bounds.to_vec())
            .prop_map(move |operator| of(operator, vec![i64::MAX.to_string()])),
    ]
}

fn set() -> impl Strategy<Value = ValueSet> {
    prop::collection::vec(requirement(), 0..4).prop_map(|list| {
        let sets = list.iter().map(|one| ValueSet::from_requirement(one).unwrap());
        sets.fold(ValueSet::anything(), |all, one| all.intersect(&one))
    })
}

/// What Kubernetes says about one operator and one value; `None` is a missing label.
fn holds(requirement: &Requirement, value: Option<&str>) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = |test: fn(i64, i64) -> bool| {
        value
            .and_then(number)
            .zip(number(&requirement.values[0]))
            .is_some_and(|(value, bound)| test(value, bound))
    };
    let listed = value.is_some_and(|value| requirement.values.iter().any(|one| one == value));
    match requirement.operator {
        Operator::In => listed,
        Operator::NotIn => !listed,
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt => compared(|value, bound| value > bound),
        Operator::Lt => compared(|value, bound| value < bound),
        Operator::Gte => compared(|value, bound| value >= bound),
        Operator::Lte => compared(|value, bound| value <= bound),
    }
}

fn contains(set: &ValueSet, value: Option<&str>) -> bool {
    value.map_or_else(|| set.allows_absence(), |value| set.allows(value))
}

proptest! {
    #[test]
    fn a_set_holds_what_its_operator_says(one in requirement(), value in prop::option::of(value())) {
        let set = ValueSet::from_requirement(&one).unwrap();
        prop_assert_eq!(contains(&set, value.as_deref()), holds(&one, value.as_deref()));
    }

    #[test]
    fn an_intersection_holds_what_both_hold(a in set(), b in set(), value in prop::option::of(value())) {
        let both = contains(&a, value.as_deref()) && contains(&b, value.as_deref());
        prop_assert_eq!(contains(&a.intersect(&b), value.as_deref()), both);
        prop_assert!(!both || a.intersects(&b));
    }

    #[test]
    fn intersection_is_commutative_associative_and_idempotent(a in set(), b in set(), c in set()) {
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        prop_assert_eq!(a.intersect(&b).intersect(&c), a.intersect(&b.intersect(&c)));
        prop_assert_eq!(a.intersect(&a), a.clone());
        prop_assert_eq!(a.intersect(&ValueSet::anything()), a.clone());
        prop_assert_eq!(a.intersects(&b), !a.intersect(&b).is_empty());
    }

    #[test]
    fn requirements_written_out_mean_the_same(a in set()) {
        let list = a.to_requirements("k");
        let sets = list.iter().map(|one| ValueSet::from_requirement(one).unwrap());
        let read = sets.fold(ValueSet::anything(), |all, one| all.intersect(&one));
        prop_assert_eq!(read, a);
    }
}
