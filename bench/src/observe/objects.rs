//! The objects of a large cluster, written when they are asked for: as long as those of an API server, `managedFields` and all.

use std::fmt::Write as _;
use std::sync::OnceLock;

use assay_scheduler::kube::api::hash;

/// Nodes, each with its claim and its CSINode.
pub(super) const NODES: usize = 5_000;
/// Pods: half of DaemonSets, the rest of Deployments, StatefulSets with a volume each, and Jobs with labels of their own.
pub(super) const PODS: usize = 100_000;
const DAEMON_SETS: usize = 10;
const DEPLOYED: usize = 40_000;
const REPLICAS: usize = 40;
const STATEFUL: usize = 5_000;
const SET_SIZE: usize = 20;
const NAMESPACES: usize = 100;
const JOB_SIZE: usize = 5;

/// How many objects a path has, and the object of a number.
pub(super) type Objects = (usize, fn(usize) -> String);

/// What is listed at a path.
pub(super) fn at(path: &str) -> Objects {
    match path {
        "/api/v1/pods" => (PODS, |number| pod(number, 1)),
        "/api/v1/nodes" => (NODES, node),
        "/apis/karpenter.sh/v1/nodeclaims" => (NODES, node_claim),
        "/apis/karpenter.sh/v1/nodepools" => (1, |_| node_pool()),
        "/apis/karpenter.azure.com/v1beta1/aksnodeclasses" => (1, |_| node_class()),
        "/apis/storage.k8s.io/v1/csinodes" => (NODES, csi_node),
        "/apis/storage.k8s.io/v1/storageclasses" => (1, |_| storage_class()),
        "/apis/storage.k8s.io/v1/volumeattachments" => (STATEFUL, volume_attachment),
        "/api/v1/persistentvolumes" => (STATEFUL, persistent_volume),
        "/api/v1/persistentvolumeclaims" => (STATEFUL, persistent_volume_claim),
        "/api/v1/namespaces" => (NAMESPACES, namespace),
        "/apis/apps/v1/daemonsets" => (DAEMON_SETS, daemon_set),
        "/apis/policy/v1/poddisruptionbudgets" => (DEPLOYED / REPLICAS, budget),
        "/apis/scheduling.k8s.io/v1/priorityclasses" => (2, priority_class),
        _ => (0, |_| String::new()),
    }
}

/// The object that a path names, where it is a node, a claim, the pool or the class.
pub(super) fn named(path: &str) -> Option<String> {
    let mut parts = path.trim_end_matches("/status").rsplit('/');
    let (name, kind) = (parts.next()?, parts.next()?);
    let number = || usize::from_str_radix(name.strip_prefix("default-")?, 16).ok();
    match kind {
        "nodes" => Some(node(number()?)),
        "nodeclaims" => Some(node_claim(number()?)),
        "nodepools" => Some(node_pool()),
        "aksnodeclasses" => Some(node_class()),
        _ => None,
    }
}

/// Metadata with what every object has. `more` are further fields, each with a comma behind it.
fn metadata(name: &str, number: usize, version: usize, more: &str) -> String {
    let uid = format!("{:08x}-5a17-4c2e-9b1d-{number:012x}", name.len());
    format!(
        r#""metadata":{{"name":"{name}","uid":"{uid}","resourceVersion":"{version}",{more}"creationTimestamp":"2026-10-01T08:00:00Z","managedFields":[{}]}}"#,
        managed_fields()
    )
}

/// Who wrote which field: a quarter of an object's text.
fn managed_fields() -> String {
    let mut fields = String::new();
    for manager in ["kube-controller-manager", "kubelet"] {
        let _ = write!(
            fields,
            r#"{{"manager":"{manager}","operation":"Update","apiVersion":"v1","time":"2026-10-01T08:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":{{".":{{}},"f:app":{{}},"f:pod-template-hash":{{}}}},"f:ownerReferences":{{".":{{}},"k:{{\"uid\":\"5a17\"}}":{{}}}}}},"f:spec":{{"f:containers":{{"k:{{\"name\":\"app\"}}":{{".":{{}},"f:env":{{".":{{}},"k:{{\"name\":\"A\"}}":{{".":{{}},"f:name":{{}},"f:value":{{}}}}}},"f:image":{{}},"f:imagePullPolicy":{{}},"f:livenessProbe":{{".":{{}},"f:failureThreshold":{{}},"f:httpGet":{{".":{{}},"f:path":{{}},"f:port":{{}},"f:scheme":{{}}}},"f:initialDelaySeconds":{{}}}},"f:name":{{}},"f:resources":{{".":{{}},"f:limits":{{".":{{}},"f:memory":{{}}}},"f:requests":{{".":{{}},"f:cpu":{{}},"f:memory":{{}}}}}},"f:securityContext":{{".":{{}},"f:allowPrivilegeEscalation":{{}}}},"f:terminationMessagePath":{{}}}}}},"f:dnsPolicy":{{}},"f:enableServiceLinks":{{}},"f:restartPolicy":{{}},"f:schedulerName":{{}},"f:terminationGracePeriodSeconds":{{}}}}}}}},"#
        );
    }
    fields.pop();
    fields
}

/// What a pod is: of which controller, and with which labels, affinity and volumes.
struct Kind {
    name: String,
    namespace: String,
    labels: String,
    owner: String,
    affinity: String,
    claim: String,
    cpu: &'static str,
}

const CPU: [&str; 5] = ["100m", "250m", "500m", "750m", "1"];

fn kind(number: usize) -> Kind {
    let owner = |kind: &str, name: &str| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"{kind}","name":"{name}","uid":"3c0e","controller":true,"blockOwnerDeletion":true}}"#
        )
    };
    let daemons = NODES * DAEMON_SETS;
    if number < daemons {
        let set = number / NODES;
        return Kind {
            name: format!("agent-{set}-{number:x}"),
            namespace: "kube-system".to_owned(),
            labels: format!(
                r#""app":"agent-{set}","controller-revision-hash":"6b9f","pod-template-generation":"3""#
            ),
            owner: owner("DaemonSet", &format!("agent-{set}")),
            affinity: format!(
                r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchFields":[{{"key":"metadata.name","operator":"In","values":["{}"]}}]}}]}}}}}},"#,
                node_name(number % NODES)
            ),
            claim: String::new(),
            cpu: "50m",
        };
    }
    let number = number - daemons;
    if number < DEPLOYED {
        let app = number / REPLICAS;
        let spread = format!(
            r#""topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"ScheduleAnyway","labelSelector":{{"matchLabels":{{"app":"web-{app}"}}}}}}],"#
        );
        return Kind {
            name: format!("web-{app}-7d9c6b5f48-{number:05x}"),
            namespace: format!("team-{}", app % NAMESPACES),
            labels: format!(
                r#""app":"web-{app}","app.kubernetes.io/name":"web-{app}","app.kubernetes.io/part-of":"shop","pod-template-hash":"7d9c6b5f48""#
            ),
            owner: owner("ReplicaSet", &format!("web-{app}-7d9c6b5f48")),
            affinity: if app.is_multiple_of(3) { spread } else { String::new() },
            claim: String::new(),
            cpu: CPU[app % CPU.len()],
        };
    }
    let number = number - DEPLOYED;
    if number < STATEFUL {
        let (set, ordinal) = (number / SET_SIZE, number % SET_SIZE);
        return Kind {
            name: format!("db-{set}-{ordinal}"),
            namespace: format!("team-{}", set % NAMESPACES),
            labels: format!(
                r#""app":"db-{set}","apps.kubernetes.io/pod-index":"{ordinal}","controller-revision-hash":"db-{set}-58","statefulset.kubernetes.io/pod-name":"db-{set}-{ordinal}""#
            ),
            owner: owner("StatefulSet", &format!("db-{set}")),
            affinity: format!(
                r#""affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{"topologyKey":"kubernetes.io/hostname","labelSelector":{{"matchLabels":{{"app":"db-{set}"}}}}}}]}}}},"#
            ),
            claim: format!(
                r#"{{"name":"data","persistentVolumeClaim":{{"claimName":"data-db-{set}-{ordinal}"}}}},"#
            ),
            cpu: "1",
        };
    }
    let number = number - STATEFUL;
    let (job, index) = (number / JOB_SIZE, number % JOB_SIZE);
    Kind {
        name: format!("batch-{job}-{index}-x{number:04x}"),
        namespace: format!("team-{}", job % NAMESPACES),
        labels: format!(
            r#""batch.kubernetes.io/controller-uid":"{number:08x}-77aa","batch.kubernetes.io/job-completion-index":"{index}","batch.kubernetes.io/job-name":"batch-{job}","job-name":"batch-{job}""#
        ),
        owner: owner("Job", &format!("batch-{job}")),
        affinity: String::new(),
        claim: String::new(),
        cpu: CPU[job % CPU.len()],
    }
}

/// A running pod.
pub(super) fn pod(number: usize, version: usize) -> String {
    let kind = kind(number);
    let node = format!(r#""nodeName":"{}","#, node_name(number % NODES));
    pod_of(&kind, number, version, &node, "Running")
}

/// A pod that waits for a node.
pub(super) fn pending_pod(number: usize, version: usize) -> String {
    // Like one that is deployed already, but too large for what is free on the nodes.
    let mut kind = kind(NODES * DAEMON_SETS + number % DEPLOYED);
    kind.name = format!("new-{number}");
    kind.cpu = "15500m";
    pod_of(&kind, number, version, "", "Pending")
}

fn pod_of(kind: &Kind, number: usize, version: usize, node: &str, phase: &str) -> String {
    let Kind { name, namespace, labels, owner, affinity, claim, cpu } = kind;
    let metadata = metadata(
        name,
        number,
        version,
        &format!(
            r#""generateName":"{name}","namespace":"{namespace}","labels":{{{labels}}},"annotations":{{"prometheus.io/scrape":"true","kubectl.kubernetes.io/restartedAt":"2026-09-30T10:00:00Z"}},"ownerReferences":[{owner}],"#
        ),
    );
    let mut env = String::new();
    for variable in 0..12 {
        let _ = write!(
            env,
            r#"{{"name":"SETTING_{variable}","value":"https://service-{variable}.{namespace}.svc.cluster.local:8443/path"}},"#
        );
    }
    let condition = |kind: &str| {
        format!(
            r#"{{"type":"{kind}","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-10-01T08:00:10Z","observedGeneration":1}}"#
        )
    };
    let conditions: Vec<String> =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(condition)
            .into();
    let probe = |path: &str| {
        format!(
            r#"{{"httpGet":{{"path":"{path}","port":8080,"scheme":"HTTP"}},"initialDelaySeconds":5,"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}}"#
        )
    };
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1",{metadata},"spec":{{"volumes":[{claim}{{"name":"config","configMap":{{"name":"config","defaultMode":420}}}},{{"name":"kube-api-access-{number:x}","projected":{{"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}},{{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},{{"downwardAPI":{{"items":[{{"path":"namespace","fieldRef":{{"apiVersion":"v1","fieldPath":"metadata.namespace"}}}}]}}}}],"defaultMode":420}}}}],"containers":[{{"name":"app","image":"registry.example.com/team/service:1.2.3","args":["--listen=:8080","--log-level=info"],"ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],"env":[{env}{{"name":"LAST","value":"x"}}],"resources":{{"limits":{{"memory":"512Mi"}},"requests":{{"cpu":"{cpu}","memory":"512Mi"}}}},"volumeMounts":[{{"name":"config","mountPath":"/etc/config"}},{{"name":"kube-api-access-{number:x}","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}}],"livenessProbe":{},"readinessProbe":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":{{"capabilities":{{"drop":["ALL"]}},"allowPrivilegeEscalation":false}}}},{{"name":"proxy","image":"registry.example.com/mesh/proxy:2.3","resources":{{"limits":{{"memory":"128Mi"}},"requests":{{"cpu":"10m","memory":"64Mi"}}}},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default",{node}"securityContext":{{}},{affinity}"schedulerName":"default-scheduler","tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}},{{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"}},"status":{{"phase":"{phase}","conditions":[{}],"hostIP":"10.224.0.4","podIP":"10.244.1.7","podIPs":[{{"ip":"10.244.1.7"}}],"startTime":"2026-10-01T08:00:00Z","containerStatuses":[{}],"qosClass":"Burstable"}}}}"#,
        probe("/healthz"),
        probe("/readyz"),
        conditions.join(","),
        if phase == "Running" { container_statuses(cpu, number) } else { String::new() },
    )
}

fn container_statuses(cpu: &str, number: usize) -> String {
    let one = |name: &str, cpu: &str, memory: &str| {
        format!(
            r#"{{"name":"{name}","state":{{"running":{{"startedAt":"2026-10-01T08:00:05Z"}}}},"lastState":{{}},"ready":true,"restartCount":0,"image":"registry.example.com/team/{name}:1.2.3","imageID":"registry.example.com/team/{name}@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","containerID":"containerd://{number:064x}","started":true,"allocatedResources":{{"cpu":"{cpu}","memory":"{memory}"}},"resources":{{"limits":{{"memory":"{memory}"}},"requests":{{"cpu":"{cpu}","memory":"{memory}"}}}},"volumeMounts":[{{"name":"config","mountPath":"/etc/config"}}]}}"#
        )
    };
    format!("{},{}", one("app", cpu, "512Mi"), one("proxy", "10m", "64Mi"))
}

fn node_name(number: usize) -> String {
    format!("default-{number:05x}")
}

const ZONES: [&str; 3] = ["eastus-1", "eastus-2", "eastus-3"];

/// Labels of a machine of the pool.
fn machine_labels(number: usize) -> String {
    let (zone, name) = (ZONES[number % ZONES.len()], node_name(number));
    format!(
        r#""kubernetes.io/hostname":"{name}","kubernetes.io/os":"linux","kubernetes.io/arch":"amd64","node.kubernetes.io/instance-type":"Standard_D16s_v5","topology.kubernetes.io/region":"eastus","topology.kubernetes.io/zone":"{zone}","karpenter.sh/nodepool":"default","karpenter.sh/capacity-type":"on-demand","karpenter.sh/registered":"true","karpenter.sh/initialized":"true","karpenter.azure.com/aksnodeclass":"default","karpenter.azure.com/sku-family":"D","karpenter.azure.com/sku-cpu":"16","karpenter.azure.com/sku-memory":"65536","karpenter.azure.com/sku-name":"Standard_D16s_v5","karpenter.azure.com/sku-version":"5","kubernetes.azure.com/cluster":"MC_cluster_eastus","kubernetes.azure.com/mode":"user","kubernetes.azure.com/os-sku":"Ubuntu","hardware.assay.dev/cpu-vendor":"intel","hardware.assay.dev/cpu-isa":"v4","hardware.assay.dev/memory-installed-mib":"65536","hardware.assay.dev/verified":"true","topology.disk.csi.azure.com/zone":"{zone}","beta.kubernetes.io/arch":"amd64","beta.kubernetes.io/os":"linux""#
    )
}

const CAPACITY: &str = r#""cpu":"16","ephemeral-storage":"129886128Ki","hugepages-1Gi":"0","hugepages-2Mi":"0","memory":"65849000Ki","pods":"110""#;
const ALLOCATABLE: &str = r#""cpu":"15740m","ephemeral-storage":"119703055367","hugepages-1Gi":"0","hugepages-2Mi":"0","memory":"60000000Ki","pods":"110""#;

fn node(number: usize) -> String {
    let metadata = metadata(
        &node_name(number),
        number,
        1,
        &format!(
            r#""labels":{{{}}},"annotations":{{"csi.volume.kubernetes.io/nodeid":"{{\"disk.csi.azure.com\":\"{}\"}}","node.alpha.kubernetes.io/ttl":"0","volumes.kubernetes.io/controller-managed-attach-detach":"true"}},"#,
            machine_labels(number),
            node_name(number)
        ),
    );
    let mut images = String::new();
    for image in 0..50 {
        let _ = write!(
            images,
            r#"{{"names":["registry.example.com/team/image-{image}@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","registry.example.com/team/image-{image}:1.0"],"sizeBytes":123456789}},"#
        );
    }
    images.pop();
    let condition = |kind: &str, status: &str| {
        format!(
            r#"{{"type":"{kind}","status":"{status}","lastHeartbeatTime":"2026-10-02T08:00:00Z","lastTransitionTime":"2026-10-01T08:00:00Z","reason":"Kubelet","message":"kubelet has what it needs"}}"#
        )
    };
    format!(
        r#"{{"kind":"Node","apiVersion":"v1",{metadata},"spec":{{"podCIDR":"10.244.0.0/24","podCIDRs":["10.244.0.0/24"],"providerID":"{}"}},"status":{{"capacity":{{{CAPACITY}}},"allocatable":{{{ALLOCATABLE}}},"conditions":[{},{},{},{}],"addresses":[{{"type":"InternalIP","address":"10.224.0.4"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":10250}}}},"nodeInfo":{{"machineID":"0123","kernelVersion":"5.15.0","osImage":"Ubuntu 22.04.5 LTS","containerRuntimeVersion":"containerd://1.7","kubeletVersion":"v1.33.1"}},"images":[{images}]}}}}"#,
        provider_id(number),
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False"),
        condition("Ready", "True"),
    )
}

fn provider_id(number: usize) -> String {
    format!(
        "azure:///subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/mc_cluster/providers/Microsoft.Compute/virtualMachines/{}",
        node_name(number)
    )
}

fn node_claim(number: usize) -> String {
    let metadata = metadata(
        &node_name(number),
        number,
        1,
        &format!(
            r#""labels":{{{}}},"annotations":{{{},{}}},"finalizers":["karpenter.sh/termination"],"ownerReferences":[{{"apiVersion":"karpenter.sh/v1","kind":"NodePool","name":"default","uid":"1"}}],"#,
            machine_labels(number),
            pool_hash(),
            class_hash()
        ),
    );
    let condition = |kind: &str| {
        format!(
            r#"{{"type":"{kind}","status":"True","reason":"{kind}","message":"","lastTransitionTime":"2026-10-01T08:01:00Z"}}"#
        )
    };
    let conditions: Vec<String> = ["Launched", "Registered", "Initialized", "Ready"].map(condition).into();
    format!(
        r#"{{"kind":"NodeClaim","apiVersion":"karpenter.sh/v1",{metadata},"spec":{{"nodeClassRef":{{"group":"karpenter.azure.com","kind":"AKSNodeClass","name":"default"}},"requirements":[{{"key":"karpenter.sh/nodepool","operator":"In","values":["default"]}},{{"key":"node.kubernetes.io/instance-type","operator":"In","values":["Standard_D16s_v5","Standard_D16s_v4","Standard_D16as_v5"]}}],"resources":{{"requests":{{"cpu":"7","memory":"12Gi","pods":"20"}}}},"expireAfter":"720h"}},"status":{{"nodeName":"{}","providerID":"{}","imageID":"/images/1","capacity":{{{CAPACITY}}},"allocatable":{{{ALLOCATABLE}}},"conditions":[{}]}}}}"#,
        node_name(number),
        provider_id(number),
        conditions.join(",")
    )
}

/// The annotations that say of which pool a claim was made, so that none has drifted.
fn pool_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let hash = serde_json::from_str(&pool_of("")).ok().and_then(|pool| hash::of_node_pool(&pool));
        format!(
            r#""karpenter.sh/nodepool-hash":"{}","karpenter.sh/nodepool-hash-version":"v3""#,
            hash.unwrap_or_default()
        )
    })
}

/// The same of its class.
fn class_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let hash = serde_json::from_str(&class_of("")).ok().and_then(|class| hash::of_aks_node_class(&class));
        format!(
            r#""karpenter.azure.com/aksnodeclass-hash":"{}","karpenter.azure.com/aksnodeclass-hash-version":"v3""#,
            hash.unwrap_or_default()
        )
    })
}

fn node_pool() -> String {
    pool_of(pool_hash())
}

fn pool_of(annotations: &str) -> String {
    let more = format!(r#""annotations":{{{annotations}}},"#);
    format!(
        r#"{{"kind":"NodePool","apiVersion":"karpenter.sh/v1",{},"spec":{{"disruption":{{"consolidationPolicy":"WhenEmptyOrUnderutilized","consolidateAfter":"1h","budgets":[{{"nodes":"10%"}}]}},"template":{{"spec":{{"nodeClassRef":{{"group":"karpenter.azure.com","kind":"AKSNodeClass","name":"default"}},"requirements":[{{"key":"karpenter.sh/capacity-type","operator":"In","values":["on-demand"]}}],"expireAfter":"720h"}}}}}}}}"#,
        metadata("default", 0, 1, &more)
    )
}

fn node_class() -> String {
    class_of(class_hash())
}

fn class_of(annotations: &str) -> String {
    let more =
        format!(r#""annotations":{{{annotations}}},"finalizers":["karpenter.azure.com/termination"],"#);
    let metadata = metadata("default", 0, 1, &more);
    // An earlier leader has found it ready: this server shows what is written to nobody.
    format!(
        r#"{{"kind":"AKSNodeClass","apiVersion":"karpenter.azure.com/v1beta1",{metadata},"spec":{{"imageFamily":"Ubuntu","osDiskSizeGB":128}},"status":{{"kubernetesVersion":"1.33.1","conditions":[{{"type":"Ready","status":"True","reason":"Ready","message":"","lastTransitionTime":"2026-10-01T08:00:00Z"}}]}}}}"#
    )
}

fn csi_node(number: usize) -> String {
    let name = node_name(number);
    format!(
        r#"{{"kind":"CSINode","apiVersion":"storage.k8s.io/v1",{},"spec":{{"drivers":[{{"name":"disk.csi.azure.com","nodeID":"{name}","topologyKeys":["topology.disk.csi.azure.com/zone"],"allocatable":{{"count":32}}}},{{"name":"file.csi.azure.com","nodeID":"{name}","topologyKeys":null}}]}}}}"#,
        metadata(&name, number, 1, "")
    )
}

fn storage_class() -> String {
    format!(
        r#"{{"kind":"StorageClass","apiVersion":"storage.k8s.io/v1",{},"provisioner":"disk.csi.azure.com","reclaimPolicy":"Delete","volumeBindingMode":"WaitForFirstConsumer"}}"#,
        metadata(
            "managed-csi",
            0,
            1,
            r#""annotations":{"storageclass.kubernetes.io/is-default-class":"true"},"#
        )
    )
}

fn volume_name(number: usize) -> String {
    format!("pvc-{number:08x}-91d7-4a6e-8a0e-1f2e3d4c5b6a")
}

/// The node of the pod that has a volume.
fn node_of_volume(number: usize) -> usize {
    (NODES * DAEMON_SETS + DEPLOYED + number) % NODES
}

fn volume_attachment(number: usize) -> String {
    let (volume, node) = (volume_name(number), node_name(node_of_volume(number)));
    format!(
        r#"{{"kind":"VolumeAttachment","apiVersion":"storage.k8s.io/v1",{},"spec":{{"attacher":"disk.csi.azure.com","source":{{"persistentVolumeName":"{volume}"}},"nodeName":"{node}"}},"status":{{"attached":true}}}}"#,
        metadata(&format!("csi-{number:064x}"), number, 1, "")
    )
}

fn persistent_volume(number: usize) -> String {
    let zone = ZONES[node_of_volume(number) % ZONES.len()];
    format!(
        r#"{{"kind":"PersistentVolume","apiVersion":"v1",{},"spec":{{"capacity":{{"storage":"64Gi"}},"csi":{{"driver":"disk.csi.azure.com","volumeHandle":"/subscriptions/0/resourceGroups/mc/providers/Microsoft.Compute/disks/{}"}},"accessModes":["ReadWriteOnce"],"storageClassName":"managed-csi","nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"topology.disk.csi.azure.com/zone","operator":"In","values":["{zone}"]}}]}}]}}}}}},"status":{{"phase":"Bound"}}}}"#,
        metadata(&volume_name(number), number, 1, ""),
        volume_name(number)
    )
}

fn persistent_volume_claim(number: usize) -> String {
    let (set, ordinal) = (number / SET_SIZE, number % SET_SIZE);
    let more = format!(
        r#""namespace":"team-{}","annotations":{{"pv.kubernetes.io/bind-completed":"yes","volume.kubernetes.io/selected-node":"x"}},"#,
        set % NAMESPACES
    );
    format!(
        r#"{{"kind":"PersistentVolumeClaim","apiVersion":"v1",{},"spec":{{"accessModes":["ReadWriteOnce"],"resources":{{"requests":{{"storage":"64Gi"}}}},"volumeName":"{}","storageClassName":"managed-csi","volumeMode":"Filesystem"}},"status":{{"phase":"Bound"}}}}"#,
        metadata(&format!("data-db-{set}-{ordinal}"), number, 1, &more),
        volume_name(number)
    )
}

fn namespace(number: usize) -> String {
    let name = format!("team-{number}");
    let labels = format!(r#""labels":{{"kubernetes.io/metadata.name":"{name}","team":"{number}"}},"#);
    format!(
        r#"{{"kind":"Namespace","apiVersion":"v1",{},"spec":{{"finalizers":["kubernetes"]}},"status":{{"phase":"Active"}}}}"#,
        metadata(&name, number, 1, &labels)
    )
}

fn daemon_set(number: usize) -> String {
    let metadata = metadata(&format!("agent-{number}"), number, 1, r#""namespace":"kube-system","#);
    format!(
        r#"{{"kind":"DaemonSet","apiVersion":"apps/v1",{metadata},"spec":{{"selector":{{"matchLabels":{{"app":"agent-{number}"}}}},"template":{{"metadata":{{"creationTimestamp":null,"labels":{{"app":"agent-{number}"}}}},"spec":{{"containers":[{{"name":"app","image":"i","resources":{{"requests":{{"cpu":"50m","memory":"512Mi"}}}}}}],"tolerations":[{{"operator":"Exists"}}]}}}}}}}}"#
    )
}

fn budget(number: usize) -> String {
    let more = format!(r#""namespace":"team-{}","generation":1,"#, number % NAMESPACES);
    format!(
        r#"{{"kind":"PodDisruptionBudget","apiVersion":"policy/v1",{},"spec":{{"minAvailable":"90%","selector":{{"matchLabels":{{"app":"web-{number}"}}}}}},"status":{{"disruptionsAllowed":4,"observedGeneration":1,"currentHealthy":40,"desiredHealthy":36,"expectedPods":40}}}}"#,
        metadata(&format!("web-{number}"), number, 1, &more)
    )
}

fn priority_class(number: usize) -> String {
    let name = ["system-node-critical", "system-cluster-critical"][number % 2];
    format!(
        r#"{{"kind":"PriorityClass","apiVersion":"scheduling.k8s.io/v1",{},"value":{}}}"#,
        metadata(name, number, 1, ""),
        2_000_001_000 - 1_000 * number
    )
}
