//! Accelerated networking: how far the virtual function got.
//!
//! The portal says "enabled" whatever happens inside the machine. What counts is whether the function is on the bus, has a
//! driver, and is joined to the synthetic interface with the same address, both of them up.

use assay_shared::Fact;
use assay_shared::report::{AcceleratedNetworking as State, InterfaceRole, NetworkInterface};

use super::{SYNTHETIC, path};
use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci::PciDevice;

/// `IFF_SLAVE` of `include/uapi/linux/if.h`: the interface is the lower half of another.
const IFF_SLAVE: u64 = 0x800;
const MELLANOX: u16 = 0x15b3;
const MICROSOFT: u16 = 0x1414;
/// Microsoft Azure Network Adapter, virtual function.
const MANA: u16 = 0x00ba;
/// PCI class of Ethernet controllers, without the interface byte.
const ETHERNET: u32 = 0x0200;

/// The state of an Azure machine.
pub(super) fn state(
    fs: &dyn HostFs,
    interfaces: &[NetworkInterface],
    bus: &Fact<Vec<PciDevice>>,
) -> Fact<State> {
    let functions: Vec<_> =
        interfaces.iter().filter(|interface| interface.role == InterfaceRole::Vf).collect();
    // An interface of unknown driver could be either half: nothing can be said.
    for interface in interfaces {
        if let Fact::Unavailable(reason) = &interface.driver {
            return Fact::Unavailable(reason.clone());
        }
    }
    let synthetic: Vec<_> = interfaces
        .iter()
        .filter(|interface| interface.driver.measured().is_some_and(|d| d == SYNTHETIC))
        .collect();
    if functions.is_empty() {
        return without_interface(bus, !synthetic.is_empty());
    }
    if synthetic.is_empty() {
        let standalone =
            functions.iter().find(|interface| interface.driver.measured().is_some_and(|d| d == "mana"));
        return match standalone.map(|interface| &interface.up) {
            Some(Fact::Measured(true)) => Fact::Measured(State::ManaStandalone),
            Some(Fact::Unavailable(reason)) => Fact::Unavailable(reason.clone()),
            Some(_) => Fact::Measured(State::VfPairedDown),
            None => Fact::Measured(State::VfUnpaired),
        };
    }
    // The best pair counts: a machine with two cards has its fast path if one has.
    let mut best = Fact::Measured(State::VfUnpaired);
    for function in functions {
        match pair(fs, function, &synthetic) {
            Fact::Measured(State::VfActive) => return Fact::Measured(State::VfActive),
            Fact::Measured(State::VfUnpaired) | Fact::Absent => {}
            other => best = other,
        }
    }
    best
}

/// No interface: is the function at least on the bus?
fn without_interface(bus: &Fact<Vec<PciDevice>>, synthetic: bool) -> Fact<State> {
    match bus {
        Fact::Unavailable(reason) => Fact::Unavailable(reason.clone()),
        Fact::Absent => Fact::Measured(State::Unknown),
        Fact::Measured(devices) => {
            let function = devices.iter().find(|device| {
                let mana = device.vendor == MICROSOFT && device.device == Fact::Measured(MANA);
                (device.vendor == MELLANOX && device.class >> 8 == ETHERNET) || mana
            });
            if let Some(PciDevice { driver: Fact::Unavailable(reason), .. }) = function {
                return Fact::Unavailable(reason.clone());
            }
            Fact::Measured(match (function, synthetic) {
                (Some(device), _) if device.driver == Fact::Absent => State::PciNoDriver,
                // Bound, but the interface has not appeared (yet).
                (Some(_), _) => State::VfUnpaired,
                (None, true) => State::SyntheticOnly,
                (None, false) => State::Absent,
            })
        }
    }
}

/// How one function stands to the synthetic interfaces.
fn pair(fs: &dyn HostFs, function: &NetworkInterface, synthetic: &[&NetworkInterface]) -> Fact<State> {
    let flags = read::hex(fs, &path(&function.name, "flags"), Missing::Unavailable);
    let flags = match flags {
        Fact::Measured(flags) => flags,
        Fact::Absent => 0,
        Fact::Unavailable(reason) => return Fact::Unavailable(reason),
    };
    if let Fact::Unavailable(reason) = &function.mac_address {
        return Fact::Unavailable(reason.clone());
    }
    for upper in synthetic {
        if let Fact::Unavailable(reason) = &upper.mac_address {
            return Fact::Unavailable(reason.clone());
        }
        let same_address = function.mac_address.is_measured() && function.mac_address == upper.mac_address;
        let master = read::link_name(fs, &path(&function.name, "master"), Missing::Absent);
        if let Fact::Unavailable(reason) = master {
            return Fact::Unavailable(reason);
        }
        let joined = master.measured() == Some(&upper.name)
            || fs.exists(&path(&upper.name, &format!("lower_{}", function.name)));
        if same_address && joined && flags & IFF_SLAVE != 0 {
            return match (&function.up, &upper.up) {
                (Fact::Measured(true), Fact::Measured(true)) => Fact::Measured(State::VfActive),
                (Fact::Unavailable(reason), _) | (_, Fact::Unavailable(reason)) => {
                    Fact::Unavailable(reason.clone())
                }
                _ => Fact::Measured(State::VfPairedDown),
            };
        }
    }
    Fact::Measured(State::VfUnpaired)
}
