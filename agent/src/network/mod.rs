//! Network interfaces, accelerated networking and RDMA.
//!
//! Read from `sys/class/net`, `sys/class/infiniband` and the PCI bus; all of it without privilege.

mod accelerated;
mod rdma;

use assay_shared::Fact;
use assay_shared::report::{Cloud, InterfaceRole, Network, NetworkInterface};
use assay_shared::units::Mbps;

use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci;

const CLASS: &str = "sys/class/net";
/// Interfaces looked at; a node has one per pod, most of them virtual and passed over.
const INTERFACES_MAX: usize = 4096;
/// A file among the interfaces, for making bonds.
const BONDING_FILE: &str = "bonding_masters";
/// `IFF_UP` of `include/uapi/linux/if.h`.
const IFF_UP: u64 = 0x1;
/// Octets of an Ethernet address.
const ETHERNET_OCTETS: usize = 6;
/// Driver of Azure's paravirtual interface.
const SYNTHETIC: &str = "hv_netvsc";
/// Drivers of Azure's virtual functions.
const FUNCTION_DRIVERS: [&str; 4] = ["mlx4_core", "mlx4_en", "mlx5_core", "mana"];

/// Surveys the network. Accelerated networking is a notion of Azure only.
pub fn probe(fs: &dyn HostFs, cloud: &Fact<Cloud>) -> Network {
    let mut interfaces = interfaces(fs);
    if *cloud == Fact::Measured(Cloud::None) {
        // The same cards exist elsewhere; there they are ordinary ones, behind nothing.
        for interface in interfaces.measured_mut().into_iter().flatten() {
            if interface.role == InterfaceRole::Vf {
                interface.role = InterfaceRole::Other;
            }
        }
    }
    Network {
        accelerated_networking: match cloud {
            Fact::Measured(Cloud::None) | Fact::Absent => Fact::Absent,
            Fact::Unavailable(reason) => Fact::Unavailable(reason.clone()),
            Fact::Measured(Cloud::Azure) => {
                interfaces.as_ref().and_then(|interfaces| accelerated::state(fs, interfaces, &pci::scan(fs)))
            }
        },
        interfaces,
        rdma: rdma::probe(fs),
    }
}

fn path(name: &str, file: &str) -> String {
    format!("{CLASS}/{name}/{file}")
}

fn interfaces(fs: &dyn HostFs) -> Fact<Vec<NetworkInterface>> {
    read::directory(fs, CLASS, Missing::Unavailable).and_then(|names| {
        if names.len() > INTERFACES_MAX {
            return Fact::unavailable(format!("more than {INTERFACES_MAX} interfaces: {CLASS}"));
        }
        let mut interfaces = Vec::new();
        for name in names {
            match behind(fs, &name) {
                Fact::Measured(()) => interfaces.push(interface(fs, name)),
                Fact::Absent => {}
                // A list that leaves out what it could not look at would be wrong.
                Fact::Unavailable(reason) => return Fact::Unavailable(reason),
            }
        }
        Fact::Measured(interfaces)
    })
}

/// Whether a device stands behind an entry of the class: then it has a link `device`. A virtual interface has none.
fn behind(fs: &dyn HostFs, name: &str) -> Fact<()> {
    if name == BONDING_FILE {
        return Fact::Absent;
    }
    let device = path(name, "device");
    match read::directory(fs, &device, Missing::Absent) {
        Fact::Measured(_) => Fact::Measured(()),
        Fact::Absent if fs.exists(&path(name, "flags")) => Fact::Absent,
        // A pod that ends takes its interface with it.
        Fact::Absent if fs.list(CLASS).is_ok_and(|names| names.iter().all(|other| other != name)) => {
            Fact::Absent
        }
        Fact::Absent => {
            Fact::unavailable(format!("neither a virtual interface nor one with a device: {CLASS}/{name}"))
        }
        Fact::Unavailable(reason) => Fact::Unavailable(reason),
    }
}

fn interface(fs: &dyn HostFs, name: String) -> NetworkInterface {
    // Only a driver makes an interface, so there is one.
    let driver = read::link_name(fs, &path(&name, "device/driver"), Missing::Unavailable);
    let mac_address = mac_address(fs, &name);
    let role = match driver.measured().map(String::as_str) {
        Some(SYNTHETIC | "virtio_net") => InterfaceRole::Synthetic,
        // IP over InfiniBand has the same driver and longer addresses.
        Some(driver) if FUNCTION_DRIVERS.contains(&driver) && !is_longer_than_ethernet(&mac_address) => {
            InterfaceRole::Vf
        }
        _ => InterfaceRole::Other,
    };
    NetworkInterface { role, driver, mac_address, speed_mbps: speed(fs, &name), up: up(fs, &name), name }
}

/// An address of six octets (Ethernet) or more (InfiniBand: twenty).
fn mac_address(fs: &dyn HostFs, name: &str) -> Fact<String> {
    read::parsed(fs, &path(name, "address"), Missing::Unavailable, "a MAC address", |text| {
        let octets: Vec<_> = text.split(':').collect();
        let octet = |octet: &&str| octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit());
        (octets.len() >= ETHERNET_OCTETS && octets.iter().all(octet)).then(|| text.to_ascii_lowercase())
    })
}

fn is_longer_than_ethernet(address: &Fact<String>) -> bool {
    address.measured().is_some_and(|address| address.split(':').count() > ETHERNET_OCTETS)
}

/// The driver's way of not knowing is -1, without a sign in old kernels, or 0; or `EINVAL` where it is down or never tells.
fn speed(fs: &dyn HostFs, name: &str) -> Fact<Mbps> {
    let path = path(name, "speed");
    read::number::<i64>(fs, &path, Missing::Absent).and_then(|speed| match u32::try_from(speed) {
        Ok(0 | u32::MAX) => Fact::unavailable(format!("the driver does not know: {path}")),
        Ok(mbps) => Fact::Measured(Mbps(mbps)),
        Err(_) if speed == -1 => Fact::unavailable(format!("the driver does not know: {path}")),
        Err(_) => read::expected("a speed", &speed.to_string(), &path),
    })
}

/// Whether an interface carries traffic. Drivers that do not watch the link say "unknown"; then, and in a tree without
/// that file, it counts whether somebody set the interface up.
fn up(fs: &dyn HostFs, name: &str) -> Fact<bool> {
    let state = read::parsed(fs, &path(name, "operstate"), Missing::Absent, "a state", |text| match text {
        "up" => Some(Some(true)),
        "down" | "lowerlayerdown" | "dormant" | "notpresent" | "testing" => Some(Some(false)),
        "unknown" => Some(None),
        _ => None,
    });
    match state {
        Fact::Measured(Some(up)) => Fact::Measured(up),
        Fact::Measured(None) | Fact::Absent => {
            read::hex(fs, &path(name, "flags"), Missing::Unavailable).map(|flags| flags & IFF_UP != 0)
        }
        Fact::Unavailable(reason) => Fact::Unavailable(reason),
    }
}

#[cfg(test)]
mod tests;
