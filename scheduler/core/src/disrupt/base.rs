//! One state of the solver that every question is put to: where would the pods of these nodes go if the nodes were gone?
//!
//! Nothing is copied and nothing rebuilt for a question. The nodes are set aside, their pods decided on, the nodes put back;
//! what is decided is carried out on the state, and can be taken back as well.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use assay_shared::labels::karpenter;

use super::candidate::Fleet;
use crate::lifecycle::claim_of;
use crate::model::{
    Change, Node, NodeClaim, Plan, PlannedClaim, Pod, PodId, PodPhase, ResourceList, Snapshot, Unschedulable,
};
use crate::solve::{SolveOptions, Warm};

/// The shared state.
#[derive(Debug)]
pub(super) struct Base<'s> {
    snapshot: &'s Snapshot,
    warm: Warm,
    /// Pods of each candidate as they would wait.
    waiting: Vec<Vec<Pod>>,
    /// Nodes and claims that take pods and are not ready for them yet.
    pub(super) unready: BTreeSet<Arc<str>>,
    /// Nodes that pods are about to come to.
    pub(super) expecting: BTreeSet<Arc<str>>,
    /// What was decided for pods that wait already.
    pub(super) assumed: Plan,
    /// Claims named so far.
    named: usize,
    nodes: HashMap<&'s str, &'s Node>,
    /// The least that any pod asks for that might move, resource by resource.
    least: ResourceList,
    /// Nodes without room for that: nobody looks at them.
    full: BTreeSet<Arc<str>>,
}

/// Where the pods of some nodes would go.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// Candidates by number.
    pub(super) nodes: Vec<usize>,
    pub(super) claims: Vec<PlannedClaim>,
    /// Pods by the node or claim that takes them.
    pub(super) existing: Vec<(Arc<str>, Vec<PodId>)>,
    pub(super) stranded: Vec<Unschedulable>,
}

impl<'s> Base<'s> {
    /// Reads a snapshot. Pods that wait already, and those of nodes on their way out, get their places first.
    pub(super) fn new(snapshot: &'s Snapshot, fleet: &Fleet<'s>, options: &SolveOptions) -> Self {
        let mut warm = Warm::of(snapshot);
        for node in &fleet.going {
            warm.set_aside(node);
        }
        let waiting =
            fleet.candidates.iter().map(|one| one.movable.iter().map(|pod| as_waiting(pod)).collect());
        let not_ready = |node: &&Node| {
            node.label(karpenter::NODEPOOL).is_some() && node.label(karpenter::INITIALIZED) != Some("true")
        };
        let mut unready: BTreeSet<Arc<str>> =
            snapshot.nodes.iter().filter(not_ready).map(|node| Arc::clone(&node.name)).collect();
        unready.extend(
            snapshot
                .node_claims
                .iter()
                .filter(|claim| claim.node.is_none())
                .map(|claim| Arc::clone(&claim.name)),
        );
        let mut base = Self {
            snapshot,
            warm,
            waiting: waiting.collect(),
            unready,
            expecting: BTreeSet::new(),
            assumed: Plan::default(),
            named: last_number(snapshot),
            nodes: snapshot.nodes.iter().map(|node| (&*node.name, node)).collect(),
            least: least(fleet),
            full: BTreeSet::new(),
        };
        base.place_those_who_wait(fleet, options);
        base
    }

    fn place_those_who_wait(&mut self, fleet: &Fleet<'s>, options: &SolveOptions) {
        let going: BTreeSet<&str> = fleet.going.iter().map(|node| &**node).collect();
        let leaving = |pod: &&Pod| {
            pod.is_reschedulable() && pod.node.as_deref().is_some_and(|node| going.contains(node))
        };
        let pods: Vec<Pod> = self
            .snapshot
            .pods
            .iter()
            .filter(|pod| pod.is_pending() || leaving(pod))
            .map(as_waiting)
            .collect();
        if pods.is_empty() {
            return;
        }
        let list: Vec<&Pod> = pods.iter().collect();
        let options = SolveOptions { explain: false, first_claim: self.named + 1, ..options.clone() };
        let plan = self.warm.decide(&list, &options);
        self.expecting.extend(plan.existing.iter().map(|one| Arc::clone(&one.name)));
        self.unready.extend(plan.claims.iter().map(|claim| Arc::from(claim.name.as_str())));
        self.named += plan.claims.len();
        self.assumed = plan.clone();
        let existing = plan.existing.into_iter().map(|one| (one.name, one.pods)).collect();
        let trial = Trial { nodes: Vec::new(), claims: plan.claims, existing, stranded: Vec::new() };
        let by_id: HashMap<&PodId, &Pod> = pods.iter().map(|pod| (&pod.id, pod)).collect();
        self.bind(&trial, |id| by_id.get(id).copied());
    }

    /// Closes nodes to newcomers.
    pub(super) fn close(&mut self, nodes: impl IntoIterator<Item = &'s Node>) {
        for node in nodes {
            let closed = Node { unschedulable: true, ..node.clone() };
            self.warm.apply(Change::Node(Arc::new(closed)));
        }
    }

    /// Passes over nodes that have room for nobody.
    pub(super) fn pass_over_full(&mut self, nodes: impl IntoIterator<Item = &'s Node>) {
        for node in nodes {
            if !self.full.contains(&node.name) && !self.warm.has_room(&node.name, &self.least) {
                self.full.insert(Arc::clone(&node.name));
                self.close([node]);
            }
        }
    }

    /// Nodes whose turn to go comes later take no pods. Those that are on them still run, and count.
    pub(super) fn shut(&mut self, fleet: &Fleet<'s>, nodes: &[usize]) {
        self.close(nodes.iter().map(|node| fleet.candidates[*node].node));
    }

    /// Takes that back.
    pub(super) fn reopen(&mut self, fleet: &Fleet<'s>, nodes: &[usize]) {
        for node in nodes {
            self.warm.apply(Change::Node(Arc::new(fleet.candidates[*node].node.clone())));
        }
    }

    /// What each of these amounts is worth, in billionths of a dollar per hour.
    pub(super) fn worth(&self, amounts: &[ResourceList]) -> Vec<f64> {
        self.warm.worth(amounts)
    }

    /// Where the pods of these candidates would go. Leaves the state as it was.
    pub(super) fn evaluate(&mut self, fleet: &Fleet<'_>, nodes: &[usize], options: &SolveOptions) -> Trial {
        for node in nodes {
            self.warm.set_aside(&fleet.candidates[*node].node.name);
        }
        let pods: Vec<&Pod> = nodes.iter().flat_map(|node| &self.waiting[*node]).collect();
        let options = SolveOptions { first_claim: self.named + 1, ..options.clone() };
        let Plan { claims, existing, unschedulable, .. } = self.warm.decide(&pods, &options);
        for node in nodes.iter().rev() {
            self.warm.put_back(&fleet.candidates[*node].node.name);
        }
        let existing = existing.into_iter().map(|one| (one.name, one.pods)).collect();
        Trial { nodes: nodes.to_vec(), claims, existing, stranded: unschedulable }
    }

    /// A node or claim not ready yet that the trial counts on.
    pub(super) fn counts_on_unready<'t>(&self, trial: &'t Trial) -> Option<&'t Arc<str>> {
        trial.existing.iter().map(|(name, _)| name).find(|name| self.unready.contains(*name))
    }

    /// Carries a trial out.
    pub(super) fn commit(&mut self, fleet: &Fleet<'_>, trial: &Trial) {
        for node in &trial.nodes {
            self.warm.set_aside(&fleet.candidates[*node].node.name);
        }
        let pods: HashMap<&PodId, &Pod> = trial
            .nodes
            .iter()
            .flat_map(|node| &fleet.candidates[*node].movable)
            .map(|pod| (&pod.id, *pod))
            .collect();
        self.named += trial.claims.len();
        self.bind(trial, |id| pods.get(id).copied());
        let targets: Vec<&'s Node> =
            trial.existing.iter().filter_map(|(name, _)| self.nodes.get(&**name).copied()).collect();
        self.pass_over_full(targets);
    }

    /// Makes the claims of a trial and binds its pods.
    fn bind<'p>(&mut self, trial: &Trial, pod_of: impl Fn(&PodId) -> Option<&'p Pod>) {
        for planned in &trial.claims {
            // It may be launched as any of its options, which hold what it was bought for and perhaps no more.
            if let Some(claim) = claim_made(self.snapshot, planned) {
                let full = NodeClaim { allocatable: claim.requests.clone(), ..claim };
                self.warm.apply(Change::Claim(Arc::new(full)));
            }
        }
        let on_claims = trial.claims.iter().map(|claim| (Arc::from(claim.name.as_str()), &claim.pods));
        let on_existing = trial.existing.iter().map(|(name, pods)| (Arc::clone(name), pods));
        for (name, pods) in on_existing.chain(on_claims) {
            for pod in pods.iter().filter_map(&pod_of) {
                let bound = Pod {
                    node: Some(Arc::clone(&name)),
                    phase: PodPhase::Running,
                    terminating: None,
                    ..pod.clone()
                };
                self.warm.apply(Change::Pod(Arc::new(bound)));
            }
        }
    }

    /// Takes a trial back that was carried out.
    pub(super) fn undo(&mut self, fleet: &Fleet<'_>, trial: &Trial) {
        for pod in trial.nodes.iter().flat_map(|node| &fleet.candidates[*node].movable) {
            self.warm.apply(Change::Pod(Arc::new((*pod).clone())));
        }
        for claim in &trial.claims {
            self.warm.apply(Change::ClaimGone(Arc::from(claim.name.as_str())));
        }
        for (name, _) in &trial.existing {
            if let Some(node) = self.nodes.get(&**name).copied().filter(|_| self.full.remove(name)) {
                self.warm.apply(Change::Node(Arc::new(node.clone())));
            }
        }
        for node in trial.nodes.iter().rev() {
            self.warm.put_back(&fleet.candidates[*node].node.name);
        }
    }
}

/// The least of each resource that a pod asks for that might move.
fn least(fleet: &Fleet<'_>) -> ResourceList {
    let mut specs = fleet.candidates.iter().flat_map(|one| &one.movable).map(|pod| &pod.spec.requests);
    let mut least = ResourceList { pods: 1, ..ResourceList::default() };
    if let Some(first) = specs.next() {
        (least.cpu, least.memory) = (first.cpu, first.memory);
    }
    for requests in specs {
        (least.cpu, least.memory) = (least.cpu.min(requests.cpu), least.memory.min(requests.memory));
    }
    least
}

/// The largest number at the end of a name, so that what is planned is not named as something that is there.
fn last_number(snapshot: &Snapshot) -> usize {
    let nodes = snapshot.nodes.iter().map(|node| &node.name);
    let names = nodes.chain(snapshot.node_claims.iter().map(|claim| &claim.name));
    let numbers = names.filter_map(|name| name.rsplit_once('-')?.1.parse::<usize>().ok());
    // A number of another kind, such as part of an id, would leave no room above.
    numbers.filter(|number| *number < usize::MAX / 2).max().unwrap_or(0)
}

/// A pod as it would wait for another node.
fn as_waiting(pod: &Pod) -> Pod {
    Pod { node: None, phase: PodPhase::Pending, terminating: None, ..pod.clone() }
}

/// The claim that carrying out a planned one makes.
pub(crate) fn claim_made(snapshot: &Snapshot, planned: &PlannedClaim) -> Option<NodeClaim> {
    let pool = snapshot.pools.iter().find(|pool| pool.name == planned.pool)?;
    let class = snapshot.classes.iter().find(|one| one.name == pool.node_class);
    let types = snapshot.instance_types_of(pool);
    let bought = types.iter().find(|one| one.name == planned.instance_type)?;
    Some(claim_of(planned, pool, class, bought, snapshot.now))
}
