//! Kubernetes manifests, from files or standard input, into the core's model.
//!
//! ```text
//!  files --document--> values --objects (slim serde types)--> pod, pool, node --> Manifests --> Snapshot
//! ```
//!
//! Fields that Assay does not use are ignored, as any controller ignores another's. A file that is no YAML, or a pool, node or
//! class that says something impossible, is an error that names file, document, object and field. A *pod* that says
//! something impossible is kept aside with the same words, and does not disturb the others.

mod controller;
mod document;
mod error;
mod node;
mod objects;
mod pod;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_core::model::{
    DaemonSet, Node, NodeClass, NodePool, Plan, Pod, PodId, PoolReason, ReasonCode, Snapshot, Unschedulable,
};

pub use document::{Source, read_sources};
pub use error::ManifestError;
pub use pod::{PodTemplateError, pod_spec_from_value};

use document::Document;
use objects::Meta;

/// Everything that was read.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Pods, those of expanded controllers included.
    pub pods: Vec<Pod>,
    /// DaemonSets.
    pub daemon_sets: Vec<DaemonSet>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pools.
    pub pools: Vec<NodePool>,
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
        for source in sources {
            for document in document::split(source)? {
                reader.read(&document)?;
            }
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
        for pool in &self.pools {
            let class = || NodeClass::with_defaults(&pool.node_class);
            classes.entry(pool.node_class.clone()).or_insert_with(class);
        }
        Snapshot {
            pods: self.pods,
            daemon_sets: self.daemon_sets,
            nodes: self.nodes,
            pools: self.pools,
            instance_types: classes
                .iter()
                .map(|(name, class)| (name.clone(), Arc::new(instance_types(class))))
                .collect(),
            classes: classes.into_values().collect(),
            ..Snapshot::default()
        }
    }

    /// The reasons of pods that cannot be read, as a plan lists them.
    pub fn report_invalid(invalid: Vec<(PodId, String)>, plan: &mut Plan) {
        plan.unschedulable.extend(invalid.into_iter().map(|(pod, detail)| Unschedulable {
            pod,
            reasons: vec![PoolReason { pool: None, reason: ReasonCode::InvalidPod, detail }],
        }));
        plan.unschedulable.sort_by(|one, two| one.pod.cmp(&two.pod));
    }
}

/// Reads documents one by one.
#[derive(Debug, Default)]
struct Reader {
    read: Manifests,
    /// Names seen, by kind, so that a second object of one name is noticed.
    seen: BTreeSet<(&'static str, String)>,
    /// Controllers that wait for their pods, in the order they came.
    controllers: Vec<controller::Controller>,
    /// Kinds nobody here reads, with how many there were.
    ignored: BTreeMap<String, usize>,
}

impl Reader {
    fn read(&mut self, document: &Document) -> Result<(), ManifestError> {
        match document.kind.as_str() {
            "Pod" => self.pod(document),
            "Deployment" | "ReplicaSet" | "StatefulSet" | "Job" => {
                let controller = controller::Controller::read(document)?;
                self.controllers.push(controller);
                Ok(())
            }
            "DaemonSet" => self.daemon_set(document),
            "Node" => {
                let node = node::read(document)?;
                self.name_once("Node", document, node.name.to_string())?;
                self.read.nodes.push(node);
                Ok(())
            }
            "NodePool" => {
                let pool = pool::read(document, &mut self.read.warnings)?;
                self.name_once("NodePool", document, pool.name.clone())?;
                self.read.pools.push(pool);
                Ok(())
            }
            "AKSNodeClass" => {
                let class = pool::read_class(document)?;
                self.name_once("AKSNodeClass", document, class.name.clone())?;
                self.read.classes.push(class);
                Ok(())
            }
            // Read by Kubernetes or by later decisions; nothing of them changes this one.
            "Namespace"
            | "PodDisruptionBudget"
            | "StorageClass"
            | "PersistentVolume"
            | "PersistentVolumeClaim" => Ok(()),
            other => {
                *self.ignored.entry(other.to_owned()).or_default() += 1;
                Ok(())
            }
        }
    }

    fn name_once(
        &mut self,
        kind: &'static str,
        document: &Document,
        name: String,
    ) -> Result<(), ManifestError> {
        if self.seen.insert((kind, name)) {
            Ok(())
        } else {
            Err(document.error("metadata.name", "is given twice"))
        }
    }

    fn pod(&mut self, document: &Document) -> Result<(), ManifestError> {
        let meta = Meta::read(document)?;
        let id = meta.pod_id();
        self.name_once("Pod", document, id.to_string())?;
        match pod::read(document, &meta) {
            Ok(pod) => self.read.pods.push(pod),
            Err(error) => self.read.invalid_pods.push((id, error.to_string())),
        }
        Ok(())
    }

    fn daemon_set(&mut self, document: &Document) -> Result<(), ManifestError> {
        let meta = Meta::read(document)?;
        let id = meta.pod_id();
        self.name_once("DaemonSet", document, id.to_string())?;
        let template: objects::Workload = document.typed()?;
        let spec = pod::spec(document, "spec.template.spec", &template.spec.template.spec)?;
        self.read.daemon_sets.push(DaemonSet { id, spec: Arc::new(spec) });
        Ok(())
    }

    fn finish(mut self) -> Manifests {
        controller::expand(std::mem::take(&mut self.controllers), &mut self.read);
        for (kind, count) in self.ignored {
            self.read.warnings.push(format!("{count} {kind} ignored: not a kind that placement depends on"));
        }
        self.read
    }
}
