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
/// Driver of Azure's paravirtual interface.
const SYNTHETIC: &str = "hv_netvsc";
/// Drivers of Azure's virtual functions.
const FUNCTION_DRIVERS: [&str; 4] = ["mlx4_core", "mlx4_en", "mlx5_core", "mana"];

/// Surveys the network. Accelerated networking is a notion of Azure only.
pub fn probe(fs: &dyn HostFs, cloud: &Fact<Cloud>) -> Network {
    let interfaces = interfaces(fs);
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
        Fact::Absent => {
            Fact::unavailable(format!("neither a virtual interface nor one with a device: {CLASS}/{name}"))
        }
        Fact::Unavailable(reason) => Fact::Unavailable(reason),
    }
}

fn interface(fs: &dyn HostFs, name: String) -> NetworkInterface {
    // Only a driver makes an interface, so there is one.
    let driver = read::link_name(fs, &path(&name, "device/driver"), Missing::Unavailable);
    let role = match driver.measured().map(String::as_str) {
        Some(SYNTHETIC | "virtio_net") => InterfaceRole::Synthetic,
        Some(driver) if FUNCTION_DRIVERS.contains(&driver) => InterfaceRole::Vf,
        _ => InterfaceRole::Other,
    };
    let address = path(&name, "address");
    let speed = path(&name, "speed");
    NetworkInterface {
        role,
        driver,
        mac_address: read::parsed(fs, &address, Missing::Unavailable, "a MAC address", |text| {
            let pairs: Vec<_> = text.split(':').collect();
            let pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            (pairs.len() >= 6 && pairs.iter().all(pair)).then(|| text.to_ascii_lowercase())
        }),
        // -1 is the driver's way of not knowing; EINVAL that of one that is down or never tells.
        speed_mbps: read::number::<i64>(fs, &speed, Missing::Absent).and_then(
            |speed_read| match speed_read {
                -1 => Fact::unavailable(format!("the driver does not know: {speed}")),
                number => u32::try_from(number).map_or_else(
                    |_| read::expected("a speed", &number.to_string(), &speed),
                    |mbps| Fact::Measured(Mbps(mbps)),
                ),
            },
        ),
        up: up(fs, &name),
        name,
    }
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
