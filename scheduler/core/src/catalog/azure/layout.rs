//! Facts about sizes that Azure's price and size lists leave out: disks that can be attached, and NUMA nodes.

use std::collections::BTreeMap;

use assay_shared::azure::VmSize;
use assay_shared::report::GpuVendor;

use crate::catalog::NumaLayout;

/// Disks that can be attached besides that of the operating system, for sizes without an answer of Azure's own
/// (`MaxDataDiskCount`): two for each vCPU, from 4 to 32. That holds for all sizes of the B, D, E and F families (the size
/// pages of Azure's documentation); others follow no rule, so nothing is said of them.
pub(super) fn data_disks(size: &VmSize) -> Option<u32> {
    let family = size.name.strip_prefix("Standard_")?.chars().next()?;
    (['B', 'D', 'E', 'F'].contains(&family) && size.gpus.is_none()).then(|| (size.vcpus * 2).clamp(4, 32))
}

/// NUMA nodes by the beginning of the name and how many nodes there are. AzNHC's checks and the topology files of azhpc-images
/// say so for HPC and GPU sizes (see docs/catalog.md); of other sizes only a measured machine tells.
const NODES: [(&str, u32); 8] = [
    ("HB120rs_v2", 30),
    ("HB120rs_v3", 4),
    ("HB176rs_v4", 4),
    ("HX176rs", 4),
    ("HC44rs", 2),
    ("ND96asr_v4", 4),
    ("ND96amsr_A100_v4", 4),
    ("ND96isr_H100_v5", 2),
];

/// The NUMA nodes of a size, where they are known.
pub(super) fn numa(size: &VmSize) -> Option<NumaLayout> {
    let name = size.name.strip_prefix("Standard_")?;
    let (_, nodes) = NODES.iter().find(|(known, _)| *known == name)?;
    let mut devices = BTreeMap::new();
    if let Some(gpus) = &size.gpus {
        let resource = match gpus.vendor {
            GpuVendor::Nvidia => "nvidia.com/gpu",
            GpuVendor::Amd => "amd.com/gpu",
        };
        devices.insert(resource.to_owned(), u64::from(gpus.count / nodes));
    }
    Some(NumaLayout { nodes: *nodes, cpus: u64::from(size.vcpus / nodes), devices })
}
