//! NUMA nodes of a machine, where the kubelet turns containers away that do not fit one (`single-numa-node`).
//!
//! Each container's exclusive CPUs and devices come from one NUMA node. On a machine to come the fullest that still holds them is
//! used. On one that runs nobody says where its containers are: each is taken to be on the first NUMA node that had room for it
//! when its pods came, in the order in which they were created, as the kubelet chooses. One that fits on none by that order takes
//! its part of every one, so that rather too little is believed to be free than too much.

use std::collections::BTreeMap;

use assay_shared::labels::hardware;

use crate::catalog::NumaLayout;
use crate::model::{
    AlignedRequest, CpuManagerPolicy, Labels, Market, NodeClass, ResourceList, TopologyManagerPolicy,
};
use crate::requirement::value_of;

/// CPUs and devices that are left on one NUMA node.
type Left = (u64, BTreeMap<String, u64>);

/// What is left on each NUMA node of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NumaRoom {
    nodes: Vec<Left>,
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

    /// A machine that exists, before anybody is there: as it was measured, else as its type is.
    pub(super) fn of_machine(
        market: &Market,
        (pool, instance_type): (&str, &str),
        labels: &Labels,
        capacity: &ResourceList,
    ) -> Option<Self> {
        let pool = market.pool(pool)?;
        let class = market.class_of(pool)?;
        if class.topology_manager != TopologyManagerPolicy::SingleNumaNode {
            return None;
        }
        let mut types = market.instance_types_of(pool).iter();
        let known = types.find(|one| *one.name == *instance_type).and_then(|one| one.numa.clone());
        let measured = value_of(labels, hardware::NUMA_NODES).and_then(|count| count.parse::<u32>().ok());
        let layout = match measured.filter(|nodes| *nodes > 0) {
            Some(nodes) if known.as_ref().is_none_or(|known| known.nodes != nodes) => {
                Some(split(known.as_ref(), capacity, nodes))
            }
            _ => known,
        };
        Self::of(class, layout.as_ref())
    }

    /// Takes what the containers of one pod need; nothing where one of them does not fit.
    pub(super) fn take(&mut self, containers: &[AlignedRequest]) -> bool {
        self.take_by(containers, |fitting| fitting.min_by_key(|(left, _)| *left))
    }

    /// The same as the kubelet of a machine does it, on the first that holds them.
    pub(super) fn take_first(&mut self, containers: &[AlignedRequest]) -> bool {
        self.take_by(containers, |fitting| fitting.next())
    }

    /// How many such pods it would take, `most` at most.
    pub(super) fn times(&self, containers: &[AlignedRequest], most: u64) -> u64 {
        if containers.is_empty() {
            return most;
        }
        let mut room = self.clone();
        (0..most).take_while(|_| room.take_first(containers)).count() as u64
    }

    /// Takes what a pod that is there has.
    pub(super) fn seat(&mut self, containers: &[AlignedRequest]) {
        for container in containers {
            if self.take_first(std::slice::from_ref(container)) {
                continue;
            }
            for (left, devices) in &mut self.nodes {
                *left = left.saturating_sub(if self.exclusive_cpus { container.cpus } else { 0 });
                for (name, count) in &container.devices {
                    if let Some(held) = devices.get_mut(name) {
                        *held = held.saturating_sub(*count);
                    }
                }
            }
        }
    }

    fn take_by(
        &mut self,
        containers: &[AlignedRequest],
        choose: impl for<'n> Fn(&mut dyn Iterator<Item = &'n mut Left>) -> Option<&'n mut Left>,
    ) -> bool {
        let before = self.nodes.clone();
        for container in containers {
            let cpus = if self.exclusive_cpus { container.cpus } else { 0 };
            let fits = |(left, devices): &Left| {
                cpus <= *left
                    && container
                        .devices
                        .iter()
                        .all(|(name, count)| devices.get(name).copied().unwrap_or(0) >= *count)
            };
            let mut fitting = self.nodes.iter_mut().filter(|node| fits(node));
            let Some((left, devices)) = choose(&mut fitting) else {
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

/// All that a machine has, on as many NUMA nodes as were found in it.
fn split(known: Option<&NumaLayout>, capacity: &ResourceList, nodes: u32) -> NumaLayout {
    let each = |all: u64| all / u64::from(nodes.max(1));
    match known {
        Some(known) => {
            let all = |one: u64| one.saturating_mul(known.nodes.into());
            let devices = known.devices.iter().map(|(name, one)| (name.clone(), each(all(*one))));
            NumaLayout { nodes, cpus: each(all(known.cpus)), devices: devices.collect() }
        }
        None => {
            let devices = capacity.extended.iter().map(|(name, all)| (name.to_string(), each(*all)));
            NumaLayout { nodes, cpus: each(capacity.cpu.0 / 1000), devices: devices.collect() }
        }
    }
}
