//! Network of simulated machines: interfaces, Azure's virtual functions, RDMA ports.

use assay_shared::report::{RdmaLinkLayer, RdmaState};
use assay_shared::units::{Gbps, Mbps};
use serde::Deserialize;

use super::pci::{Function, vmbus_device};
use super::{Damage, MemTree};

/// `IFF_UP`, `IFF_SLAVE` and `IFF_MULTICAST | IFF_BROADCAST` of `include/uapi/linux/if.h`.
const UP: u32 = 0x1;
const SLAVE: u32 = 0x800;
const ORDINARY: u32 = 0x1002;

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Nic {
    /// The kernel's name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// What drives it.
    pub driver: NicDriver,
    /// Whether it is up.
    #[serde(default = "yes")]
    pub up: bool,
    /// What the driver says of its speed by itself; with a joined function it says the function's.
    #[serde(default)]
    pub speed: Option<Mbps>,
    /// The virtual function that belongs to it.
    #[serde(default)]
    pub vf: Option<Vf>,
}

fn yes() -> bool {
    true
}

/// Driver of an interface that is not a virtual function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicDriver {
    /// Hyper-V's synthetic network card.
    HvNetvsc,
    /// KVM's.
    VirtioNet,
    /// A MANA card that carries the address itself, without a synthetic twin.
    Mana,
}

/// A virtual function of the host's network card.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vf {
    /// The kernel's name for its interface.
    pub name: String,
    /// Its PCI address.
    pub pci: String,
    /// Make of the card.
    pub family: VfFamily,
    /// How far it got.
    #[serde(default)]
    pub state: VfState,
    /// Speed of the port; `None` where the driver does not tell (`EINVAL`, as MANA did for years).
    #[serde(default)]
    pub speed: Option<Mbps>,
}

/// Network cards that Azure hosts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfFamily {
    /// Mellanox ConnectX-3.
    Mlx4,
    /// Mellanox ConnectX-4 Lx and later.
    Mlx5,
    /// Microsoft Azure Network Adapter.
    Mana,
}

/// How far a virtual function got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfState {
    /// Joined to its synthetic interface, both up.
    #[default]
    Active,
    /// Joined, but down.
    Down,
    /// It has an interface that is not joined.
    Unpaired,
    /// On the bus, but the image has no driver for it.
    NoDriver,
}

impl VfFamily {
    /// Vendor and device id, driver.
    const fn pci(self) -> (u16, u16, &'static str) {
        match self {
            Self::Mlx4 => (0x15b3, 0x1004, "mlx4_core"),
            Self::Mlx5 => (0x15b3, 0x1016, "mlx5_core"),
            Self::Mana => (0x1414, 0x00ba, "mana"),
        }
    }
}

impl Nic {
    /// Azure's synthetic interface, with the virtual function where there is one.
    #[must_use]
    pub fn azure(name: &str, mac: &str, vf: Option<Vf>) -> Self {
        Self {
            name: name.to_owned(),
            mac: mac.to_owned(),
            driver: NicDriver::HvNetvsc,
            up: true,
            speed: None,
            vf,
        }
    }

    pub(super) fn write(&self, tree: &mut MemTree, index: usize) {
        let dir = match self.driver {
            NicDriver::HvNetvsc => {
                let digits = self.mac.replace(':', "");
                let (high, low) = digits.split_at_checked(8).unwrap_or((&digits, ""));
                let id = format!("{high}-{low}-{}-{high}-{low}{digits}", digits.get(..4).unwrap_or(""));
                let bus = vmbus_device(tree, &id, "f8615163-df3e-46c5-913f-f2d2f965ed0e", "hv_netvsc");
                interface_dir(tree, &bus, &self.name)
            }
            NicDriver::VirtioNet => {
                let address = format!("0000:00:{:02x}.0", 3 + index);
                let pci = Function {
                    address: &address,
                    vendor: 0x1af4,
                    device: 0x1041,
                    class: 0x02_0000,
                    numa_node: None,
                    driver: Some("virtio-pci"),
                };
                let virtio = format!("{}/virtio{}", pci.write(tree, false), 2 + index);
                let driver = "sys/bus/virtio/drivers/virtio_net";
                tree.directory(driver).link_to(&format!("{virtio}/driver"), driver);
                interface_dir(tree, &virtio, &self.name)
            }
            NicDriver::Mana => {
                let (vendor, device, driver) = VfFamily::Mana.pci();
                let pci = Function {
                    address: "7870:00:00.0",
                    vendor,
                    device,
                    class: 0x02_0000,
                    numa_node: None,
                    driver: Some(driver),
                };
                let bus = pci.write(tree, true);
                interface_dir(tree, &bus, &self.name)
            }
        };
        let joined = self.vf.as_ref().filter(|vf| matches!(vf.state, VfState::Active | VfState::Down));
        let speed = joined.and_then(|vf| vf.speed).or(self.speed);
        write_interface(tree, &dir, &self.mac, self.up, 0);
        tree.file(
            &format!("{dir}/speed"),
            speed.map_or_else(|| "-1\n".to_owned(), |speed| format!("{}\n", speed.0)),
        );
        if let Some(vf) = &self.vf {
            vf.write(tree, &self.mac, &dir, &self.name);
        }
    }
}

impl Vf {
    fn write(&self, tree: &mut MemTree, mac: &str, synthetic: &str, synthetic_name: &str) {
        let (vendor, device, driver) = self.family.pci();
        let driver = (self.state != VfState::NoDriver).then_some(driver);
        let pci = Function { address: &self.pci, vendor, device, class: 0x02_0000, numa_node: None, driver };
        let bus = pci.write(tree, true);
        if self.state == VfState::NoDriver {
            return;
        }
        let dir = interface_dir(tree, &bus, &self.name);
        let joined = self.state != VfState::Unpaired;
        let up = self.state == VfState::Active;
        write_interface(tree, &dir, mac, up, if joined { SLAVE } else { 0 });
        match self.speed {
            Some(speed) if up => tree.file(&format!("{dir}/speed"), format!("{}\n", speed.0)),
            // The kernel asks only interfaces that are up, and only drivers that answer.
            _ => tree.damage(&format!("{dir}/speed"), Damage::Fails(rustix::io::Errno::INVAL)),
        };
        if joined {
            tree.link_to(&format!("{dir}/master"), synthetic);
            tree.link_to(&format!("{dir}/upper_{synthetic_name}"), synthetic);
            tree.link_to(&format!("{synthetic}/lower_{}", self.name), &dir);
        }
    }
}

/// The directory of an interface below its device, with its links.
fn interface_dir(tree: &mut MemTree, device: &str, name: &str) -> String {
    let dir = format!("{device}/net/{name}");
    tree.link_to(&format!("{dir}/device"), device);
    tree.link_to(&format!("sys/class/net/{name}"), &dir);
    dir
}

fn write_interface(tree: &mut MemTree, dir: &str, mac: &str, up: bool, flags: u32) {
    let flags = flags | ORDINARY | if up { UP } else { 0 };
    tree.file(&format!("{dir}/flags"), format!("{flags:#x}\n"));
    tree.file(&format!("{dir}/address"), format!("{mac}\n"));
    tree.file(&format!("{dir}/operstate"), if up { "up\n" } else { "down\n" });
    tree.file(&format!("{dir}/type"), "1\n");
    tree.file(&format!("{dir}/mtu"), "1500\n");
    for file in ["rx_packets", "tx_packets"] {
        tree.file(&format!("{dir}/statistics/{file}"), if up { "4711\n" } else { "0\n" });
    }
}

/// Interfaces without a device, which every machine has: the loopback, and with pods a pair for one of them.
pub(super) fn write_virtual(tree: &mut MemTree, pods: bool) {
    let mut interfaces = vec![("lo", "00:00:00:00:00:00", "772", "0x9", "unknown")];
    if pods {
        interfaces.push(("azv1f2e3d4c5b6", "aa:aa:aa:aa:aa:aa", "1", "0x1003", "up"));
    }
    for (name, mac, kind, flags, state) in interfaces {
        let dir = format!("sys/devices/virtual/net/{name}");
        for (file, text) in [("address", mac), ("type", kind), ("flags", flags), ("operstate", state)] {
            tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
        }
        tree.link_to(&format!("sys/class/net/{name}"), &dir);
    }
}

/// One RDMA port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RdmaPort {
    /// The kernel's name, such as `mlx5_ib0`.
    pub device: String,
    /// PCI address of its function.
    pub pci: String,
    /// What it speaks.
    pub link_layer: RdmaLinkLayer,
    /// State of the port.
    pub state: RdmaState,
    /// Rate that the port shows; while it is down that is the lowest there is.
    pub rate: Gbps,
    /// NUMA node it hangs on.
    #[serde(default)]
    pub numa_node: Option<u32>,
}

impl RdmaPort {
    pub(super) fn write(&self, tree: &mut MemTree) {
        let class = match self.link_layer {
            RdmaLinkLayer::Infiniband => 0x02_0700,
            RdmaLinkLayer::Ethernet => 0x02_0000,
        };
        let pci = Function {
            address: &self.pci,
            vendor: 0x15b3,
            device: if class == 0x02_0700 { 0x101c } else { 0x1016 },
            class,
            numa_node: self.numa_node,
            driver: Some("mlx5_core"),
        };
        let bus = pci.write(tree, true);
        let dir = format!("{bus}/infiniband/{}", self.device);
        let (state, physical) = match self.state {
            RdmaState::Down => ("1: DOWN", "3: Disabled"),
            RdmaState::Init => ("2: INIT", "5: LinkUp"),
            RdmaState::Armed => ("3: ARMED", "5: LinkUp"),
            RdmaState::Active => ("4: ACTIVE", "5: LinkUp"),
        };
        let link_layer = match self.link_layer {
            RdmaLinkLayer::Infiniband => "InfiniBand",
            RdmaLinkLayer::Ethernet => "Ethernet",
        };
        // Lanes and speed as drivers/infiniband/core/sysfs.c prints them.
        let lanes = match self.rate.0 {
            10 => "4X SDR",
            25 => "1X EDR",
            40 => "4X QDR",
            50 => "1X HDR",
            56 => "4X FDR",
            200 => "4X HDR",
            400 => "4X NDR",
            _ => "4X EDR",
        };
        let rate = format!("{} Gb/sec ({lanes})", self.rate.0);
        for (file, text) in
            [("state", state), ("phys_state", physical), ("link_layer", link_layer), ("rate", rate.as_str())]
        {
            tree.file(&format!("{dir}/ports/1/{file}"), format!("{text}\n"));
        }
        tree.file(&format!("{dir}/fw_ver"), "20.31.1014\n");
        tree.file(&format!("{dir}/node_type"), "1: CA\n");
        tree.link_to(&format!("{dir}/device"), &bus);
        tree.link_to(&format!("sys/class/infiniband/{}", self.device), &dir);
    }
}
