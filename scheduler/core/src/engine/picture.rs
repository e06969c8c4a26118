//! The cluster as decisions see it, followed change by change: what is told to the solver and to the rules a plan is held against.
//!
//! A pod that is expected somewhere counts as bound there; a pod that must move is pending. A decision costs what it touches; a
//! plan is what [`solve`](crate::solve::solve) makes of a snapshot of the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::hardware::unverified_taint;
use super::registration::is_ephemeral;
use super::timers::Timers;
use crate::catalog::{InstanceType, types_of_pools};
use crate::check::{Ledger, Violation};
use crate::disrupt::Protection;
use crate::model::{
    Change, ClaimState, Market, Node, NodeClaim, NodeClass, NodePool, Plan, Pod, PodId, PodPhase, Snapshot,
    Timestamp,
};
use crate::solve::Warm;

/// What was told, and what is to be told.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pods: BTreeMap<PodId, Arc<Pod>>,
    nodes: BTreeMap<Arc<str>, Arc<Node>>,
    claims: BTreeMap<Arc<str>, Arc<NodeClaim>>,
    /// Pods that wait for a place.
    waiting: BTreeSet<PodId>,
    /// What could be bought, until when that holds, and whether it holds at all.
    market: Market,
    market_until: Option<Timestamp>,
    market_holds: bool,
    /// Whether nobody was told of the market yet.
    market_is_news: bool,
    /// Those who decide, from the first decision on.
    deciding: Option<(Warm, Ledger)>,
    /// What is to be looked at again.
    dirty_claims: BTreeSet<Arc<str>>,
    dirty_nodes: BTreeSet<Arc<str>>,
    dirty_pods: BTreeSet<PodId>,
    /// Machines that are on their way out, with their nodes.
    leaving: BTreeMap<Arc<str>, Arc<str>>,
    /// When pods may be moved that may not yet.
    protected: Timers<PodId>,
    /// Whether anything was told since this was last asked.
    changed: bool,
}

impl Picture {
    /// Notes what may have changed.
    pub(super) fn note(
        &mut self,
        claims: BTreeSet<Arc<str>>,
        nodes: BTreeSet<Arc<str>>,
        pods: BTreeSet<PodId>,
    ) {
        self.dirty_claims.extend(claims);
        self.dirty_nodes.extend(nodes);
        self.dirty_pods.extend(pods);
    }

    /// Something changed that decides what could be bought.
    pub(super) fn market_changed(&mut self) {
        self.market_holds = false;
    }

    /// How many pods wait for a place.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether another market came since this was asked last.
    pub(super) const fn take_news_of_market(&mut self) -> bool {
        std::mem::replace(&mut self.market_is_news, false)
    }

    /// What could be bought at the last decision.
    pub(super) const fn market(&self) -> &Market {
        &self.market
    }

    /// Everything that was told, but for claims whose nodes are ready.
    pub(super) fn snapshot(&self, now: Timestamp) -> Snapshot {
        let Market { pools, classes, daemon_sets, instance_types } = self.market.clone();
        Snapshot {
            now,
            pods: self.pods.values().map(|pod| Pod::clone(pod)).collect(),
            nodes: self.nodes.values().map(|node| Node::clone(node)).collect(),
            node_claims: self.claims.values().map(|claim| NodeClaim::clone(claim)).collect(),
            daemon_sets,
            pools,
            classes,
            instance_types,
            ..Snapshot::default()
        }
    }

    fn tell(&mut self, change: Change) {
        self.changed = true;
        if let Some((warm, ledger)) = &mut self.deciding {
            ledger.apply(&change);
            warm.apply(change);
        }
    }

    fn tell_pod(&mut self, id: &PodId, pod: Option<Arc<Pod>>) {
        if self.pods.get(id) == pod.as_ref() {
            return;
        }
        if pod.as_ref().is_some_and(|pod| pod.is_pending()) {
            self.waiting.insert(id.clone());
        } else {
            self.waiting.remove(id);
        }
        match pod {
            Some(pod) => {
                self.pods.insert(id.clone(), Arc::clone(&pod));
                self.tell(Change::Pod(pod));
            }
            None => {
                self.pods.remove(id);
                self.tell(Change::PodGone(id.clone()));
            }
        }
    }

    fn tell_node(&mut self, name: &Arc<str>, node: Option<Node>) {
        if self.nodes.get(name).map(|node| &**node) == node.as_ref() {
            return;
        }
        match node.map(Arc::new) {
            Some(node) => {
                self.nodes.insert(Arc::clone(name), Arc::clone(&node));
                self.tell(Change::Node(node));
            }
            None => {
                self.nodes.remove(name);
                self.tell(Change::NodeGone(Arc::clone(name)));
            }
        }
    }

    fn tell_claim(&mut self, name: &Arc<str>, claim: Option<NodeClaim>) {
        if self.claims.get(name).map(|claim| &**claim) == claim.as_ref() {
            return;
        }
        match claim.map(Arc::new) {
            Some(claim) => {
                self.claims.insert(Arc::clone(name), Arc::clone(&claim));
                self.tell(Change::Claim(claim));
            }
            None => {
                self.claims.remove(name);
                self.tell(Change::ClaimGone(Arc::clone(name)));
            }
        }
    }

    fn set_market(&mut self, market: Market, until: Option<Timestamp>) {
        (self.market_until, self.market_holds) = (until, true);
        if self.market == market {
            return;
        }
        (self.changed, self.market_is_news) = (true, true);
        if let Some((warm, ledger)) = &mut self.deciding {
            warm.set_market(market.clone());
            ledger.set_market(market.clone());
        }
        self.market = market;
    }

    /// Those who decide. At the first decision they are told all at once, when all is known.
    fn deciders(&mut self) -> &mut (Warm, Ledger) {
        self.deciding.get_or_insert_with(|| {
            let (mut warm, mut ledger) = (Warm::new(self.market.clone()), Ledger::new(self.market.clone()));
            let pods = self.pods.values().cloned().map(Change::Pod);
            let nodes = self.nodes.values().cloned().map(Change::Node);
            let claims = self.claims.values().cloned().map(Change::Claim);
            for change in nodes.chain(claims).chain(pods) {
                ledger.apply(&change);
                warm.apply(change);
            }
            (warm, ledger)
        })
    }
}

impl Engine {
    /// The plan for all pods that wait, and the rules it breaks. Nothing of it is done.
    pub(super) fn plan(&mut self, now: Timestamp) -> (Plan, Vec<Violation>) {
        self.stats.plans += 1;
        self.follow();
        self.follow_market(now);
        self.picture.deciders();
        let Picture { pods, waiting, deciding, .. } = &mut self.picture;
        let Some((warm, ledger)) = deciding else { return Default::default() };
        let pending: Vec<&Pod> = waiting.iter().filter_map(|id| pods.get(id)).map(|pod| &**pod).collect();
        let plan = warm.decide(&pending, &self.settings.solve);
        let broken = ledger.check(&plan).err().unwrap_or_default();
        (plan, broken)
    }

    /// Tells what changed, with all that follows from it.
    pub(super) fn follow(&mut self) {
        self.sort_out();
        let claims = std::mem::take(&mut self.picture.dirty_claims);
        let mut nodes = std::mem::take(&mut self.picture.dirty_nodes);
        let mut pods = std::mem::take(&mut self.picture.dirty_pods);
        for pod in self.picture.protected.due(self.now) {
            self.tell_protection_is_over(&pod);
            pods.insert(pod);
        }
        for claim in &claims {
            let machine = self.machines.get(claim);
            let node = machine.and_then(|machine| machine.claim.node.clone());
            pods.extend(self.nominations.on(claim).cloned());
            let leaves = machine.is_some_and(super::Machine::is_leaving);
            let left = match node.as_ref().filter(|_| leaves) {
                Some(node) => self.picture.leaving.insert(Arc::clone(claim), Arc::clone(node)),
                None => self.picture.leaving.remove(claim),
            };
            for node in left.iter().chain(node.as_ref().filter(|_| leaves)) {
                pods.extend(self.pods.on(node).map(|pod| pod.id.clone()));
            }
            nodes.extend(node);
        }
        for name in &nodes {
            let seen = self.node_seen(name);
            self.picture.tell_node(name, seen);
        }
        for name in &claims {
            let seen = self.claim_seen(name);
            self.picture.tell_claim(name, seen);
        }
        for id in &pods {
            let seen = self.pod_seen(id);
            self.picture.tell_pod(id, seen);
        }
        if std::mem::take(&mut self.picture.changed) {
            self.disruption.changed();
        }
    }

    pub(super) fn follow_market(&mut self, now: Timestamp) {
        let over = self.picture.market_until.is_some_and(|until| until <= now);
        if self.picture.market_holds && !over {
            return;
        }
        let pools: Vec<NodePool> = self.buying_pools().cloned().collect();
        let classes: Vec<NodeClass> = self.classes.values().cloned().collect();
        let daemon_sets = self.daemon_sets.values().cloned().collect();
        let instance_types = types_of_pools(&classes, pools.iter(), |class| self.instance_types(now, class));
        let until = self.profiles.next_recovery(now);
        self.picture.set_market(Market { pools, classes, daemon_sets, instance_types }, until);
    }

    /// A pod that is expected somewhere counts as bound there; a pod that must move is pending.
    fn pod_seen(&mut self, id: &PodId) -> Option<Arc<Pod>> {
        let pod = Arc::clone(self.pods.shared(id)?);
        let moves = self.must_move(&pod);
        let target = self.nominations.get(id).map(|target| self.place_of(target));
        if target.is_none() && !moves {
            return Some(pod);
        }
        let node = target.or_else(|| pod.node.clone().filter(|_| !moves));
        let phase = if moves { PodPhase::Pending } else { pod.phase };
        Some(Arc::new(Pod { node, phase, ..Pod::clone(&pod) }))
    }

    /// Whether a pod runs on a machine that is to go, and may be moved or will be ended by a deadline.
    fn must_move(&mut self, pod: &Pod) -> bool {
        let Some(machine) = pod.node.as_ref().and_then(|node| self.machine_on(node)) else { return false };
        let timed = machine.deadline().is_some() || machine.claim.termination_grace_period.is_some();
        if machine.leaving.is_none() || !pod.is_reschedulable() {
            return false;
        }
        match Protection::of(pod, self.now).filter(|_| !timed) {
            None => true,
            Some(protection) => {
                if let Protection::Until(over) = protection
                    && self.picture.protected.set(&pod.id, over)
                {
                    self.wake(over);
                    self.tell_protection(pod, over);
                }
                false
            }
        }
    }

    /// Where the solver knows the target of a nomination: its node, once that has joined.
    pub(super) fn place_of(&self, target: &Arc<str>) -> Arc<str> {
        Arc::clone(self.node_of(target).map_or(target, |node| &node.name))
    }

    /// A node of a machine that is not ready yet loses some taints by itself.
    fn node_seen(&self, name: &str) -> Option<Node> {
        let mut node = self.nodes.get(name)?.clone();
        if let Some(machine) = self.machine_on(name) {
            node.deleting |= machine.is_leaving();
            if machine.claim.state < ClaimState::Initialized {
                let startup = &machine.claim.startup_taints;
                node.taints.retain(|taint| *taint != unverified_taint() && !startup.contains(taint));
                node.taints.retain(|taint| !is_ephemeral(taint));
            }
        }
        Some(node)
    }

    /// Until a node is initialised its claim says what it will have: device plugins report late. A machine on its way out
    /// without a node still counts against limits.
    fn claim_seen(&self, name: &str) -> Option<NodeClaim> {
        let machine = self.machines.get(name)?;
        if machine.is_leaving() {
            let joined = machine.claim.node.as_ref().is_some_and(|node| self.nodes.contains_key(node));
            let state = ClaimState::Terminating;
            return (!joined).then(|| NodeClaim { state, ..machine.claim.clone() });
        }
        (machine.claim.state < ClaimState::Initialized).then(|| machine.claim.clone())
    }

    /// What could be bought for a class: the catalogue, refined by the profiles, without what the cloud refused or keeps
    /// delivering broken.
    pub(super) fn instance_types(&self, now: Timestamp, class: &NodeClass) -> Vec<InstanceType> {
        let measured = |sku: &str| self.profiles.memory_for(sku, self.types.region());
        let mut types = self.types.for_class(class, &measured);
        for instance_type in &mut types {
            self.profiles.refine(instance_type, self.types.region());
            self.unavailable.apply(instance_type);
        }
        self.profiles.avoid_unhealthy(&mut types, now);
        types
    }
}
