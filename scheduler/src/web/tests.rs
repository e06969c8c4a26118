//! The pages as a scraper and a kubelet see them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{LeaveReason, Stats};
use assay_core::model::{PodId, ResourceList};
use assay_core::profile::MismatchKind;
use assay_shared::units::{Bytes, MilliCpu, UsdPerHour};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::metrics::{
    ClaimSample, ClusterSample, Disruption, Launch, NodeLabels, NodeSample, PodSample, PoolSample, Purchase,
    WaitingSample,
};
use super::{Condition, Health, Metrics, TextFormat, WebConfig, WebHandle, WebServer};
use crate::fleet::ca::{DevCa, SERVER_VALIDITY};
use crate::fleet::{CertificateAuthenticator, FleetConfig, FleetHandle, FleetServer, NameIn};
use crate::kube::client::{ApiCalls, ClientSettings, client};
use crate::kube::token_review::{TokenAuthenticator, TokenReviewConfig};

fn resources(milli_cpu: u64, memory: u64, pods: u64) -> ResourceList {
    ResourceList { cpu: MilliCpu(milli_cpu), memory: Bytes(memory), pods, ..ResourceList::default() }
}

/// A cluster of one node, with everything.
fn cluster() -> ClusterSample {
    let mut allocatable = resources(3860, 12 << 30, 110);
    allocatable.set("nvidia.com/gpu", 1);
    let labels = NodeLabels {
        arch: "amd64".to_owned(),
        capacity_type: "spot".to_owned(),
        instance_type: "Standard_D4s_v5".to_owned(),
        nodepool: "default".to_owned(),
        os: "linux".to_owned(),
        region: "westeurope".to_owned(),
        zone: "westeurope-1".to_owned(),
    };
    let node = NodeSample {
        name: "default-abcde".into(),
        managed: true,
        labels,
        capacity: resources(4000, 16 << 30, 110),
        allocatable,
        pod_requests: resources(1930, 3 << 30, 4),
        daemon_requests: resources(100, 1 << 30, 2),
        age_seconds: 60,
    };
    let claim = ClaimSample {
        name: "default-abcde".into(),
        pool: "default".into(),
        instance_type: "Standard_D4s_v5".into(),
        price: UsdPerHour(192_000_000),
        cheapest: Some(UsdPerHour(96_000_000)),
        predicted_memory: Bytes(13 << 30),
        measured_memory: Some(Bytes(12 << 30)),
    };
    let pod = |name: &str, node: Option<&str>| PodSample {
        id: PodId::new("shop", name),
        node: node.map(Into::into),
        phase: if node.is_some() { "Running" } else { "Pending" },
    };
    let waiting = |name: &str, decided, undecided| WaitingSample {
        id: PodId::new("shop", name),
        bound: false,
        age: 40.0,
        decided,
        undecided,
    };
    ClusterSample {
        pools: vec![PoolSample {
            name: "default".into(),
            limits: vec![("cpu".to_owned(), 100_000), ("nodes".to_owned(), 10)],
            usage: resources(4000, 16 << 30, 110),
            nodes: 1,
            allowed_disruptions: vec![("Empty", 1), ("Drifted", 0)],
        }],
        nodes: vec![node],
        claims: vec![claim],
        pods: vec![pod("web-1", Some("default-abcde")), pod("web-2", None)],
        pods_in_all: 5,
        waiting: vec![waiting("web-2", Some(20.0), None), waiting("web-3", None, Some(30.0))],
        stats: Stats {
            bought: 1,
            mismatches: BTreeMap::from([(MismatchKind::Gpus, 2)]),
            released: BTreeMap::from([(LeaveReason::Empty, 1)]),
            ..Stats::default()
        },
    }
}

/// Metrics of which every one has a value, and the fleet server that some are of.
fn everything() -> (Metrics, FleetHandle) {
    let metrics = Metrics::new();
    let second = Duration::from_secs(1);
    metrics.synced(true);
    metrics.leads(true);
    metrics.claim_created("provisioned", "default", false);
    metrics.bought(Purchase { pool: "default", price: UsdPerHour(3), cheapest: UsdPerHour(2) });
    let launch =
        Launch { size: "Standard_D4s_v5", zone: "westeurope-1", capacity_type: "spot", pool: "default" };
    metrics.launch_began(launch);
    metrics.launch_failed(launch, "AllocationFailed");
    metrics.launched("default", second);
    metrics.registered("default", second);
    metrics.initialized("default", second);
    metrics.claim_disrupted(Disruption {
        reason: "empty",
        pool: "default",
        capacity_type: "spot",
        consolidation_policy: "WhenEmpty",
        termination_mode: "graceful",
    });
    metrics.claim_terminated("default", "spot", "westeurope-1", second);
    metrics.instance_terminated("default", second);
    metrics.drained("default");
    metrics.node_terminated("default", second, 3600 * second);
    metrics.disruption_decided("delete", "empty", "");
    metrics.eligible("Empty", 2);
    metrics.validation_failed("Underutilized");
    metrics.disruption_undone("Drifted");
    metrics.consolidation_timed_out();
    metrics.pod_bound(second, Some(second));
    metrics.pod_started(second, Some(second));
    metrics.pod_disruption_initiated("empty");
    metrics.unhealthy_disrupted("GPUsPresent", "default", "spot");
    metrics.pod_decided(second);
    metrics.eviction_requested(429);
    metrics.pod_drained("empty");
    metrics.solved("provisioner", second);
    metrics.queued("provisioner", 3);
    metrics.unschedulable("provisioner", 1);
    metrics.ignored(0);
    metrics.cloud_called("nodeclaim.lifecycle", "Create", "azure", second, Some("InsufficientCapacityError"));
    metrics.effect_failed("EvictPod");
    metrics.object_unreadable("Pod");
    metrics.sample(cluster());

    let ca = DevCa::create().unwrap();
    let identity = ca.issue_server(&["localhost"], SERVER_VALIDITY).unwrap().server_identity().unwrap();
    let roots = vec![ca.certificate().clone()];
    let authenticator = CertificateAuthenticator::new([(roots, NameIn::SubjectAltName)]).unwrap();
    let config = FleetConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..FleetConfig::default() };
    let (events, _) = mpsc::channel(1);
    let fleet = FleetServer::start(config, identity, Arc::new(authenticator), events).unwrap();
    metrics.watch_fleet(fleet.monitor(), fleet.certificate().clone());
    let client =
        ::kube::Client::try_from(::kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let config = TokenReviewConfig::new("assay", "assay-system/assay-agent".parse().unwrap());
    metrics.watch_reviews(Arc::new(TokenAuthenticator::new(client, config)));
    (metrics, fleet)
}

/// Types and label names by metric, as a page has them.
fn families(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let name = base.filter(|base| families.contains_key(*base)).unwrap_or(name);
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'))
                .map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let (_, known) = families.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
            known.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

/// The same as the documentation has them.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `karpenter_") || line.starts_with("| `assay_"));
    let rows = rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let name = cells.next().unwrap().trim_matches('`').to_owned();
        let labels = cells.next().unwrap().split_whitespace().map(|label| label.trim_matches('`').to_owned());
        let labels = labels.collect();
        let kind = cells.next().unwrap().trim_end_matches(" †").to_owned();
        (name, (kind, labels))
    });
    rows.collect()
}

#[tokio::test]
async fn every_metric_has_the_name_type_and_labels_that_are_documented() {
    let (metrics, _fleet) = everything();
    // One request of a Kubernetes client, which finds nobody.
    let calls = ApiCalls::default();
    let config = ::kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = client(config, ClientSettings::default(), calls.clone()).unwrap();
    client.apiserver_version().await.unwrap_err();
    metrics.watch_api_calls(calls);
    let found = families(&metrics.encode(TextFormat::Prometheus).unwrap());
    let expected = documented();
    for (name, family) in &found {
        assert_eq!(expected.get(name), Some(family), "{name}");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn values_are_those_of_the_cluster_in_the_units_of_metrics() {
    let (metrics, _fleet) = everything();
    let page = metrics.encode(TextFormat::OpenMetrics).unwrap();
    let node = r#"arch="amd64",capacity_type="spot",instance_type="Standard_D4s_v5",nodepool="default",os="linux",region="westeurope",zone="westeurope-1",node_name="default-abcde",managed="true""#;
    let expected = [
        format!(r#"karpenter_nodes_allocatable{{{node},resource_type="cpu"}} 3.86"#),
        format!(r#"karpenter_nodes_allocatable{{{node},resource_type="nvidia.com/gpu"}} 1.0"#),
        format!(r#"karpenter_nodes_system_overhead{{{node},resource_type="memory"}} 4294967296.0"#),
        format!(r#"karpenter_nodes_total_daemon_requests{{{node},resource_type="pods"}} 2.0"#),
        r#"karpenter_nodepools_limit{nodepool="default",resource_type="cpu"} 100.0"#.to_owned(),
        r#"karpenter_nodepools_usage{nodepool="default",resource_type="ephemeral_storage"} 0.0"#.to_owned(),
        r#"karpenter_nodepools_allowed_disruptions{nodepool="default",reason="Empty"} 1.0"#.to_owned(),
        r#"karpenter_nodepools_cost_total{nodepool="default"} 0.192"#.to_owned(),
        r#"assay_nodepools_cheapest_cost{nodepool="default"} 0.096"#.to_owned(),
        r#"karpenter_cluster_utilization_percent{resource_type="cpu"} 50.0"#.to_owned(),
        r#"karpenter_nodeclaims_created_total{reason="provisioned",nodepool="default",min_values_relaxed="false"} 1"#.to_owned(),
        r#"assay_memory_worst_shortfall_bytes{instance_type="Standard_D4s_v5"} 1073741824.0"#.to_owned(),
        r#"assay_purchase_price_ratio_bucket{le="1.5",nodepool="default"} 1"#.to_owned(),
        r#"assay_hardware_mismatches_total{kind="GPUsMissing"} 2"#.to_owned(),
        r#"assay_pods_left_out 3.0"#.to_owned(),
        r#"karpenter_pods_unbound_time_seconds{name="web-2",namespace="shop"} 40.0"#.to_owned(),
        r#"karpenter_pods_provisioning_unstarted_time_seconds{name="web-2",namespace="shop"} 20.0"#.to_owned(),
        r#"karpenter_pods_provisioning_scheduling_undecided_time_seconds{name="web-3",namespace="shop"} 30.0"#.to_owned(),
        r#"karpenter_scheduler_unfinished_work_seconds{controller="provisioner"} 0.0"#.to_owned(),
        r#"karpenter_instance_vm_create_failure_total{size="Standard_D4s_v5",zone="westeurope-1",capacity_type="spot",nodepool="default",phase="sync",error_code="AllocationFailed"} 1"#.to_owned(),
        r#"assay_fleet_refusals_total{reason="node_claim_mismatch"} 0"#.to_owned(),
        r#"karpenter_cluster_state_synced 1.0"#.to_owned(),
        "# EOF".to_owned(),
    ];
    for line in expected {
        assert!(page.lines().any(|found| found == line), "{line}\n\n{page}");
    }
    // What is gone leaves nothing behind.
    metrics.sample(ClusterSample::default());
    let page = metrics.encode(TextFormat::OpenMetrics).unwrap();
    assert!(!page.contains("default-abcde"));
    assert!(page.contains("\nkarpenter_cluster_state_node_count 0.0\n"));
}

#[test]
fn a_sample_is_taken_while_somebody_reads() {
    let metrics = Metrics::new();
    assert!(metrics.wants_sample(), "for the first reader");
    metrics.sample(ClusterSample::default());
    assert!(!metrics.wants_sample(), "nobody reads");
    metrics.encode(TextFormat::Prometheus).unwrap();
    assert!(!metrics.wants_sample(), "the last one is young");
}

async fn server(config: WebConfig) -> (WebHandle, Arc<Metrics>, Health) {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::default());
    let config = WebConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..config };
    let server = WebServer::start(config, Arc::clone(&metrics), health.clone()).await.unwrap();
    (server, metrics, health)
}

/// Sends bytes, and returns all that comes back.
async fn exchange(server: &WebHandle, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A server that hangs up in the middle of a request may reset the connection.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(server: &WebHandle, path: &str, head: &str) -> (String, String) {
    let answer = exchange(server, format!("GET {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_scraper_gets_the_format_it_asks_for() {
    let (server, metrics, _) = server(WebConfig::default()).await;
    metrics.claim_created("provisioned", "default", false);
    let (head, body) = get(&server, "/metrics", "").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE karpenter_nodeclaims_created_total counter\n"), "{body}");
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, body) = get(&server, "/metrics", accept).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(
        body.contains("# TYPE karpenter_nodeclaims_created counter\n") && body.ends_with("# EOF\n"),
        "{body}"
    );
    let answer = exchange(&server, b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_kubelet_learns_whether_it_lives_and_what_it_is_not_ready_for() {
    let (server, _, health) = server(WebConfig::default()).await;
    let (head, body) = get(&server, "/readyz", "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "caches are not synced\nthe fleet server does not listen\n");
    health.set(Condition::CachesSynced, true);
    health.set(Condition::FleetListens, true);
    health.turned();
    for path in ["/readyz", "/healthz"] {
        let (head, body) = get(&server, path, "").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok\n", "{path}: {head}");
    }
}

#[tokio::test]
async fn whatever_a_client_does_is_bounded() {
    let config = WebConfig { connections: 2, deadline: Duration::from_millis(300), ..WebConfig::default() };
    let (server, _, _) = server(config).await;
    let cases: [(&[u8], &str); 5] = [
        (b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nabcd", "HTTP/1.1 405 "),
        (b"GET /debug/pprof HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 404 "),
        (b"GET /../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 404 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1 400 "),
        (b"hello\r\n\r\n", "HTTP/1.1 400 "),
    ];
    for (request, expected) in cases {
        let answer = exchange(&server, request).await;
        assert!(answer.starts_with(expected), "{}: {answer}", String::from_utf8_lossy(request));
    }
    let long = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = exchange(&server, long.as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Clients that say nothing take all places, until their time is over.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    let (head, _) = get(&server, "/healthz", "").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}
