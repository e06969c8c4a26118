//! What runs the simulated VMs: each boots, joins, keeps its node alive and reports, until its ConfigMap is gone.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_shared::NodeName;
use assay_shared::azure;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ApiResource, DeleteParams, Object};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::agents::{AgentLink, SharedMachine};
use super::kubelet;
use super::provider::now;
use super::record::{FAULT, LABEL, VmRecord};
use crate::sim::cloud::{PREEMPTION_NOTICE, machine, with_defect};
use crate::sim::scenario::Defect;

/// From a node's start to its agent's first report.
const AGENT_START: Duration = Duration::from_secs(1);
/// How often a node says that it is alive; a control plane takes it for lost after 50 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A pod takes so long to end.
const POD_END: Duration = Duration::from_millis(500);
/// Pause before an API call of a VM is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What a pod's kubelet looks at.
type SlimPod = Object<PodSpec, PodStatus>;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

/// Runs the VMs of a namespace.
pub struct Host {
    client: Client,
    vms: Api<ConfigMap>,
    link: Arc<dyn AgentLink>,
    running: Mutex<HashMap<String, Running>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// A VM that runs.
struct Running {
    task: AbortHandle,
    machine: SharedMachine,
    fault: String,
    record: Arc<VmRecord>,
}

impl Host {
    /// A host for the VMs of a namespace, whose agents connect by `link`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, link: Arc<dyn AgentLink>) -> Self {
        let vms = Api::namespaced(client.clone(), namespace);
        Self { client, vms, link, running: Mutex::new(HashMap::new()) }
    }

    /// Ends what runs here. The VMs stay as they are, for whoever goes on with them.
    pub fn stand_still(&self) {
        self.keep_only(&[]);
    }

    /// Runs the VMs until it is dropped; then they stand still.
    pub async fn run(&self) {
        let mut tasks = JoinSet::new();
        let mut objects = pin!(watcher(self.vms.clone(), watcher::Config::default().labels(LABEL)));
        let pods: Api<SlimPod> = Api::all_with(self.client.clone(), &ApiResource::erase::<Pod>(&()));
        let mut pods = pin!(watcher(pods, watcher::Config::default().fields("spec.nodeName!=")));
        let mut listed: Vec<String> = Vec::new();
        // Pods are looked at once all VMs are known: those of a VM that is not known yet would be passed over.
        let mut known = false;
        loop {
            tokio::select! {
                Some(event) = objects.next() => match event {
                    Ok(watcher::Event::Apply(object)) => self.applied(&object, &mut tasks),
                    Ok(watcher::Event::InitApply(object)) => {
                        listed.push(object.name_any());
                        self.applied(&object, &mut tasks);
                    }
                    Ok(watcher::Event::Delete(object)) => self.ended(&object.name_any()),
                    Ok(watcher::Event::Init) => listed.clear(),
                    Ok(watcher::Event::InitDone) => {
                        self.keep_only(&listed);
                        known = true;
                    }
                    Err(error) => warn!(%error, "simulated VMs"),
                },
                Some(event) = pods.next(), if known => match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => self.pod(pod, &mut tasks),
                    Ok(_) => {}
                    Err(error) => warn!(%error, "pods of simulated VMs"),
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    fn applied(&self, object: &ConfigMap, tasks: &mut JoinSet<()>) {
        let name = object.name_any();
        let Some(record) = VmRecord::read(object) else {
            warn!(config_map = name, "is no simulated VM");
            return;
        };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.contains_key(&name) {
            let (Some(size), Ok(node)) = (azure::size(&record.instance_type), name.parse::<NodeName>())
            else {
                warn!(config_map = name, size = %record.instance_type, "cannot be run");
                return;
            };
            let made = machine(size, &record.zone, record.capacity_type, &record.draw);
            let machine = SharedMachine::new(node, made);
            let record = Arc::new(record);
            let life =
                live(self.client.clone(), Arc::clone(&record), Arc::clone(&self.link), machine.clone());
            let task = tasks.spawn(life);
            running.insert(name.clone(), Running { task, machine, fault: String::new(), record });
        }
        let fault = object.annotations().get(FAULT).cloned().unwrap_or_default();
        if let Some(vm) = running.get_mut(&name).filter(|vm| vm.fault != fault) {
            vm.fault.clone_from(&fault);
            self.break_machine(&name, vm, &fault, tasks);
        }
    }

    fn break_machine(&self, name: &str, vm: &Running, fault: &str, tasks: &mut JoinSet<()>) {
        info!(vm = name, fault, "fault");
        let defect = match fault {
            "lostGpu" => Defect::LostGpu,
            "lessMemory" => Defect::LessMemory,
            "networkingOff" => Defect::NetworkingOff,
            "preempt" => {
                let not_before = now() + PREEMPTION_NOTICE;
                vm.machine.announce_preemption(not_before.to_string());
                tasks.spawn(vanish(self.vms.clone(), name.to_owned(), PREEMPTION_NOTICE));
                return;
            }
            "vanish" => {
                tasks.spawn(vanish(self.vms.clone(), name.to_owned(), Duration::ZERO));
                return;
            }
            _ => return,
        };
        if let Some(size) = azure::size(&vm.record.instance_type) {
            vm.machine.change(|machine| with_defect(machine, size, defect));
        }
    }

    fn ended(&self, name: &str) {
        if let Some(vm) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            vm.task.abort();
        }
    }

    fn keep_only(&self, listed: &[String]) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|name, vm| {
            let stays = listed.contains(name);
            if !stays {
                vm.task.abort();
            }
            stays
        });
    }

    fn pod(&self, pod: SlimPod, tasks: &mut JoinSet<()>) {
        let here =
            self.running.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&pod.spec.node_name);
        if !here {
            return;
        }
        let client = self.client.clone();
        if pod.metadata.deletion_timestamp.is_some() {
            tasks.spawn(async move {
                sleep(POD_END).await;
                patiently("end of a pod", || kubelet::end(&client, &pod.metadata)).await;
            });
        } else if pod.status.as_ref().is_none_or(|status| matches!(status.phase.as_str(), "" | "Pending")) {
            tasks.spawn(async move {
                patiently("start of a pod", || kubelet::start(&client, &pod.metadata)).await;
            });
        }
    }
}

/// The life of one VM, from its boot on.
async fn live(client: Client, vm: Arc<VmRecord>, link: Arc<dyn AgentLink>, machine: SharedMachine) {
    let name = machine.node().to_string();
    sleep(vm.boots_at().since(now())).await;
    patiently("registration of a node", || kubelet::register(&client, &name, &vm)).await;
    let agent = async {
        sleep(AGENT_START).await;
        // Dropped with this task, which ends the agent.
        let _connected = link.connect(machine);
        std::future::pending::<()>().await;
    };
    let alive = async {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if let Err(error) = kubelet::renew(&client, &name).await {
                warn!(node = name, %error, "heartbeat");
            }
        }
    };
    tokio::join!(agent, alive);
}

/// The cloud takes a VM away.
async fn vanish(vms: Api<ConfigMap>, name: String, after: Duration) {
    sleep(after).await;
    if let Err(error) = vms.delete(&name, &DeleteParams::default()).await {
        warn!(vm = name, %error, "not taken away");
    }
}

/// Tries until it succeeds.
async fn patiently<F>(what: &str, mut attempt: impl FnMut() -> F)
where
    F: Future<Output = Result<(), kube::Error>>,
{
    while let Err(error) = attempt().await {
        warn!(%error, "{what}");
        sleep(RETRY).await;
    }
}
