//! NUMA nodes of a machine, where the kubelet turns containers away that do not fit one (`single-numa-node`).
//!
//! Each container's exclusive CPUs and devices come from one NUMA node; the fullest that still holds them is used.

use std::collections::BTreeMap;

use crate::catalog::NumaLayout;
use crate::model::{AlignedRequest, CpuManagerPolicy, NodeClass, TopologyManagerPolicy};

/// What is left on each NUMA node of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NumaRoom {
    nodes: Vec<(u64, BTreeMap<String, u64>)>,
    /// Whether containers get CPUs of their own at all.
    exclusive_cpus: bool,
}

impl NumaRoom {
    /// An empty machine; `None` where its kubelet does not insist.
    pub(super) fn of(class: &NodeClass, layout: Option<&NumaLayout>) -> Option<Self> {
        let layout = layout.filter(|_| class.topology_manager == TopologyManagerPolicy::SingleNumaNode)?;
        let one = (layout.cpus, layout.devices.clone());
        let exclusive_cpus = class.cpu_manager == CpuManagerPolicy::Static;
        Some(Self { nodes: vec![one; usize::try_from(layout.nodes).unwrap_or(1)], exclusive_cpus })
    }

    /// Takes what the containers of one pod need; nothing where one of them does not fit.
    pub(super) fn take(&mut self, containers: &[AlignedRequest]) -> bool {
        let before = self.nodes.clone();
        for container in containers {
            let cpus = if self.exclusive_cpus { container.cpus } else { 0 };
            let fits = |(left, devices): &(u64, BTreeMap<String, u64>)| {
                cpus <= *left
                    && container
                        .devices
                        .iter()
                        .all(|(name, count)| devices.get(name).copied().unwrap_or(0) >= *count)
            };
            let fullest = self.nodes.iter_mut().filter(|node| fits(node)).min_by_key(|(left, _)| *left);
            let Some((left, devices)) = fullest else {
                self.nodes = before;
                return false;
            };
            *left -= cpus;
            for (name, count) in &container.devices {
                if let Some(held) = devices.get_mut(name) {
                    *held -= count;
                }
            }
        }
        true
    }

    /// How many CPUs an empty machine has on each.
    pub(super) fn cpus_each(&self) -> u64 {
        self.nodes.iter().map(|(cpus, _)| *cpus).max().unwrap_or(0)
    }
}
