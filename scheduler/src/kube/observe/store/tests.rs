//! What one change means for other objects, and what cannot be read. That any order gives the same is in `properties`.

use assay_core::model::{PodOwner, ReasonCode};
use serde_json::{Value, json};

use super::*;

/// Kinds of the tests: all, the ones for default spread included.
pub(super) fn store(configuration: Option<&Value>) -> Store {
    let document =
        configuration.map(|value| Document::of_object("KubeSchedulerConfiguration", value.clone()));
    let mut store = Store::new(&Kind::ALL, document.as_ref(), Box::new(|_| Vec::new())).unwrap();
    Kind::ALL.into_iter().for_each(|kind| store.apply(Change::Listing(kind)));
    store
}

pub(super) fn listed(store: &mut Store) {
    Kind::ALL.into_iter().for_each(|kind| store.apply(Change::Listed(kind)));
}

pub(super) fn kind_of(object: &Value) -> Kind {
    let name = object["kind"].as_str().unwrap();
    Kind::ALL.into_iter().find(|kind| kind.name() == name).unwrap()
}

pub(super) fn apply(store: &mut Store, object: &Value) {
    // By the way of the wire, so that what is cut off there is missed here.
    let text = json!({"type": "ADDED", "object": object}).to_string();
    match super::super::wire::line(kind_of(object), text.as_bytes()) {
        super::super::wire::Line::Applied(found, _) => store.apply(Change::Applied(found)),
        other => panic!("{other:?}"),
    }
}

fn delete(store: &mut Store, kind: Kind, namespace: &str, name: &str) {
    store.apply(Change::Deleted(kind, PodId::new(namespace, name)));
}

/// A store that has synced with these objects, and the events so far taken.
fn synced(objects: &[Value]) -> Store {
    let mut store = store(None);
    objects.iter().for_each(|object| apply(&mut store, object));
    listed(&mut store);
    events(&mut store);
    store
}

/// The new events.
pub(super) fn events(store: &mut Store) -> Vec<Event> {
    let mut events = Vec::new();
    store.tell(&mut |event| events.push(event));
    events
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "d", "uid": "1"}, "spec": spec})
}

fn node(name: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name, "uid": "1"}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}})
}

/// The new events in short.
fn told(store: &mut Store) -> Vec<String> {
    let told = events(store).into_iter().map(|event| match event {
        Event::PodApplied(pod) => format!("pod {}", pod.id),
        Event::PodDeleted(id) => format!("no pod {id}"),
        Event::NodeApplied(node) => format!("node {}", node.name),
        Event::NodeDeleted(name) => format!("no node {name}"),
        Event::NodeFacts { node, .. } => format!("facts of {node}"),
        Event::PoolApplied(pool) => format!("pool {}", pool.name),
        Event::PoolDeleted(name) => format!("no pool {name}"),
        Event::ClassApplied(class) => format!("class {}", class.name),
        Event::ClaimApplied(claim) => format!("claim {}", claim.name),
        Event::ClassDeleted(name) => format!("no class {name}"),
        Event::ClaimDeleted { claim } => format!("no claim {claim}"),
        Event::DisruptionBudgetApplied(budget) => format!("budget {}", budget.id),
        Event::DisruptionBudgetDeleted(id) => format!("no budget {id}"),
        Event::VolumeAttachments { node, volumes } => format!("attached to {node}: {volumes:?}"),
        Event::DaemonSetApplied(daemon_set) => format!("daemon set {}", daemon_set.id),
        Event::DaemonSetDeleted(id) => format!("no daemon set {id}"),
        other => panic!("{other:?}"),
    });
    told.collect()
}

fn only_pod(store: &Store) -> Pod {
    let mut pods = store.pods();
    let pod = pods.next().unwrap().clone();
    assert!(pods.next().is_none());
    pod
}

#[test]
fn nothing_is_told_before_every_kind_was_listed() {
    let mut store = store(None);
    apply(&mut store, &node("n"));
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::PersistentVolume) {
        store.apply(Change::Listed(kind));
    }
    assert_eq!((store.is_synced(), told(&mut store)), (false, Vec::new()));
    assert_eq!(store.awaited().collect::<Vec<_>>(), [Kind::PersistentVolume]);
    store.apply(Change::Listed(Kind::PersistentVolume));
    assert_eq!((store.is_synced(), told(&mut store)), (true, vec!["node n".to_owned()]));
}

#[test]
fn a_change_that_means_nothing_is_not_told() {
    let mut store = synced(&[node("n"), pod("p", json!({"nodeName": "n"}))]);
    let mut heartbeat = node("n");
    heartbeat["status"]["conditions"] =
        json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
    heartbeat["status"]["images"] = json!([{"names": ["a"]}]);
    apply(&mut store, &heartbeat);
    let mut started =
        pod("p", json!({"nodeName": "n", "volumes": [{"name": "kube-api-access-1", "projected": {}}]}));
    started["status"] = json!({"podIP": "10.0.0.1", "conditions": [{"type": "PodScheduled"}]});
    apply(&mut store, &started);
    assert_eq!(told(&mut store), [""; 0]);
    heartbeat["status"]["conditions"][0]["status"] = "False".into();
    apply(&mut store, &heartbeat);
    assert_eq!(told(&mut store), ["node n", "facts of n"]);
}

#[test]
fn another_object_of_the_same_name_is_another_object() {
    let mut store = synced(&[node("n"), pod("p", json!({"nodeName": "n"}))]);
    let (mut new_node, mut new_pod) = (node("n"), pod("p", json!({})));
    new_node["metadata"]["uid"] = "2".into();
    new_pod["metadata"]["uid"] = "2".into();
    apply(&mut store, &new_node);
    apply(&mut store, &new_pod);
    assert_eq!(told(&mut store), ["no node n", "node n", "no pod d/p", "pod d/p"]);
}

#[test]
fn a_new_list_takes_away_what_it_does_not_have() {
    let mut store = synced(&[node("a"), node("b"), pod("p", json!({})), pod("q", json!({}))]);
    store.apply(Change::Listing(Kind::Node));
    store.apply(Change::Listing(Kind::Pod));
    apply(&mut store, &node("b"));
    apply(&mut store, &pod("q", json!({})));
    assert_eq!(told(&mut store), [""; 0], "the list may have more");
    store.apply(Change::Listed(Kind::Node));
    store.apply(Change::Listed(Kind::Pod));
    assert_eq!(told(&mut store), ["no node a", "no pod d/p"]);
}

#[test]
fn a_pod_is_read_again_when_its_claim_volume_or_class_changes() {
    let claim = |spec: Value, phase: &str| json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "d"}, "spec": spec, "status": {"phase": phase}});
    let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["z-2"]}]}]}}}});
    let class = json!({"kind": "StorageClass", "metadata": {"name": "late"}, "provisioner": "disk.csi.azure.com", "volumeBindingMode": "WaitForFirstConsumer"});
    let spec = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    let mut store = synced(&[pod("p", spec), pod("q", json!({}))]);
    let state = |store: &Store| {
        let pod = store.pods().find(|pod| &*pod.id.name == "p").unwrap().clone();
        let rejected =
            pod.spec.rejections.iter().map(|rejection| rejection.detail.clone()).collect::<Vec<_>>().join("");
        (rejected, pod.spec.volume_topology.len(), pod.volumes.len())
    };
    assert_eq!(state(&store), ("claim d/data is not found".to_owned(), 0, 0));
    let steps: [(Value, (&str, usize, usize)); 4] = [
        (
            claim(json!({"storageClassName": "late"}), "Pending"),
            ("claim d/data: storage class late is not found", 0, 0),
        ),
        (class, ("", 0, 1)),
        (
            claim(json!({"storageClassName": "late", "volumeName": "v"}), "Bound"),
            ("claim d/data: volume v is not found", 0, 0),
        ),
        (volume, ("", 1, 0)),
    ];
    for (object, (rejected, topology, attached)) in steps {
        apply(&mut store, &object);
        assert_eq!(told(&mut store), ["pod d/p"], "{object}");
        assert_eq!(state(&store), (rejected.to_owned(), topology, attached), "{object}");
    }
    delete(&mut store, Kind::PersistentVolumeClaim, "d", "data");
    assert_eq!(
        (told(&mut store), state(&store).0.as_str()),
        (vec!["pod d/p".to_owned()], "claim d/data is not found")
    );
}

#[test]
fn the_labels_of_a_namespace_decide_whom_a_term_means() {
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, "namespaceSelector": {"matchLabels": {"team": "red"}}});
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let mut store = synced(&[pod("p", json!({"affinity": affinity}))]);
    let namespace =
        |team: &str| json!({"kind": "Namespace", "metadata": {"name": "other", "labels": {"team": team}}});
    let named =
        |store: &Store| format!("{:?}", only_pod(store).spec.pod_anti_affinity[0].selector.namespaces);
    assert!(!named(&store).contains("other"));
    apply(&mut store, &namespace("red"));
    assert_eq!(told(&mut store), ["pod d/p"]);
    assert!(named(&store).contains("other"));
    apply(&mut store, &namespace("blue"));
    assert_eq!(told(&mut store), ["pod d/p"]);
    assert!(!named(&store).contains("other"));
    apply(&mut store, &json!({"kind": "Namespace", "metadata": {"name": "third"}}));
    assert_eq!(told(&mut store), [""; 0]);
}

#[test]
fn pods_of_a_group_are_told_again_when_it_grows() {
    let member = |name: &str| {
        let mut member = pod(name, json!({}));
        member["metadata"]["labels"] = json!({"scheduling.x-k8s.io/pod-group": "g"});
        member
    };
    let mut store = synced(&[member("a")]);
    let least =
        |store: &Store| store.pods().map(|pod| pod.gang.as_ref().unwrap().min_member).collect::<Vec<_>>();
    assert_eq!(least(&store), [1]);
    apply(&mut store, &member("b"));
    assert_eq!((told(&mut store).len(), least(&store)), (2, vec![2, 2]));
    apply(
        &mut store,
        &json!({"kind": "PodGroup", "metadata": {"name": "g", "namespace": "d"}, "spec": {"minMember": 7}}),
    );
    assert_eq!((told(&mut store).len(), least(&store)), (2, vec![7, 7]));
    delete(&mut store, Kind::PodGroup, "d", "g");
    assert_eq!((told(&mut store).len(), least(&store)), (2, vec![2, 2]));
    delete(&mut store, Kind::Pod, "d", "a");
    assert_eq!(told(&mut store), ["no pod d/a", "pod d/b"]);
    assert_eq!(least(&store), [1]);
}

#[test]
fn pods_of_a_job_are_a_gang_where_the_job_says_so() {
    let mut worker = pod("w", json!({}));
    worker["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "j"}]);
    let mut store = synced(&[worker]);
    assert_eq!(only_pod(&store).gang, None);
    let mut job = json!({"kind": "Job", "metadata": {"name": "j", "namespace": "d", "annotations": {"assay.dev/gang": "true"}},
        "spec": {"completionMode": "Indexed", "parallelism": 4, "completions": 4, "template": {"spec": {}}}});
    apply(&mut store, &job);
    assert_eq!(told(&mut store), ["pod d/w"]);
    assert_eq!(only_pod(&store).gang.unwrap().min_member, 4);
    job["metadata"]["annotations"] = json!({});
    apply(&mut store, &job);
    assert_eq!((told(&mut store), only_pod(&store).gang), (vec!["pod d/w".to_owned()], None));
}

#[test]
fn what_a_node_can_attach_comes_and_goes_with_its_csi_node() {
    let limits = |count: u32| json!({"kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": [{"name": "disk.csi.azure.com", "allocatable": {"count": count}}]}});
    let mut store = synced(&[limits(8), node("n")]);
    let limit = |store: &Store| {
        store.node("n").unwrap().allocatable.extended("attachable-volumes-csi-disk.csi.azure.com")
    };
    assert_eq!(limit(&store), 8);
    apply(&mut store, &limits(4));
    assert_eq!((told(&mut store), limit(&store)), (vec!["node n".to_owned()], 4));
    // What Go writes for an empty list.
    apply(&mut store, &json!({"kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": null}}));
    assert_eq!((told(&mut store), limit(&store)), (vec!["node n".to_owned()], 0));
}

#[test]
fn a_pod_on_a_node_that_cannot_be_read_keeps_its_node() {
    let wrong = json!({"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "lots"}}}]});
    let mut bad = pod("p", wrong.clone());
    bad["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "rs"}]);
    let mut unbound = pod("q", wrong);
    unbound["spec"].as_object_mut().unwrap().remove("nodeName");
    let mut store = synced(&[bad, unbound]);
    let kept = only_pod(&store);
    assert_eq!(
        (kept.node.as_deref(), kept.owner, kept.spec.requests.pods),
        (Some("n"), PodOwner::Controller, 1)
    );
    assert_eq!(kept.annotations["karpenter.sh/do-not-disrupt"], "true");
    let problems: Vec<_> =
        store.problems().map(|problem| (problem.id.to_string(), problem.field.clone())).collect();
    let field = "spec.containers[0].resources.requests.cpu".to_owned();
    assert_eq!(problems, [("d/p".to_owned(), field.clone()), ("d/q".to_owned(), field)]);
    assert!(store.take_problems_changed() && !store.take_problems_changed());
    apply(&mut store, &pod("p", json!({"nodeName": "n"})));
    delete(&mut store, Kind::Pod, "d", "q");
    assert_eq!((told(&mut store), store.problems().count()), (vec!["pod d/p".to_owned()], 0));
}

#[test]
fn other_objects_stay_as_they_were_last_read() {
    let mut store = synced(&[node("n")]);
    let mut bad = node("n");
    bad["status"]["allocatable"]["cpu"] = "many".into();
    apply(&mut store, &bad);
    assert_eq!((told(&mut store), store.node("n").is_some()), (Vec::new(), true));
    let problem = store.problems().next().unwrap().clone();
    assert_eq!(
        (problem.kind, problem.field.as_str(), problem.is_error),
        (Kind::Node, "status.allocatable.cpu", true)
    );
    // It is there all the same, for a list.
    store.apply(Change::Listing(Kind::Node));
    apply(&mut store, &bad);
    store.apply(Change::Listed(Kind::Node));
    assert_eq!(told(&mut store), [""; 0]);
    apply(&mut store, &node("n"));
    assert_eq!(store.problems().count(), 0);
}

#[test]
fn volumes_are_told_by_the_node_they_are_attached_to() {
    let attachment = |name: &str, node: &str, volume: &str| {
        json!({"kind": "VolumeAttachment", "metadata": {"name": name},
        "spec": {"attacher": "disk.csi.azure.com", "nodeName": node, "source": {"persistentVolumeName": volume}}})
    };
    let mut store = store(None);
    apply(&mut store, &attachment("a", "n", "v1"));
    apply(&mut store, &attachment("b", "n", "v2"));
    listed(&mut store);
    assert_eq!(told(&mut store), [r#"attached to n: {"v1", "v2"}"#]);
    delete(&mut store, Kind::VolumeAttachment, "", "a");
    assert_eq!(told(&mut store), [r#"attached to n: {"v2"}"#]);
    delete(&mut store, Kind::VolumeAttachment, "", "b");
    assert_eq!(told(&mut store), ["attached to n: {}"]);
}

#[test]
fn budgets_classes_and_claims_are_told_when_they_come_and_go() {
    let object = |kind: &str, namespace: &str| json!({"kind": kind, "metadata": {"name": "x", "namespace": namespace}, "spec": {}});
    let mut store = synced(&[]);
    for (kind, namespace) in [("PodDisruptionBudget", "d"), ("AKSNodeClass", ""), ("NodeClaim", "")] {
        apply(&mut store, &object(kind, namespace));
    }
    assert_eq!(told(&mut store), ["class x", "claim x", "budget d/x"]);
    for (kind, namespace) in
        [(Kind::PodDisruptionBudget, "d"), (Kind::AksNodeClass, ""), (Kind::NodeClaim, "")]
    {
        delete(&mut store, kind, namespace, "x");
    }
    assert_eq!(told(&mut store), ["no class x", "no claim x", "no budget d/x"]);
}

#[test]
fn a_pool_with_an_older_spelling_is_read_and_spoken_of() {
    let pool = json!({"kind": "NodePool", "metadata": {"name": "p"}, "spec": {
        "disruption": {"consolidationPolicy": "WhenUnderutilized"}, "template": {"spec": {"nodeClassRef": {"name": "default"}}}}});
    let class = json!({"kind": "AKSNodeClass", "metadata": {"name": "default"}, "spec": {}});
    let mut store = store(None);
    apply(&mut store, &class);
    apply(&mut store, &pool);
    listed(&mut store);
    assert_eq!(told(&mut store), ["class default", "pool p"]);
    let problem = store.problems().next().unwrap();
    assert_eq!((problem.field.as_str(), problem.is_error), ("spec.disruption.consolidationPolicy", false));
}

#[test]
fn objects_without_a_name_are_one_problem_until_the_next_list() {
    let mut store = synced(&[]);
    apply(&mut store, &json!({"kind": "Node", "metadata": {}}));
    assert_eq!(store.problems().next().unwrap().field, "metadata.name");
    store.apply(Change::Listing(Kind::Node));
    assert_eq!(store.problems().count(), 0);
}

#[test]
fn siblings_share_all_but_their_names() {
    let sibling = |name: &str, node: &str| {
        let mut sibling =
            pod(name, json!({"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "1"}}}]}));
        sibling["metadata"]["labels"] = json!({"app": "web"});
        sibling["metadata"]["uid"] = format!("00000000-0000-0000-0000-{name:0>12}").into();
        sibling
    };
    let store = synced(&[sibling("1", "n"), sibling("2", "n"), sibling("3", "m")]);
    let pods: Vec<&Pod> = store.pods().collect();
    for other in &pods[1..] {
        assert!(Arc::ptr_eq(&pods[0].spec, &other.spec) && Arc::ptr_eq(&pods[0].labels, &other.labels));
        assert!(Arc::ptr_eq(&pods[0].id.namespace, &other.id.namespace));
    }
    assert!(Arc::ptr_eq(pods[0].node.as_ref().unwrap(), pods[1].node.as_ref().unwrap()));
    assert_eq!(store.uid(Kind::Pod, &pods[1].id).unwrap(), "00000000-0000-0000-0000-000000000002");
}

#[test]
fn a_replay_tells_everything_and_what_follows_is_not_told_twice() {
    let class = json!({"kind": "PriorityClass", "metadata": {"name": "high"}, "value": 9});
    let mut store = synced(&[node("n"), pod("p", json!({"priorityClassName": "high"})), class]);
    assert_eq!(only_pod(&store).priority, 9);
    apply(&mut store, &node("m"));
    delete(&mut store, Kind::Node, "", "n");
    let mut replayed = 0;
    store.replay(&mut |_| replayed += 1);
    assert_eq!((replayed, told(&mut store).len()), (2, 0));
    assert!(only_pod(&store).spec.rejections.iter().all(|one| one.reason != ReasonCode::InvalidPod));
}
