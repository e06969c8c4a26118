//! What the fleet server may be told, with the values it uses otherwise.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use assay_shared::protocol::{DEFAULT_PORT, limits};

/// How often something may happen: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, per second.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

/// Settings of the fleet server. `docs/fleet-link.md` derives the defaults.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// How often agents survey.
    pub report_interval: Duration,
    /// Agents connected at once; at 64 KiB each the default is below 1 GiB.
    pub connections: usize,
    /// Nodes whose last report is kept, connected or not, so that they can continue with a delta.
    pub remembered_nodes: usize,
    /// Handshakes in progress at once.
    pub handshakes: usize,
    /// Handshakes in progress above which an address must first be proved with a Retry.
    pub retry_above: usize,
    /// Handshakes begun without proof of the address, all addresses together.
    pub unproved_handshakes: Rate,
    /// Handshakes begun by one address (IPv4) or network (IPv6 /64) with proof. The burst is a whole fleet behind one NAT.
    pub handshakes_per_address: Rate,
    /// Messages of one agent.
    pub messages_per_agent: Rate,
    /// Time-outs.
    pub deadlines: Deadlines,
    /// Segmentation offload of the kernel; to be switched off where a network driver gets it wrong.
    pub segmentation_offload: bool,
}

/// How long the server waits for others.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For a handshake.
    pub handshake: Duration,
    /// For Hello, from the handshake on.
    pub hello: Duration,
    /// For a whole message, from its first byte on; also for a message to be taken by the agent.
    pub message: Duration,
    /// For the consumer of the events to take one.
    pub backlog: Duration,
    /// For the connections to end when the server stops.
    pub stop: Duration,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT)),
            report_interval: Duration::from_secs(60),
            connections: 12_000,
            remembered_nodes: 24_000,
            handshakes: 1_024,
            retry_above: 64,
            unproved_handshakes: Rate { per_second: 200, burst: 256 },
            handshakes_per_address: Rate { per_second: 100, burst: 4_096 },
            messages_per_agent: Rate { per_second: 2, burst: 32 },
            deadlines: Deadlines::default(),
            segmentation_offload: true,
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: limits::HANDSHAKE_DEADLINE,
            hello: limits::AUTH_DEADLINE,
            message: limits::MESSAGE_DEADLINE,
            backlog: Duration::from_secs(10),
            stop: Duration::from_secs(5),
        }
    }
}
