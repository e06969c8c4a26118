//! What the fleet server tells the scheduler.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_core::engine::Event;
use assay_shared::protocol::{Generation, Notice};
use assay_shared::{HardwareReport, NodeName};

use super::auth::Proof;

/// Something that happened on the fleet link. Of one node, they come in the order in which the server decided them:
/// between `Connected` and `Disconnected` only reports of that very connection.
#[derive(Debug, Clone, PartialEq)]
pub enum FleetEvent {
    /// The agent of this node may report from now on.
    Connected {
        /// Whose.
        node: NodeName,
        /// The boot it reports about; empty where the agent could not read it.
        boot: String,
    },
    /// The machine, as it is now.
    Report {
        /// Whose.
        node: NodeName,
        /// All of it, whether it arrived whole or as what changed.
        report: Arc<HardwareReport>,
        /// Its number, larger than that of the report before in the same boot.
        generation: Generation,
    },
    /// Something that could not wait for the next report.
    Notice {
        /// Whose.
        node: NodeName,
        /// What.
        notice: Notice,
    },
    /// The agent is gone. What it reported stays true until it is known to be otherwise.
    Disconnected {
        /// Whose.
        node: NodeName,
        /// Whether a newer connection of the same node took its place.
        replaced: bool,
    },
}

impl From<FleetEvent> for Event {
    /// What the fleet server tells, as the engine hears it.
    fn from(event: FleetEvent) -> Self {
        let name = |node: &NodeName| Arc::<str>::from(node.as_str());
        match event {
            FleetEvent::Connected { node, .. } => Self::AgentConnected { node: name(&node) },
            FleetEvent::Report { node, report, .. } => Self::Report { node: name(&node), report },
            FleetEvent::Notice { node, notice } => Self::Notice { node: name(&node), notice },
            // The newer connection speaks for the node.
            FleetEvent::Disconnected { replaced: true, .. } => Self::Tick,
            FleetEvent::Disconnected { node, .. } => Self::AgentLost { node: name(&node) },
        }
    }
}

/// An agent that is connected.
#[derive(Debug, Clone)]
pub struct ConnectedAgent {
    /// Its node.
    pub node: NodeName,
    /// The boot it reports about; may be empty.
    pub boot: String,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Since when.
    pub since: Instant,
    /// Why it is believed to be of that node.
    pub proof: Arc<Proof>,
    /// Round-trip time of the connection.
    pub round_trip: Duration,
    /// Number of its last report.
    pub generation: Option<Generation>,
    /// Its last report.
    pub report: Option<Arc<HardwareReport>>,
}
