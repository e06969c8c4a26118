//! What the library answers: a TOML file.
//!
//! ```toml
//! driver-version = "550.54.15"
//! cuda-version = 12040
//!
//! [calls.nvmlInit_v2]
//! delay-ms = 200
//!
//! [[devices]]
//! name = "NVIDIA A100-SXM4-40GB"
//! uuid = "GPU-1"
//! pci = "00000001:00:00.0"
//! memory-mib = 40960
//! compute-capability = [8, 0]
//! [devices.calls.nvmlDeviceGetUUID]
//! code = 999
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::abi::{Answer, GPU_IS_LOST, Return, SUCCESS};

/// Names the script file.
pub(crate) const VARIABLE: &str = "ASSAY_FAKE_NVML";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Script {
    #[serde(default = "driver_version")]
    pub(crate) driver_version: String,
    /// 1000 times the major and 10 times the minor version.
    #[serde(default = "cuda_version")]
    pub(crate) cuda_version: i32,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// How calls behave, by function.
    #[serde(default)]
    calls: BTreeMap<String, Behaviour>,
}

fn driver_version() -> String {
    "550.54.15".to_owned()
}

const fn cuda_version() -> i32 {
    12_040
}

/// One GPU. What is not given, the device does not support.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// As NVML writes it, with eight digits of domain: `00000001:00:00.0`.
    pub(crate) pci: String,
    /// Device id in the upper half, vendor in the lower.
    #[serde(default = "pci_device_id")]
    pub(crate) pci_device_id: u32,
    pub(crate) serial: Option<String>,
    pub(crate) memory_mib: Option<u64>,
    #[serde(default)]
    pub(crate) memory_used_mib: u64,
    /// Major, minor.
    pub(crate) compute_capability: Option<(i32, i32)>,
    pub(crate) mig: Option<Mig>,
    /// 0 none, 1 pass-through, 2 a share of a GPU.
    pub(crate) virtualization_mode: Option<u32>,
    pub(crate) ecc: Option<Ecc>,
    pub(crate) remapped_rows: Option<RemappedRows>,
    pub(crate) retired_pages: Option<RetiredPages>,
    pub(crate) numa_node: Option<u32>,
    /// Degrees Celsius.
    pub(crate) temperature: Option<u32>,
    /// Milliwatts.
    pub(crate) power: Option<u32>,
    /// It fell off the bus: every call about it says so.
    #[serde(default)]
    lost: bool,
    #[serde(default)]
    calls: BTreeMap<String, Behaviour>,
}

const fn pci_device_id() -> u32 {
    0x20b0_10de
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Mig {
    pub(crate) enabled: bool,
    /// Mode after the next reset; the current one where not given.
    pub(crate) pending: Option<bool>,
    /// Instances that exist.
    #[serde(default)]
    pub(crate) instances: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Ecc {
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) corrected: u64,
    #[serde(default)]
    pub(crate) uncorrected: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct RemappedRows {
    pub(crate) correctable: u32,
    pub(crate) uncorrectable: u32,
    pub(crate) pending: bool,
    pub(crate) failure: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct RetiredPages {
    /// Retired for many single-bit errors.
    pub(crate) single_bit: u32,
    /// Retired for a double-bit error.
    pub(crate) double_bit: u32,
    pub(crate) pending: bool,
}

/// How a call behaves: it waits, then returns the code; with `SUCCESS` or none it answers as usual.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Behaviour {
    code: Return,
    delay_ms: u64,
    /// Never returns, as a wedged driver.
    hang: bool,
}

impl Behaviour {
    fn act(self) -> Answer {
        std::thread::sleep(Duration::from_millis(self.delay_ms));
        if self.hang {
            // Parking may end for no reason, so it is done for ever.
            loop {
                std::thread::park();
            }
        }
        if self.code == SUCCESS { Ok(()) } else { Err(self.code) }
    }
}

impl Script {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Behaves as scripted for `function`, whatever device it is about.
    pub(crate) fn act(&self, function: &str) -> Answer {
        self.calls.get(function).copied().unwrap_or_default().act()
    }
}

impl Device {
    /// Behaves as scripted for `function` on this device.
    pub(crate) fn act(&self, function: &str) -> Answer {
        if self.lost {
            return Err(GPU_IS_LOST);
        }
        self.calls.get(function).copied().unwrap_or_default().act()
    }
}
