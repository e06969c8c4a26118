//! Pending pods, grouped: pods that need the same and are counted alike are one class, and every question about constraints is
//! asked once per class.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::axes::{Amounts, fits};
use super::catalog::{Catalog, Shape, required_terms};
use super::host::HostRules;
use super::ladder::Ladder;
use super::options::Preferences;
use super::topology::{ClassRules, GroupId};
use crate::model::{AlignedRequest, Gang, Labels, Pod, PodSpec, TaintEffect, untolerated};
use crate::requirement::{Requirements, ValueSet};

/// Combinations of required terms and reachable volumes that are tried, at most.
const TERMS_AT_MOST: usize = 1_024;

#[derive(Debug)]
pub(super) struct Class<'p> {
    pub(super) spec: &'p PodSpec,
    /// Most important first, then oldest.
    pub(super) pods: Vec<&'p Pod>,
    pub(super) priority: i32,
    pub(super) gang: Option<&'p Arc<Gang>>,
    pub(super) requests: Amounts,
    /// Alternatives of the required node constraints, or what is wrong with them.
    pub(super) terms: Result<Vec<Requirements>, Flaw>,
    pub(super) rules: ClassRules,
    pub(super) host: Arc<HostRules>,
    pub(super) ladder: Ladder,
    /// Pools whose hard taints it tolerates; of these, those without soft taints it does not tolerate.
    pub(super) pools: Vec<bool>,
    pub(super) clean_pools: Vec<bool>,
}

/// Why nothing can be said about where a class may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A selector or term cannot be read.
    Unreadable(String),
    /// Its volumes and node constraints exclude each other.
    Volumes,
}

/// What makes two pods one class.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClassKey<'p> {
    pub(super) spec: &'p PodSpec,
    pub(super) counted: Arc<[GroupId]>,
    pub(super) volumes: Volumes,
    pub(super) gang: Option<&'p str>,
    pub(super) priority: i32,
}

/// What a pod attaches: volumes of its own by axis, and those it shares with others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Volumes {
    pub(super) own: SmallVec<[(u16, u32); 1]>,
    pub(super) shared: SmallVec<[(u16, u32); 1]>,
}

impl<'p> Class<'p> {
    /// A class of one pod so far.
    pub(super) fn new(
        catalog: &Catalog,
        key: &ClassKey<'p>,
        pod: &'p Pod,
        mut rules: ClassRules,
        preferences: Preferences,
    ) -> Self {
        let spec = key.spec;
        let mut requests = catalog.axes.amounts(&spec.requests);
        for (axis, count) in &key.volumes.own {
            requests[usize::from(*axis)] += u64::from(*count);
        }
        rules.host.shared_volumes = key.volumes.shared.clone();
        let terms = terms(spec);
        let pools = pools_where(catalog, |taints| untolerated(taints, &spec.tolerations).is_none());
        // A soft taint is tolerated only after everything else was tried.
        let clean = pools_where(catalog, |taints| {
            let tolerated = |taint| spec.tolerations.iter().any(|toleration| toleration.tolerates(taint));
            taints.iter().filter(|taint| taint.effect == TaintEffect::PreferNoSchedule).all(tolerated)
        });
        let clean_pools: Vec<bool> = pools.iter().zip(&clean).map(|(hard, soft)| *hard && *soft).collect();
        let readable = if spec.rejections.is_empty() { terms.as_ref().map_or(0, Vec::len) } else { 0 };
        let ladder = Ladder::of(spec, readable, &rules, preferences, clean_pools != pools);
        let host = Arc::new(rules.host.clone());
        Self {
            spec,
            pods: vec![pod],
            priority: key.priority,
            gang: pod.gang.as_ref(),
            requests,
            terms,
            rules,
            host,
            ladder,
            pools,
            clean_pools,
        }
    }

    /// Whether its pods are counted in the group.
    pub(super) fn is_counted(&self, group: GroupId) -> bool {
        self.rules.counted.binary_search(&group).is_ok() || self.host.counted.binary_search(&group).is_ok()
    }
}

/// The alternatives of a pod's required node constraints and of its volumes, in order.
fn terms(spec: &PodSpec) -> Result<Vec<Requirements>, Flaw> {
    let mut terms = required_terms(spec).map_err(Flaw::Unreadable)?;
    for alternatives in &spec.volume_topology {
        let read = |term| Requirements::from_list(term).map_err(|error| Flaw::Unreadable(error.to_string()));
        let alternatives: Vec<Requirements> = alternatives.iter().map(read).collect::<Result<_, _>>()?;
        let possible = |both: &Requirements| both.iter().all(|(_, set)| !set.is_empty());
        terms = terms
            .iter()
            .flat_map(|term| alternatives.iter().map(|one| term.intersect(one)))
            .filter(possible)
            .take(TERMS_AT_MOST)
            .collect();
        if terms.is_empty() {
            return Err(Flaw::Volumes);
        }
    }
    Ok(terms)
}

fn pools_where(catalog: &Catalog, allowed: impl Fn(&[crate::model::Taint]) -> bool) -> Vec<bool> {
    catalog.pools.iter().map(|pool| allowed(&pool.pool.taints)).collect()
}

/// Sorts classes and their pods so that the order of the input does not show: most important first, then largest.
pub(super) fn sort(classes: &mut [Class<'_>]) {
    for class in &mut *classes {
        class.pods.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    }
    classes.sort_by(|a, b| {
        let order = b.priority.cmp(&a.priority).then_with(|| b.requests.cmp(&a.requests));
        order
            .then_with(|| {
                if std::ptr::eq(a.spec, b.spec) { std::cmp::Ordering::Equal } else { a.spec.cmp(b.spec) }
            })
            .then_with(|| a.pods[0].id.cmp(&b.pods[0].id))
    });
}

/// Which offerings satisfy what, by shape, remembered: classes share most of their constraints. Equal answers are one list.
#[derive(Debug, Default)]
pub(super) struct Masks {
    by_set: FxHashMap<(String, ValueSet), Arc<Vec<u64>>>,
    by_lane: FxHashMap<(Requirements, Vec<bool>), Arc<Vec<u64>>>,
    /// One key allowed one value only, on top of another list; `usize::MAX` is none of them.
    pinned: FxHashMap<(usize, usize, usize), Arc<Vec<u64>>>,
    filtered: FxHashMap<(usize, usize, bool), Arc<Vec<u64>>>,
    aligned: FxHashMap<(usize, Vec<AlignedRequest>), Arc<Vec<u64>>>,
    holds: FxHashMap<(usize, Amounts), bool>,
    cheapest: FxHashMap<usize, u64>,
    /// Keeps every list that a number above stands for.
    kept: Vec<Arc<Vec<u64>>>,
    none: Arc<Vec<u64>>,
}

/// A list by its address, which stays its own for as long as the list is kept.
fn address(masks: &Arc<Vec<u64>>) -> usize {
    Arc::as_ptr(masks).addr()
}

impl Masks {
    /// How many lists are remembered.
    pub(super) fn len(&self) -> usize {
        self.by_lane.len() + self.kept.len()
    }

    /// No offering at all.
    pub(super) fn none(&self) -> Arc<Vec<u64>> {
        Arc::clone(&self.none)
    }

    /// Offerings that can be had now of these pools that satisfy `requirements`.
    pub(super) fn of(
        &mut self,
        catalog: &Catalog,
        requirements: &Requirements,
        pools: &[bool],
    ) -> Arc<Vec<u64>> {
        let key = (requirements.clone(), pools.to_vec());
        if let Some(known) = self.by_lane.get(&key) {
            return Arc::clone(known);
        }
        let open = |shape: &Shape| if pools[shape.pool] { shape.available } else { 0 };
        let mut masks: Vec<u64> = catalog.shapes.iter().map(open).collect();
        for (label, set) in requirements.iter() {
            let one = self.by_set.entry((label.to_owned(), set.clone())).or_insert_with(|| {
                Arc::new(catalog.shapes.iter().map(|shape| shape.mask_of(label, set)).collect())
            });
            masks.iter_mut().zip(one.iter()).for_each(|(mask, one)| *mask &= one);
        }
        let masks = Arc::new(masks);
        self.by_lane.insert(key, Arc::clone(&masks));
        masks
    }

    /// Of these, the offerings whose machines could have value number `value` of key number `key`.
    pub(super) fn pinned(
        &mut self,
        catalog: &Catalog,
        masks: &Arc<Vec<u64>>,
        (key, name): (usize, &str),
        (value, text): (usize, &str),
    ) -> Arc<Vec<u64>> {
        if let Some(known) = self.pinned.get(&(address(masks), key, value)) {
            return Arc::clone(known);
        }
        let set = ValueSet::of([text]);
        let narrowed = masks.iter().zip(&catalog.shapes).map(|(mask, shape)| match *mask {
            0 => 0,
            mask => mask & shape.mask_of(name, &set),
        });
        let narrowed = Arc::new(narrowed.collect());
        self.kept.push(Arc::clone(masks));
        self.pinned.insert((address(masks), key, value), Arc::clone(&narrowed));
        narrowed
    }

    /// Of these, the offerings whose machines get none of the values of key number `key`, given those that get one.
    pub(super) fn without<'m>(
        &mut self,
        masks: &Arc<Vec<u64>>,
        key: usize,
        with: impl Iterator<Item = &'m Arc<Vec<u64>>>,
    ) -> Arc<Vec<u64>> {
        if let Some(known) = self.pinned.get(&(address(masks), key, usize::MAX)) {
            return Arc::clone(known);
        }
        let mut rest = Vec::clone(masks);
        for with in with {
            rest.iter_mut().zip(with.iter()).for_each(|(rest, with)| *rest &= !with);
        }
        let rest = Arc::new(rest);
        self.kept.push(Arc::clone(masks));
        self.pinned.insert((address(masks), key, usize::MAX), Arc::clone(&rest));
        rest
    }

    /// Of these, the offerings that are (not) in `counted`, the list of `group`.
    pub(super) fn filtered(
        &mut self,
        masks: &Arc<Vec<u64>>,
        counted: &Arc<Vec<u64>>,
        inside: bool,
    ) -> Arc<Vec<u64>> {
        if let Some(known) = self.filtered.get(&(address(masks), address(counted), inside)) {
            return Arc::clone(known);
        }
        let narrowed = masks.iter().zip(counted.iter());
        let narrowed = narrowed.map(|(mask, counted)| if inside { mask & counted } else { mask & !counted });
        let narrowed: Arc<Vec<u64>> = Arc::new(narrowed.collect());
        self.kept.extend([Arc::clone(masks), Arc::clone(counted)]);
        self.filtered.insert((address(masks), address(counted), inside), Arc::clone(&narrowed));
        narrowed
    }

    /// Of these, the offerings whose machines' kubelets take such containers.
    pub(super) fn aligned(
        &mut self,
        catalog: &Catalog,
        masks: Arc<Vec<u64>>,
        containers: &[AlignedRequest],
    ) -> Arc<Vec<u64>> {
        if containers.is_empty() || !catalog.aligns {
            return masks;
        }
        let key = (address(&masks), containers.to_vec());
        if let Some(known) = self.aligned.get(&key) {
            return Arc::clone(known);
        }
        let shapes = catalog.shapes.iter().zip(masks.iter());
        let aligned = shapes.map(|(shape, mask)| if shape.aligns(containers) { *mask } else { 0 });
        let aligned: Arc<Vec<u64>> = Arc::new(aligned.collect());
        self.kept.push(masks);
        self.aligned.insert(key, Arc::clone(&aligned));
        aligned
    }

    /// Whether one of these offerings makes a machine that holds one such pod.
    pub(super) fn holds(&mut self, catalog: &Catalog, masks: &Arc<Vec<u64>>, requests: &Amounts) -> bool {
        if let Some(known) = self.holds.get(&(address(masks), requests.clone())) {
            return *known;
        }
        let mut shapes = catalog.shapes.iter().zip(masks.iter());
        let holds = shapes.any(|(shape, mask)| *mask != 0 && fits(requests, &shape.room));
        self.kept.push(Arc::clone(masks));
        self.holds.insert((address(masks), requests.clone()), holds);
        holds
    }

    /// Price of the cheapest of these offerings, whatever it holds, in units of [`assay_shared::units::UsdPerHour`].
    pub(super) fn cheapest(&mut self, catalog: &Catalog, masks: &Arc<Vec<u64>>) -> u64 {
        *self.cheapest.entry(address(masks)).or_insert_with(|| {
            self.kept.push(Arc::clone(masks));
            let prices = catalog.shapes.iter().zip(masks.iter());
            prices.filter_map(|(shape, mask)| Some(shape.price(*mask)?.0)).min().unwrap_or(u64::MAX)
        })
    }
}

/// Labels of pods by address: most pods share theirs with siblings.
pub(super) type ByLabels = FxHashMap<(*const str, *const Labels), Arc<[GroupId]>>;
