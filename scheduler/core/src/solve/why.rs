//! Which constraint between pods keeps a class from every domain it could be in.

use std::rc::Rc;

use super::Solver;
use super::classes::Class;
use super::settle::{Binding, Pins};
use super::topology::{Constraint, ConstraintKind, Domain};

impl Solver<'_> {
    /// The first constraint that fails in the domain that comes nearest; `None` where some domain would take a pod.
    pub(super) fn blocked_by(&mut self, class: &Class<'_>) -> Option<String> {
        if class.rules.hard.is_empty() && class.rules.counted.is_empty() && class.host.is_empty() {
            return None;
        }
        let Ok(terms) = &class.terms else { return None };
        let places = self.places_for(class, terms);
        let binding = Binding { constraints: class.rules.hard.clone(), host: Rc::clone(&class.host) };
        let mut nearest: Option<String> = None;
        let mut cells_seen = 0;
        for term in terms {
            let masks = self.masks.of(&self.catalog, term, &class.pools);
            for (pins, buyable) in self.domains(class, &binding, &Rc::new(term.clone()), &masks, &places) {
                cells_seen += 1;
                match self.failing(class, &pins) {
                    Some(why) => nearest = nearest.or(Some(why)),
                    None if buyable
                        && class.host.needs.iter().all(|need| self.may_start(class, need.group)) =>
                    {
                        return None;
                    }
                    None => nearest = nearest.or_else(|| self.failing_host(class)),
                }
            }
        }
        if cells_seen == 0 { None } else { nearest }
    }

    fn may_start(&self, class: &Class<'_>, group: u32) -> bool {
        class.is_counted(group) && self.counts.anywhere(group) == 0
    }

    /// The first constraint that a domain breaks.
    fn failing(&self, class: &Class<'_>, pins: &Pins) -> Option<String> {
        let value_of = |group| match self.topology.domain(group) {
            Domain::Label(key) => pins.iter().find(|(one, _)| *one == key).copied(),
            Domain::Host => None,
        };
        for constraint in &class.rules.hard {
            let Some((key, value)) = value_of(constraint.group) else { continue };
            if !self.counts.allows(*constraint, value, class.is_counted(constraint.group)) {
                return Some(self.describe(class, *constraint, key, value));
            }
        }
        for group in &class.rules.counted {
            let Some((key, value)) = value_of(*group) else { continue };
            if !self.counts.welcomes(*group, value) {
                let (name, text) = (self.topology.key_name(key), &self.topology.values(key)[value]);
                return Some(format!("pods in {name} {text} keep pods like it away"));
            }
        }
        None
    }

    fn describe(&self, class: &Class<'_>, constraint: Constraint, key: usize, value: usize) -> String {
        let (name, text) = (self.topology.key_name(key), &self.topology.values(key)[value]);
        let there = self.counts.pods(constraint.group, value);
        match constraint.kind {
            ConstraintKind::Spread { max_skew, min_domains } => {
                let least = self.counts.least(constraint.group, min_domains);
                let with = there + u32::from(class.is_counted(constraint.group));
                format!(
                    "spread over {name}: {text} would have {with}, the emptiest domain has {least}, maxSkew is {max_skew}"
                )
            }
            ConstraintKind::Affinity => format!("pod affinity over {name}: no matching pod in {text}"),
            ConstraintKind::AntiAffinity => {
                format!("pod anti-affinity over {name}: {there} matching pods in {text}")
            }
        }
    }

    fn failing_host(&self, class: &Class<'_>) -> Option<String> {
        if class.host.needs.iter().any(|need| !self.may_start(class, need.group)) {
            return Some(
                "pod affinity over kubernetes.io/hostname: no machine with a matching pod has room"
                    .to_owned(),
            );
        }
        None
    }
}
