//! What we ask of pods: to be evicted, and to be deleted where a node's termination grace period leaves no choice.
//!
//! A pod of the same name may be another one by now. So the pod is read first, and the request names its uid.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{Event, EvictionAnswer};
use assay_core::model::PodId;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::{DeleteParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, Error};
use tokio::sync::mpsc;

use super::gate::{Failed, Gate};

/// One thing to ask of a pod.
#[derive(Debug, Clone)]
pub(super) enum PodJob {
    /// To leave `node`, as its disruption budgets allow.
    Evict {
        /// Where it runs.
        node: Arc<str>,
    },
    /// To be gone within `grace`, whatever its budgets say.
    Delete {
        /// Where it runs.
        node: Arc<str>,
        /// How long its processes have.
        grace: Duration,
    },
}

/// Asks pods.
pub(super) struct PodWriter {
    client: Client,
    gate: Gate,
    answers: mpsc::Sender<Event>,
}

impl fmt::Debug for PodWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodWriter").finish_non_exhaustive()
    }
}

impl PodWriter {
    pub(super) const fn new(client: Client, gate: Gate, answers: mpsc::Sender<Event>) -> Self {
        Self { client, gate, answers }
    }

    pub(super) async fn run(&self, id: &PodId, term: u64, jobs: Vec<PodJob>) {
        // A deletion makes an eviction that waits before it needless.
        let Some(job) = jobs.into_iter().max_by_key(|job| matches!(job, PodJob::Delete { .. })) else {
            return;
        };
        let answer = match self.ask(id, term, &job).await {
            Ok(answer) => answer,
            Err(Failed::NotLeading) => return,
            Err(Failed::Gone) => EvictionAnswer::Gone,
            Err(Failed::Conflict | Failed::Exists) => {
                EvictionAnswer::Refused { message: "it changed in between".to_owned() }
            }
            Err(Failed::Refused(message)) => EvictionAnswer::Refused { message },
        };
        // Closed only when the driver ends.
        let _ = self.answers.send(Event::EvictionAnswered { pod: id.clone(), answer }).await;
    }

    async fn ask(&self, id: &PodId, term: u64, job: &PodJob) -> Result<EvictionAnswer, Failed> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &id.namespace);
        let pod = self.gate.call(term, || pods.get(&id.name)).await?;
        let (PodJob::Evict { node } | PodJob::Delete { node, .. }) = job;
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(&**node) {
            return Ok(EvictionAnswer::Gone);
        }
        if pod.metadata.deletion_timestamp.is_some() && matches!(job, PodJob::Evict { .. }) {
            return Ok(EvictionAnswer::Accepted);
        }
        match job {
            PodJob::Evict { .. } => {
                let options = DeleteOptions {
                    preconditions: Some(Preconditions { uid: pod.metadata.uid, ..Preconditions::default() }),
                    ..DeleteOptions::default()
                };
                let eviction = Eviction {
                    metadata: ObjectMeta {
                        name: Some(id.name.to_string()),
                        namespace: Some(id.namespace.to_string()),
                        ..ObjectMeta::default()
                    },
                    delete_options: Some(options),
                };
                let attempt = || async {
                    let asked: Result<Status, Error> = pods
                        .create_subresource("eviction", &id.name, &PostParams::default(), &eviction)
                        .await;
                    match asked {
                        Ok(_) => Ok(EvictionAnswer::Accepted),
                        // 429 is a budget's no, told with its cause; only one without is the server's own.
                        Err(Error::Api(status)) if status.code == 429 && is_budget(&status) => {
                            Ok(EvictionAnswer::Refused { message: status.message.clone() })
                        }
                        // Several budgets select the pod: the API server evicts none of these.
                        Err(Error::Api(status))
                            if status.code == 500 && status.message.contains("PodDisruptionBudget") =>
                        {
                            Ok(EvictionAnswer::Refused { message: status.message.clone() })
                        }
                        Err(error) => Err(error),
                    }
                };
                self.gate.call(term, attempt).await
            }
            PodJob::Delete { grace, .. } => {
                let params = DeleteParams {
                    grace_period_seconds: Some(u32::try_from(grace.as_secs()).unwrap_or(u32::MAX)),
                    preconditions: Some(kube::api::Preconditions {
                        uid: pod.metadata.uid.clone(),
                        ..kube::api::Preconditions::default()
                    }),
                    ..DeleteParams::default()
                };
                self.gate.call(term, || pods.delete(&id.name, &params)).await?;
                Ok(EvictionAnswer::Accepted)
            }
        }
    }
}

fn is_budget(status: &Status) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "DisruptionBudget")
}
