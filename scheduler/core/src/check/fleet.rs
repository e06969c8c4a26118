//! Machines that exist or are on their way, as the rules see them: what pods find there, what pools hold, which domains there are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};

use crate::model::{ClaimState, Labels, Market, Node, NodeClaim, ResourceList, Taint};
use crate::requirement::value_of;

/// Nodes, and claims whose node has not joined.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    nodes: HashMap<Arc<str>, Arc<Node>>,
    claims: HashMap<Arc<str>, Arc<NodeClaim>>,
    /// Claims by the node that they say is theirs.
    claims_of: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// How many machines each pool holds, and what they have together.
    held: BTreeMap<String, (u64, ResourceList)>,
    /// How many machines have each value of the topology keys that were asked for.
    values: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What a new pod finds on a machine.
#[derive(Debug)]
pub(super) struct Standing<'l> {
    pub(super) labels: Cow<'l, Labels>,
    /// Taints that it keeps.
    pub(super) taints: Cow<'l, [Taint]>,
    pub(super) allocatable: Cow<'l, ResourceList>,
    pub(super) is_open: bool,
}

fn started(labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    labels.insert(karpenter::REGISTERED.to_owned(), "true".to_owned());
    labels.insert(karpenter::INITIALIZED.to_owned(), "true".to_owned());
    labels
}

impl Fleet {
    /// Names whose machines may be others once the node of this name changes.
    pub(super) fn beside_node(&self, name: &Arc<str>) -> BTreeSet<Arc<str>> {
        self.claims_of.get(name).into_iter().flatten().chain([name]).cloned().collect()
    }

    /// The same for a claim, which `next` says more about.
    pub(super) fn beside_claim(&self, name: &Arc<str>, next: Option<&NodeClaim>) -> BTreeSet<Arc<str>> {
        let now = self.claims.get(name).and_then(|claim| claim.node.clone());
        let next = next.and_then(|claim| claim.node.clone());
        now.into_iter().chain(next).chain([Arc::clone(name)]).collect()
    }

    pub(super) fn set_node(&mut self, name: &Arc<str>, node: Option<&Arc<Node>>) {
        match node {
            Some(node) => self.nodes.insert(Arc::clone(name), Arc::clone(node)),
            None => self.nodes.remove(name),
        };
    }

    pub(super) fn set_claim(&mut self, name: &Arc<str>, claim: Option<&Arc<NodeClaim>>) {
        let before = self.claims.remove(name).and_then(|claim| claim.node.clone());
        if let Some(claims) = before.and_then(|node| self.claims_of.get_mut(&node)) {
            claims.remove(name);
        }
        let Some(claim) = claim else { return };
        if let Some(node) = &claim.node {
            self.claims_of.entry(Arc::clone(node)).or_default().insert(Arc::clone(name));
        }
        self.claims.insert(Arc::clone(name), Arc::clone(claim));
    }

    /// The claim of this name, unless its node is there.
    fn waiting(&self, name: &str) -> Option<&Arc<NodeClaim>> {
        let claim = self.claims.get(name).filter(|_| !self.nodes.contains_key(name))?;
        let joined = claim.node.as_ref().is_some_and(|node| self.nodes.contains_key(node));
        (!joined).then_some(claim)
    }

    /// Labels of a machine as they are.
    pub(super) fn labels(&self, name: &str) -> Option<&Labels> {
        let node = self.nodes.get(name).map(|node| &node.labels);
        // Nobody is sent to a claim that is on its way out, and nobody on it is company.
        let claim = || self.waiting(name).filter(|claim| claim.state != ClaimState::Terminating);
        node.or_else(|| claim().map(|claim| &claim.labels))
    }

    /// Counts the machine of a name in what its pool holds and among the values of labels, or takes it off.
    pub(super) fn count(&mut self, name: &str, more: bool) {
        let held = match (self.nodes.get(name), self.waiting(name)) {
            (Some(node), _) => {
                node.label(karpenter::NODEPOOL).map(|pool| (pool.to_owned(), node.capacity.clone()))
            }
            (None, Some(claim)) => Some((claim.pool.clone(), claim.capacity.clone())),
            (None, None) => None,
        };
        if let Some((pool, capacity)) = held {
            let (machines, total) = self.held.entry(pool).or_default();
            if more {
                *machines += 1;
                *total += &capacity;
            } else {
                *machines = machines.saturating_sub(1);
                *total = std::mem::take(total) - &capacity;
            }
        }
        let labels = self.labels(name);
        let keys =
            self.values.keys().filter_map(|key| Some((key.clone(), value_of(labels?, key)?.to_owned())));
        for (key, value) in keys.collect::<Vec<_>>() {
            let machines = self.values.entry(key).or_default().entry(value).or_default();
            *machines = if more { *machines + 1 } else { machines.saturating_sub(1) };
        }
    }

    /// Keeps the values of a topology key from now on.
    pub(super) fn learn(&mut self, key: &str) {
        if self.values.contains_key(key) {
            return;
        }
        let mut values: BTreeMap<String, u64> = BTreeMap::new();
        for value in self.machines().filter_map(|name| self.domain(name, key)) {
            *values.entry(value).or_default() += 1;
        }
        self.values.insert(key.to_owned(), values);
    }

    /// Values that some machine has for a topology key that was learned.
    pub(super) fn values(&self, key: &str) -> impl Iterator<Item = &String> {
        let values = self.values.get(key).into_iter().flatten();
        values.filter(|(_, machines)| **machines > 0).map(|(value, _)| value)
    }

    /// Names of all machines, in no order.
    pub(super) fn machines(&self) -> impl Iterator<Item = &Arc<str>> {
        let waiting = self.claims.keys().filter(|name| self.waiting(name).is_some());
        self.nodes.keys().chain(waiting).filter(|name| self.labels(name).is_some())
    }

    /// The domain that a machine is in.
    pub(super) fn domain(&self, name: &str, key: &str) -> Option<String> {
        let labels = self.labels(name)?;
        if key == kubernetes::HOSTNAME {
            return Some(name.to_owned());
        }
        value_of(labels, key).map(str::to_owned)
    }

    /// How many machines a pool holds, and what they have together.
    pub(super) fn held(&self, pool: &str) -> (u64, ResourceList) {
        self.held.get(pool).cloned().unwrap_or_default()
    }

    /// The pool and type of a machine, its labels, and all that it has.
    pub(super) fn machine(&self, name: &str) -> Option<(&str, &str, &Labels, &ResourceList)> {
        let Some(node) = self.nodes.get(name) else {
            let claim = self.waiting(name)?;
            return Some((&claim.pool, &claim.instance_type, &claim.labels, &claim.capacity));
        };
        let pool = node.label(karpenter::NODEPOOL)?;
        Some((pool, node.label(kubernetes::INSTANCE_TYPE)?, &node.labels, &node.capacity))
    }

    /// What a new pod finds on a machine.
    pub(super) fn standing(&self, name: &str, market: &Market) -> Option<Standing<'_>> {
        let Some(node) = self.nodes.get(name) else {
            let claim = self.waiting(name)?;
            return Some(Standing {
                labels: Cow::Owned(started(&claim.labels)),
                taints: Cow::Borrowed(&claim.taints),
                allocatable: Cow::Borrowed(&claim.allocatable),
                is_open: claim.state != ClaimState::Terminating,
            });
        };
        let own = self.claims_of.get(name).and_then(BTreeSet::first).and_then(|claim| self.claims.get(claim));
        let claim = own.or_else(|| self.claims.get(name));
        let stays = claim.is_none_or(|claim| claim.state != ClaimState::Terminating);
        let pool = node.label(karpenter::NODEPOOL);
        if pool.is_none() || node.label(karpenter::INITIALIZED) == Some("true") {
            return Some(Standing {
                labels: Cow::Borrowed(&node.labels),
                taints: Cow::Borrowed(&node.taints),
                allocatable: Cow::Borrowed(&node.allocatable),
                is_open: node.accepts_pods() && node.ready && stays,
            });
        }
        // A node that is starting keeps the taints of its pool; the others go, and late resources come.
        let pool = pool.and_then(|name| market.pool(name));
        let lasting = |taint: &&Taint| pool.is_some_and(|pool| pool.taints.contains(taint));
        let promised = claim.map_or_else(ResourceList::default, |claim| claim.allocatable.clone());
        let mut allocatable = node.allocatable.clone();
        if allocatable.cpu.is_zero() {
            allocatable.cpu = promised.cpu;
        }
        if allocatable.memory.is_zero() {
            allocatable.memory = promised.memory;
        }
        if allocatable.ephemeral_storage.is_zero() {
            allocatable.ephemeral_storage = promised.ephemeral_storage;
        }
        if allocatable.pods == 0 {
            allocatable.pods = promised.pods;
        }
        for (name, amount) in &promised.extended {
            if allocatable.extended(name) == 0 {
                allocatable.set_extended(name, *amount);
            }
        }
        Some(Standing {
            labels: Cow::Owned(started(&node.labels)),
            taints: Cow::Owned(node.taints.iter().filter(lasting).cloned().collect()),
            allocatable: Cow::Owned(allocatable),
            is_open: node.accepts_pods() && stays,
        })
    }
}
