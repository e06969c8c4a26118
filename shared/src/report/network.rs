//! Network interfaces, accelerated networking and RDMA.

use serde::{Deserialize, Serialize};

use super::paths::{facts, leaf_facts};
use crate::fact::Fact;
use crate::units::{Gbps, Mbps};

facts! {
    /// The network of a machine.
    pub struct Network {
        /// Whether traffic bypasses the host's virtual switch.
        accelerated_networking: Fact<AcceleratedNetworking>,
        /// Interfaces backed by a device, by name. Tunnels, bridges and the loopback are left out.
        interfaces: Fact<Vec<NetworkInterface>>,
        /// RDMA ports, by device name.
        rdma: Fact<Vec<RdmaDevice>>,
    }
}

/// State of Azure accelerated networking: how far the virtual function got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratedNetworking {
    /// Not a machine that could have it.
    Absent,
    /// The function is on the bus, but the image has no driver for it.
    PciNoDriver,
    /// The function has an interface that is not joined to the synthetic one.
    VfUnpaired,
    /// Joined, but one side is down.
    VfPairedDown,
    /// Joined and up: traffic takes the fast path.
    VfActive,
    /// A MANA interface that carries the address itself.
    ManaStandalone,
    /// Only the synthetic interface is there: every packet goes through the host.
    SyntheticOnly,
    /// The files do not tell.
    Unknown,
}

impl AcceleratedNetworking {
    /// The value of the `network-accelerated` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::PciNoDriver => "pci_no_driver",
            Self::VfUnpaired => "vf_unpaired",
            Self::VfPairedDown => "vf_paired_down",
            Self::VfActive => "vf_active",
            Self::ManaStandalone => "mana_standalone",
            Self::SyntheticOnly => "synthetic_only",
            Self::Unknown => "unknown",
        }
    }

    /// Whether traffic takes the fast path.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::VfActive | Self::ManaStandalone)
    }
}

facts! {
    /// One network interface.
    pub struct NetworkInterface {
        /// The kernel's name.
        name: String,
        /// Kernel driver, such as `hv_netvsc`, `mlx5_core`, `mana`, `virtio_net`.
        driver: Fact<String>,
        /// What it is for.
        role: InterfaceRole,
        /// Hardware address, lower case with colons.
        mac_address: Fact<String>,
        /// Link speed; not the bandwidth that the VM size is capped at. Unavailable where the driver does not tell.
        speed_mbps: Fact<Mbps>,
        /// Whether it carries traffic now.
        up: Fact<bool>,
    }
}

/// What a network interface is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceRole {
    /// The paravirtual interface that holds the address.
    Synthetic,
    /// The virtual function behind it.
    Vf,
    /// Anything else.
    #[default]
    Other,
}

facts! {
    /// One RDMA port.
    pub struct RdmaDevice {
        /// The kernel's name, such as `mlx5_ib0`.
        device: String,
        /// What it speaks.
        link_layer: Fact<RdmaLinkLayer>,
        /// State of the port.
        state: Fact<RdmaState>,
        /// Signalling rate.
        rate_gbps: Fact<Gbps>,
        /// NUMA node it hangs on.
        numa_node: Fact<u32>,
    }
}

/// What an RDMA port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RdmaLinkLayer {
    /// InfiniBand: the fabric between HPC and GPU machines.
    Infiniband,
    /// Ethernet: the RDMA face of an ordinary network card.
    Ethernet,
}

/// State of an RDMA port, in the kernel's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RdmaState {
    /// No link.
    Down,
    /// Link, not yet configured by the subnet manager.
    Init,
    /// Configured, not yet in use.
    Armed,
    /// In use.
    Active,
}

leaf_facts!(AcceleratedNetworking, InterfaceRole, RdmaLinkLayer, RdmaState);
