//! NUMA nodes: `sys/devices/system/node`. A kernel without NUMA has none of it, and the fact is absent.

use assay_shared::Fact;
use assay_shared::report::NumaNode;

use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::memory::{mem_total, numbered};

const NODES: &str = "sys/devices/system/node";
/// Most nodes the kernel can be built for (`CONFIG_NODES_SHIFT` of 10).
const NODE_LIMIT: usize = 1024;

/// Surveys the NUMA nodes.
pub fn probe(fs: &dyn HostFs) -> Fact<Vec<NumaNode>> {
    read::directory(fs, NODES, Missing::Absent).and_then(|names| {
        let mut ids: Vec<u32> = names.iter().filter_map(|name| numbered(name, "node")).collect();
        ids.sort_unstable();
        ids.truncate(NODE_LIMIT);
        if ids.is_empty() {
            return Fact::Unavailable(format!("no node: {NODES}"));
        }
        Fact::Measured(ids.into_iter().map(|id| node(fs, id)).collect())
    })
}

fn node(fs: &dyn HostFs, id: u32) -> NumaNode {
    let directory = format!("{NODES}/node{id}");
    let meminfo = format!("{directory}/meminfo");
    NumaNode {
        id,
        cpus: read::cpu_list(fs, &format!("{directory}/cpulist"), Missing::Unavailable)
            .map(|cpus| cpus.to_string()),
        memory_bytes: read::text(fs, &meminfo, Missing::Unavailable)
            .and_then(|text| mem_total(&text, &format!("Node {id} MemTotal:"), &meminfo)),
        distances: read::parsed(
            fs,
            &format!("{directory}/distance"),
            Missing::Unavailable,
            "distances",
            distances,
        ),
    }
}

fn distances(text: &str) -> Option<Vec<u32>> {
    let distances: Vec<u32> =
        text.split_whitespace().map(|distance| distance.parse().ok()).collect::<Option<_>>()?;
    (!distances.is_empty() && distances.len() <= NODE_LIMIT).then_some(distances)
}

#[cfg(test)]
mod tests {
    use assay_shared::units::Bytes;

    use super::*;
    use crate::tree::MemTree;

    #[test]
    fn nodes_are_read_by_number_and_each_fact_for_itself() {
        let mut tree = MemTree::new();
        for (id, cpus, distance) in [(10, "\n", "20 10\n"), (2, "0-23,48-71\n", "10 20\n")] {
            tree.file(&format!("{NODES}/node{id}/cpulist"), cpus);
            tree.file(&format!("{NODES}/node{id}/distance"), distance);
            tree.file(
                &format!("{NODES}/node{id}/meminfo"),
                format!("Node {id} MemTotal:       1048576 kB\n"),
            );
        }
        tree.file(&format!("{NODES}/online"), "2,10\n");
        let Fact::Measured(nodes) = probe(&tree) else { panic!("no nodes") };
        assert_eq!(nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(nodes[0].cpus, Fact::Measured("0-23,48-71".to_owned()));
        assert_eq!(nodes[1].cpus, Fact::Measured(String::new()), "a node may have memory only");
        assert_eq!(nodes[0].distances, Fact::Measured(vec![10, 20]));
        assert_eq!(nodes[1].memory_bytes, Fact::Measured(Bytes::gib(1)));

        tree.file(&format!("{NODES}/node2/distance"), "10 far\n");
        tree.file(&format!("{NODES}/node2/meminfo"), "Node 3 MemTotal: 1 kB\n");
        let Fact::Measured(nodes) = probe(&tree) else { panic!("no nodes") };
        assert!(matches!(nodes[0].distances, Fact::Unavailable(_)));
        assert!(matches!(nodes[0].memory_bytes, Fact::Unavailable(_)));
        assert!(nodes[0].cpus.is_measured() && nodes[1].distances.is_measured());
    }

    #[test]
    fn a_kernel_without_numa_has_no_nodes() {
        assert_eq!(probe(&MemTree::new()), Fact::Absent);
    }
}
