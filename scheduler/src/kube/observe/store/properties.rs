//! Whatever order objects come in, whatever they were before, what is told is what `Manifests::parse` reads from the same objects in
//! one file.

use std::collections::BTreeMap;

use assay_core::model::{ClassReadiness, Node, NodeClaim, NodePool, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{apply, events, kind_of, listed, store};
use super::*;
use crate::manifest::{Manifests, Source};

const RED: &str = "red";

/// Objects that others depend on, each in two forms.
fn surroundings() -> Vec<[Value; 2]> {
    let namespace = |name: &str, team: &str| json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}});
    let class = |name: &str, value: i32, default: bool| json!({"kind": "PriorityClass", "metadata": {"name": name}, "value": value, "globalDefault": default});
    let runtime = |cpu: &str| json!({"kind": "RuntimeClass", "metadata": {"name": "kata"}, "overhead": {"podFixed": {"cpu": cpu}}});
    let storage = |name: &str, mode: &str, default: &str, made: &str| {
        json!({"kind": "StorageClass",
        "metadata": {"name": name, "creationTimestamp": made, "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
        "provisioner": "disk.csi.azure.com", "volumeBindingMode": mode,
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "topology.disk.csi.azure.com/zone", "values": [name]}]}]})
    };
    let volume = |zone: &str| {
        json!({"kind": "PersistentVolume", "metadata": {"name": "v1"}, "spec": {"csi": {"driver": "disk.csi.azure.com"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}}}})
    };
    let claim = |name: &str, spec: Value, phase: &str| json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "a"}, "spec": spec, "status": {"phase": phase}});
    let service = |selector: Value| json!({"kind": "Service", "metadata": {"name": "web", "namespace": "a"}, "spec": {"selector": selector}});
    let replicas = |app: &str| {
        json!({"kind": "ReplicaSet", "metadata": {"name": "rs", "namespace": "a"}, "spec": {"replicas": 0,
        "selector": {"matchLabels": {"app": app}}, "template": {"metadata": {"labels": {"app": app}}, "spec": {"containers": []}}}})
    };
    let group = |spec: Value, annotations: Value| {
        json!({"kind": "PodGroup", "apiVersion": "scheduling.x-k8s.io/v1alpha1",
        "metadata": {"name": "g", "namespace": "a", "annotations": annotations}, "spec": spec})
    };
    let csi = |count: u32| json!({"kind": "CSINode", "metadata": {"name": "n0"}, "spec": {"drivers": [{"name": "disk.csi.azure.com", "allocatable": {"count": count}}]}});
    let node = |name: &str, cpu: &str| {
        json!({"kind": "Node", "metadata": {"name": name, "labels": {"zone": cpu}}, "spec": {"providerID": format!("azure:///{name}")},
        "status": {"capacity": {"cpu": cpu, "pods": "20"}, "allocatable": {"cpu": cpu, "pods": "20"}, "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    let node_class = |pods: u32| json!({"kind": "AKSNodeClass", "metadata": {"name": "default"}, "spec": {"maxPods": pods}});
    let pool = |weight: u32| {
        json!({"kind": "NodePool", "metadata": {"name": "pool"}, "spec": {"weight": weight,
        "template": {"metadata": {"labels": {"pool": "yes"}}, "spec": {"nodeClassRef": {"name": "default"}}}}})
    };
    let node_claim = |provider: &str| {
        json!({"kind": "NodeClaim", "metadata": {"name": "claim", "labels": {"karpenter.sh/nodepool": "pool"}},
        "spec": {"nodeClassRef": {"name": "default"}}, "status": {"providerID": provider, "conditions": [{"type": "Launched", "status": "True"}]}})
    };
    let daemon = |team: &str| {
        json!({"kind": "DaemonSet", "metadata": {"name": "ds", "namespace": "a"}, "spec": {"template": {"spec": {
        "runtimeClassName": "kata", "containers": [{"resources": {"requests": {"cpu": "100m"}}}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(team)]}}}}}})
    };
    vec![
        [namespace("a", RED), namespace("a", "blue")],
        [namespace("b", "blue"), namespace("b", RED)],
        [class("high", 10, false), class("high", 20, true)],
        [class("usual", 5, true), class("usual", 5, false)],
        [runtime("100m"), runtime("250m")],
        [
            storage("late", "WaitForFirstConsumer", "true", "2026-01-01T00:00:00Z"),
            storage("late", "Immediate", "false", "2026-01-01T00:00:00Z"),
        ],
        [
            storage("later", "WaitForFirstConsumer", "false", "2026-01-02T00:00:00Z"),
            storage("later", "WaitForFirstConsumer", "true", "2026-01-02T00:00:00Z"),
        ],
        [volume("z-1"), volume("z-2")],
        [
            claim("data", json!({"storageClassName": "late"}), "Pending"),
            claim("data", json!({"storageClassName": "late", "volumeName": "v1"}), "Bound"),
        ],
        [claim("more", json!({}), "Pending"), claim("more", json!({"volumeName": "v1"}), "Lost")],
        [
            claim("p0-scratch", json!({"storageClassName": "later"}), "Pending"),
            claim("p0-scratch", json!({"volumeName": "v1"}), "Bound"),
        ],
        [service(json!({"app": "web"})), service(json!({"tier": "front"}))],
        [replicas("web"), replicas("api")],
        [
            group(json!({"minMember": 3}), json!({})),
            group(json!({}), json!({"assay.dev/gang-topology": "topology.kubernetes.io/zone"})),
        ],
        [csi(4), csi(8)],
        [node("n0", "4"), node("n0", "8")],
        [node("n1", "4"), node("n1", "2")],
        [node_class(50), node_class(100)],
        [pool(1), pool(2)],
        [node_claim("azure:///n0"), node_claim("azure:///n1")],
        [daemon(RED), daemon("blue")],
    ]
}

fn term(team: &str) -> Value {
    json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {"matchLabels": {"team": team}},
        "matchLabelKeys": ["tier"]})
}

/// A pod with some of what pods can have.
fn pod(name: &str, bits: u32) -> Value {
    let has = |bit: u32| bits & (1 << bit) != 0;
    let mut metadata = json!({"name": name, "namespace": if has(0) { "a" } else { "b" }, "labels": {"app": if has(1) { "web" } else { "api" }}});
    let mut spec = json!({"containers": [{"name": "c", "image": name, "ports": [{"containerPort": 80, "hostPort": if has(2) { 8080 } else { 0 }}],
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}}], "tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]});
    let mut status = json!({"phase": "Pending"});
    let mut volumes = vec![json!({"name": format!("kube-api-access-{name}"), "projected": {"sources": []}})];
    if has(3) {
        metadata["labels"]["tier"] = "front".into();
        metadata["annotations"] = json!({"karpenter.sh/do-not-disrupt": "true"});
    }
    if has(4) {
        metadata["labels"]["scheduling.x-k8s.io/pod-group"] = "g".into();
    }
    if has(5) {
        metadata["creationTimestamp"] = "2026-02-03T04:05:06Z".into();
    }
    let owner = match bits >> 6 & 3 {
        0 => json!([]),
        1 => {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true}])
        }
        2 => json!([{"kind": "DaemonSet", "name": "ds"}]),
        _ => json!([{"kind": "Node", "name": "n0"}]),
    };
    metadata["ownerReferences"] = owner;
    if has(8) {
        spec["nodeName"] = if has(9) { "n0" } else { "n1" }.into();
        status["phase"] = "Running".into();
        status["containerStatuses"] = json!([{"name": "c", "ready": true, "resources": {"requests": {"cpu": if has(10) { "750m" } else { "500m" }}}}]);
    }
    if has(11) {
        volumes.push(json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}}));
    }
    if has(12) {
        volumes
            .push(json!({"name": "more", "persistentVolumeClaim": {"claimName": "more", "readOnly": true}}));
    }
    if has(13) {
        volumes.push(json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "late", "accessModes": []}}}}));
    }
    spec["volumes"] = volumes.into();
    if has(14) {
        spec["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(RED)]},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}], "matchExpressions": [{"key": "zone", "operator": "Exists"}]}]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}]}});
    }
    if has(15) {
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]);
    }
    match bits >> 16 & 3 {
        0 => {}
        1 => spec["priority"] = 7.into(),
        2 => spec["priorityClassName"] = "high".into(),
        _ => spec["priorityClassName"] = "usual".into(),
    }
    if has(18) {
        spec["runtimeClassName"] = "kata".into();
    }
    if has(19) && has(20) {
        spec["nodeSelector"] = json!({"no key!": "x"});
    }
    if has(21) {
        metadata["deletionTimestamp"] = "2026-02-03T05:00:00Z".into();
    }
    if has(22) {
        spec["schedulingGates"] = json!([{"name": "quota"}]);
        spec["initContainers"] =
            json!([{"name": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}]);
    }
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A Job that asks for a gang, and its pod: a Job without pods would be expanded.
fn job(size: u32, wanted: &str) -> [Value; 2] {
    let metadata = |name: &str| json!({"name": name, "namespace": "a"});
    let mut job = json!({"kind": "Job", "metadata": metadata("j"), "spec": {"completionMode": "Indexed", "parallelism": size, "completions": size, "template": {"spec": {}}}});
    job["metadata"]["annotations"] = json!({"assay.dev/gang": wanted});
    let mut pod = json!({"kind": "Pod", "metadata": metadata("w"), "spec": {}});
    pod["metadata"]["ownerReferences"] = json!([{"kind": "Job", "name": "j"}]);
    [job, pod]
}

/// What an engine would know by now.
#[derive(Debug, Default, PartialEq)]
struct Known {
    pods: BTreeMap<PodId, Pod>,
    nodes: BTreeMap<Arc<str>, Node>,
    pools: BTreeMap<String, NodePool>,
    daemon_sets: BTreeMap<PodId, DaemonSet>,
    classes: BTreeMap<String, NodeClass>,
    claims: BTreeMap<Arc<str>, NodeClaim>,
}

impl Known {
    fn hear(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::PodApplied(pod) => drop(self.pods.insert(pod.id.clone(), *pod)),
                Event::PodDeleted(id) => drop(self.pods.remove(&id)),
                Event::NodeApplied(node) => drop(self.nodes.insert(Arc::clone(&node.name), *node)),
                Event::NodeDeleted(name) => drop(self.nodes.remove(&name)),
                Event::PoolApplied(pool) => drop(self.pools.insert(pool.name.clone(), *pool)),
                Event::PoolDeleted(name) => drop(self.pools.remove(&name)),
                Event::ClassApplied(class) => drop(self.classes.insert(class.name.clone(), *class)),
                Event::DaemonSetApplied(one) => drop(self.daemon_sets.insert(one.id.clone(), *one)),
                Event::DaemonSetDeleted(id) => drop(self.daemon_sets.remove(&id)),
                Event::ClassDeleted(name) => drop(self.classes.remove(&name)),
                Event::ClaimDeleted { claim } => drop(self.claims.remove(&claim)),
                Event::ClaimApplied(claim) => drop(self.claims.insert(Arc::clone(&claim.name), *claim)),
                _ => {}
            }
        }
    }

    /// The same from one file.
    fn read(objects: &[Value], configuration: Option<&Value>) -> (Self, Vec<PodId>) {
        let text: Vec<String> = objects.iter().chain(configuration).map(ToString::to_string).collect();
        let source = Source { name: "-".to_owned(), text: text.join("\n") };
        let mut read = Manifests::parse(&[source]).unwrap();
        let invalid = std::mem::take(&mut read.invalid_pods).into_iter().map(|(id, _)| id).collect();
        // In a cluster a class is ready when its status says so.
        let unseen = |class| NodeClass { readiness: ClassReadiness::Unknown, ..class };
        let classes: Vec<NodeClass> = read.classes.clone().into_iter().map(unseen).collect();
        let snapshot = read.into_snapshot(|_| Vec::new());
        let known = Self {
            pods: snapshot.pods.into_iter().map(|pod| (pod.id.clone(), pod)).collect(),
            nodes: snapshot.nodes.into_iter().map(|node| (Arc::clone(&node.name), node)).collect(),
            pools: snapshot.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            daemon_sets: snapshot.daemon_sets.into_iter().map(|one| (one.id.clone(), one)).collect(),
            classes: classes.into_iter().map(|class| (class.name.clone(), class)).collect(),
            claims: snapshot.node_claims.into_iter().map(|claim| (Arc::clone(&claim.name), claim)).collect(),
        };
        (known, invalid)
    }
}

/// What happens to one object.
#[derive(Debug, Clone)]
enum Step {
    Apply(Value),
    Delete(Value),
}

/// What becomes of an object that has two forms, and what it is in the end.
fn history([one, two]: [Value; 2], how: u8) -> (Vec<Step>, Option<Value>) {
    use Step::{Apply, Delete};
    match how % 6 {
        0 => (Vec::new(), None),
        1 => (vec![Apply(one.clone())], Some(one)),
        2 => (vec![Apply(two.clone())], Some(two)),
        3 => (vec![Apply(one), Apply(two.clone())], Some(two)),
        4 => (vec![Apply(two.clone()), Delete(two.clone()), Apply(one.clone())], Some(one)),
        _ => (vec![Apply(one.clone()), Delete(one)], None),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_the_same_objects_gives_what_one_file_gives(
        how in prop::collection::vec(any::<u8>(), 21),
        bits in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u8>()), 7),
        job_size in 0_u32..4,
        spread in any::<bool>(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 120),
        sync_at in 0_usize..60,
        take in any::<u64>(),
    ) {
        let pods = bits.iter().enumerate().map(|(number, (one, two, how))| {
            let name = format!("p{number}");
            // Of one name and namespace: the other form is the same pod.
            let (one, two) = (pod(&name, *one), pod(&name, two & !1 | one & 1));
            history([one, two], *how)
        });
        let others = surroundings().into_iter().zip(&how).map(|(forms, how)| history(forms, *how));
        let mut histories: Vec<(Vec<Step>, Option<Value>)> = others.chain(pods).collect();
        if job_size > 0 {
            let [one, worker] = job(job_size, "true");
            let [two, _] = job(job_size, "false");
            histories.push(history([two, one], 3 + how[0] % 2));
            histories.push((vec![Step::Apply(worker.clone())], Some(worker)));
        }
        let objects: Vec<Value> = histories.iter().filter_map(|(_, last)| last.clone()).collect();
        let configuration = spread.then(|| json!({"kind": "KubeSchedulerConfiguration", "profiles": [{"pluginConfig": [
            {"name": "PodTopologySpread", "args": {"defaultConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}}]}]}));
        let mut store = store(configuration.as_ref());
        let mut known = Known::default();
        let mut pending: Vec<std::collections::VecDeque<Step>> = histories.into_iter().map(|(steps, _)| steps.into()).collect();
        let mut order = order.into_iter().cycle();
        let mut steps = 0;
        loop {
            if steps == sync_at {
                listed(&mut store);
            }
            pending.retain(|steps| !steps.is_empty());
            if pending.is_empty() {
                break;
            }
            let next = order.next().unwrap().index(pending.len());
            match pending[next].pop_front().unwrap() {
                Step::Apply(object) => apply(&mut store, &object),
                Step::Delete(object) => {
                    let id = Object::id_of(&object).unwrap();
                    store.apply(Change::Deleted(kind_of(&object), id));
                }
            }
            steps += 1;
            if take & (1 << (steps % 64)) != 0 {
                known.hear(events(&mut store));
            }
        }
        if steps < sync_at {
            listed(&mut store);
        }
        known.hear(events(&mut store));
        let (expected, invalid) = Known::read(&objects, configuration.as_ref());
        let problems: Vec<PodId> = store.problems().filter(|one| one.kind == Kind::Pod && one.is_error).map(|one| one.id.clone()).collect();
        let mut invalid_sorted = invalid;
        invalid_sorted.sort();
        prop_assert_eq!(&problems, &invalid_sorted);
        let mut replayed = Known::default();
        store.replay(&mut |event| replayed.hear(vec![event]));
        for known in [&mut known, &mut replayed] {
            // Stand-ins of pods on nodes, of which a file's reader knows nothing.
            known.pods.retain(|id, _| !problems.contains(id));
        }
        prop_assert_eq!(&replayed, &expected);
        // What a claim leaves open is told when its object is.
        prop_assert!(known.claims.keys().eq(replayed.claims.keys()));
        known.claims = replayed.claims;
        prop_assert_eq!(&known, &expected);
    }
}
