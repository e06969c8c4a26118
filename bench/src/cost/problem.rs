//! Pods and machines as an abstract packing problem, and Karpenter's way of packing it.

use std::collections::BTreeMap;

use assay_core::catalog::InstanceType;
use assay_core::solve::improve::{BinKind, Item, Packed, Problem};
use assay_shared::units::{Bytes, UsdPerHour};
use fixedbitset::FixedBitSet;

use super::pods::PodSet;

pub(super) const NVIDIA: &str = "nvidia.com/gpu";

/// The pods on these types: CPU, memory, GPUs and pod slots. Types that cannot be bought are left out.
pub(crate) fn problem(set: &PodSet, types: &[InstanceType]) -> Problem {
    let bins: Vec<BinKind> = types
        .iter()
        .filter_map(|one| {
            let room = one.allocatable();
            let price = one.offerings.iter().filter(|offering| offering.available).map(|o| o.price).min()?;
            let room = vec![room.cpu.0, room.memory.0, room.extended(NVIDIA), room.pods];
            Some(BinKind { room, price, most: None })
        })
        .collect();
    let mut anywhere = FixedBitSet::with_capacity(bins.len());
    anywhere.insert_range(..);
    let items = set.sizes.iter().map(|(size, count)| Item {
        requests: vec![size.milli_cpu, Bytes::mib(size.memory_mib).0, size.gpus, 1],
        count: *count,
        bins: anywhere.clone(),
        groups: Vec::new(),
    });
    Problem { items: items.collect(), bins, groups: Vec::new() }
}

/// Karpenter's packing: pods by CPU then memory, largest first, each onto the open node with the fewest pods that can still become
/// a type that holds it; at the end each node is the cheapest type that is left to it.
pub(super) fn karpenter(problem: &Problem) -> Vec<Packed> {
    struct Node {
        used: Vec<u64>,
        types: Vec<usize>,
        items: BTreeMap<usize, u64>,
        pods: u64,
    }
    let mut order: Vec<usize> = (0..problem.items.len()).collect();
    order.sort_by(|a, b| problem.items[*b].requests.cmp(&problem.items[*a].requests).then(a.cmp(b)));
    let holds = |kind: usize, used: &[u64], more: &[u64]| {
        let room = problem.bins[kind].room.iter();
        room.zip(used).zip(more).all(|((room, used), more)| used + more <= *room)
    };
    let mut nodes: Vec<Node> = Vec::new();
    // Nodes by how many pods they have, the oldest first among equals.
    let mut by_pods: BTreeMap<(u64, usize), ()> = BTreeMap::new();
    for item in order {
        let requests = &problem.items[item].requests;
        for _ in 0..problem.items[item].count {
            let fits = |node: &Node| node.types.iter().any(|kind| holds(*kind, &node.used, requests));
            let found = by_pods.keys().find(|(_, node)| fits(&nodes[*node])).copied();
            let index = if let Some((pods, node)) = found {
                by_pods.remove(&(pods, node));
                node
            } else {
                let used = vec![0; requests.len()];
                nodes.push(Node {
                    used,
                    types: (0..problem.bins.len()).collect(),
                    items: BTreeMap::new(),
                    pods: 0,
                });
                nodes.len() - 1
            };
            let node = &mut nodes[index];
            node.types.retain(|kind| holds(*kind, &node.used, requests));
            node.used.iter_mut().zip(requests).for_each(|(used, more)| *used += more);
            *node.items.entry(item).or_default() += 1;
            node.pods += 1;
            by_pods.insert((node.pods, index), ());
        }
    }
    let price = |kind: &usize| problem.bins[*kind].price;
    let packed = nodes.into_iter().filter_map(|node| {
        let kind = node.types.iter().copied().min_by_key(|kind| (price(kind), *kind))?;
        Some(Packed { kind, items: node.items.into_iter().collect(), times: 1 })
    });
    packed.collect()
}

/// The best that one size of machine alone can do: largest share first, first fit.
pub(super) fn best_single_kind(problem: &Problem) -> Option<UsdPerHour> {
    let cost = |kind: &BinKind| {
        let share = |item: &Item| {
            let shares = item.requests.iter().zip(&kind.room).map(|(need, room)| ratio(*need, *room));
            shares.fold(0.0, f64::max)
        };
        let mut order: Vec<&Item> = problem.items.iter().collect();
        order.sort_by(|a, b| share(b).total_cmp(&share(a)));
        let mut bins: Vec<Vec<u64>> = Vec::new();
        for item in order {
            let fits = |left: &[u64]| item.requests.iter().zip(left).all(|(need, left)| need <= left);
            if !fits(&kind.room) {
                return None;
            }
            let mut from = 0;
            for _ in 0..item.count {
                // Equal pods never fit where the one before did not.
                from += bins[from..].iter().position(|left| fits(left)).unwrap_or(bins.len() - from);
                if from == bins.len() {
                    bins.push(kind.room.clone());
                }
                bins[from].iter_mut().zip(&item.requests).for_each(|(left, need)| *left -= need);
            }
        }
        Some(kind.price * bins.len() as u64)
    };
    problem.bins.iter().filter_map(cost).min()
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // an order of sizes
    let (part, whole) = (part as f64, whole as f64);
    if part > 0.0 { part / whole } else { 0.0 }
}
