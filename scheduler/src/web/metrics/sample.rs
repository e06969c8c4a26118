//! The cluster at one moment, as gauges: what it consists of, what that has, takes and costs.
//!
//! A sample is as large as the cluster and no larger: it shares names and amounts with what it was taken of, and is written
//! to text when somebody reads. Pods are the exception that needs a bound: see [`PODS_SHOWN`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use assay_core::engine::Stats;
use assay_core::model::{PodId, ResourceList};
use assay_shared::units::{Bytes, UsdPerHour};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::write::Writer;

/// Pods that `karpenter_pods_state` shows, a line of about 300 bytes each. Beyond, the rest is left out and counted: a page
/// of 30 MB at 100,000 pods would help nobody.
pub const PODS_SHOWN: usize = 10_000;

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct ClusterSample {
    /// Its pools.
    pub pools: Vec<PoolSample>,
    /// Its nodes, whoever made them.
    pub nodes: Vec<NodeSample>,
    /// NodeClaims and what they cost.
    pub claims: Vec<ClaimSample>,
    /// Its pods; at most [`PODS_SHOWN`] are of use.
    pub pods: Vec<PodSample>,
    /// All pods, those left out included.
    pub pods_in_all: usize,
    /// Those that have not started; at most [`PODS_SHOWN`] are of use.
    pub waiting: Vec<WaitingSample>,
    /// What the engine has counted.
    pub stats: Stats,
}

/// A pool.
#[derive(Debug, Clone)]
pub struct PoolSample {
    /// Its name.
    pub name: Arc<str>,
    /// Its limits by resource name: millicores of `cpu`, otherwise bytes or units; `nodes` among them.
    pub limits: Vec<(String, u64)>,
    /// What its nodes and claims have.
    pub usage: ResourceList,
    /// How many they are.
    pub nodes: u64,
    /// How many nodes may go now, by reason.
    pub allowed_disruptions: Vec<(&'static str, u64)>,
}

/// A node.
#[derive(Debug, Clone)]
pub struct NodeSample {
    /// Its name.
    pub name: Arc<str>,
    /// Whether we made it.
    pub managed: bool,
    /// Its labels, or those of them that are shown: `karpenter.sh/nodepool` and the well-known ones.
    pub labels: NodeLabels,
    /// What its kubelet gives to pods.
    pub allocatable: ResourceList,
    /// What it has.
    pub capacity: ResourceList,
    /// What its pods ask for, DaemonSets included.
    pub pod_requests: ResourceList,
    /// What those of DaemonSets ask for.
    pub daemon_requests: ResourceList,
    /// How long ago it joined, seconds.
    pub age_seconds: u64,
}

/// Labels of a node that its metrics carry; empty where it has none.
#[derive(Debug, Clone, Default)]
pub struct NodeLabels {
    /// `kubernetes.io/arch`.
    pub arch: String,
    /// `karpenter.sh/capacity-type`.
    pub capacity_type: String,
    /// `node.kubernetes.io/instance-type`.
    pub instance_type: String,
    /// `karpenter.sh/nodepool`.
    pub nodepool: String,
    /// `kubernetes.io/os`.
    pub os: String,
    /// `topology.kubernetes.io/region`.
    pub region: String,
    /// `topology.kubernetes.io/zone`.
    pub zone: String,
}

/// A NodeClaim.
#[derive(Debug, Clone)]
pub struct ClaimSample {
    /// Its name.
    pub name: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// What was bought.
    pub instance_type: Arc<str>,
    /// What it costs.
    pub price: UsdPerHour,
    /// What the cheapest cost that would have done when it was bought, where that is known.
    pub cheapest: Option<UsdPerHour>,
    /// Memory that pods were expected to get when it was bought.
    pub predicted_memory: Bytes,
    /// Memory that they get, once its node has joined.
    pub measured_memory: Option<Bytes>,
}

/// A pod.
#[derive(Debug, Clone)]
pub struct PodSample {
    /// Which.
    pub id: PodId,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// `Pending`, `Running`, `Succeeded` and so on.
    pub phase: &'static str,
}

/// A pod that has not started, in seconds.
#[derive(Debug, Clone)]
pub struct WaitingSample {
    /// Which.
    pub id: PodId,
    /// Whether it is bound.
    pub bound: bool,
    /// Its age.
    pub age: f64,
    /// How long ago it was decided where it goes.
    pub decided: Option<f64>,
    /// For how long that has not been decided since it was seen.
    pub undecided: Option<f64>,
}

/// The last sample.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<Arc<ClusterSample>>);

impl Samples {
    pub(super) fn replace(&self, sample: ClusterSample) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sample);
    }

    fn last(&self) -> Arc<ClusterSample> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(super) struct SampleCollector(pub(super) Arc<Samples>);

impl Collector for SampleCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sample = self.0.last();
        let mut writer = Writer(&mut encoder);
        sample.write_pools(&mut writer)?;
        sample.write_nodes(&mut writer)?;
        sample.write_claims(&mut writer)?;
        sample.write_pods(&mut writer)?;
        sample.write_waiting(&mut writer)?;
        sample.write_stats(&mut writer)
    }
}

/// A number for a gauge.
#[allow(clippy::cast_precision_loss)] // 16 digits of an amount are enough
fn number(amount: u64) -> f64 {
    amount as f64
}

/// An amount as metrics have it: cores, bytes, units.
fn amount(name: &str, amount: u64) -> f64 {
    if name == "cpu" { number(amount) / 1000.0 } else { number(amount) }
}

fn dollars(price: UsdPerHour) -> f64 {
    number(price.0) / 1e9
}

/// A resource's name as Karpenter's metrics have it.
fn resource_type(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Resources of a list by the names of metrics; the four common ones always.
fn amounts(list: &ResourceList) -> Vec<(String, f64)> {
    let common = ["cpu", "memory", "ephemeral-storage", "pods"];
    let names = common.into_iter().chain(list.extended.keys().map(String::as_str));
    names.map(|name| (resource_type(name), amount(name, list.amount(name)))).collect()
}

impl ClusterSample {
    fn write_pools(&self, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
        let limits = self.pools.iter().flat_map(|pool| {
            pool.limits.iter().map(|(name, limit)| {
                let labels = [("nodepool", pool.name.to_string()), ("resource_type", resource_type(name))];
                (labels, amount(name, *limit))
            })
        });
        writer.gauges("karpenter_nodepools_limit", "The most a pool may hold", limits)?;
        let usage = self.pools.iter().flat_map(|pool| {
            let nodes = ("nodes".to_owned(), number(pool.nodes));
            amounts(&pool.usage)
                .into_iter()
                .chain([nodes])
                .map(|(name, held)| ([("nodepool", pool.name.to_string()), ("resource_type", name)], held))
        });
        writer.gauges("karpenter_nodepools_usage", "What the nodes and claims of a pool have", usage)?;
        let allowed = self.pools.iter().flat_map(|pool| {
            let reasons = pool.allowed_disruptions.iter();
            reasons.map(|(reason, nodes)| ([("nodepool", &*pool.name), ("reason", *reason)], number(*nodes)))
        });
        writer.gauges(
            "karpenter_nodepools_allowed_disruptions",
            "Nodes of a pool that may go now, by reason",
            allowed,
        )?;
        let mut cost: BTreeMap<&str, (f64, f64)> =
            self.pools.iter().map(|pool| (&*pool.name, (0.0, 0.0))).collect();
        for claim in &self.claims {
            let (paid, cheapest) = cost.entry(&claim.pool).or_default();
            *paid += dollars(claim.price);
            *cheapest += dollars(claim.cheapest.unwrap_or(claim.price));
        }
        writer.gauges(
            "karpenter_nodepools_cost_total",
            "What the claims of a pool cost, dollars per hour",
            cost.iter().map(|(pool, (paid, _))| ([("nodepool", *pool)], *paid)),
        )?;
        writer.gauges(
            "assay_nodepools_cheapest_cost",
            "What the claims of a pool would cost, had each been the cheapest that would have done, dollars per hour",
            cost.iter().map(|(pool, (_, cheapest))| ([("nodepool", *pool)], *cheapest)),
        )
    }

    fn write_nodes(&self, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
        writer.gauges(
            "karpenter_cluster_state_node_count",
            "Nodes that are known",
            [([("", ""); 0], number(self.nodes.len() as u64))],
        )?;
        type Of = fn(&NodeSample) -> ResourceList;
        let families: [(&str, &str, Of); 4] = [
            ("karpenter_nodes_allocatable", "What the kubelet of a node gives to pods", |node| {
                node.allocatable.clone()
            }),
            (
                "karpenter_nodes_total_pod_requests",
                "What the pods of a node ask for, DaemonSets included",
                |node| node.pod_requests.clone(),
            ),
            (
                "karpenter_nodes_total_daemon_requests",
                "What the pods of DaemonSets on a node ask for",
                |node| node.daemon_requests.clone(),
            ),
            ("karpenter_nodes_system_overhead", "What a node keeps from its pods", |node| {
                node.capacity.clone() - &node.allocatable
            }),
        ];
        for (name, help, of) in families {
            let values = self.nodes.iter().flat_map(|node| {
                let amounts = amounts(&of(node)).into_iter();
                amounts.map(|(resource, held)| ((node.labels(), [("resource_type", resource)]), held))
            });
            writer.gauges(name, help, values)?;
        }
        writer.gauges(
            "karpenter_nodes_current_lifetime_seconds",
            "Age of a node",
            self.nodes.iter().map(|node| (node.labels(), number(node.age_seconds))),
        )?;
        let (mut held, mut asked) = (ResourceList::default(), ResourceList::default());
        for node in &self.nodes {
            held += &node.allocatable;
            asked += &node.pod_requests;
        }
        let asked: BTreeMap<_, _> = amounts(&asked).into_iter().collect();
        let used = amounts(&held).into_iter().filter(|(_, held)| *held > 0.0).map(|(resource, held)| {
            let percent = 100.0 * asked.get(&resource).copied().unwrap_or(0.0) / held;
            ([("resource_type", resource)], percent)
        });
        writer.gauges(
            "karpenter_cluster_utilization_percent",
            "Requests of pods over what nodes give them",
            used,
        )
    }

    fn write_claims(&self, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
        fn labels(claim: &ClaimSample) -> [(&str, &str); 3] {
            [("nodeclaim", &claim.name), ("nodepool", &claim.pool), ("instance_type", &claim.instance_type)]
        }
        writer.gauges(
            "assay_nodeclaims_price",
            "What a claim costs, dollars per hour",
            self.claims.iter().map(|claim| (labels(claim), dollars(claim.price))),
        )?;
        let cheapest = self.claims.iter().filter_map(|claim| Some((labels(claim), dollars(claim.cheapest?))));
        writer.gauges(
            "assay_nodeclaims_cheapest_price",
            "What the cheapest cost that would have done when a claim was bought, dollars per hour",
            cheapest,
        )?;
        let mut sizes: BTreeMap<&str, (u64, u64, u64, u64)> = BTreeMap::new();
        for claim in &self.claims {
            let Some(measured) = claim.measured_memory else { continue };
            let (nodes, predicted, found, worst) = sizes.entry(&claim.instance_type).or_default();
            *nodes += 1;
            *predicted += claim.predicted_memory.0;
            *found += measured.0;
            *worst = (*worst).max(claim.predicted_memory.0.saturating_sub(measured.0));
        }
        type Of = fn(&(u64, u64, u64, u64)) -> u64;
        let families: [(&str, &str, Of); 4] = [
            ("assay_memory_nodes", "Nodes of a size whose memory is known", |size| size.0),
            (
                "assay_memory_predicted_allocatable_bytes",
                "Memory that their pods were expected to get, all together",
                |size| size.1,
            ),
            ("assay_memory_measured_allocatable_bytes", "Memory that their pods get, all together", |size| {
                size.2
            }),
            (
                "assay_memory_worst_shortfall_bytes",
                "The most by which one of them has less than expected",
                |size| size.3,
            ),
        ];
        for (name, help, of) in families {
            let values = sizes.iter().map(|(size, sums)| ([("instance_type", *size)], number(of(sums))));
            writer.gauges(name, help, values)?;
        }
        Ok(())
    }

    fn write_pods(&self, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
        let nodes: BTreeMap<&str, &NodeSample> = self.nodes.iter().map(|node| (&*node.name, node)).collect();
        let shown = &self.pods[..self.pods.len().min(PODS_SHOWN)];
        let nowhere = NodeLabels::default();
        let states = shown.iter().map(|pod| {
            let node = pod.node.as_deref();
            let host = node.and_then(|name| nodes.get(name));
            let on = host.map_or(&nowhere, |host| &host.labels);
            let labels: [(&str, &str); 11] = [
                ("name", &*pod.id.name),
                ("namespace", &*pod.id.namespace),
                ("node", node.unwrap_or_default()),
                ("scheduled", if node.is_some() { "true" } else { "false" }),
                ("nodepool", &on.nodepool),
                ("zone", &on.zone),
                ("arch", &on.arch),
                ("capacity_type", &on.capacity_type),
                ("instance_type", &on.instance_type),
                ("phase", pod.phase),
                ("managed", if host.is_some_and(|host| host.managed) { "true" } else { "false" }),
            ];
            (labels, 1.0)
        });
        writer.gauges("karpenter_pods_state", "A pod as it is: always 1", states)?;
        let left_out = self.pods_in_all.max(self.pods.len()) - shown.len();
        writer.gauges(
            "assay_pods_left_out",
            "Pods that karpenter_pods_state leaves out, for there are too many",
            [([("", ""); 0], number(left_out as u64))],
        )
    }

    fn write_waiting(&self, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
        type Of = fn(&WaitingSample) -> Option<f64>;
        let families: [(&str, &str, Of); 5] = [
            ("karpenter_pods_unbound_time_seconds", "Age of a pod that is not bound", |pod| {
                (!pod.bound).then_some(pod.age)
            }),
            ("karpenter_pods_unstarted_time_seconds", "Age of a pod that has not started", |pod| {
                Some(pod.age)
            }),
            (
                "karpenter_pods_provisioning_unbound_time_seconds",
                "For how long it is decided where a pod goes that is not bound",
                |pod| pod.decided.filter(|_| !pod.bound),
            ),
            (
                "karpenter_pods_provisioning_unstarted_time_seconds",
                "For how long it is decided where a pod goes that has not started",
                |pod| pod.decided,
            ),
            (
                "karpenter_pods_provisioning_scheduling_undecided_time_seconds",
                "For how long it is not decided where a pod goes, since it was seen",
                |pod| pod.undecided,
            ),
        ];
        let shown = &self.waiting[..self.waiting.len().min(PODS_SHOWN)];
        for (name, help, of) in families {
            let values = shown.iter().filter_map(|pod| {
                Some(([("name", &*pod.id.name), ("namespace", &*pod.id.namespace)], of(pod)?))
            });
            writer.gauges(name, help, values)?;
        }
        Ok(())
    }

    fn write_stats(&self, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
        let stats = &self.stats;
        writer.counters(
            "assay_hardware_mismatches",
            "Machines found to be less than what was bought, by kind",
            stats.mismatches.iter().map(|(kind, count)| ([("kind", kind.as_str())], *count)),
        )?;
        writer.counters(
            "assay_machines_released",
            "Machines given up, by reason",
            stats.released.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count)),
        )?;
        let plain = [
            ("assay_machines_bought", "VMs asked for", stats.bought),
            ("assay_launch_failures", "VMs that the cloud refused", stats.launch_failures),
            ("assay_labels_refined", "Labels set to what was measured", stats.labels_refined),
            ("assay_reports_quarantined", "Reports put aside as impossible", stats.quarantined),
            (
                "assay_learned_purchases",
                "Purchases whose memory came from what was learned instead of the model",
                stats.learned_purchases,
            ),
            ("assay_plans", "Plans made, for pods that wait and for machines that might go", stats.plans),
            ("assay_plans_refused", "Plans that the independent check refused", stats.plans_refused),
        ];
        for (name, help, count) in plain {
            writer.counters(name, help, [([("", ""); 0], count)])?;
        }
        Ok(())
    }
}

impl NodeSample {
    fn labels(&self) -> [(&'static str, &str); 9] {
        let NodeLabels { arch, capacity_type, instance_type, nodepool, os, region, zone } = &self.labels;
        [
            ("arch", arch),
            ("capacity_type", capacity_type),
            ("instance_type", instance_type),
            ("nodepool", nodepool),
            ("os", os),
            ("region", region),
            ("zone", zone),
            ("node_name", &self.name),
            ("managed", if self.managed { "true" } else { "false" }),
        ]
    }
}
