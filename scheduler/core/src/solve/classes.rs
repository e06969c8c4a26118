//! Pending pods, grouped: pods with equal specs are one class, and every question about constraints is asked once per class.
//!
//! A class has lanes, the ways it may be placed on new machines, in the order they must be tried: a required OR term, with the
//! preferences it can keep, in one tier of pools. The first lane with room is used; the next only when limits close it.

use std::cmp::Reverse;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::axes::{Amounts, fits};
use super::catalog::{Catalog, required_terms};
use super::options::Preferences;
use crate::model::{Pod, PodSpec, Snapshot, TaintEffect, untolerated};
use crate::requirement::{Requirements, ValueSet};

#[derive(Debug)]
pub(super) struct Class<'s> {
    pub(super) spec: &'s PodSpec,
    /// Most important first, then oldest.
    pub(super) pods: Vec<&'s Pod>,
    pub(super) requests: Amounts,
    /// Alternatives of the required node constraints, or what is wrong with them.
    pub(super) terms: Result<Vec<Requirements>, String>,
    pub(super) lanes: Vec<Lane>,
}

/// One way to place a class on new machines.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) tier: usize,
    /// What the machine must be.
    pub(super) requirements: Rc<Requirements>,
    /// Allowed offerings that can be had, by shape.
    pub(super) masks: Rc<Vec<u64>>,
}

impl Lane {
    fn holds(&self, catalog: &Catalog<'_>, requests: &[u64]) -> bool {
        let shapes = catalog.shapes.iter().zip(self.masks.iter());
        shapes
            .into_iter()
            .any(|(shape, mask)| shape.tier == self.tier && *mask != 0 && fits(requests, &shape.room))
    }
}

/// Groups the pending pods of a snapshot, largest class first; the order of the input does not show.
pub(super) fn classes<'s>(
    snapshot: &'s Snapshot,
    catalog: &Catalog<'s>,
    preferences: Preferences,
) -> Vec<Class<'s>> {
    // By address first: siblings share their spec, and hashing a spec costs more than placing it.
    let mut by_address: FxHashMap<*const PodSpec, usize> = FxHashMap::default();
    let mut by_spec: FxHashMap<&PodSpec, usize> = FxHashMap::default();
    let mut classes: Vec<Class<'s>> = Vec::new();
    for pod in snapshot.pods.iter().filter(|pod| pod.is_pending()) {
        let spec: &PodSpec = &pod.spec;
        let index = *by_address.entry(std::ptr::from_ref(spec)).or_insert_with(|| {
            *by_spec.entry(spec).or_insert_with(|| {
                classes.push(Class {
                    spec,
                    pods: Vec::new(),
                    requests: catalog.axes.amounts(&spec.requests),
                    terms: required_terms(spec),
                    lanes: Vec::new(),
                });
                classes.len() - 1
            })
        });
        classes[index].pods.push(pod);
    }
    let mut masks = Masks { by_set: FxHashMap::default(), by_lane: FxHashMap::default() };
    for class in &mut classes {
        class.pods.sort_by(|a, b| {
            (Reverse(a.priority), a.created, &a.id).cmp(&(Reverse(b.priority), b.created, &b.id))
        });
        if class.spec.rejections.is_empty() {
            class.lanes = masks.lanes(catalog, class, preferences);
        }
    }
    classes.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.spec.cmp(b.spec)));
    classes
}

/// Which offerings satisfy what, remembered: classes share most of their constraints.
struct Masks {
    by_set: FxHashMap<(String, ValueSet), Rc<Vec<u64>>>,
    by_lane: FxHashMap<(Requirements, Vec<bool>), Rc<Vec<u64>>>,
}

impl Masks {
    fn of(&mut self, catalog: &Catalog<'_>, requirements: &Requirements, pools: &[bool]) -> Rc<Vec<u64>> {
        let key = (requirements.clone(), pools.to_vec());
        if let Some(known) = self.by_lane.get(&key) {
            return Rc::clone(known);
        }
        let open = |shape: &super::catalog::Shape<'_>| if pools[shape.pool] { shape.available } else { 0 };
        let mut masks: Vec<u64> = catalog.shapes.iter().map(open).collect();
        for (label, set) in requirements.iter() {
            let one = self.by_set.entry((label.to_owned(), set.clone())).or_insert_with(|| {
                Rc::new(catalog.shapes.iter().map(|shape| shape.mask_of(label, set)).collect())
            });
            masks.iter_mut().zip(one.iter()).for_each(|(mask, one)| *mask &= one);
        }
        let masks = Rc::new(masks);
        self.by_lane.insert(key, Rc::clone(&masks));
        masks
    }

    /// The lanes of a class that could hold one pod of it.
    fn lanes(&mut self, catalog: &Catalog<'_>, class: &Class<'_>, preferences: Preferences) -> Vec<Lane> {
        let Ok(terms) = &class.terms else { return Vec::new() };
        let tiers = catalog.pools.last().map_or(0, |pool| pool.tier + 1);
        let hard: Vec<bool> =
            pools_where(catalog, |taints| untolerated(taints, &class.spec.tolerations).is_none());
        // A soft taint is tolerated only after everything else was tried.
        let soft: Vec<bool> = pools_where(catalog, |taints| {
            let tolerated =
                |taint| class.spec.tolerations.iter().any(|toleration| toleration.tolerates(taint));
            taints.iter().filter(|taint| taint.effect == TaintEffect::PreferNoSchedule).all(tolerated)
        });
        let clean: Vec<bool> = hard.iter().zip(&soft).map(|(hard, soft)| *hard && *soft).collect();
        let mut preferred: Vec<_> = match preferences {
            Preferences::Respect => class.spec.preferred_affinity.iter().collect(),
            Preferences::Ignore => Vec::new(),
        };
        preferred.sort_by_key(|term| Reverse(term.weight));
        // A preference that cannot be read is no preference.
        let preferred: Vec<Requirements> =
            preferred.iter().filter_map(|term| Requirements::from_list(&term.requirements).ok()).collect();
        let mut lanes: Vec<Lane> = Vec::new();
        let mut add = |requirements: &Requirements, pools: &[bool]| {
            let masks = self.of(catalog, requirements, pools);
            let mut found = false;
            for tier in 0..tiers {
                let lane =
                    Lane { tier, requirements: Rc::new(requirements.clone()), masks: Rc::clone(&masks) };
                if lane.holds(catalog, &class.requests) {
                    found = true;
                    if !lanes.iter().any(|known| {
                        known.tier == tier
                            && known.requirements == lane.requirements
                            && known.masks == lane.masks
                    }) {
                        lanes.push(lane);
                    }
                }
            }
            found
        };
        for term in terms {
            let mut kept = term.clone();
            for preference in &preferred {
                let with = kept.intersect(preference);
                if add(&with, &clean) {
                    kept = with;
                }
            }
        }
        for pools in [&clean, &hard] {
            for term in terms {
                add(term, pools);
            }
        }
        if !preferred.is_empty() {
            // The last preference kept is the strictest lane: it goes first within its term.
            lanes.sort_by_key(|lane| {
                Reverse(
                    preferred.iter().filter(|p| lane.requirements.intersect(p) == *lane.requirements).count(),
                )
            });
        }
        lanes
    }
}

fn pools_where(catalog: &Catalog<'_>, allowed: impl Fn(&[crate::model::Taint]) -> bool) -> Vec<bool> {
    catalog.pools.iter().map(|pool| allowed(&pool.pool.taints)).collect()
}
