//! Kubernetes manifests, from files or standard input, into the core's model.
//!
//! ```text
//!  files --document--> values --objects (slim serde types)--> pod, pool, node --> Manifests --> Snapshot
//! ```
//!
//! Fields that Assay does not use are ignored, as any controller ignores another's. A file that is no YAML, or a pool, node or
//! class that says something impossible, is an error that names file, document, object and field. A *pod* that says
//! something impossible is kept aside with the same words, and does not disturb the others.

mod aligned;
mod amounts;
mod claim;
mod class;
mod constraints;
mod context;
mod controller;
mod daemon_set;
mod defaults;
mod disruption_budget;
mod document;
mod error;
mod facts;
mod gang;
mod node;
mod node_terms;
mod objects;
mod owners;
mod pod;
mod pool;
pub(crate) mod restricted;
mod storage;
mod syntax;
mod taints;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_core::catalog::types_of_pools;
use assay_core::model::{
    DaemonSet, DisruptionFacts, Labels, Node, NodeClass, NodePool, Plan, Pod, PodId, PodSpec, PoolReason,
    ReasonCode, Snapshot, StaticPool, Unschedulable,
};

pub use document::{Source, read_sources};
pub use error::ManifestError;
pub(crate) use error::problem_of;
pub use pod::{PodTemplateError, pod_spec_from_value};
pub(crate) use pool::parse_duration;

use claim::Around;
use document::Document;
use objects::Meta;

/// What reads the objects of a running cluster one by one, as they come and change.
pub(crate) mod live {
    pub(crate) use super::claim::{Around, ClaimObject, read as read_claim};
    pub(crate) use super::class::read_live as read_class;
    pub(crate) use super::context::{Context, Touched};
    pub(crate) use super::daemon_set::read as read_daemon_set;
    pub(crate) use super::disruption_budget::read as read_disruption_budget;
    pub(crate) use super::document::{Document, scheduler_configuration};
    pub(crate) use super::error::ManifestError;
    pub(crate) use super::facts::{of_claim, of_class, of_node};
    pub(crate) use super::gang::{Members, group_of};
    pub(crate) use super::node::read as read_node;
    pub(crate) use super::objects::{Meta, OwnerReference, time};
    pub(crate) use super::pod::{Own, Template, owner, phase};
    pub(crate) use super::pool::read as read_pool;
}

/// Everything that was read.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Pods, those of expanded controllers included.
    pub pods: Vec<Pod>,
    /// DaemonSets.
    pub daemon_sets: Vec<DaemonSet>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pools to buy for.
    pub pools: Vec<NodePool>,
    /// Names of static pools, for which nothing is bought.
    pub static_pools: Vec<String>,
    /// What only `disrupt` asks about; claims' part is joined once nodes are known.
    disruption: DisruptionFacts,
    of_claims: facts::OfClaims,
    /// Machines on their way, as far as their objects tell.
    claims: Vec<claim::ClaimObject>,
    /// Node classes.
    pub classes: Vec<NodeClass>,
    /// Pods that cannot be read, and why.
    pub invalid_pods: Vec<(PodId, String)>,
    /// What was ignored or understood as something else, for people.
    pub warnings: Vec<String>,
}

impl Manifests {
    /// Reads all sources.
    pub fn parse(sources: &[Source]) -> Result<Self, ManifestError> {
        let mut reader = Reader::default();
        let mut documents = Vec::new();
        for source in sources {
            documents.extend(document::split(source)?);
        }
        // Pods are read with their claims, groups and priorities, which may stand behind them.
        for document in &documents {
            reader.context.read(document)?;
        }
        for document in &documents {
            reader.read(document)?;
        }
        Ok(reader.finish())
    }

    /// As the core sees it, with these types for every class.
    #[must_use]
    pub fn into_snapshot(
        self,
        instance_types: impl Fn(&NodeClass) -> Vec<assay_core::catalog::InstanceType>,
    ) -> Snapshot {
        let mut classes: BTreeMap<String, NodeClass> =
            self.classes.into_iter().map(|class| (class.name.clone(), class)).collect();
        let static_pools: Vec<NodePool> =
            self.disruption.static_pools.iter().map(|one| one.pool.clone()).collect();
        for pool in self.pools.iter().chain(&static_pools) {
            let class = || NodeClass::with_defaults(&pool.node_class);
            classes.entry(pool.node_class.clone()).or_insert_with(class);
        }
        let classes: Vec<NodeClass> = classes.into_values().collect();
        let mut snapshot = Snapshot {
            instance_types: types_of_pools(&classes, self.pools.iter().chain(&static_pools), instance_types),
            pods: self.pods,
            daemon_sets: self.daemon_sets,
            nodes: self.nodes,
            pools: self.pools,
            classes,
            disruption: self.disruption,
            ..Snapshot::default()
        };
        self.of_claims.join(&self.claims, &snapshot.nodes, &mut snapshot.disruption);
        let pools: Vec<&NodePool> = snapshot.pools.iter().chain(&static_pools).collect();
        let claims = self.claims.iter().map(|object| {
            let pool = pools.iter().copied().find(|pool| object.pool() == Some(&pool.name));
            let types = snapshot.instance_types.get(object.node_class(pool));
            let node = snapshot.nodes.iter().find(|node| object.is_of(node)).map(|node| &node.name);
            object.resolve(Around { pool, types: types.map_or(&[], |types| types.as_slice()), node })
        });
        let claims: Vec<_> = claims.collect();
        snapshot.node_claims = claims;
        snapshot
    }

    /// The reasons of pods that cannot be read, as a plan lists them.
    pub fn report_invalid(invalid: Vec<(PodId, String)>, plan: &mut Plan) {
        plan.unschedulable.extend(invalid.into_iter().map(|(pod, detail)| Unschedulable {
            pod,
            reasons: [PoolReason { pool: None, reason: ReasonCode::InvalidPod, detail, fix: None }].into(),
        }));
        plan.unschedulable.sort_by(|one, two| one.pod.cmp(&two.pod));
    }
}

/// Reads documents one by one.
#[derive(Debug, Default)]
struct Reader {
    read: Manifests,
    /// Names seen, by kind, so that a second object of one name is noticed.
    seen: BTreeSet<(String, String)>,
    /// Names made for objects that have a `generateName` only.
    generated: u64,
    /// Controllers that wait for their pods, in the order they came.
    controllers: Vec<controller::Controller>,
    /// Pods that these controllers stand for.
    replicas: u32,
    /// What other objects say that pods refer to.
    context: context::Context,
    /// Specs and labels that pods share, each kept once.
    specs: HashMap<Arc<PodSpec>, ()>,
    labels: BTreeSet<Arc<Labels>>,
    /// Owners of the pods in the input.
    owned: BTreeSet<owners::Owner>,
    /// Classes that pools name, and what to say of a pool whose class is not in the input.
    class_refs: Vec<(String, String)>,
    /// Kinds nobody here reads, with how many there were.
    ignored: BTreeMap<String, usize>,
}

impl Reader {
    fn read(&mut self, document: &Document) -> Result<(), ManifestError> {
        let mut warnings = Vec::new();
        match document.kind.as_str() {
            "Pod" => self.pod(document)?,
            "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" | "Job" => {
                self.controller(document)?;
            }
            "DaemonSet" => {
                let meta = self.meta(document)?;
                let daemon_set = daemon_set::read(document, &meta, &self.context, &mut warnings)?;
                self.read.daemon_sets.push(daemon_set);
            }
            "Node" => {
                let meta = self.meta(document)?;
                let node = node::read(document, &meta, &mut warnings)?;
                self.read.disruption.nodes.insert(Arc::clone(&node.name), facts::of_node(document)?);
                self.read.nodes.push(node);
            }
            "NodePool" => {
                let meta = self.meta(document)?;
                let name = meta.name.clone();
                match pool::read_any(document, meta, &mut warnings)? {
                    (pool, None) => {
                        let problem =
                            format!("no AKSNodeClass {} is given: taken with defaults", pool.node_class);
                        let told = document.error("spec.template.spec.nodeClassRef.name", problem);
                        self.class_refs.push((pool.node_class.clone(), told.to_string()));
                        self.read.pools.push(pool);
                    }
                    (pool, Some(replicas)) => {
                        warnings.push(pool::static_pool(document));
                        self.read.static_pools.push(name);
                        self.read.disruption.static_pools.push(StaticPool { pool, replicas });
                    }
                }
            }
            "NodeClaim" => {
                let meta = self.meta(document)?;
                let name = meta.name.clone();
                self.read.claims.push(claim::read(document, meta)?);
                self.read.of_claims.read(document, &name)?;
            }
            "AKSNodeClass" => {
                let meta = self.meta(document)?;
                self.read.classes.push(class::read(document, &meta)?);
                let facts = facts::of_class(document)?;
                self.read.disruption.classes.insert(meta.name, facts);
            }
            "PodDisruptionBudget" => {
                let meta = self.meta(document)?;
                self.read.disruption.budgets.push(disruption_budget::read(document, &meta)?);
            }
            // Read before, or by Kubernetes, or by later decisions.
            "Namespace"
            | "StorageClass"
            | "PersistentVolume"
            | "PersistentVolumeClaim"
            | "PriorityClass"
            | "RuntimeClass"
            | "CSINode"
            | "Service"
            | "PodGroup"
            | "KubeSchedulerConfiguration" => {}
            other => *self.ignored.entry(other.to_owned()).or_default() += 1,
        }
        self.read.warnings.extend(warnings.iter().map(ToString::to_string));
        Ok(())
    }

    /// Metadata of an object, whose name must be its own.
    fn meta(&mut self, document: &Document) -> Result<Meta, ManifestError> {
        let mut meta = Meta::read(document)?;
        let key = |meta: &Meta| (document.kind.clone(), meta.pod_id().to_string());
        // As the API server does: every object with `generateName` is another one.
        while meta.name.is_empty() || meta.is_generated && self.seen.contains(&key(&meta)) {
            meta.is_generated = true;
            meta.name = format!("{}{}", meta.generate_name, self.generated);
            self.generated += 1;
        }
        if self.seen.insert(key(&meta)) {
            Ok(meta)
        } else {
            Err(document.error("metadata.name", "is given twice"))
        }
    }

    fn pod(&mut self, document: &Document) -> Result<(), ManifestError> {
        let meta = match Meta::read(document) {
            Ok(_) => self.meta(document)?,
            Err(error) => {
                // Labels, say, that are none: as long as it has a name, the pod can be told of by it.
                let id = document.pod_id().ok_or_else(|| error.clone())?;
                self.read.invalid_pods.push((id, error.to_string()));
                return Ok(());
            }
        };
        self.owned.extend(meta.owners());
        self.read.warnings.extend(gang::two_groups(document, "metadata.labels"));
        let read =
            pod::read(document, &meta, &self.context).and_then(|pod| Ok((pod, facts::is_unready(document)?)));
        match read {
            Ok((pod, is_unready)) => {
                let pod = self.interned(pod);
                if is_unready {
                    self.read.disruption.unready.insert(pod.id.clone());
                }
                if pod.terminating.is_some()
                    && meta.owner_references.iter().any(|one| one.kind == "StatefulSet")
                {
                    self.read.disruption.returning.insert(pod.id.clone());
                }
                self.read.pods.push(pod);
            }
            Err(error) => self.read.invalid_pods.push((meta.pod_id(), error.to_string())),
        }
        Ok(())
    }

    /// The pod with a spec and labels that equal pods share: the solver asks once for all of them.
    fn interned(&mut self, mut pod: Pod) -> Pod {
        pod.spec = match self.specs.get_key_value(&pod.spec) {
            Some((known, ())) => Arc::clone(known),
            None => {
                self.specs.insert(Arc::clone(&pod.spec), ());
                pod.spec
            }
        };
        pod.labels = match self.labels.get(&pod.labels) {
            Some(known) => Arc::clone(known),
            None => {
                self.labels.insert(Arc::clone(&pod.labels));
                pod.labels
            }
        };
        pod
    }

    fn controller(&mut self, document: &Document) -> Result<(), ManifestError> {
        let meta = self.meta(document)?;
        let controller = controller::Controller::read(document, &meta, &self.context)?;
        self.read.warnings.extend(gang::two_groups(document, "spec.template.metadata.labels"));
        self.replicas = self.replicas.saturating_add(controller.replicas);
        if self.replicas > controller::PODS_MAX {
            let field = if document.kind == "Job" { "spec.parallelism" } else { "spec.replicas" };
            let (most, found) = (controller::PODS_MAX, controller.replicas);
            let problem = format!("expected at most {most} pods of all controllers, found {found} more");
            return Err(document.error(field, problem));
        }
        self.controllers.push(controller);
        Ok(())
    }

    fn finish(mut self) -> Manifests {
        let as_objects = self.read.pods.len();
        controller::expand(std::mem::take(&mut self.controllers), self.owned, &self.context, &mut self.read);
        let told = gang::settle(&mut self.read.pods, as_objects, &self.context);
        self.read.warnings.extend(told);
        for node in &mut self.read.nodes {
            self.context.limit_volumes(node);
        }
        // Input without any class is a sketch. Input with some that lacks one is most likely misspelt.
        let classes: BTreeSet<&str> = self.read.classes.iter().map(|class| class.name.as_str()).collect();
        if !classes.is_empty() {
            let missing = self.class_refs.iter().filter(|(name, _)| !classes.contains(name.as_str()));
            self.read.warnings.extend(missing.map(|(_, told)| told.clone()));
        }
        for (kind, count) in self.ignored {
            let why = match kind.as_str() {
                "CronJob" => "its Jobs are read where they exist",
                _ => "not a kind that placement depends on",
            };
            self.read.warnings.push(format!("{count} {kind} ignored: {why}"));
        }
        self.read
    }
}
