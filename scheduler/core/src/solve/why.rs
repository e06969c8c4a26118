//! Which constraint between pods keeps a class from every domain it could be in.

use std::sync::Arc;

use super::Solver;
use super::classes::Class;
use super::settle::{Binding, Pins};
use super::topology::{Constraint, ConstraintKind, Domain};

/// A constraint between pods that no domain satisfies.
#[derive(Debug, Clone)]
pub(super) struct Blocked {
    /// The constraint, the domain that comes nearest, and the numbers.
    pub(super) detail: String,
    /// One change that opens that domain.
    pub(super) fix: Option<String>,
}

/// What fails in one domain.
#[derive(Debug, Default)]
struct Failing {
    constraints: Vec<Constraint>,
    /// Whether pods that are there keep it away.
    unwelcome: Option<String>,
    /// How far a skew is over what is allowed, the most.
    excess: u32,
}

impl Solver {
    /// The constraint that fails in the domain that comes nearest; `None` where some domain of some pool would take a pod.
    pub(super) fn blocked_by(&mut self, class: &Class<'_>) -> Option<Blocked> {
        self.blocked_in(class, &class.pools)
    }

    /// The same as far as machines of these pools go.
    pub(super) fn blocked_in(&mut self, class: &Class<'_>, pools: &[bool]) -> Option<Blocked> {
        if class.rules.hard.is_empty() && class.rules.counted.is_empty() && class.host.is_empty() {
            return None;
        }
        let Ok(terms) = &class.terms else { return None };
        let places = self.places_for(class, terms);
        let binding = Binding { constraints: class.rules.hard.clone(), host: Arc::clone(&class.host) };
        let mut nearest: Option<((bool, usize, u32), Blocked)> = None;
        for term in terms {
            let masks = self.masks.of(&self.catalog, term, pools);
            for (pins, buyable) in self.domains(class, &binding, &Arc::new(term.clone()), &masks, &places) {
                let failing = self.failing(class, &pins);
                let count = failing.constraints.len() + usize::from(failing.unwelcome.is_some());
                let starts = class.host.needs.iter().all(|need| self.may_start(class, need.group));
                if count == 0 && buyable && starts {
                    return None;
                }
                let Some(blocked) = self.words(class, &pins, failing, buyable && starts) else { continue };
                let rank = (!buyable, count, blocked.0);
                if nearest.as_ref().is_none_or(|(least, _)| rank < *least) {
                    nearest = Some((rank, blocked.1));
                }
            }
        }
        nearest.map(|(_, blocked)| blocked).or_else(|| self.nowhere(class))
    }

    /// A constraint over a label that neither nodes nor types have: there is no domain at all.
    fn nowhere(&self, class: &Class<'_>) -> Option<Blocked> {
        let (kind, name) = class.rules.hard.iter().find_map(|one| match self.topology.domain(one.group) {
            Domain::Label(key) if self.topology.values(key).next().is_none() => {
                Some((one.kind, self.topology.key_name(key)))
            }
            _ => None,
        })?;
        let what = match kind {
            ConstraintKind::Spread { .. } => "spread",
            ConstraintKind::Affinity => "pod affinity",
            ConstraintKind::AntiAffinity => "pod anti-affinity",
        };
        Some(Blocked { detail: format!("{what} over {name}: no node and no type has this label"), fix: None })
    }

    /// What fails in words, and how much it is over.
    fn words(
        &self,
        class: &Class<'_>,
        pins: &Pins,
        failing: Failing,
        otherwise_open: bool,
    ) -> Option<(u32, Blocked)> {
        let Failing { constraints, unwelcome, excess } = failing;
        let Some(constraint) = constraints.first() else {
            let detail = unwelcome.or_else(|| self.failing_host(class))?;
            return Some((excess, Blocked { detail, fix: None }));
        };
        let (key, value) = self.value_of(constraint.group, pins)?;
        let alone = constraints.len() == 1 && unwelcome.is_none() && otherwise_open;
        let fix = match constraint.kind {
            ConstraintKind::Spread { max_skew, .. } if alone => {
                let name = self.topology.key_name(key);
                Some(format!("raise maxSkew over {name} to {}", max_skew.saturating_add(excess)))
            }
            _ => None,
        };
        Some((excess, Blocked { detail: self.describe(class, *constraint, key, value), fix }))
    }

    /// The domain of a group among those chosen: key and value.
    fn value_of(&self, group: u32, pins: &Pins) -> Option<(usize, usize)> {
        match self.topology.domain(group) {
            Domain::Label(key) => pins.iter().find(|(one, _)| *one == key).copied(),
            Domain::Host => None,
        }
    }

    fn may_start(&self, class: &Class<'_>, group: u32) -> bool {
        class.is_counted(group) && self.counts.anywhere(group) == 0
    }

    /// The constraints that a domain breaks.
    fn failing(&self, class: &Class<'_>, pins: &Pins) -> Failing {
        let mut failing = Failing::default();
        for constraint in &class.rules.hard {
            let Some((_, value)) = self.value_of(constraint.group, pins) else { continue };
            let counted = class.is_counted(constraint.group);
            if self.counts.allows(*constraint, value, counted) {
                continue;
            }
            if let ConstraintKind::Spread { max_skew, min_domains } = constraint.kind {
                let with = self.counts.pods(constraint.group, value) + u32::from(counted);
                let least = self.counts.least(constraint.group, min_domains);
                let over = with.saturating_sub(least.saturating_add(max_skew));
                failing.excess = failing.excess.max(over);
            }
            failing.constraints.push(*constraint);
        }
        let spreads = |group| {
            let of =
                |one: &&Constraint| one.group == group && matches!(one.kind, ConstraintKind::Spread { .. });
            failing.constraints.iter().any(|one| of(&one))
        };
        for group in &self.topology.in_order(&class.rules.counted) {
            let Some((key, value)) = self.value_of(*group, pins) else { continue };
            // Its siblings there have the same spread constraint, which is named already.
            if !self.counts.tolerates(*group, value) && !spreads(*group) {
                let (name, text) = (self.topology.key_name(key), self.topology.text(key, value));
                failing.unwelcome = Some(format!("pods in {name} {text} keep pods like it away"));
                break;
            }
        }
        failing
    }

    fn describe(&self, class: &Class<'_>, constraint: Constraint, key: usize, value: usize) -> String {
        let (name, text) = (self.topology.key_name(key), self.topology.text(key, value));
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
