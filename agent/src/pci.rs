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
/// be wrong. One that was taken away meanwhile is left out; Azure takes virtual functions away while it services a host.
pub fn scan(fs: &dyn HostFs) -> Fact<Vec<PciDevice>> {
    read::directory(fs, DEVICES, Missing::Unavailable).and_then(|addresses| {
        if addresses.len() > FUNCTIONS_MAX {
            return Fact::unavailable(format!("more than {FUNCTIONS_MAX} functions: {DEVICES}"));
        }
        let mut devices = Vec::new();
        for address in addresses {
            match function(fs, &address) {
                Fact::Measured(device) => devices.push(device),
                Fact::Absent => {}
                Fact::Unavailable(reason) => {
                    if fs.list(DEVICES).is_ok_and(|now| now.contains(&address)) {
                        return Fact::Unavailable(reason);
                    }
                }
            }
        }
        Fact::Measured(devices)
    })
}

fn function(fs: &dyn HostFs, address: &str) -> Fact<PciDevice> {
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
            Fact::Measured(PciDevice {
                device,
                driver,
                numa_node,
                vendor,
                class,
                address: address.to_owned(),
            })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Damage, MemTree};

    fn bus() -> MemTree {
        let mut tree = MemTree::default();
        for (address, numa_node, driver) in
            [("0001:00:00.0", "1", Some("nvidia")), ("c05b:00:00.0", "-1", None)]
        {
            let dir = format!("sys/devices/{address}");
            for (file, text) in
                [("vendor", "0x10de"), ("device", "0x20b5"), ("class", "0x030200"), ("numa_node", numa_node)]
            {
                tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
            }
            if let Some(driver) = driver {
                tree.link(&format!("{dir}/driver"), &format!("../../bus/pci/drivers/{driver}"));
            }
            tree.link_to(&format!("{DEVICES}/{address}"), &dir);
        }
        tree
    }

    #[test]
    fn functions_are_read_with_their_driver_and_node() {
        let found = scan(&bus());
        let [gpu, other] = &found.measured().unwrap()[..] else { panic!("{found:?}") };
        let expected = PciDevice {
            address: "0001:00:00.0".to_owned(),
            vendor: 0x10de,
            device: Fact::Measured(0x20b5),
            class: 0x03_0200,
            driver: Fact::Measured("nvidia".to_owned()),
            numa_node: Fact::Measured(1),
        };
        assert_eq!(*gpu, expected);
        assert_eq!((&other.driver, &other.numa_node), (&Fact::Absent, &Fact::Absent));
    }

    #[test]
    fn a_function_that_cannot_be_told_is_no_shorter_list() {
        for file in ["vendor", "class"] {
            for damage in Damage::ALL {
                let mut tree = bus();
                tree.damage(&format!("sys/devices/c05b:00:00.0/{file}"), damage);
                let found = scan(&tree);
                assert!(
                    matches!(&found, Fact::Unavailable(reason) if reason.contains(file)),
                    "{file} {damage}: {found:?}"
                );
            }
        }
        for (file, text) in [("vendor", "0x110de"), ("class", "0x100000000"), ("vendor", "-1")] {
            let mut tree = bus();
            tree.file(&format!("sys/devices/c05b:00:00.0/{file}"), format!("{text}\n"));
            assert!(matches!(scan(&tree), Fact::Unavailable(_)), "{file} {text}");
        }
    }

    #[test]
    fn a_bus_without_functions_is_empty_and_one_that_is_not_there_is_not_known() {
        let mut tree = MemTree::default();
        assert!(matches!(scan(&tree), Fact::Unavailable(_)));
        tree.directory(DEVICES);
        assert_eq!(scan(&tree), Fact::Measured(Vec::new()));
    }
}
