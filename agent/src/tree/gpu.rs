//! GPUs of simulated machines: their functions on the bus, their drivers' files.

use assay_shared::Fact;
use assay_shared::report::{GpuPartition, GpuState, GpuVendor};
use assay_shared::units::Bytes;
use serde::Deserialize;

use crate::gpu::{DeviceFault, GpuLibraryError, GpuLibraryFacts, LibraryDevice};

use super::MemTree;
use super::memory::some_size;
use super::pci::Function;

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gpu {
    /// Which product.
    pub model: GpuModel,
    /// PCI address.
    pub pci: String,
    /// Memory that programs see, where it is not the product's own.
    #[serde(default, deserialize_with = "some_size")]
    pub memory: Option<Bytes>,
    /// NUMA node that the bus tells; Azure tells it for the large sizes only.
    #[serde(default)]
    pub numa_node: Option<u32>,
    /// The vendor's unique id; where not given, one made of the address.
    #[serde(default)]
    pub uuid: Option<String>,
    /// What has become of it.
    #[serde(default = "usable")]
    pub state: GpuState,
}

fn usable() -> GpuState {
    GpuState::Usable
}

/// The driver of a machine's GPUs, and how it splits them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GpuDriver {
    /// Version of the kernel driver.
    pub version: String,
    /// Highest CUDA version it supports; none for AMD.
    #[serde(default)]
    pub cuda: Option<String>,
    /// How devices are split.
    #[serde(default = "whole")]
    pub partition: GpuPartition,
}

fn whole() -> GpuPartition {
    GpuPartition::None
}

/// GPUs that Azure has in VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum GpuModel {
    /// Tesla V100, 16 GB, PCIe (NCv3).
    #[serde(rename = "V100-PCIE-16GB")]
    V100Pcie16,
    /// Tesla V100, 32 GB, SXM2 (NDv2).
    #[serde(rename = "V100-SXM2-32GB")]
    V100Sxm32,
    /// Tesla M60 (NVs_v3).
    M60,
    /// Tesla T4 (NCasT4_v3).
    T4,
    /// A10 (NVadsA10_v5, whole).
    A10,
    /// A10, a sixth of one: 4 GB.
    #[serde(rename = "A10-4Q")]
    A10Sixth,
    /// A10, a third of one: 8 GB.
    #[serde(rename = "A10-8Q")]
    A10Third,
    /// A10, a half of one: 12 GB.
    #[serde(rename = "A10-12Q")]
    A10Half,
    /// A100, 80 GB, PCIe (NCads_A100_v4).
    #[serde(rename = "A100-PCIE-80GB")]
    A100Pcie80,
    /// A100, 40 GB, SXM4 (NDasr_v4).
    #[serde(rename = "A100-SXM4-40GB")]
    A100Sxm40,
    /// A100, 80 GB, SXM4 (NDamsr_A100_v4).
    #[serde(rename = "A100-SXM4-80GB")]
    A100Sxm80,
    /// H100 NVL, 94 GB (NCads_H100_v5).
    #[serde(rename = "H100-NVL")]
    H100Nvl,
    /// H100, 80 GB, SXM5 (NDisr_H100_v5).
    #[serde(rename = "H100-SXM5")]
    H100Sxm,
    /// H200, 141 GB (NDisr_H200_v5).
    H200,
    /// Radeon Instinct MI25, or a share of one (NVas_v4).
    MI25,
    /// Instinct MI300X, 192 GB (NDisr_MI300X_v5).
    MI300X,
}

/// What bus and driver show of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuProduct {
    /// Name that the driver gives it.
    pub name: &'static str,
    /// Who made it.
    pub vendor: GpuVendor,
    /// PCI device id.
    pub device: u16,
    /// PCI class.
    pub class: u32,
    /// Memory that programs see.
    pub memory: Bytes,
    /// CUDA compute capability; none for AMD.
    pub compute_capability: Option<&'static str>,
}

const fn nvidia(name: &'static str, device: u16, mib: u64, capability: &'static str) -> GpuProduct {
    GpuProduct {
        name,
        vendor: GpuVendor::Nvidia,
        device,
        // 3D controller: no display.
        class: 0x03_0200,
        memory: Bytes::mib(mib),
        compute_capability: Some(capability),
    }
}

impl GpuModel {
    /// What bus and driver show of it.
    #[must_use]
    pub const fn product(self) -> GpuProduct {
        match self {
            Self::V100Pcie16 => nvidia("Tesla V100-PCIE-16GB", 0x1db4, 16_384, "7.0"),
            Self::V100Sxm32 => nvidia("Tesla V100-SXM2-32GB", 0x1db5, 32_768, "7.0"),
            Self::M60 => nvidia("Tesla M60", 0x13f2, 8_192, "5.2"),
            Self::T4 => nvidia("Tesla T4", 0x1eb8, 15_360, "7.5"),
            Self::A10 => nvidia("NVIDIA A10", 0x2236, 23_028, "8.6"),
            Self::A10Sixth => nvidia("NVIDIA A10-4Q", 0x2236, 4_096, "8.6"),
            Self::A10Third => nvidia("NVIDIA A10-8Q", 0x2236, 8_192, "8.6"),
            Self::A10Half => nvidia("NVIDIA A10-12Q", 0x2236, 12_288, "8.6"),
            Self::A100Pcie80 => nvidia("NVIDIA A100 80GB PCIe", 0x20b5, 81_920, "8.0"),
            Self::A100Sxm40 => nvidia("NVIDIA A100-SXM4-40GB", 0x20b0, 40_960, "8.0"),
            Self::A100Sxm80 => nvidia("NVIDIA A100-SXM4-80GB", 0x20b2, 81_920, "8.0"),
            Self::H100Nvl => nvidia("NVIDIA H100 NVL", 0x2321, 95_830, "9.0"),
            Self::H100Sxm => nvidia("NVIDIA H100 80GB HBM3", 0x2330, 81_559, "9.0"),
            Self::H200 => nvidia("NVIDIA H200", 0x2335, 143_771, "9.0"),
            Self::MI25 => GpuProduct {
                name: "AMD Radeon Instinct MI25",
                vendor: GpuVendor::Amd,
                device: 0x686c,
                class: 0x03_0000,
                memory: Bytes::mib(16_384),
                compute_capability: None,
            },
            Self::MI300X => GpuProduct {
                name: "AMD Instinct MI300X",
                vendor: GpuVendor::Amd,
                device: 0x74b5,
                // Processing accelerator.
                class: 0x12_0000,
                memory: Bytes::mib(196_592),
                compute_capability: None,
            },
        }
    }
}

impl Gpu {
    /// A GPU that works.
    #[must_use]
    pub fn new(model: GpuModel, pci: &str) -> Self {
        Self {
            model,
            pci: pci.to_owned(),
            memory: None,
            numa_node: None,
            uuid: None,
            state: GpuState::Usable,
        }
    }

    /// Memory that programs see.
    #[must_use]
    pub fn memory(&self) -> Bytes {
        self.memory.unwrap_or_else(|| self.model.product().memory)
    }

    /// The vendor's unique id.
    #[must_use]
    pub fn uuid(&self) -> String {
        self.uuid.clone().unwrap_or_else(|| {
            let digits: String = self.pci.chars().filter(char::is_ascii_hexdigit).collect();
            match self.model.product().vendor {
                GpuVendor::Nvidia => format!("GPU-{digits:0>8}-0000-4000-8000-{digits:0>12}"),
                GpuVendor::Amd => format!("{digits:0>16}"),
            }
        })
    }

    pub(super) fn write(&self, tree: &mut MemTree, driver: Option<&GpuDriver>, index: usize) {
        let product = self.model.product();
        let (vendor, module) = match product.vendor {
            GpuVendor::Nvidia => (0x10de, "nvidia"),
            GpuVendor::Amd => (0x1002, "amdgpu"),
        };
        let bound = driver.filter(|_| self.state != GpuState::NoDriver);
        let pci = Function {
            address: &self.pci,
            vendor,
            device: product.device,
            class: product.class,
            numa_node: self.numa_node,
            driver: bound.map(|_| module),
        };
        let dir = pci.write(tree, true);
        let Some(driver) = bound else { return };
        tree.file(&format!("sys/module/{module}/version"), format!("{}\n", driver.version));
        match product.vendor {
            GpuVendor::Nvidia => {
                tree.file(
                    "proc/driver/nvidia/version",
                    format!(
                        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Feb 22 02:08:19 UTC 2024\n\
                         GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
                        driver.version
                    ),
                );
                tree.file(
                    &format!("proc/driver/nvidia/gpus/{}/information", self.pci),
                    format!(
                        "Model: \t\t {}\nIRQ:   \t\t 0\nGPU UUID: \t {}\nBus Type: \t PCIe\nBus Location: \t {}\n\
                         Device Minor: \t {index}\nGPU Excluded:\t No\n",
                        product.name,
                        self.uuid(),
                        self.pci
                    ),
                );
            }
            GpuVendor::Amd => {
                let card = format!("{dir}/drm/card{index}");
                tree.file(&format!("{dir}/mem_info_vram_total"), format!("{}\n", self.memory().0));
                tree.file(&format!("{dir}/mem_info_vram_used"), "284176384\n");
                tree.file(&format!("{dir}/unique_id"), format!("{}\n", self.uuid()));
                tree.file(&format!("{dir}/product_name"), format!("{}\n", product.name));
                tree.file(&format!("{dir}/current_compute_partition"), "SPX\n");
                tree.file(&format!("{dir}/current_memory_partition"), "NPS1\n");
                tree.file(&format!("{card}/dev"), format!("226:{index}\n"));
                tree.link_to(&format!("{card}/device"), &dir);
                tree.link_to(&format!("sys/class/drm/card{index}"), &card);
            }
        }
    }
}

/// What NVIDIA's library says of these GPUs.
pub(super) fn library_facts(
    gpus: &[Gpu],
    driver: Option<&GpuDriver>,
) -> Result<GpuLibraryFacts, GpuLibraryError> {
    let nvidia = |gpu: &&Gpu| gpu.model.product().vendor == GpuVendor::Nvidia;
    let gpus: Vec<&Gpu> = gpus.iter().filter(nvidia).collect();
    if gpus.is_empty() {
        return Err(GpuLibraryError::NotLoaded("not found: libnvidia-ml.so.1".to_owned()));
    }
    let driver = driver.ok_or(GpuLibraryError::DriverNotLoaded)?;
    if gpus.iter().any(|gpu| gpu.state == GpuState::DriverMismatch) {
        return Err(GpuLibraryError::DriverMismatch);
    }
    let listed = gpus.iter().filter(|gpu| !matches!(gpu.state, GpuState::NoDriver | GpuState::NotListed));
    Ok(GpuLibraryFacts {
        driver_version: Fact::Measured(driver.version.clone()),
        cuda_version: driver.cuda.clone().map_or(Fact::Absent, Fact::Measured),
        devices: listed.map(|gpu| gpu.library_device(driver)).collect(),
    })
}

impl Gpu {
    fn library_device(&self, driver: &GpuDriver) -> Result<LibraryDevice, DeviceFault> {
        if self.state == GpuState::Lost {
            return Err(DeviceFault {
                pci_address: None,
                state: GpuState::Lost,
                reason: "GPU is lost".to_owned(),
            });
        }
        let product = self.model.product();
        let faults = match self.state {
            GpuState::Unhealthy => vec!["a row remap failed".to_owned()],
            _ => Vec::new(),
        };
        Ok(LibraryDevice {
            pci_address: self.pci.clone(),
            name: Fact::Measured(product.name.to_owned()),
            uuid: Fact::Measured(self.uuid()),
            memory: Fact::Measured(self.memory()),
            compute_capability: product
                .compute_capability
                .map_or(Fact::Absent, |it| Fact::Measured(it.to_owned())),
            numa_node: self.numa_node.map_or(Fact::Absent, Fact::Measured),
            mig: Fact::Measured(driver.partition == GpuPartition::Mig),
            vgpu: Fact::Measured(driver.partition == GpuPartition::Vgpu),
            faults,
        })
    }
}
