//! GPUs that are cut into MIG instances: a pool whose nodes carry the label `nvidia.com/mig.config` gets machines with
//! `nvidia.com/mig-*` resources in place of whole GPUs.
//!
//! NVIDIA's MIG manager reads that label and cuts the GPUs of a node as its configurations say (mig-parted's `all-*`, strategy
//! `mixed`). How many instances of each profile a GPU holds is from NVIDIA's MIG User Guide, "Supported MIG Profiles".

use assay_shared::labels::{azure, hardware};

use crate::catalog::InstanceType;
use crate::requirement::ValueSet;

const GPU: &str = "nvidia.com/gpu";

/// A model of GPU by its name in Azure and its least memory in MiB; profiles with the instances one GPU holds of each alone; and
/// what `all-balanced` makes of one.
struct Model {
    name: &'static str,
    least_mib: u64,
    profiles: &'static [(&'static str, u64)],
    balanced: &'static [(&'static str, u64)],
}

/// Those with most memory first: the first that a GPU has the memory of is its model.
const MODELS: [Model; 5] = [
    Model {
        name: "H200",
        least_mib: 130_000,
        profiles: &[
            ("1g.18gb", 7),
            ("1g.35gb", 4),
            ("2g.35gb", 3),
            ("3g.71gb", 2),
            ("4g.71gb", 1),
            ("7g.141gb", 1),
        ],
        balanced: &[("1g.18gb", 2), ("2g.35gb", 1), ("3g.71gb", 1)],
    },
    Model {
        name: "H100",
        least_mib: 90_000,
        profiles: &[
            ("1g.12gb", 7),
            ("1g.24gb", 4),
            ("2g.24gb", 3),
            ("3g.47gb", 2),
            ("4g.47gb", 1),
            ("7g.94gb", 1),
        ],
        balanced: &[("1g.12gb", 2), ("2g.24gb", 1), ("3g.47gb", 1)],
    },
    Model { name: "H100", least_mib: 79_000, profiles: &OF_80_GB, balanced: &BALANCED_80_GB },
    Model { name: "A100", least_mib: 79_000, profiles: &OF_80_GB, balanced: &BALANCED_80_GB },
    Model {
        name: "A100",
        least_mib: 39_000,
        profiles: &[
            ("1g.5gb", 7),
            ("1g.10gb", 4),
            ("2g.10gb", 3),
            ("3g.20gb", 2),
            ("4g.20gb", 1),
            ("7g.40gb", 1),
        ],
        balanced: &[("1g.5gb", 2), ("2g.10gb", 1), ("3g.20gb", 1)],
    },
];
const OF_80_GB: [(&str, u64); 6] =
    [("1g.10gb", 7), ("1g.20gb", 4), ("2g.20gb", 3), ("3g.40gb", 2), ("4g.40gb", 1), ("7g.80gb", 1)];
const BALANCED_80_GB: [(&str, u64); 3] = [("1g.10gb", 2), ("2g.20gb", 1), ("3g.40gb", 1)];

/// Instance types as the nodes of a pool with this value of `nvidia.com/mig.config` will have them. Types whose GPUs cannot be cut
/// like that are left out: the MIG manager would fail on their nodes. `all-disabled` leaves GPUs whole.
#[must_use]
pub fn partitioned(types: &[InstanceType], config: &str) -> Vec<InstanceType> {
    if config == "all-disabled" {
        return types.to_vec();
    }
    types.iter().filter_map(|one| cut(one, config)).collect()
}

fn cut(one: &InstanceType, config: &str) -> Option<InstanceType> {
    let mut cut = one.clone();
    let gpus = one.capacity.extended(GPU);
    if gpus == 0 {
        return Some(cut);
    }
    let only = |key: &str| {
        let values = one.requirements.get(key).and_then(ValueSet::finite)?;
        values.first().cloned()
    };
    let (name, memory) = (only(azure::SKU_GPU_NAME)?, only(hardware::GPU_MEMORY_MIB)?.parse::<u64>().ok()?);
    let model = MODELS.iter().find(|model| name.starts_with(model.name) && memory >= model.least_mib)?;
    let instances: Vec<(&str, u64)> = match config.strip_prefix("all-")? {
        "enabled" => return None,
        "balanced" => model.balanced.to_vec(),
        profile => vec![*model.profiles.iter().find(|(known, _)| *known == profile)?],
    };
    cut.capacity.set_extended(GPU, 0);
    for (profile, each) in instances {
        cut.capacity.set_extended(&format!("nvidia.com/mig-{profile}"), gpus * each);
    }
    cut.requirements.remove(hardware::GPU_PARTITION);
    cut.requirements.constrain(hardware::GPU_PARTITION, &ValueSet::of(["mig"]));
    Some(cut)
}
