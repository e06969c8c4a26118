//! Launches against an API server and a cloud that lose answers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use assay_core::catalog::CapacityType;
use assay_core::engine::{Event, LaunchFailure};
use assay_core::model::{ClaimState, Labels, NodeClaim, ResourceList, Timestamp};
use assay_core::requirement::Requirements;
use assay_shared::units::UsdPerHour;
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::claims::{ClaimJob, ClaimMemory, ClaimWriter, Patience};
use super::gate::{Failed, Gate};
use super::told::Told;
use crate::cloud::{ClassFacts, Cloud, CloudError, CloudFuture, CreateError, Instance};
use crate::kube::api::AKSNodeClassSpec;
use crate::kube::lease::Leadership;
use crate::web::Metrics;

/// An API server of one claim: what was asked of it, and whether the claim is there and is being deleted.
#[derive(Debug, Default)]
struct Api {
    asked: Vec<String>,
    there: bool,
    deleting: bool,
    /// So many creations of it get no answer although they work.
    lost: usize,
}

impl Api {
    /// An answer, or none.
    fn answer(&mut self, method: &str, path: &str) -> Option<(u16, Value)> {
        if !path.contains("/nodeclaims") {
            return Some((404, status(404, "NotFound")));
        }
        self.asked.push(method.to_owned());
        let mut metadata = json!({"name": "c", "resourceVersion": "1"});
        if self.deleting {
            metadata["deletionTimestamp"] = json!("2026-10-02T12:00:00Z");
        }
        let claim = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": metadata});
        match method {
            "POST" if self.there => Some((409, status(409, "AlreadyExists"))),
            "POST" => {
                self.there = true;
                let is_lost = self.lost > 0;
                self.lost = self.lost.saturating_sub(1);
                (!is_lost).then_some((201, claim))
            }
            _ if !self.there => Some((404, status(404, "NotFound"))),
            "DELETE" => {
                self.there = false;
                Some((200, claim))
            }
            _ => Some((200, claim)),
        }
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

#[derive(Debug, Clone)]
struct Wire(Arc<Mutex<Api>>);

impl tower::Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.lock().unwrap().answer(request.method().as_str(), request.uri().path());
        Box::pin(async move {
            let (code, body) = answer.ok_or(std::io::ErrorKind::ConnectionReset)?;
            Ok(Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap())
        })
    }
}

/// A cloud that makes what it is asked for and says nothing, so many times.
#[derive(Debug, Default)]
struct Silent {
    silences: usize,
    asked: AtomicUsize,
    made: Mutex<BTreeSet<String>>,
    ever_made: Mutex<BTreeSet<String>>,
}

impl Cloud for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn create<'a>(&'a self, claim: &'a NodeClaim) -> CloudFuture<'a, Result<Instance, CreateError>> {
        let asked = self.asked.fetch_add(1, Relaxed);
        for made in [&self.made, &self.ever_made] {
            made.lock().unwrap().insert(claim.name.to_string());
        }
        let instance = Instance {
            claim: Arc::clone(&claim.name),
            provider_id: "id".to_owned(),
            instance_type: Arc::clone(&claim.instance_type),
            zone: Arc::clone(&claim.zone),
            capacity_type: CapacityType::OnDemand,
            price: claim.price,
            created: Timestamp(0),
        };
        let answer =
            if asked < self.silences { Err(CloudError("no answer".to_owned()).into()) } else { Ok(instance) };
        Box::pin(async { answer })
    }

    fn delete<'a>(&'a self, claim: &'a str) -> CloudFuture<'a, Result<(), CloudError>> {
        self.made.lock().unwrap().remove(claim);
        Box::pin(async { Ok(()) })
    }

    fn class<'a>(&'a self, _: &'a AKSNodeClassSpec) -> CloudFuture<'a, Result<ClassFacts, CloudError>> {
        Box::pin(async { Err(CloudError("none".to_owned())) })
    }

    fn list(&self) -> CloudFuture<'_, Result<Vec<Instance>, CloudError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

struct Launch {
    api: Arc<Mutex<Api>>,
    cloud: Arc<Silent>,
    writer: ClaimWriter,
    answers: mpsc::Receiver<Event>,
    _leads: watch::Sender<Leadership>,
}

impl Launch {
    fn new(api: Api, silences: usize, most: Duration) -> Self {
        let api = Arc::new(Mutex::new(api));
        let client = Client::new(Wire(Arc::clone(&api)), "default");
        let cloud = Arc::new(Silent { silences, ..Silent::default() });
        let (leads, leadership) = leading();
        let (sender, answers) = mpsc::channel(16);
        let told = Arc::new(Told::start(client.clone(), Arc::new(Metrics::new())));
        let writer = ClaimWriter::new(client, Arc::clone(&cloud) as _, Gate::new(leadership), told, sender)
            .with_patience(Patience { pause: Duration::from_millis(1), most });
        Self { api, cloud, writer, answers, _leads: leads }
    }

    /// Asks for the claim; what comes of it.
    async fn create(&mut self) -> Vec<Event> {
        let mut memory = ClaimMemory::default();
        let claim = claim();
        self.writer
            .run(&Arc::clone(&claim.name), &mut memory, 1, vec![ClaimJob::Create(Box::new(claim))])
            .await;
        let mut events = Vec::new();
        while let Ok(event) = self.answers.try_recv() {
            events.push(event);
        }
        events
    }

    fn asked(&self, method: &str) -> usize {
        self.api.lock().unwrap().asked.iter().filter(|one| *one == method).count()
    }
}

fn claim() -> NodeClaim {
    NodeClaim {
        name: "c".into(),
        pool: String::new(),
        node_class: "default".to_owned(),
        instance_type: "size".into(),
        zone: "z-1".into(),
        capacity_type: CapacityType::OnDemand,
        price: UsdPerHour(1),
        requirements: Requirements::new(),
        requests: ResourceList::default(),
        capacity: ResourceList::default(),
        allocatable: ResourceList::default(),
        labels: Labels::new(),
        annotations: Labels::new(),
        taints: Vec::new(),
        startup_taints: Vec::new(),
        termination_grace_period: None,
        template_hash: None,
        class_hash: None,
        state: ClaimState::Launching,
        since: Timestamp(0),
        created: Timestamp(0),
        provider_id: None,
        node: None,
        deleting: None,
        terminate_by: None,
        disruption_reason: None,
    }
}

fn leading() -> (watch::Sender<Leadership>, watch::Receiver<Leadership>) {
    watch::channel(Leadership::Leader { epoch: 1, until: Instant::now() + Duration::from_secs(600) })
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_launch_whose_answers_get_lost_makes_one_claim_and_one_vm() {
    let mut launch = Launch::new(Api { lost: 1, ..Api::default() }, 20, LONG);
    let events = launch.create().await;
    assert!(matches!(&*events, [Event::Launched { .. }]), "no other plan is made: {events:?}");
    assert_eq!(launch.asked("POST"), 2);
    assert_eq!(launch.asked("DELETE"), 0);
    assert_eq!(launch.cloud.asked.load(Relaxed), 21);
    assert_eq!(launch.cloud.ever_made.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cloud_that_stays_silent_for_as_long_as_a_launch_may_take_keeps_nothing() {
    let mut launch = Launch::new(Api::default(), usize::MAX, Duration::from_millis(50));
    let events = launch.create().await;
    assert!(
        matches!(&*events, [Event::LaunchFailed { error, .. }] if error.failure == LaunchFailure::Other),
        "{events:?}"
    );
    assert!(launch.cloud.made.lock().unwrap().is_empty());
    assert!(!launch.api.lock().unwrap().there);
}

#[tokio::test]
async fn a_claim_that_somebody_deletes_is_not_asked_for_any_longer() {
    let mut launch = Launch::new(Api { deleting: true, ..Api::default() }, usize::MAX, LONG);
    assert!(launch.create().await.is_empty(), "its end takes its own course");
    assert_eq!(launch.cloud.asked.load(Relaxed), 1);
}

#[tokio::test]
async fn a_new_term_waits_for_the_calls_of_the_one_before() {
    let (leads, leadership) = leading();
    let gate = Gate::new(leadership);
    let (sent, answered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let call = {
        let (gate, sent, answered) = (gate.clone(), Arc::clone(&sent), Arc::clone(&answered));
        tokio::spawn(async move {
            let attempt = || async {
                sent.notify_one();
                answered.notified().await;
                Err::<Infallible, _>(kube::Error::LinesCodecMaxLineLengthExceeded)
            };
            gate.call(1, attempt).await
        })
    };
    sent.notified().await;
    let until = Instant::now() + LONG;
    leads.send_replace(Leadership::Leader { epoch: 2, until });
    let mut quiet = Box::pin(gate.quiet());
    assert!(futures_pending(&mut quiet).await, "a call is on its way");
    answered.notify_one();
    quiet.await;
    assert_eq!(call.await.unwrap().unwrap_err(), Failed::NotLeading, "and it is not made again");
}

/// Whether a future is not done, now that everybody else had a turn.
async fn futures_pending(future: &mut Pin<Box<impl Future<Output = ()>>>) -> bool {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}
