//! Devices of simulated machines on the buses: PCI and Hyper-V's VMBus.

use super::MemTree;

/// Where Hyper-V hangs its devices.
pub(super) const VMBUS: &str = "sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/MSFT1000:00";

/// Writes a device of the VMBus and gives its directory. Classes are those of `include/linux/hyperv.h`.
pub(super) fn vmbus_device(tree: &mut MemTree, id: &str, class: &str, driver: &str) -> String {
    let dir = format!("{VMBUS}/{id}");
    tree.file(&format!("{dir}/device_id"), format!("{{{id}}}\n"));
    tree.file(&format!("{dir}/class_id"), format!("{{{class}}}\n"));
    tree.file(&format!("{dir}/vendor"), "0x1414\n");
    let driver_dir = format!("sys/bus/vmbus/drivers/{driver}");
    tree.directory(&driver_dir).link_to(&format!("{dir}/driver"), &driver_dir);
    tree.link_to(&format!("sys/bus/vmbus/devices/{id}"), &dir);
    dir
}

/// One function on the PCI bus.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function<'a> {
    /// `0001:00:00.0`.
    pub address: &'a str,
    pub vendor: u16,
    pub device: u16,
    /// 24 bits: class, subclass, programming interface.
    pub class: u32,
    /// `None` is written as -1, the kernel's "unknown".
    pub numa_node: Option<u32>,
    pub driver: Option<&'a str>,
}

impl Function<'_> {
    /// Writes the function and gives its directory. On Hyper-V each one sits in a PCI domain of its own, behind its own
    /// VMBus device.
    pub(super) fn write(&self, tree: &mut MemTree, hyperv: bool) -> String {
        let domain = self.address.split(':').next().unwrap_or("0000");
        let bus = if hyperv {
            let id = format!("00000001-7061-6373-7374-00000000{domain}");
            vmbus_device(tree, &id, "44c4f61d-4444-4400-9d52-802e27ede19f", "hv_pci")
        } else {
            "sys/devices".to_owned()
        };
        let dir = format!("{bus}/pci{domain}:00/{}", self.address);
        let numa = self.numa_node.map_or_else(|| "-1".to_owned(), |node| node.to_string());
        for (file, text) in [
            ("vendor", format!("{:#06x}", self.vendor)),
            ("device", format!("{:#06x}", self.device)),
            ("class", format!("{:#08x}", self.class)),
            ("numa_node", numa),
        ] {
            tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
        }
        if let Some(driver) = self.driver {
            let driver_dir = format!("sys/bus/pci/drivers/{driver}");
            tree.directory(&driver_dir).link_to(&format!("{dir}/driver"), &driver_dir);
            tree.link_to(&format!("{driver_dir}/{}", self.address), &dir);
        }
        tree.link_to(&format!("sys/bus/pci/devices/{}", self.address), &dir);
        dir
    }
}
