//! GPUs, as the bus, the driver and the driver's library see them.

use serde::{Deserialize, Serialize};

use super::paths::{facts, leaf_facts};
use crate::fact::Fact;
use crate::units::Bytes;

facts! {
    /// The GPUs of a machine. `pci >= driver_bound >= usable` on a healthy one all three are equal.
    pub struct Gpus {
        /// GPU functions on the PCI bus.
        pci: Fact<u32>,
        /// Of those, the ones a GPU driver is bound to.
        driver_bound: Fact<u32>,
        /// Devices a program could use now.
        usable: Fact<u32>,
        /// Whether devices are split.
        partition: Fact<GpuPartition>,
        /// Each device, by PCI address.
        devices: Fact<Vec<GpuDevice>>,
        /// Version of the kernel driver.
        driver_version: Fact<String>,
        /// Highest CUDA version the driver supports; absent for AMD.
        cuda_version: Fact<String>,
    }
}

facts! {
    /// One GPU.
    pub struct GpuDevice {
        /// Who made it.
        vendor: GpuVendor,
        /// Product name, such as `NVIDIA A100 80GB PCIe`.
        model: Fact<String>,
        /// PCI address, such as `0001:00:00.0`.
        pci_address: Fact<String>,
        /// The vendor's unique id.
        uuid: Fact<String>,
        /// Memory that programs can allocate from; error correction is already subtracted.
        memory_bytes: Fact<Bytes>,
        /// CUDA compute capability, such as `8.0`.
        compute_capability: Fact<String>,
        /// NUMA node it hangs on.
        numa_node: Fact<u32>,
        /// Whether it works.
        state: GpuState,
        /// Why it does not, where that is known.
        reason: Option<String>,
    }
}

/// Maker of a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuVendor {
    /// NVIDIA.
    #[default]
    Nvidia,
    /// AMD.
    Amd,
}

impl GpuVendor {
    /// The value of the `gpu-vendor` and `sku-gpu-manufacturer` labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
        }
    }
}

/// How a machine's GPUs are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuPartition {
    /// Whole devices.
    None,
    /// NVIDIA multi-instance GPU.
    Mig,
    /// A share of a device, cut by the hypervisor.
    Vgpu,
}

impl GpuPartition {
    /// The value of the `gpu-partition` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mig => "mig",
            Self::Vgpu => "vgpu",
        }
    }
}

/// Whether a GPU works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuState {
    /// A program could use it now.
    Usable,
    /// It fell off the bus after it had been there.
    Lost,
    /// On the bus, but no driver is bound to it.
    NoDriver,
    /// Kernel driver and library are of different versions.
    DriverMismatch,
    /// The driver reports a fault that needs a reset or a replacement.
    Unhealthy,
    /// Bound to its driver, but the driver's library does not list it.
    NotListed,
    /// Nobody could be asked.
    #[default]
    Unknown,
}

leaf_facts!(GpuVendor, GpuPartition, GpuState, Option<String>);
