//! Functions on the PCI bus, from `sys/bus/pci/devices`. GPU, network and nothing else asks for them.

use assay_shared::Fact;

use crate::host::HostFs;
use crate::host::read::{self, Missing};

/// Directory of the bus, one link per function.
const DEVICES: &str = "sys/bus/pci/devices";
/// Functions looked at; the largest Azure machines have about 60.
const FUNCTIONS_MAX: usize = 4096;

/// One function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Address, such as `0001:00:00.0`.
    pub address: String,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: Fact<u16>,
    /// Class, such as `0x030200`.
    pub class: u32,
    /// Driver bound to it; absent where none is.
    pub driver: Fact<String>,
    /// NUMA node it hangs on; absent where the firmware does not tell.
    pub numa_node: Fact<u32>,
}

/// Every function of the bus. One that cannot be read makes the whole list unavailable: a count that leaves it out would
/// be wrong.
pub fn scan(fs: &dyn HostFs) -> Fact<Vec<PciDevice>> {
    read::directory(fs, DEVICES, Missing::Unavailable).and_then(|addresses| {
        if addresses.len() > FUNCTIONS_MAX {
            return Fact::unavailable(format!("more than {FUNCTIONS_MAX} functions: {DEVICES}"));
        }
        let mut devices = Vec::new();
        for address in addresses {
            match function(fs, address) {
                Fact::Measured(device) => devices.push(device),
                Fact::Absent => {}
                Fact::Unavailable(reason) => return Fact::Unavailable(reason),
            }
        }
        Fact::Measured(devices)
    })
}

fn function(fs: &dyn HostFs, address: String) -> Fact<PciDevice> {
    let path = |file: &str| format!("{DEVICES}/{address}/{file}");
    let hex = |file: &str| read::hex(fs, &path(file), Missing::Unavailable);
    hex("vendor").and_then(|vendor| {
        hex("class").and_then(|class| {
            let (Ok(vendor), Ok(class)) = (u16::try_from(vendor), u32::try_from(class)) else {
                return read::expected("a PCI id", &format!("{vendor:#x} {class:#x}"), &path("vendor"));
            };
            let device = hex("device").and_then(|device| match u16::try_from(device) {
                Ok(device) => Fact::Measured(device),
                Err(_) => read::expected("a PCI id", &format!("{device:#x}"), &path("device")),
            });
            let driver = read::link_name(fs, &path("driver"), Missing::Absent);
            let numa_node = numa_node(fs, &path("numa_node"));
            Fact::Measured(PciDevice { device, driver, numa_node, vendor, class, address: address.clone() })
        })
    })
}

/// A `numa_node` file; -1 says that the firmware does not tell.
pub fn numa_node(fs: &dyn HostFs, path: &str) -> Fact<u32> {
    read::number::<i64>(fs, path, Missing::Absent).and_then(|node| match node {
        -1 => Fact::Absent,
        node => u32::try_from(node)
            .map_or_else(|_| read::expected("a NUMA node", &node.to_string(), path), Fact::Measured),
    })
}
