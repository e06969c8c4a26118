//! The nodes of the cluster as `disrupt` sees them: what each costs, who runs there, and what forbids that it goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::blockers::Protection;
use super::cost::eviction_cost;
use super::eviction::Evictions;
use super::plan::{BlockReason, Blocked};
use crate::catalog::{CapacityType, InstanceType};
use crate::model::{
    ClaimState, Drift, Labels, Node, NodeClaim, NodeFacts, NodePool, Pod, PodPhase, Snapshot, Timestamp,
};

/// A node that may go.
#[derive(Debug)]
pub(super) struct Candidate<'s> {
    pub(super) node: &'s Node,
    pub(super) claim: &'s NodeClaim,
    pub(super) pool: &'s NodePool,
    pub(super) facts: &'s NodeFacts,
    /// Whether its pool has a fixed number of nodes.
    pub(super) is_static: bool,
    /// Pods that would have to run elsewhere, by id.
    pub(super) movable: Vec<&'s Pod>,
    /// Whether nobody needs it: neither those nor pods that are about to come back.
    pub(super) is_empty: bool,
    /// What it costs, where that is known.
    pub(super) price: Option<UsdPerHour>,
    /// How it is paid for.
    pub(super) capacity_type: CapacityType,
    /// Its type, where it is still sold.
    pub(super) instance_type: Option<&'s InstanceType>,
    /// What evicting its pods costs, 1 each where they are ordinary.
    pub(super) disruption: f64,
    /// What forbids that it goes by our own choice, whatever its pods say.
    pub(super) ban: Option<(BlockReason, String)>,
    /// What its pods say against its going; a limit on draining overrules it where the node must go.
    pub(super) held: Option<(BlockReason, String)>,
}

impl Candidate<'_> {
    /// Since when no pod came or went.
    pub(super) fn quiet_since(&self) -> Timestamp {
        self.facts.last_pod_event.map_or(self.claim.since, |event| event.max(self.claim.since))
    }

    /// Whether its pods' objections count where it must go for its own sake.
    pub(super) const fn drains_in_time(&self) -> bool {
        self.claim.termination_grace_period.is_some()
    }
}

/// How many nodes a pool has, and how many of those are on their way out or not ready.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Headcount {
    pub(super) total: u64,
    pub(super) going: u64,
}

/// All nodes of pools.
#[derive(Debug, Default)]
pub(super) struct Fleet<'s> {
    /// By name.
    pub(super) candidates: Vec<Candidate<'s>>,
    /// Nodes that are no candidates at all, by name.
    pub(super) blocked: BTreeMap<Arc<str>, Blocked>,
    /// By pool.
    pub(super) heads: BTreeMap<&'s str, Headcount>,
    /// Nodes of pools, whatever their state, by pool: what node repair counts.
    pub(super) managed: BTreeMap<&'s str, Vec<&'s Node>>,
    /// What all nodes cost whose price is known.
    pub(super) price: UsdPerHour,
    /// Nodes that are not what their pool would make now.
    pub(super) drifts: BTreeMap<Arc<str>, Drift>,
    /// Names of nodes that are on their way out.
    pub(super) going: Vec<Arc<str>>,
}

static NOTHING: NodeFacts = NodeFacts {
    conditions: Vec::new(),
    kubernetes_version: None,
    image: None,
    last_pod_event: None,
    expire_after: None,
    mismatch: None,
    drift: None,
    nominated: false,
};

impl<'s> Fleet<'s> {
    /// Reads a snapshot. `evictions` judges what disruption budgets say of pods.
    pub(super) fn of(snapshot: &'s Snapshot, evictions: &Evictions<'s>) -> Self {
        let mut fleet = Self::default();
        let mut by_node: HashMap<&str, Vec<&'s Pod>> = HashMap::new();
        for pod in &snapshot.pods {
            if let Some(node) = pod.node.as_deref() {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let mut claims: HashMap<&str, &'s NodeClaim> = HashMap::new();
        for claim in &snapshot.node_claims {
            claims.insert(claim.node.as_deref().unwrap_or(&claim.name), claim);
        }
        let mut nodes: Vec<&'s Node> = snapshot.nodes.iter().collect();
        nodes.sort_unstable_by(|one, two| one.name.cmp(&two.name));
        for node in nodes {
            let Some(pool_name) = node.label(karpenter::NODEPOOL) else { continue };
            let pods = by_node.remove(&*node.name).unwrap_or_default();
            fleet.add(snapshot, node, pool_name, claims.get(&*node.name).copied(), pods, evictions);
        }
        fleet
    }

    fn add(
        &mut self,
        snapshot: &'s Snapshot,
        node: &'s Node,
        pool_name: &'s str,
        claim: Option<&'s NodeClaim>,
        mut pods: Vec<&'s Pod>,
        evictions: &Evictions<'s>,
    ) {
        let facts = snapshot.disruption.nodes.get(&node.name).unwrap_or(&NOTHING);
        let initialized = node.label(karpenter::INITIALIZED) == Some("true")
            || claim.is_some_and(|claim| claim.state == ClaimState::Initialized);
        let going = node.deleting
            || claim.is_some_and(|claim| claim.state == ClaimState::Terminating || claim.deleting.is_some());
        self.managed.entry(pool_name).or_default().push(node);
        if initialized {
            let heads = self.heads.entry(pool_name).or_default();
            heads.total += 1;
            heads.going += u64::from(going || !node.ready);
        }
        let is_static = snapshot.disruption.static_pools.iter().find(|one| one.pool.name == pool_name);
        let dynamic = snapshot.pools.iter().find(|pool| pool.name == pool_name);
        let pool = dynamic.or_else(|| is_static.map(|one| &one.pool));
        let instance_type = pool.and_then(|pool| type_of(snapshot, pool, node, claim));
        let capacity_type = node
            .label(karpenter::CAPACITY_TYPE)
            .and_then(|text| text.parse().ok())
            .or_else(|| claim.map(|claim| claim.capacity_type))
            .unwrap_or(CapacityType::OnDemand);
        let price = instance_type.and_then(|one| price_of(one, node, capacity_type));
        self.price += price.unwrap_or_default();
        if going {
            self.going.push(Arc::clone(&node.name));
            return;
        }
        let mut block = |reason: BlockReason, detail: String| {
            let blocked = Blocked { node: Arc::clone(&node.name), reason, detail, fix: None };
            self.blocked.insert(Arc::clone(&node.name), blocked);
        };
        let Some(claim) = claim else {
            block(BlockReason::NoNodeClaim, "no NodeClaim has this node".to_owned());
            return;
        };
        let Some(pool) = pool else {
            block(BlockReason::NodePoolNotFound, format!("NodePool {pool_name} is not known"));
            return;
        };
        let annotated =
            |labels: &Labels| labels.get(karpenter::DO_NOT_DISRUPT).is_some_and(|value| value == "true");
        let ban = if !initialized {
            Some((BlockReason::NotInitialized, "it is not ready for pods yet".to_owned()))
        } else if facts.nominated {
            Some((BlockReason::Nominated, "pods that wait are expected here".to_owned()))
        } else if annotated(&node.annotations) || annotated(&claim.annotations) {
            let detail = format!("the node is annotated {}", karpenter::DO_NOT_DISRUPT);
            Some((BlockReason::DoNotDisrupt, detail))
        } else {
            None
        };
        pods.sort_unstable_by(|one, two| one.id.cmp(&two.id));
        let held = held(&pods, evictions, snapshot.now);
        let returning = pods.iter().any(|pod| snapshot.disruption.returning.contains(&pod.id));
        let movable: Vec<&Pod> = pods.into_iter().filter(|pod| pod.is_reschedulable()).collect();
        self.candidates.push(Candidate {
            node,
            claim,
            pool,
            facts,
            is_static: dynamic.is_none(),
            is_empty: movable.is_empty() && !returning,
            disruption: movable.iter().map(|pod| eviction_cost(pod).max(0.0)).sum(),
            movable,
            price,
            capacity_type,
            instance_type,
            ban,
            held,
        });
    }
}

/// What the pods of a node say against its going. DaemonSets' and mirror pods count.
fn held(pods: &[&Pod], evictions: &Evictions<'_>, now: Timestamp) -> Option<(BlockReason, String)> {
    let active = |pod: &&&Pod| pod.phase != PodPhase::Finished && pod.terminating.is_none();
    let protected = pods.iter().filter(active).find_map(|pod| Some((pod, Protection::of(pod, now)?)));
    if let Some((pod, protection)) = protected {
        let until = match protection {
            Protection::Always => String::new(),
            Protection::Until(over) => format!(" for {} s more", over.since(now).as_secs()),
        };
        let detail = format!("pod {} is annotated {}{until}", pod.id, karpenter::DO_NOT_DISRUPT);
        return Some((BlockReason::DoNotDisrupt, detail));
    }
    let refused = pods.iter().find_map(|pod| evictions.refuses(pod))?;
    Some((BlockReason::PodDisruptionBudget, refused))
}

/// What a node is an example of.
fn type_of<'s>(
    snapshot: &'s Snapshot,
    pool: &NodePool,
    node: &Node,
    claim: Option<&NodeClaim>,
) -> Option<&'s InstanceType> {
    let name = node.label(kubernetes::INSTANCE_TYPE).or_else(|| claim.map(|claim| &*claim.instance_type))?;
    snapshot.instance_types_of(pool).iter().find(|one| &*one.name == name)
}

/// What it is sold for where the node is. What runs may be sold out by now.
fn price_of(one: &InstanceType, node: &Node, capacity_type: CapacityType) -> Option<UsdPerHour> {
    let zone = node.label(kubernetes::ZONE);
    let offered = one.offerings.iter().filter(|offering| offering.capacity_type == capacity_type);
    offered.filter(|offering| zone == Some(&*offering.zone)).map(|offering| offering.price).min()
}
