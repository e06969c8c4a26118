//! What a class gives up, and in which order, where its wishes cannot all be had.
//!
//! Karpenter's order: a required OR term, while there is another; then preferred pod affinity, pod anti-affinity and node
//! affinity, the heaviest first; then `ScheduleAnyway` spread constraints; at last, taints with `PreferNoSchedule` are put up
//! with. Terms given up for the sake of a preference are tried once more, without any preference, before a pod is left out.

use std::cmp::Reverse;
use std::sync::Arc;

use super::host::HostRules;
use super::options::Preferences;
use super::topology::{ClassRules, Constraint, GroupId, Soft, apply_wish};
use crate::model::PodSpec;
use crate::requirement::Requirements;

/// One state of what is still insisted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rung {
    /// The required term that must hold.
    pub(super) term: usize,
    /// Preferences given up, of each kind.
    affinity: usize,
    anti_affinity: usize,
    /// The node preference that must hold, where one is left.
    pub(super) preference: Option<usize>,
    spread: usize,
    /// Whether taints with `PreferNoSchedule` are put up with.
    pub(super) soft_taints: bool,
}

/// The rungs of a class, first to last.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    pub(super) rungs: Vec<Rung>,
    /// Node preferences that can be read, heaviest first.
    pub(super) preferences: Vec<Requirements>,
}

impl Ladder {
    pub(super) fn of(
        spec: &PodSpec,
        terms: usize,
        rules: &ClassRules,
        policy: Preferences,
        soft_taints: bool,
    ) -> Self {
        if terms == 0 {
            return Self::default();
        }
        let respected = policy == Preferences::Respect;
        let mut preferences = Vec::new();
        if respected {
            let mut list: Vec<_> = spec.preferred_affinity.iter().collect();
            list.sort_by_key(|term| Reverse(term.weight));
            // A preference that cannot be read is no preference.
            preferences
                .extend(list.iter().filter_map(|term| Requirements::from_list(&term.requirements).ok()));
        }
        let kept = |list: &[Soft]| if respected { list.len() } else { 0 };
        let counts = [
            kept(&rules.soft_affinity),
            kept(&rules.soft_anti_affinity),
            preferences.len(),
            kept(&rules.soft_spread),
        ];
        let gone = |list: &[Soft]| if respected { 0 } else { list.len() };
        let mut rung = Rung {
            term: 0,
            affinity: gone(&rules.soft_affinity),
            anti_affinity: gone(&rules.soft_anti_affinity),
            preference: (!preferences.is_empty()).then_some(0),
            spread: gone(&rules.soft_spread),
            soft_taints: false,
        };
        let mut rungs = vec![rung];
        for term in 1..terms {
            rung.term = term;
            rungs.push(rung);
        }
        for (kind, count) in counts.into_iter().enumerate() {
            for given_up in 1..=count {
                match kind {
                    0 => rung.affinity = given_up,
                    1 => rung.anti_affinity = given_up,
                    2 => rung.preference = (given_up < count).then_some(given_up),
                    _ => rung.spread = given_up,
                }
                rungs.push(rung);
            }
        }
        if soft_taints {
            rung.soft_taints = true;
            rungs.push(rung);
        }
        if rungs.len() > terms {
            for term in 0..terms - 1 {
                rungs.push(Rung { term, ..rung });
            }
        }
        Self { rungs, preferences }
    }
}

impl Rung {
    /// The constraints that bind on this rung, over labels and within a machine.
    pub(super) fn constraints(
        &self,
        rules: &ClassRules,
        host: &Arc<HostRules>,
        is_counted: impl Fn(GroupId) -> bool,
    ) -> (Vec<Constraint>, Arc<HostRules>) {
        let mut label = rules.hard.clone();
        let soft = rules.soft_affinity.iter().skip(self.affinity);
        let soft = soft.chain(rules.soft_anti_affinity.iter().skip(self.anti_affinity));
        let mut soft = soft.chain(rules.soft_spread.iter().skip(self.spread)).peekable();
        if soft.peek().is_none() {
            return (label, Arc::clone(host));
        }
        let mut with = HostRules::clone(host);
        for one in soft {
            apply_wish(&mut label, &mut with, *one, &is_counted);
        }
        (label, Arc::new(with))
    }
}
