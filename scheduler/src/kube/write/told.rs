//! Kubernetes events: what was decided and why, where people look for it.
//!
//! Their source is `karpenter`, as the field selectors and dashboards of its users expect. The same words about the same
//! object are said once in two minutes, all together at most so many a second; what is over is dropped and counted, for an
//! event is a courtesy and must never hold up a decision.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_core::engine::EventKind;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ObjectRef;
use crate::web::Metrics;

/// Karpenter's name as the source of events.
const SOURCE: &str = "karpenter";
/// The same words are not said again for so long (Karpenter's).
const REPEAT_AFTER: Duration = Duration::from_secs(120);
/// Different things remembered for that; beyond, repetitions are let through.
const REMEMBERED: usize = 16_384;
/// Events that wait for the API server.
const WAITING: usize = 1_024;
/// Events in a burst, and one a second per this many of them after it.
const BURST: f64 = 100.0;
/// Events a second.
const PER_SECOND: f64 = 10.0;
/// The API server takes so many characters of a message.
const MESSAGE_MAX: usize = 1_024;

/// Where events are handed in.
#[derive(Debug)]
pub struct Told {
    outbox: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    said: Mutex<Said>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Said {
    recently: HashMap<u64, Instant>,
    tokens: f64,
    filled: Instant,
}

impl Told {
    /// Starts sending.
    pub(super) fn start(client: Client, metrics: Arc<Metrics>) -> Self {
        let (outbox, mut inbox) = mpsc::channel::<Event>(WAITING);
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
                if let Err(error) = events.create(&PostParams::default(), &event).await {
                    debug!(%error, "event not recorded");
                }
            }
        });
        let said = Said { recently: HashMap::new(), tokens: BURST, filled: Instant::now() };
        Self { outbox, metrics, said: Mutex::new(said), dropped: AtomicU64::new(0) }
    }

    /// Events that were not sent because there were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Tells people that all is as it should be.
    pub(crate) fn inform(&self, object: &ObjectRef, reason: &str, message: String) {
        self.tell(object, EventKind::Normal, reason, message);
    }

    /// A decision about an object could not be carried out.
    pub(super) fn not_written(&self, object: &ObjectRef, why: String) {
        self.metrics.effect_failed(&object.kind);
        self.warn(object, "NotWritten", why);
    }

    pub(super) fn warn(&self, object: &ObjectRef, reason: &str, message: String) {
        self.tell(object, EventKind::Warning, reason, message);
    }

    /// Tells people.
    pub(super) fn tell(&self, object: &ObjectRef, kind: EventKind, reason: &str, message: String) {
        let mut hasher = DefaultHasher::new();
        (object, reason, &message).hash(&mut hasher);
        let key = hasher.finish();
        let admitted = self.said.lock().unwrap_or_else(PoisonError::into_inner).admit(key, Instant::now());
        match admitted {
            Admitted::Repeated => return,
            Admitted::TooMany => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Admitted::Yes => {}
        }
        match kind {
            EventKind::Normal => info!(object = %object, reason, "{message}"),
            EventKind::Warning => warn!(object = %object, reason, "{message}"),
        }
        // A full channel means that the API server is away.
        if self.outbox.try_send(event(object, kind, reason, message, key)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    Yes,
    Repeated,
    TooMany,
}

impl Said {
    fn admit(&mut self, key: u64, now: Instant) -> Admitted {
        if self.recently.get(&key).is_some_and(|at| now.duration_since(*at) < REPEAT_AFTER) {
            return Admitted::Repeated;
        }
        let gained = now.duration_since(self.filled).as_secs_f64() * PER_SECOND;
        self.tokens = (self.tokens + gained).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            return Admitted::TooMany;
        }
        self.tokens -= 1.0;
        if self.recently.len() >= REMEMBERED {
            self.recently.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        }
        if self.recently.len() < REMEMBERED {
            self.recently.insert(key, now);
        }
        Admitted::Yes
    }
}

fn event(object: &ObjectRef, kind: EventKind, reason: &str, mut message: String, key: u64) -> Event {
    if message.len() > MESSAGE_MAX {
        let cut = (0..=MESSAGE_MAX - 4).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        message.push_str(" ...");
    }
    let now = Timestamp::now();
    // Events of cluster-scoped objects are kept in `default`, as Kubernetes' own recorder does.
    let namespace = object.namespace.clone().unwrap_or_else(|| "default".to_owned());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", object.name, key ^ now.as_microsecond().cast_unsigned())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(object.api_version().to_owned()),
            kind: Some(object.kind.to_owned()),
            name: Some(object.name.clone()),
            namespace: object.namespace.clone(),
            uid: object.uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some(match kind {
            EventKind::Normal => "Normal".to_owned(),
            EventKind::Warning => "Warning".to_owned(),
        }),
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(SOURCE.to_owned()), host: None }),
        reporting_component: Some(SOURCE.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_two_minutes_and_a_flood_is_cut() {
        let begin = Instant::now();
        let mut said = Said { recently: HashMap::new(), tokens: BURST, filled: begin };
        assert_eq!(said.admit(1, begin), Admitted::Yes);
        assert_eq!(said.admit(1, begin + Duration::from_secs(119)), Admitted::Repeated);
        assert_eq!(said.admit(1, begin + REPEAT_AFTER), Admitted::Yes);
        let at = begin + REPEAT_AFTER * 2;
        let admitted = (100..400).filter(|key| said.admit(*key, at) == Admitted::Yes).count();
        assert_eq!(admitted, 100);
        assert_eq!(said.admit(1000, at), Admitted::TooMany);
        assert_eq!(said.admit(1000, at + Duration::from_secs(1)), Admitted::Yes);
    }

    #[test]
    fn events_are_those_of_karpenter_to_whoever_selects_them() {
        let object = ObjectRef::pod("web", "a-1");
        let event = event(&object, EventKind::Warning, "FailedScheduling", "é".repeat(2000), 7);
        assert_eq!(event.source.unwrap().component.as_deref(), Some("karpenter"));
        assert_eq!(event.involved_object.namespace.as_deref(), Some("web"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("web"));
        assert!(event.message.unwrap().len() <= MESSAGE_MAX);
        let object = ObjectRef::node("n");
        let event = super::event(&object, EventKind::Normal, "Registered", String::new(), 7);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    }
}
