//! Streams and the observer against an API server that does what API servers do.

use std::sync::Arc;

use assay_core::model::PodId;
use tokio::sync::Notify;

use super::mock::{Act, MockApi, answer, event, list, watch};
use super::store::Change;
use super::stream::Stream;
use super::*;

/// Not patient.
fn settings() -> StreamSettings {
    StreamSettings {
        watch_idle: std::time::Duration::from_millis(500),
        backoff_least: std::time::Duration::from_millis(1),
        backoff_most: std::time::Duration::from_millis(20),
        ..StreamSettings::default()
    }
}

struct Heard {
    changes: mpsc::Receiver<Change>,
    health: health::Health,
    _streams: JoinSet<()>,
}

impl Heard {
    /// Listens to the stream of one kind.
    fn of(api: &MockApi, kind: Kind, settings: StreamSettings) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let health = health::Health::default();
        let mut streams = JoinSet::new();
        streams.spawn(
            Stream {
                client: api.client(),
                kind,
                settings,
                changes: sender,
                pages: Arc::new(Semaphore::new(1)),
                health: health.clone(),
                random: Pcg64Mcg::seed_from_u64(1),
            }
            .run(),
        );
        Self { changes, health, _streams: streams }
    }

    /// The next changes in short.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(match self.changes.recv().await.unwrap() {
                Change::Listing(_) => "listing".to_owned(),
                Change::Listed(_) => "listed".to_owned(),
                Change::Deleted(_, id) => format!("-{}", id.name),
                Change::Applied(Ok(object)) => object.id.name.to_string(),
                Change::Applied(Err(unreadable)) => {
                    let name = unreadable.id.map(|id| id.name.to_string());
                    format!("!{}", name.unwrap_or_default())
                }
            });
        }
        heard
    }
}

fn object(name: &str, version: u32) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#)
}

fn is_watch(target: &str) -> bool {
    target.contains("watch=true")
}

#[tokio::test]
async fn a_list_comes_in_pages_and_the_watch_goes_on_from_its_moment() {
    let api = MockApi::start(|target, _| match target {
        _ if is_watch(target) => watch(&[event("ADDED", &object("c", 8)), event("DELETED", &object("a", 9))]),
        _ if target.contains("continue=") => list("7", "", &[&object("b", 2)]),
        _ => list("7", "a/b=", &[&object("a", 1)]),
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Pod, settings());
    assert_eq!(heard.next(6).await, ["listing", "a", "b", "listed", "c", "-a"]);
    let requests = api.requests();
    let running = "fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";
    assert_eq!(requests[0], format!("/api/v1/pods?limit=500&{running}"));
    assert_eq!(requests[1], format!("/api/v1/pods?limit=500&continue=a%2Fb%3D&{running}"));
    assert!(
        requests[2].starts_with(
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds="
        )
    );
}

#[tokio::test]
async fn a_broken_watch_goes_on_from_the_last_bookmark() {
    let api = MockApi::start(|target, before| match before {
        0 => list("7", "", &[]),
        1 => vec![
            Act::Head(200, Vec::new()),
            Act::Chunk(format!(
                "{}\n{}\n",
                event("ADDED", &object("a", 8)),
                event("BOOKMARK", &object("", 20))
            )),
            // In the middle of a line, in the middle of the answer.
            Act::Chunk(event("ADDED", &object("b", 21))[..30].to_owned()),
            Act::Cut,
        ],
        2 => vec![
            Act::Head(200, Vec::new()),
            Act::Chunk(format!("{}\n", event("ADDED", &object("b", 21)))),
            Act::End,
        ],
        _ => {
            assert!(target.contains("resourceVersion=21&"), "{target}");
            watch(&[event("MODIFIED", &object("b", 22))])
        }
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Node, settings());
    assert_eq!(heard.next(5).await, ["listing", "listed", "a", "b", "b"]);
    assert!(api.requests()[2].contains("resourceVersion=20&"), "{:?}", api.requests());
}

#[tokio::test]
async fn a_forgotten_moment_means_a_new_list() {
    let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}"#;
    let api = MockApi::start(move |target, before| match before {
        _ if !is_watch(target) => list("7", "", &[&object("a", 1)]),
        // Told in the stream.
        1 => watch(&[event("ERROR", gone)]),
        // Told before it begins.
        3 => answer(410, gone),
        _ => watch(&[event("ADDED", &object("b", 8))]),
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Node, settings());
    let round = ["listing", "a", "listed"];
    assert_eq!(heard.next(10).await, [&round[..], &round[..], &round[..], &["b"]].concat());
    let health = &heard.health.of_all()[&Kind::Node];
    assert_eq!((health.lists, health.failures, health.is_connected), (3, 2, true));
    assert!(health.last_failure.as_ref().unwrap().contains("too old resource version"));
}

#[tokio::test]
async fn what_cannot_be_read_does_not_stop_the_rest() {
    let bad = r#"{"metadata":{"name":"bad","labels":["no"]},"spec":7}"#;
    let api = MockApi::start(move |target, _| {
        if is_watch(target) {
            let lines = [
                "{\"type\":".to_owned(),
                event("ADDED", bad),
                event("ADDED", "3"),
                event("ADDED", &object("c", 8)),
            ];
            watch(&lines)
        } else {
            list("7", "", &[&object("a", 1), bad, "null", &object("b", 2)])
        }
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Pod, settings());
    assert_eq!(heard.next(6).await, ["listing", "a", "!bad", "!", "b", "listed"]);
    assert_eq!(heard.next(4).await, ["!", "!bad", "!", "c"]);
}

#[tokio::test]
async fn too_many_requests_is_waited_for_as_long_as_was_asked() {
    let api = MockApi::start(|target, before| match before {
        0 => vec![
            Act::Head(429, vec![("retry-after", "1".to_owned())]),
            Act::Chunk("slow down".to_owned()),
            Act::End,
        ],
        1 => {
            answer(503, r#"{"kind":"Status","code":503,"reason":"ServiceUnavailable","message":"starting"}"#)
        }
        _ if is_watch(target) => watch(&[]),
        _ => list("7", "", &[]),
    })
    .await;
    let started = std::time::Instant::now();
    let mut heard = Heard::of(&api, Kind::Node, settings());
    assert_eq!(heard.next(4).await, ["listing", "listing", "listing", "listed"]);
    assert!(started.elapsed() >= std::time::Duration::from_secs(1), "it asked again too early");
    let health = &heard.health.of_all()[&Kind::Node];
    assert_eq!(health.last_failure.as_deref(), Some("503 ServiceUnavailable: starting"));
}

#[tokio::test]
async fn a_list_that_stops_in_the_middle_is_asked_for_again() {
    let api = MockApi::start(|target, before| match before {
        0 => vec![Act::Head(200, Vec::new()), Act::Chunk("{\"items\":[".to_owned()), Act::Hang],
        _ if is_watch(target) => watch(&[]),
        _ => list("7", "", &[&object("a", 1)]),
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Node, settings());
    assert_eq!(heard.next(4).await, ["listing", "listing", "a", "listed"]);
    let failure = heard.health.of_all()[&Kind::Node].last_failure.clone().unwrap();
    assert!(failure.contains("paused its answer for 200ms"), "{failure}");
}

#[tokio::test]
async fn a_watch_that_says_nothing_is_taken_for_dead() {
    let api = MockApi::start(|_, before| match before {
        0 => list("7", "", &[]),
        1 => watch(&[event("ADDED", &object("a", 8))]),
        _ => watch(&[event("ADDED", &object("b", 9))]),
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Node, settings());
    assert_eq!(heard.next(4).await, ["listing", "listed", "a", "b"]);
    assert!(api.requests()[2].contains("resourceVersion=8&"), "{:?}", api.requests());
}

#[tokio::test]
async fn a_kind_that_need_not_be_there_is_empty_and_another_is_waited_for() {
    let api = MockApi::start(|_, _| answer(404, "404 page not found")).await;
    let mut groups = Heard::of(&api, Kind::PodGroup, settings());
    // The list that failed, and the one that stands for it.
    assert_eq!(groups.next(3).await, ["listing", "listing", "listed"]);
    let mut pools = Heard::of(&api, Kind::NodePool, settings());
    assert_eq!(pools.next(4).await, ["listing"; 4]);
}

#[tokio::test]
async fn parts_of_a_list_that_are_too_long_are_asked_for_smaller() {
    let api = MockApi::start(|target, _| match target {
        _ if is_watch(target) => watch(&[]),
        _ if target.contains("limit=500") => list("7", "", &[&object(&"x".repeat(2_000), 1)]),
        _ => list("7", "", &[&object("a", 1)]),
    })
    .await;
    let mut heard = Heard::of(&api, Kind::Node, StreamSettings { page_bytes_max: 1_000, ..settings() });
    assert_eq!(heard.next(4).await, ["listing", "listing", "a", "listed"]);
    assert!(api.requests()[1].contains("limit=250"), "{:?}", api.requests());
}

#[tokio::test]
async fn an_observer_tells_everything_once_it_knows_everything() {
    let late = Arc::new(Notify::new());
    let sign = Arc::clone(&late);
    let api = MockApi::start(move |target, _| {
        let path = target.split('?').next().unwrap();
        let node = r#"{"metadata":{"name":"n","resourceVersion":"3"},"status":{"allocatable":{"cpu":"4","pods":"9"}}}"#;
        let pod = |node: &str| format!(r#"{{"metadata":{{"name":"p","namespace":"d","resourceVersion":"5"}},"spec":{{{node}}}}}"#);
        match (path, is_watch(target)) {
            ("/api/v1/pods", true) => {
                let bound = format!("{}\n", event("MODIFIED", &pod(r#""nodeName":"n""#)));
                vec![Act::Head(200, Vec::new()), Act::Await(Arc::clone(&sign)), Act::Chunk(bound), Act::Hang]
            }
            (_, true) => watch(&[]),
            ("/api/v1/pods", false) => list("4", "", &[&pod("")]),
            ("/api/v1/nodes", false) => list("4", "", &[node]),
            ("/apis/scheduling.x-k8s.io/v1alpha1/podgroups", false) => answer(404, "404 page not found"),
            _ => list("4", "", &[]),
        }
    })
    .await;
    let settings = ObserverSettings { streams: settings(), ..ObserverSettings::default() };
    let mut observer = Observer::start(&api.client(), settings, Box::new(|_| Vec::new())).unwrap();
    let mut told = Vec::new();
    let name = |event| match event {
        Event::NodeApplied(node) => node.name.to_string(),
        Event::PodApplied(pod) => format!("{} on {:?}", pod.id, pod.node.as_deref().unwrap_or_default()),
        other => panic!("{other:?}"),
    };
    observer.changed().await;
    observer.tell(&mut |event| told.push(name(event)));
    assert_eq!(std::mem::take(&mut told), ["n", "d/p on \"\""]);
    assert!(observer.store().is_synced());
    late.notify_one();
    observer.changed().await;
    observer.tell(&mut |event| told.push(name(event)));
    assert_eq!(std::mem::take(&mut told), ["d/p on \"n\""]);
    observer.replay(&mut |event| told.push(name(event)));
    assert_eq!(told, ["n", "d/p on \"n\""]);
    assert!(observer.store().uid(Kind::Pod, &PodId::new("d", "p")).is_none(), "it has none");
    let asked = api.requests();
    assert!(!asked.iter().any(|target| target.starts_with("/api/v1/services")), "nobody spreads by default");
    drop(observer);
}
