//! Messages of the fleet link, and the limits both ends keep.
//!
//! ```text
//!  agent                                    scheduler
//!    |-- control stream (bidirectional) ------->|
//!    |   Hello                                  |
//!    |                       Welcome or Refused |
//!    |-- one unidirectional stream each ------->|
//!    |   Full, Delta, Notice                    |
//!    |                   Ack, SendFull on control
//! ```
//!
//! `crate::wire` frames and encodes them. Fields keep their order and variants are only ever appended: that is the wire format.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::report::{
    Cpu, Disagreement, Disk, Gpus, HardwareReport, Identity, Memory, Network, NumaNode, Platform,
    ScheduledEvent,
};

/// Application protocol of the TLS handshake.
pub const ALPN: &[u8] = b"assay/1";
/// Version of the messages below. Hello carries it; a server refuses what it does not speak.
pub const PROTOCOL_VERSION: u16 = 1;
/// UDP port the fleet server listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7443;

/// Limits of the link, kept by both ends.
pub mod limits {
    use super::Duration;

    /// The agent keeps the connection alive: below the shortest UDP mapping time-outs of routers (30 s).
    pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
    /// A silent connection is dropped after this: three keep-alives.
    pub const MAX_IDLE: Duration = Duration::from_secs(60);
    /// The handshake must be complete this long after its first datagram: three retransmissions of a lost one.
    pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
    /// Hello must be complete this long after the handshake.
    pub const AUTH_DEADLINE: Duration = Duration::from_secs(5);
    /// A message stream must be complete this long after it was opened.
    pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);
    /// Flow-control window of one stream, bytes: one message and its frame.
    pub const STREAM_WINDOW: u32 = 64 << 10;
    /// Flow-control window of one connection, bytes.
    pub const CONNECTION_WINDOW: u32 = 256 << 10;
    /// What one side buffers towards a slow peer, bytes.
    pub const SEND_WINDOW: u64 = 64 << 10;
    /// Open bidirectional streams per connection.
    pub const BIDIRECTIONAL_STREAMS: u32 = 4;
    /// Open unidirectional streams per connection.
    pub const UNIDIRECTIONAL_STREAMS: u32 = 2;
    /// First and longest pause before a reconnect; each pause is drawn uniformly from zero to its bound (full jitter).
    pub const RECONNECT_FIRST: Duration = Duration::from_secs(1);
    /// See [`RECONNECT_FIRST`].
    pub const RECONNECT_LONGEST: Duration = Duration::from_secs(60);
}

/// Number of a report of one agent in one boot; larger is later.
pub type Generation = u64;

/// What an agent sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AgentMessage {
    /// First on the control stream: who is there.
    Hello(Hello),
    /// The whole report.
    Full {
        /// Number of this report.
        generation: Generation,
        /// The report.
        report: Box<HardwareReport>,
    },
    /// What changed since a report the server has.
    Delta {
        /// The report it applies to.
        base: Generation,
        /// Number of the report that results.
        generation: Generation,
        /// The sections that changed, whole.
        sections: Vec<Section>,
    },
    /// Something that cannot wait for the next report.
    Notice(Notice),
}

/// Introduces an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the agent.
    pub protocol: u16,
    /// Node it reports about.
    pub node_name: String,
    /// Boot it reports about; empty where it could not be read.
    pub boot_id: String,
    /// What proves that it may.
    pub credential: Credential,
}

/// What proves that an agent may report about its node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// The client certificate of the TLS handshake.
    Certificate,
    /// A projected service-account token.
    Token(String),
}

impl fmt::Debug for Credential {
    /// Never shows a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("Certificate"),
            Self::Token(_) => f.write_str("Token(..)"),
        }
    }
}

/// One section of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is the field of `HardwareReport` with its name
pub enum Section {
    Identity(Identity),
    Platform(Platform),
    Cpu(Cpu),
    Memory(Memory),
    Numa(Fact<Vec<NumaNode>>),
    Gpus(Gpus),
    Network(Network),
    Disks(Fact<Vec<Disk>>),
    Events(Fact<Vec<ScheduledEvent>>),
    Disagreements(Vec<Disagreement>),
}

/// The sections in which `new` differs from `old`.
#[must_use]
pub fn changed_sections(old: &HardwareReport, new: &HardwareReport) -> Vec<Section> {
    macro_rules! changed {
        ($($field:ident => $section:ident),* $(,)?) => {
            [$( (old.$field != new.$field).then(|| Section::$section(new.$field.clone())) ),*].into_iter().flatten().collect()
        };
    }
    changed! {
        identity => Identity, platform => Platform, cpu => Cpu, memory => Memory, numa => Numa, gpus => Gpus,
        network => Network, disks => Disks, events => Events, disagreements => Disagreements,
    }
}

/// Replaces these sections of `report`.
pub fn apply_sections(report: &mut HardwareReport, sections: Vec<Section>) {
    for section in sections {
        match section {
            Section::Identity(identity) => report.identity = identity,
            Section::Platform(platform) => report.platform = platform,
            Section::Cpu(cpu) => report.cpu = cpu,
            Section::Memory(memory) => report.memory = memory,
            Section::Numa(numa) => report.numa = numa,
            Section::Gpus(gpus) => report.gpus = gpus,
            Section::Network(network) => report.network = network,
            Section::Disks(disks) => report.disks = disks,
            Section::Events(events) => report.events = events,
            Section::Disagreements(disagreements) => report.disagreements = disagreements,
        }
    }
}

/// Something that cannot wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The cloud announced something for this machine.
    Scheduled(ScheduledEvent),
    /// A GPU stopped working.
    GpuLost {
        /// Its PCI address.
        pci_address: String,
        /// What the driver said.
        reason: String,
    },
}

/// What the scheduler sends, all of it on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The agent is known; it may report.
    Welcome {
        /// Survey this often, in seconds.
        report_interval_seconds: u32,
        /// Last report of this boot that the server still has; the agent may continue from it with a delta.
        last_generation: Option<Generation>,
    },
    /// The agent may not report.
    Refused {
        /// Why, to be counted.
        reason: RefusalReason,
        /// Why, for people.
        detail: String,
    },
    /// A report arrived whole.
    Ack {
        /// Which.
        generation: Generation,
    },
    /// A delta did not fit what the server has: send a full report.
    SendFull,
}

/// Why an agent, a connection or a message was refused; the label of the counter and the word in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Another protocol version.
    VersionMismatch,
    /// No certificate, and no token either.
    NoCredential,
    /// A certificate or token that does not hold.
    InvalidCredential,
    /// The credential is of another node than the one reported about.
    NodeMismatch,
    /// The first message was not a Hello, or did not come in time.
    NoHello,
    /// Bytes that are no message.
    Malformed,
    /// A message over the limit.
    TooLarge,
    /// A message that took too long to arrive.
    TooSlow,
    /// Too many connections, or too many attempts from one address.
    Overloaded,
    /// A node name that Kubernetes would not accept.
    InvalidNodeName,
    /// The handshake failed: wrong certificate authority, wrong protocol.
    HandshakeFailed,
    /// Reports came faster than the server takes them.
    TooMany,
    /// A message of a kind that is unknown, or not expected at that point.
    UnexpectedKind,
    /// A datagram that belongs to no connection and opens none.
    NotQuic,
    /// A token whose node is not the one in Hello.
    NodeClaimMismatch,
    /// A token that is bound to no node.
    NodeClaimAbsent,
    /// A token for somebody else.
    WrongAudience,
    /// A token of another service account than the agents'.
    WrongServiceAccount,
    /// A token that the API server does not vouch for: expired, forged, or of a pod that is gone.
    TokenInvalid,
    /// The API server could not be asked about a token.
    ValidatorUnavailable,
}

impl RefusalReason {
    /// Every reason, so that counters exist from the start.
    pub const ALL: [Self; 20] = [
        Self::VersionMismatch,
        Self::NoCredential,
        Self::InvalidCredential,
        Self::NodeMismatch,
        Self::NoHello,
        Self::Malformed,
        Self::TooLarge,
        Self::TooSlow,
        Self::Overloaded,
        Self::InvalidNodeName,
        Self::HandshakeFailed,
        Self::TooMany,
        Self::UnexpectedKind,
        Self::NotQuic,
        Self::NodeClaimMismatch,
        Self::NodeClaimAbsent,
        Self::WrongAudience,
        Self::WrongServiceAccount,
        Self::TokenInvalid,
        Self::ValidatorUnavailable,
    ];

    /// The value of the counter's `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VersionMismatch => "version_mismatch",
            Self::NoCredential => "no_credential",
            Self::InvalidCredential => "invalid_credential",
            Self::NodeMismatch => "node_mismatch",
            Self::NoHello => "no_hello",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Overloaded => "overloaded",
            Self::InvalidNodeName => "invalid_node_name",
            Self::HandshakeFailed => "handshake_failed",
            Self::TooMany => "too_many",
            Self::UnexpectedKind => "unexpected_kind",
            Self::NotQuic => "not_quic",
            Self::NodeClaimMismatch => "node_claim_mismatch",
            Self::NodeClaimAbsent => "node_claim_absent",
            Self::WrongAudience => "wrong_audience",
            Self::WrongServiceAccount => "wrong_service_account",
            Self::TokenInvalid => "token_invalid",
            Self::ValidatorUnavailable => "validator_unavailable",
        }
    }
}

/// Why one end closed the connection: the application code of QUIC's CONNECTION_CLOSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The agent leaves.
    Leaving,
    /// A newer connection of the same node took its place.
    Replaced,
    /// The server stops. The reason phrase is the number of seconds, in decimal, over which its agents should spread
    /// their return.
    Stopping,
    /// The credential expired while connected: connect again with a fresh one.
    CredentialExpired,
    /// The server refused; the reason phrase says it for people.
    Refused(RefusalReason),
}

impl CloseCode {
    /// Codes from here on are refusals, in the order of [`RefusalReason::ALL`].
    const REFUSED: u32 = 16;

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Leaving => 0,
            Self::Replaced => 1,
            Self::Stopping => 2,
            Self::CredentialExpired => 3,
            Self::Refused(reason) => Self::REFUSED + reason as u32,
        }
    }

    /// The code with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        let refused = RefusalReason::ALL.into_iter().map(Self::Refused);
        [Self::Leaving, Self::Replaced, Self::Stopping, Self::CredentialExpired]
            .into_iter()
            .chain(refused)
            .find(|code| u64::from(code.number()) == number)
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_turns_the_old_report_into_the_new_one() {
        let old = HardwareReport::default();
        let mut new = old.clone();
        new.cpu.sockets = Fact::Measured(2);
        new.disks = Fact::Measured(vec![]);
        let sections = changed_sections(&old, &new);
        assert_eq!(sections.len(), 2);
        let mut rebuilt = old;
        apply_sections(&mut rebuilt, sections);
        assert_eq!(rebuilt, new);
    }

    #[test]
    fn close_codes_have_numbers_of_their_own() {
        let refused = RefusalReason::ALL.into_iter().map(CloseCode::Refused);
        for code in
            [CloseCode::Leaving, CloseCode::Replaced, CloseCode::Stopping, CloseCode::CredentialExpired]
                .into_iter()
                .chain(refused)
        {
            assert_eq!(CloseCode::from_number(code.number().into()), Some(code));
        }
        assert_eq!(CloseCode::from_number(15), None);
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", Credential::Token("eyJhbGciOi".to_owned()));
        assert!(!shown.contains("eyJ"));
    }
}
