//! All machines that exist or are on their way: nodes, and claims whose node has not joined.
//!
//! Each is a [`Place`] in a slot that stays its own for as long as the machine does; what is known of slots elsewhere
//! (counts, lists of places) needs no renumbering when another machine comes or goes.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use assay_shared::labels::karpenter;
use rustc_hash::{FxHashMap, FxHashSet};

use super::limits::Held;
use super::place::{Place, Site};
use crate::model::{ClaimState, Market, Node, NodeClaim};

#[derive(Debug, Default)]
pub(super) struct Machines {
    /// By slot; `None` is free.
    slots: Vec<Option<Place>>,
    free: Vec<usize>,
    by_name: FxHashMap<Arc<str>, usize>,
    /// Slots of places that take new pods, in the order in which they are used.
    open: Vec<usize>,
    nodes: FxHashMap<Arc<str>, Arc<Node>>,
    claims: FxHashMap<Arc<str>, Arc<NodeClaim>>,
    /// Claims by the node that they say is theirs.
    claims_of: FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Names that are passed over: they count against limits and have no place.
    pub(super) aside: FxHashSet<Arc<str>>,
}

impl Index<usize> for Machines {
    type Output = Place;

    fn index(&self, slot: usize) -> &Place {
        // Slots are handed out by this module and used only while their place is there.
        self.slots[slot].as_ref().unwrap_or_else(|| unreachable!("slot {slot} is free"))
    }
}

impl IndexMut<usize> for Machines {
    fn index_mut(&mut self, slot: usize) -> &mut Place {
        self.slots[slot].as_mut().unwrap_or_else(|| unreachable!("slot {slot} is free"))
    }
}

impl Machines {
    /// Slots that there are, free ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a node or claim.
    pub(super) fn slot(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// All places by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    /// All places by slot, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Place)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, place)| Some((slot, place.as_mut()?)))
    }

    /// Places that take new pods: initialised nodes by name, then starting nodes by name, then claims in the order they were
    /// decided.
    pub(super) fn open(&self) -> &[usize] {
        &self.open
    }

    /// Nodes, in no order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Claims, in no order.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Arc<NodeClaim>> {
        self.claims.values()
    }

    /// Names whose places depend on the node of this name.
    pub(super) fn names_beside_node(&self, name: &Arc<str>) -> BTreeSet<Arc<str>> {
        let claims = self.claims_of.get(name).into_iter().flatten().cloned();
        claims.chain([Arc::clone(name)]).collect()
    }

    /// Names whose places depend on the claim of this name, as it is and as it will be.
    pub(super) fn names_beside_claim(&self, name: &Arc<str>, next: Option<&NodeClaim>) -> BTreeSet<Arc<str>> {
        let now = self.claims.get(name).map(|claim| &**claim);
        let nodes = now.into_iter().chain(next).filter_map(|claim| claim.node.clone());
        nodes.chain([Arc::clone(name)]).collect()
    }

    /// Takes note of a node, or that there is none of the name.
    pub(super) fn note_node(&mut self, name: &Arc<str>, node: Option<Arc<Node>>) {
        match node {
            Some(node) => self.nodes.insert(Arc::clone(name), node),
            None => self.nodes.remove(name),
        };
    }

    /// The same for a claim.
    pub(super) fn note_claim(&mut self, name: &Arc<str>, claim: Option<Arc<NodeClaim>>) {
        let next = claim.as_ref().and_then(|claim| claim.node.clone());
        let before = match claim {
            Some(claim) => self.claims.insert(Arc::clone(name), claim),
            None => self.claims.remove(name),
        };
        let before = before.and_then(|claim| claim.node.clone());
        if before == next {
            return;
        }
        if let Some(claims) = before.as_ref().and_then(|node| self.claims_of.get_mut(node)) {
            claims.remove(name);
        }
        if let Some(node) = next {
            self.claims_of.entry(node).or_default().insert(Arc::clone(name));
        }
    }

    /// The claim whose node has not joined.
    fn waiting(&self, name: &str) -> Option<&Arc<NodeClaim>> {
        let claim = self.claims.get(name)?;
        let joined = self.nodes.contains_key(name)
            || claim.node.as_ref().is_some_and(|node| self.nodes.contains_key(node));
        (!joined).then_some(claim)
    }

    /// What the place of a name is by what was noted; `None` where there is no such place.
    pub(super) fn site(&self, name: &str, market: &Market) -> Option<Site> {
        if self.aside.contains(name) {
            return None;
        }
        if let Some(node) = self.nodes.get(name) {
            let claim = self.claims_of.get(name).and_then(BTreeSet::first).map_or(name, |claim| claim);
            return Some(Site::of_node(node, self.claims.get(claim).map(|claim| &**claim), market));
        }
        let claim = self.waiting(name).filter(|claim| claim.state != ClaimState::Terminating)?;
        Some(Site::of_claim(claim, market))
    }

    /// Counts a node or claim, or takes it off, in what its pool holds. A claim on its way out still is a machine until it is
    /// gone.
    pub(super) fn count(&self, name: &str, held: &mut Held, more: bool) {
        match (self.nodes.get(name), self.waiting(name)) {
            (Some(node), _) => {
                if let Some(pool) = node.label(karpenter::NODEPOOL) {
                    held.count(pool, &node.capacity, more);
                }
            }
            (None, Some(claim)) => held.count(&claim.pool, &claim.capacity, more),
            (None, None) => {}
        }
    }

    /// Gives a place a slot.
    pub(super) fn add(&mut self, place: Place) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_name.insert(Arc::clone(&place.name), slot);
        let rank = &place.site.rank;
        if rank.is_open() {
            let at = self.open.partition_point(|other| self[*other].site.rank < *rank);
            self.open.insert(at, slot);
        }
        self.slots[slot] = Some(place);
        slot
    }

    /// Frees a slot.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(place) = self.slots[slot].take() else { return };
        self.by_name.remove(&place.name);
        self.open.retain(|other| *other != slot);
        self.free.push(slot);
    }
}
