//! RDMA ports, from `sys/class/infiniband`. Ethernet functions appear here too and say so.

use assay_shared::Fact;
use assay_shared::report::{RdmaDevice, RdmaLinkLayer, RdmaState};
use assay_shared::units::Gbps;

use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci;

const CLASS: &str = "sys/class/infiniband";
/// Devices looked at; the largest machines have about ten.
const DEVICES_MAX: usize = 1024;

/// The first port of every device: Azure's have one.
pub(super) fn probe(fs: &dyn HostFs) -> Fact<Vec<RdmaDevice>> {
    match read::directory(fs, CLASS, Missing::Absent) {
        // Without the subsystem there is no port.
        Fact::Absent => Fact::Measured(Vec::new()),
        Fact::Unavailable(reason) => Fact::Unavailable(reason),
        Fact::Measured(names) if names.len() > DEVICES_MAX => {
            Fact::unavailable(format!("more than {DEVICES_MAX} devices: {CLASS}"))
        }
        Fact::Measured(names) => Fact::Measured(names.into_iter().map(|name| device(fs, name)).collect()),
    }
}

fn device(fs: &dyn HostFs, device: String) -> RdmaDevice {
    let port = |file: &str| format!("{CLASS}/{device}/ports/1/{file}");
    RdmaDevice {
        link_layer: read::parsed(fs, &port("link_layer"), Missing::Unavailable, "a link layer", |text| {
            match text {
                "InfiniBand" => Some(RdmaLinkLayer::Infiniband),
                "Ethernet" => Some(RdmaLinkLayer::Ethernet),
                _ => None,
            }
        }),
        // `4: ACTIVE`
        state: read::parsed(fs, &port("state"), Missing::Unavailable, "a port state", |text| {
            match text.split_once(':')?.1.trim() {
                "DOWN" | "NOP" => Some(RdmaState::Down),
                "INIT" => Some(RdmaState::Init),
                "ARMED" => Some(RdmaState::Armed),
                "ACTIVE" | "ACTIVE_DEFER" => Some(RdmaState::Active),
                _ => None,
            }
        }),
        // `200 Gb/sec (4X HDR)`, `2.5 Gb/sec (1X SDR)`
        rate_gbps: read::parsed(fs, &port("rate"), Missing::Unavailable, "a rate", |text| {
            let number = text.split_once(" Gb/sec")?.0;
            let whole = number.split_once('.').map_or(number, |(whole, _)| whole);
            whole.parse().ok().map(Gbps)
        }),
        numa_node: pci::numa_node(fs, &format!("{CLASS}/{device}/device/numa_node")),
        device,
    }
}
