//! Effects as API calls.
//!
//! ```text
//!  driver --Effect, term--> Writer --by object--> lanes --gate (leader, this term?)--> API server, cloud
//!                                                   |
//!  driver <--Event (launched, refused, gone ...)----+
//! ```
//!
//! Each object has a lane: what is asked of it is done one after the other, in order, and what waits together is done
//! together. Every call passes the gate: a scheduler that does not lead any more writes nothing, whatever it still has at
//! hand. Errors that pass are tried again; what matters and fails for good the engine asks for again.
//!
//! | file | what |
//! |---|---|
//! | `gate` | may this be written now; tries a call until it is done |
//! | `retry` | what an error means, and pauses |
//! | `lanes` | work by object |
//! | `claims` | NodeClaims and their VMs |
//! | `nodes` | labels, conditions and taints of Nodes |
//! | `pods` | evictions |
//! | `told` | Kubernetes events |

mod claims;
mod gate;
mod lanes;
mod nodes;
mod object_ref;
mod pods;
mod retry;
#[cfg(test)]
mod tests;
mod told;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{Effect, Engine, Event, EventKind};
use assay_core::model::{PodId, Timestamp};
use assay_shared::labels::karpenter;
use kube::Client;
use kube::api::PatchParams;
use tokio::sync::mpsc;

use crate::cloud::Cloud;
use crate::quantities::quantities;
use crate::web::Metrics;
use claims::{ClaimJob, ClaimMemory, ClaimWriter, MachineStatus};
pub use gate::Gate;
use lanes::{Lanes, Work};
use nodes::{NodeJob, NodeMemory, NodeWriter};
pub use object_ref::ObjectRef;
use pods::{PodJob, PodWriter};
pub use told::Told;

/// Who we are to server-side apply.
pub const FIELD_MANAGER: &str = "assay";
/// A patch in our name.
pub(crate) fn as_ourselves() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// What is decided of a node comes in a few steps, each from the answer to another; so long they wait for each other.
const NODES_WAIT: Duration = Duration::from_millis(50);
/// Conditions of claims are for people, and for whoever leads next.
const CONDITIONS_WAIT: Duration = Duration::from_millis(250);
/// Objects written at once. The client's own limit of requests per second is below what these could ask for; claims wait for
/// the cloud most of their time.
const AT_ONCE: usize = 256;

/// Carries effects out.
pub struct Writer {
    lanes: Lanes<Objects>,
    objects: Arc<Objects>,
    gate: Gate,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts writing. What comes of it is told to `answers`.
    #[must_use]
    pub fn start(
        client: Client,
        cloud: Arc<dyn Cloud>,
        gate: Gate,
        answers: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let told = Arc::new(Told::start(client.clone(), metrics));
        let objects = Arc::new(Objects {
            claims: ClaimWriter::new(client.clone(), cloud, gate.clone(), Arc::clone(&told), answers.clone()),
            nodes: NodeWriter::new(client.clone(), gate.clone(), Arc::clone(&told)),
            pods: PodWriter::new(client, gate.clone(), answers),
            told,
        });
        Self { lanes: Lanes::start(Arc::clone(&objects), AT_ONCE), objects, gate }
    }

    /// Waits until no call is on its way any more that was let through in an earlier term.
    pub async fn quiet(&self) {
        self.gate.quiet().await;
    }

    /// What people are told.
    #[must_use]
    pub fn told(&self) -> &Arc<Told> {
        &self.objects.told
    }

    /// A pool is gone: claims of another one of its name have another owner.
    pub fn forget_pool(&self, pool: &str) {
        self.objects.claims.forget_pool(pool);
    }

    /// A node is gone, and with it whatever was still to be written to it.
    pub fn forget_node(&self, node: &Arc<str>) {
        self.node(u64::MAX, node, NodeJob::Forget);
    }

    /// Carries out what was decided in `term` at `now`; `engine` is the one that decided. What is put on record bears that time:
    /// the clock of this machine may be off.
    pub fn carry_out(&self, term: u64, now: Timestamp, effect: Effect, engine: &Engine) {
        match effect {
            Effect::CreateInstance { claim } => {
                self.claim(term, &Arc::clone(&claim.name), ClaimJob::Create(claim));
            }
            Effect::DeleteClaim { claim } => self.claim(term, &claim, ClaimJob::Delete),
            Effect::DeleteInstance { claim } => self.claim(term, &claim, ClaimJob::DeleteInstance),
            Effect::ReleaseClaim { claim, node } => self.claim(term, &claim, ClaimJob::Release { node }),
            Effect::SetClaimCondition { claim, condition } => {
                let machine = machine_status(engine, &claim);
                self.claim(term, &claim, ClaimJob::Condition { at: now, condition, machine });
            }
            Effect::SetTerminationDeadline { claim, at } => {
                let value = claims::rfc3339(at);
                self.claim(term, &claim, ClaimJob::Annotate { key: karpenter::TERMINATION_TIMESTAMP, value });
            }
            Effect::AdoptNode { node, claim, annotations } => {
                self.node(term, &node, NodeJob::Adopt { claim, annotations });
            }
            Effect::LabelNode { node, labels } => self.node(term, &node, NodeJob::Label(labels)),
            Effect::TaintNode { node, taint } => self.node(term, &node, NodeJob::Taint(taint)),
            Effect::UntaintNode { node, taint } => self.node(term, &node, NodeJob::Untaint(taint)),
            Effect::SetNodeCondition { node, condition } => {
                self.node(term, &node, NodeJob::Condition { at: now, condition });
            }
            Effect::EvictPod { pod, node } => self.pod(term, pod, PodJob::Evict { node }),
            Effect::DeletePod { pod, node, grace } => self.pod(term, pod, PodJob::Delete { node, grace }),
            Effect::NominatePod { pod, target } => {
                let object = ObjectRef::pod(&pod.namespace, &pod.name);
                let kind = if engine.machines().contains_key(&target) { "nodeclaim" } else { "node" };
                let message = format!("Pod should schedule on: {kind}/{target}");
                self.objects.told.tell(&object, EventKind::Normal, "Nominated", message);
            }
            Effect::RecordEvent { object, kind, reason, message } => match ObjectRef::parse(&object) {
                Some(object) => self.objects.told.tell(&object, kind, reason, message),
                None => tracing::warn!(object, reason, "{message}"),
            },
            Effect::OfferingUnavailable { instance_type, zone, capacity_type } => {
                tracing::info!(%instance_type, %zone, %capacity_type, "offering is not to be had");
            }
        }
    }

    fn claim(&self, term: u64, name: &Arc<str>, job: ClaimJob) {
        self.lanes.push(Key::Claim(Arc::clone(name)), (term, Job::Claim(job)));
    }

    fn node(&self, term: u64, name: &Arc<str>, job: NodeJob) {
        self.lanes.push(Key::Node(Arc::clone(name)), (term, Job::Node(job)));
    }

    fn pod(&self, term: u64, id: PodId, job: PodJob) {
        self.lanes.push(Key::Pod(id), (term, Job::Pod(job)));
    }
}

fn machine_status(engine: &Engine, claim: &str) -> MachineStatus {
    let Some(machine) = engine.machines().get(claim) else { return MachineStatus::default() };
    MachineStatus {
        provider_id: machine.claim.provider_id.clone(),
        node: machine.claim.node.clone(),
        capacity: quantities(&machine.claim.capacity),
        allocatable: quantities(&machine.claim.allocatable),
    }
}

/// Who has a lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(Arc<str>),
    Node(Arc<str>),
    Pod(PodId),
}

#[derive(Debug)]
enum Job {
    Claim(ClaimJob),
    Node(NodeJob),
    Pod(PodJob),
}

/// What a lane remembers.
#[derive(Debug, Default)]
struct Memory {
    claim: ClaimMemory,
    node: NodeMemory,
}

/// The writers of all kinds.
#[derive(Debug)]
struct Objects {
    claims: ClaimWriter,
    nodes: NodeWriter,
    pods: PodWriter,
    told: Arc<Told>,
}

impl Work for Objects {
    type Key = Key;
    type Job = (u64, Job);
    type Memory = Memory;

    fn patience(&self, (_, job): &(u64, Job)) -> Duration {
        match job {
            Job::Claim(ClaimJob::Condition { .. }) => CONDITIONS_WAIT,
            Job::Node(NodeJob::Forget) | Job::Claim(_) | Job::Pod(_) => Duration::ZERO,
            Job::Node(_) => NODES_WAIT,
        }
    }

    async fn run(&self, key: &Key, memory: &mut Memory, jobs: Vec<(u64, Job)>) {
        // Of an earlier term nothing is written any more.
        let term = jobs.iter().map(|(term, _)| *term).max().unwrap_or(0);
        let jobs = jobs.into_iter().filter(|(one, _)| *one == term).map(|(_, job)| job);
        match key {
            Key::Claim(name) => {
                let jobs = jobs.filter_map(|job| if let Job::Claim(job) = job { Some(job) } else { None });
                self.claims.run(name, &mut memory.claim, term, jobs.collect()).await;
            }
            Key::Node(name) => {
                let jobs = jobs.filter_map(|job| if let Job::Node(job) = job { Some(job) } else { None });
                self.nodes.run(name, &mut memory.node, term, jobs.collect()).await;
            }
            Key::Pod(id) => {
                let jobs = jobs.filter_map(|job| if let Job::Pod(job) = job { Some(job) } else { None });
                self.pods.run(id, term, jobs.collect()).await;
            }
        }
    }

    fn is_over(&self, key: &Key, memory: &Memory) -> bool {
        match key {
            Key::Claim(_) => memory.claim.is_over(),
            Key::Node(_) => memory.node.is_over(),
            Key::Pod(_) => true,
        }
    }
}
