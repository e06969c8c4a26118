//! Who owns whom, and who by that owns itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Who owns something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) namespace: Arc<str>,
    pub(super) kind: String,
    pub(super) name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The circles among objects with their owners: each object of one is owned by the next, the last by the first. Of circles that
/// hang together, one is told. Takes time in proportion to what there is.
pub(super) fn circles(owned: &BTreeMap<Owner, Vec<Owner>>) -> Vec<Vec<&Owner>> {
    let objects: Vec<&Owner> = owned.keys().collect();
    let number: BTreeMap<&Owner, usize> = objects.iter().enumerate().map(|(at, one)| (*one, at)).collect();
    let owners: Vec<Vec<usize>> =
        owned.values().map(|list| list.iter().filter_map(|one| number.get(one).copied()).collect()).collect();
    // An object is free where its owners are; what is left hangs on a circle.
    let mut owns = vec![Vec::new(); objects.len()];
    for (object, list) in owners.iter().enumerate() {
        list.iter().for_each(|owner| owns[*owner].push(object));
    }
    let mut bound: Vec<usize> = owners.iter().map(Vec::len).collect();
    let mut free: Vec<usize> = (0..objects.len()).filter(|object| bound[*object] == 0).collect();
    while let Some(object) = free.pop() {
        for below in &owns[object] {
            bound[*below] -= 1;
            if bound[*below] == 0 {
                free.push(*below);
            }
        }
    }
    let mut found = Vec::new();
    // The walk that came by first, from 1.
    let mut walked = vec![0; objects.len()];
    for start in (0..objects.len()).filter(|object| bound[*object] > 0) {
        let mut path = Vec::new();
        let mut at = start;
        while walked[at] == 0 {
            walked[at] = start + 1;
            path.push(at);
            // What is bound has an owner that is.
            at = owners[at].iter().copied().find(|owner| bound[*owner] > 0).unwrap_or(at);
        }
        if walked[at] == start + 1 {
            let circle = path.iter().skip_while(|object| **object != at);
            found.push(circle.map(|object| objects[*object]).collect());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "default".into(), kind: "ReplicaSet".to_owned(), name: name.to_owned() }
    }

    fn found(edges: &[(&str, &[&str])]) -> Vec<String> {
        let owned =
            edges.iter().map(|(name, owners)| (owner(name), owners.iter().map(|one| owner(one)).collect()));
        let owned: BTreeMap<Owner, Vec<Owner>> = owned.collect();
        let names =
            |circle: Vec<&Owner>| circle.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" ");
        circles(&owned).into_iter().map(names).collect()
    }

    #[test]
    fn circles_are_found_once_each() {
        let none: [String; 0] = [];
        assert_eq!(found(&[]), none);
        assert_eq!(found(&[("a", &["b"]), ("b", &["not-there"])]), none);
        assert_eq!(found(&[("a", &["c"]), ("b", &["c"]), ("c", &[])]), none);
        assert_eq!(found(&[("a", &["a"])]), ["a"]);
        assert_eq!(found(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]), ["a b c"]);
        assert_eq!(
            found(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]),
            ["b c"],
            "who hangs on it is not in it"
        );
        assert_eq!(
            found(&[("a", &["x", "b"]), ("b", &["a"]), ("x", &[])]),
            ["a b"],
            "by another owner than the first"
        );
        assert_eq!(found(&[("a", &["b"]), ("b", &["a"]), ("c", &["d"]), ("d", &["c"])]), ["a b", "c d"]);
    }

    #[test]
    fn a_long_chain_is_walked_without_recursion() {
        let name = |at: usize| format!("{at:06}");
        let count = 100_000;
        let owned = (0..count).map(|at| (owner(&name(at)), vec![owner(&name((at + 1) % count))])).collect();
        let circles = circles(&owned);
        assert_eq!((circles.len(), circles[0].len()), (1, count));
    }
}
