//! What the rules are asked of: the cluster as it is, kept up with changes, so that a plan for one pod is checked by looking at
//! what it touches. Made of model types only; nothing of it comes from the solver.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_shared::labels::kubernetes;

use super::claims::PoolFacts;
use super::domains::Offered;
use super::fits::Needs;
use super::fleet::Fleet;
use super::flocks::Flocks;
use crate::model::{Change, Labels, Market, Pod, PodAffinityTerm, PodId, Snapshot};
use crate::requirement::{normalize_key, value_of};

/// A snapshot that is kept up with changes and that plans are held against.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) market: Market,
    /// By name.
    pub(super) pools: BTreeMap<String, PoolFacts>,
    /// What each DaemonSet needs of a node, in their order; `None` where that cannot be read.
    pub(super) daemon_needs: Vec<Option<Needs>>,
    pub(super) fleet: Fleet,
    /// Pods that wait, and those that take room on a node.
    pods: HashMap<PodId, Arc<Pod>>,
    waiting: BTreeSet<PodId>,
    on: HashMap<Arc<str>, Vec<Arc<Pod>>>,
    /// Those that run and stay, on machines that are known.
    pub(super) flocks: Flocks,
    /// Of these, those that keep others out of a domain larger than a node: by their terms, then by node.
    averse: BTreeMap<PodAffinityTerm, BTreeMap<Arc<str>, u64>>,
    /// Those that run of each gang, by node.
    gangs: HashMap<Arc<str>, BTreeMap<Arc<str>, u64>>,
    pub(super) offered: Offered,
}

impl Ledger {
    /// Nothing but what can be bought.
    #[must_use]
    pub fn new(market: Market) -> Self {
        let mut ledger = Self::default();
        ledger.set_market(market);
        ledger
    }

    /// Everything that a snapshot says.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut ledger = Self::new(Market::of(snapshot));
        for node in &snapshot.nodes {
            ledger.apply(&Change::Node(Arc::new(node.clone())));
        }
        for claim in &snapshot.node_claims {
            ledger.apply(&Change::Claim(Arc::new(claim.clone())));
        }
        for pod in &snapshot.pods {
            ledger.note_pod(Arc::new(pod.clone()));
        }
        ledger
    }

    /// Takes over what can be bought now.
    pub fn set_market(&mut self, market: Market) {
        self.offered = Offered::default();
        let facts = |pool| PoolFacts::of(&market, pool);
        self.pools = market.pools.iter().map(|pool| (pool.name.clone(), facts(pool))).collect();
        self.daemon_needs = market.daemon_sets.iter().map(|set| Needs::of(&set.spec).ok()).collect();
        self.market = market;
    }

    /// Follows one change.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Pod(pod) => {
                self.forget_pod(&pod.id);
                self.note_pod(Arc::clone(pod));
            }
            Change::PodGone(id) => self.forget_pod(id),
            Change::Node(node) => {
                let names = self.fleet.beside_node(&node.name);
                self.change_machines(&names, |fleet| fleet.set_node(&node.name, Some(node)));
            }
            Change::NodeGone(name) => {
                let names = self.fleet.beside_node(name);
                self.change_machines(&names, |fleet| fleet.set_node(name, None));
            }
            Change::Claim(claim) => {
                let names = self.fleet.beside_claim(&claim.name, Some(claim));
                self.change_machines(&names, |fleet| fleet.set_claim(&claim.name, Some(claim)));
            }
            Change::ClaimGone(name) => {
                let names = self.fleet.beside_claim(name, None);
                self.change_machines(&names, |fleet| fleet.set_claim(name, None));
            }
        }
    }

    /// Changes machines, and counts those who are on them where they are from then on.
    fn change_machines(&mut self, names: &BTreeSet<Arc<str>>, change: impl FnOnce(&mut Fleet)) {
        let before: Vec<Option<Labels>> = names.iter().map(|name| self.fleet.labels(name).cloned()).collect();
        names.iter().for_each(|name| self.fleet.count(name, false));
        change(&mut self.fleet);
        names.iter().for_each(|name| self.fleet.count(name, true));
        for (name, before) in names.iter().zip(&before) {
            let after = self.fleet.labels(name);
            if before.as_ref() == after {
                continue;
            }
            for pod in self.on.get(name).into_iter().flatten().filter(|pod| stays(pod)) {
                for (labels, more) in [(before.as_ref(), false), (after, true)] {
                    let Some(labels) = labels else { continue };
                    let domain = |_: &str, key: &str| value_of(labels, key).map(str::to_owned);
                    self.flocks.count(pod, name, &domain, more);
                }
            }
        }
    }

    fn note_pod(&mut self, pod: Arc<Pod>) {
        if pod.is_pending() {
            self.waiting.insert(pod.id.clone());
        } else if let Some(node) = pod.node.clone().filter(|_| pod.uses_node()) {
            self.count_pod(&pod, &node, true);
            self.on.entry(node).or_default().push(Arc::clone(&pod));
        } else {
            return;
        }
        self.pods.insert(pod.id.clone(), pod);
    }

    fn forget_pod(&mut self, id: &PodId) {
        let Some(pod) = self.pods.remove(id) else { return };
        self.waiting.remove(id);
        let Some(node) = pod.node.as_ref().filter(|_| pod.uses_node()) else { return };
        self.count_pod(&pod, node, false);
        if let Some(there) = self.on.get_mut(node) {
            there.retain(|other| other.id != *id);
            if there.is_empty() {
                self.on.remove(node);
            }
        }
    }

    fn count_pod(&mut self, pod: &Pod, node: &Arc<str>, more: bool) {
        let fleet = &self.fleet;
        if stays(pod) {
            if fleet.labels(node).is_some() {
                self.flocks.count(pod, node, &|node, key| fleet.domain(node, key), more);
            }
            for term in pod.spec.pod_anti_affinity.iter().filter(|term| !is_host(&term.topology_key)) {
                count(self.averse.entry(term.clone()).or_default(), node, more);
                if self.averse.get(term).is_some_and(BTreeMap::is_empty) {
                    self.averse.remove(term);
                }
            }
        }
        if let Some(gang) = &pod.gang {
            count(self.gangs.entry(Arc::clone(&gang.id)).or_default(), node, more);
            if self.gangs.get(&gang.id).is_some_and(BTreeMap::is_empty) {
                self.gangs.remove(&gang.id);
            }
        }
    }

    /// A pod that waits.
    pub(super) fn waiting(&self, id: &PodId) -> Option<&Pod> {
        self.pods.get(id).map(|pod| &**pod).filter(|pod| pod.is_pending())
    }

    /// All pods that wait.
    pub(super) fn all_waiting(&self) -> &BTreeSet<PodId> {
        &self.waiting
    }

    /// Pods that take room on a machine.
    pub(super) fn on(&self, name: &str) -> &[Arc<Pod>] {
        self.on.get(name).map_or(&[], Vec::as_slice)
    }

    /// Keeps counts over the domains of a topology key from now on.
    pub(super) fn learn(&mut self, key: &str) {
        let key = normalize_key(key);
        self.fleet.learn(key);
        let fleet = &self.fleet;
        self.flocks.learn(key, &|node, key| fleet.domain(node, key));
    }

    /// Terms by which pods that run keep others out of the domain that `domain` gives for a topology key, and how many of them do;
    /// domains that are single nodes apart.
    pub(super) fn averse_to(&self, domain: impl Fn(&str) -> Option<String>) -> Vec<(&PodAffinityTerm, u64)> {
        let held = |(term, nodes): (&'_ PodAffinityTerm, &BTreeMap<Arc<str>, u64>)| {
            let key = normalize_key(&term.topology_key);
            let own = domain(key)?;
            let there = nodes.iter().filter(|(node, _)| self.fleet.domain(node, key).as_ref() == Some(&own));
            Some(there.map(|(_, count)| count).sum())
        };
        self.averse.iter().filter_map(|one| Some((one.0, held(one)?))).collect()
    }

    /// How many pods of a gang run, and the zones of the machines they are on.
    pub(super) fn gang(&self, id: &str) -> (u64, BTreeSet<Option<String>>) {
        let nodes = self.gangs.get(id).into_iter().flatten();
        let count = nodes.clone().map(|(_, count)| count).sum();
        let known = nodes.filter(|(node, _)| self.fleet.labels(node).is_some());
        (count, known.map(|(node, _)| self.fleet.domain(node, kubernetes::ZONE)).collect())
    }
}

/// Whether a pod is company for others.
fn stays(pod: &Pod) -> bool {
    pod.terminating.is_none()
}

/// Whether the domains of a topology key are single nodes.
pub(super) fn is_host(key: &str) -> bool {
    normalize_key(key) == kubernetes::HOSTNAME
}

fn count(nodes: &mut BTreeMap<Arc<str>, u64>, node: &Arc<str>, more: bool) {
    let held = nodes.entry(Arc::clone(node)).or_default();
    *held = if more { *held + 1 } else { held.saturating_sub(1) };
    if *held == 0 {
        nodes.remove(node);
    }
}
