//! Which domains count for a spread constraint: those of machines that are there, and those that could be bought.

use std::collections::{BTreeSet, HashMap};

use assay_shared::labels::{azure, karpenter, kubernetes};

use super::fits::Needs;
use super::ledger::{Ledger, is_host};
use crate::catalog::{InstanceType, Offering};
use crate::model::{Market, NodeInclusion, PodSpec, Toleration, TopologySpread, untolerated};
use crate::requirement::{Requirement, Requirements, ValueSet, normalize_key};

/// What decides which machines count for a constraint, besides the topology key: what its pod selects and tolerates, where the
/// constraint honours that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Counting<'s> {
    selects: Option<(&'s [Requirement], &'s [Vec<Requirement>])>,
    tolerates: Option<&'s [Toleration]>,
}

impl<'s> Counting<'s> {
    pub(super) fn of(constraint: &TopologySpread, spec: &'s PodSpec) -> Self {
        let affinity = constraint.node_affinity_policy == NodeInclusion::Honor;
        let chooses = !(spec.node_selector.is_empty() && spec.required_affinity.is_empty());
        let taints = constraint.node_taints_policy == NodeInclusion::Honor;
        Self {
            selects: (affinity && chooses)
                .then_some((spec.node_selector.as_slice(), spec.required_affinity.as_slice())),
            tolerates: taints.then_some(spec.tolerations.as_slice()),
        }
    }

    /// Whether every machine counts.
    pub(super) fn is_all(&self) -> bool {
        self.selects.is_none() && self.tolerates.is_none()
    }

    fn asked(&self, key: &str) -> Asked {
        let selects = self.selects.map(|(selector, terms)| (selector.to_vec(), terms.to_vec()));
        (key.to_owned(), selects, self.tolerates.map(<[Toleration]>::to_vec))
    }

    /// The same, ready to be asked; `None` where it cannot be read.
    fn needs(&self) -> Option<Needs> {
        let (selector, terms) = self.selects.unwrap_or_default();
        Needs::read(selector, terms).ok()
    }
}

/// Domains that could be bought, by topology key and by what counts.
#[derive(Debug, Default)]
pub(super) struct Offered {
    known: HashMap<Asked, BTreeSet<String>>,
}

/// What such an answer is about.
type Asked = (String, Option<(Vec<Requirement>, Vec<Vec<Requirement>>)>, Option<Vec<Toleration>>);

/// Answers that are kept, at most.
const KEPT: usize = 1_024;

impl Offered {
    /// Finds out which domains of a topology key could be bought and count.
    pub(super) fn learn(&mut self, market: &Market, key: &str, counting: &Counting<'_>) {
        let asked = counting.asked(key);
        if !self.known.contains_key(&asked) {
            if self.known.len() >= KEPT {
                self.known.clear();
            }
            self.known.insert(asked, offered(market, key, counting));
        }
    }

    /// These domains.
    fn get(&self, market: &Market, key: &str, counting: &Counting<'_>) -> BTreeSet<String> {
        let known = self.known.get(&counting.asked(key)).cloned();
        known.unwrap_or_else(|| offered(market, key, counting))
    }
}

fn offered(market: &Market, key: &str, counting: &Counting<'_>) -> BTreeSet<String> {
    let mut domains = BTreeSet::new();
    let Some(needs) = counting.needs() else { return domains };
    for pool in &market.pools {
        if counting.tolerates.is_some_and(|list| untolerated(&pool.taints, list).is_some()) {
            continue;
        }
        let Ok(stated) = Requirements::from_list(&pool.requirements) else { continue };
        let mut stated = stated.intersect(&Requirements::from_labels(&pool.labels));
        stated.constrain(karpenter::NODEPOOL, &ValueSet::of([pool.name.as_str()]));
        for one in market.instance_types_of(pool) {
            let mut known: Option<Requirements> = None;
            for offering in one.offerings.iter().filter(|offering| offering.available) {
                if adds_nothing(&domains, key, &stated, one, offering) {
                    continue;
                }
                let mut machine = known.get_or_insert_with(|| stated.intersect(&one.requirements)).clone();
                machine.constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of([&*one.name]));
                machine.constrain(kubernetes::ZONE, &ValueSet::of([&*offering.zone]));
                machine.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of([offering.capacity_type.as_str()]));
                let possible = machine.iter().all(|(_, set)| !set.is_empty())
                    && needs.test(|terms| terms.check_offered(&machine)).is_ok();
                if possible {
                    let values = machine.get(key).and_then(ValueSet::finite);
                    domains.extend(values.into_iter().flatten().cloned());
                }
            }
        }
    }
    domains
}

/// Whether an offering could add only domains that are there already.
fn adds_nothing(
    domains: &BTreeSet<String>,
    key: &str,
    stated: &Requirements,
    one: &InstanceType,
    offering: &Offering,
) -> bool {
    match key {
        kubernetes::ZONE => domains.contains(&*offering.zone),
        karpenter::CAPACITY_TYPE => domains.contains(offering.capacity_type.as_str()),
        kubernetes::INSTANCE_TYPE => domains.contains(&*one.name),
        _ => {
            // Either side alone allows more than both do.
            let sides = || [one.requirements.get(key), stated.get(key)].into_iter().flatten();
            let values = sides().find_map(ValueSet::finite);
            let known = |values: &BTreeSet<_>| values.iter().all(|value| domains.contains(value));
            sides().next().is_none() || values.is_some_and(known)
        }
    }
}

impl Ledger {
    /// Domains of a label that count; `None` for hosts, of which there can always be another, and where it cannot be read what
    /// counts.
    pub(super) fn eligible(&self, key: &str, counting: &Counting<'_>) -> Option<BTreeSet<String>> {
        if is_host(key) {
            return None;
        }
        let key = normalize_key(key);
        counting.needs()?;
        let mut domains = self.offered.get(&self.market, key, counting);
        if counting.is_all() {
            domains.extend(self.fleet.values(key).cloned());
        } else {
            let counted = self.domains_that_count(key, counting);
            domains.extend(self.fleet.machines().filter_map(|name| counted(name)));
        }
        // Regional machines are in a zone that nobody knows, which is no zone to spread to while no node is there.
        let is_there = || self.fleet.values(key).any(|value| value == azure::REGIONAL_ZONE);
        if key == kubernetes::ZONE && domains.len() > 1 && !is_there() {
            domains.remove(azure::REGIONAL_ZONE);
        }
        Some(domains)
    }

    /// The domain of a machine that is there, where it counts.
    pub(super) fn domains_that_count<'l>(
        &'l self,
        key: &'l str,
        counting: &'l Counting<'_>,
    ) -> impl Fn(&str) -> Option<String> + 'l {
        let needs = counting.needs();
        move |name| {
            let standing = self.fleet.standing(name, &self.market)?;
            let selected = needs.as_ref()?.test(|terms| terms.check_labels(&standing.labels)).is_ok();
            let tolerated =
                counting.tolerates.is_none_or(|list| untolerated(&standing.taints, list).is_none());
            if selected && tolerated { self.fleet.domain(name, key) } else { None }
        }
    }
}
