//! The frame and codec of the fleet link.
//!
//! ```text
//!   0        2      3              7
//!   +--------+------+--------------+----------------------+
//!   | version| kind | length of    | body                 |
//!   | u16    | u8   | body, u32    | bincode, <= 64 KiB   |
//!   +--------+------+--------------+----------------------+
//! ```
//!
//! All integers are little-endian. The kind says which message it is; the body holds that message's fields, encoded by
//! bincode 2.0.1 in its fixed-width integer layout. A reader of a stream parses the seven bytes of the header first and
//! refuses by version or length before it reads, let alone keeps, any of the body.
//!
//! `crate::protocol` has the messages. This is the only module that names bincode: `docs/decisions/0001-wire-codec.md`
//! says why, and how to leave it without changing a byte on the wire.

mod reader;

use bincode::config;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{AgentMessage, ServerMessage};
use crate::report::HardwareReport;
pub use reader::FrameReader;

/// Version of the frame and of the layout of bodies. `protocol::PROTOCOL_VERSION` is that of the messages' meaning.
pub const VERSION: u16 = 1;
/// Length of a frame header, bytes.
pub const HEADER_LENGTH: usize = 7;
/// Longest body, bytes. A report of a machine with eight GPUs is below 8 KiB: eight times that, and still small enough to
/// be held for every agent at once.
pub const BODY_LIMIT: usize = 64 << 10;
/// Longest frame, bytes.
pub const FRAME_LIMIT: usize = HEADER_LENGTH + BODY_LIMIT;

/// What a frame holds. The numbers are the wire format: never changed, never reused. The server's have the high bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the message of its name in `protocol`
pub enum Kind {
    Hello = 1,
    Full = 2,
    Delta = 3,
    Notice = 4,
    Welcome = 129,
    Refused = 130,
    Ack = 131,
    SendFull = 132,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Full,
        Self::Delta,
        Self::Notice,
        Self::Welcome,
        Self::Refused,
        Self::Ack,
        Self::SendFull,
    ];

    fn from_byte(byte: u8) -> Result<Self, WireError> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte).ok_or(WireError::WrongKind { found: byte })
    }
}

/// Why bytes are no frame, or a message does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another frame version.
    #[error("frame version {found}: expected {VERSION}")]
    WrongVersion {
        /// The version in the frame.
        found: u16,
    },
    /// A kind that is unknown, or that this side never receives.
    #[error("frame kind {found}: not one that is received here")]
    WrongKind {
        /// The kind in the frame.
        found: u8,
    },
    /// A body over [`BODY_LIMIT`], announced or to be sent.
    #[error("body of {length} bytes: at most {BODY_LIMIT} are allowed")]
    TooLarge {
        /// Its length, bytes.
        length: u64,
    },
    /// Fewer bytes than the frame announces.
    #[error("{missing} bytes short")]
    Truncated {
        /// How many are missing.
        missing: usize,
    },
    /// More bytes than the frame announces, or than its message needs.
    #[error("{extra} bytes after the end")]
    Trailing {
        /// How many there are too many.
        extra: usize,
    },
    /// The body is not the message its kind says.
    #[error("malformed body: {0}")]
    Malformed(String),
}

/// The first bytes of a frame, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body holds.
    pub kind: Kind,
    /// Length of the body, bytes; at most [`BODY_LIMIT`].
    pub length: usize,
}

impl FrameHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// In this order: [`WireError::WrongVersion`], since nothing after another version means what it seems to;
    /// [`WireError::TooLarge`]; [`WireError::WrongKind`].
    pub fn parse(header: &[u8; HEADER_LENGTH]) -> Result<Self, WireError> {
        let [v0, v1, kind, l0, l1, l2, l3] = *header;
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(WireError::WrongVersion { found: version });
        }
        let announced = u32::from_le_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > BODY_LIMIT {
            return Err(WireError::TooLarge { length: announced.into() });
        }
        Ok(Self { kind: Kind::from_byte(kind)?, length })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::protocol::AgentMessage {}
    impl Sealed for crate::protocol::ServerMessage {}
}

/// A message of the link: what travels in one frame. Implemented by [`AgentMessage`] and [`ServerMessage`] only.
pub trait Message: sealed::Sealed + Sized {
    /// The frame that carries this message.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] where the body would exceed [`BODY_LIMIT`].
    fn encode(&self) -> Result<Vec<u8>, WireError>;

    /// The message in the body that follows `header`.
    ///
    /// # Errors
    /// [`WireError::WrongKind`] for a message of the other side, [`WireError::Truncated`] or [`WireError::Trailing`] where
    /// `body` is not as long as announced or needed, [`WireError::Malformed`] where it is not what the kind says.
    fn decode_body(header: FrameHeader, body: &[u8]) -> Result<Self, WireError>;

    /// The message in one whole frame.
    ///
    /// # Errors
    /// Those of [`FrameHeader::parse`] and [`Message::decode_body`].
    fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let Some((header, body)) = frame.split_first_chunk::<HEADER_LENGTH>() else {
            return Err(WireError::Truncated { missing: HEADER_LENGTH.saturating_sub(frame.len()) });
        };
        Self::decode_body(FrameHeader::parse(header)?, body)
    }
}

impl Message for AgentMessage {
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Hello(hello) => encode(Kind::Hello, hello),
            Self::Full { generation, report } => encode(Kind::Full, &(generation, report)),
            Self::Delta { base, generation, sections } => encode(Kind::Delta, &(base, generation, sections)),
            Self::Notice(notice) => encode(Kind::Notice, notice),
        }
    }

    fn decode_body(header: FrameHeader, body: &[u8]) -> Result<Self, WireError> {
        match header.kind {
            Kind::Hello => decode(header, body).map(Self::Hello),
            Kind::Full => decode(header, body).map(|(generation, report)| Self::Full { generation, report }),
            Kind::Delta => decode(header, body).map(|(base, generation, sections)| Self::Delta {
                base,
                generation,
                sections,
            }),
            Kind::Notice => decode(header, body).map(Self::Notice),
            Kind::Welcome | Kind::Refused | Kind::Ack | Kind::SendFull => {
                Err(WireError::WrongKind { found: header.kind as u8 })
            }
        }
    }
}

impl Message for ServerMessage {
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Welcome { report_interval_seconds, last_generation } => {
                encode(Kind::Welcome, &(report_interval_seconds, last_generation))
            }
            Self::Refused { reason, detail } => encode(Kind::Refused, &(reason, detail)),
            Self::Ack { generation } => encode(Kind::Ack, generation),
            Self::SendFull => encode(Kind::SendFull, &()),
        }
    }

    fn decode_body(header: FrameHeader, body: &[u8]) -> Result<Self, WireError> {
        match header.kind {
            Kind::Welcome => decode(header, body).map(|(report_interval_seconds, last_generation)| {
                Self::Welcome { report_interval_seconds, last_generation }
            }),
            Kind::Refused => decode(header, body).map(|(reason, detail)| Self::Refused { reason, detail }),
            Kind::Ack => decode(header, body).map(|generation| Self::Ack { generation }),
            Kind::SendFull => decode(header, body).map(|()| Self::SendFull),
            Kind::Hello | Kind::Full | Kind::Delta | Kind::Notice => {
                Err(WireError::WrongKind { found: header.kind as u8 })
            }
        }
    }
}

/// Whether a report fits one message, as a [`AgentMessage::Full`].
///
/// # Errors
/// [`WireError::TooLarge`] where it does not.
pub fn check_report(report: &HardwareReport) -> Result<(), WireError> {
    let largest = u64::MAX; // every generation takes eight bytes
    encode(Kind::Full, &(largest, report)).map(drop)
}

/// Fixed-width little-endian integers: what bincode 1, bincode 2 `legacy()` and wincode all write.
const LAYOUT: config::Configuration<config::LittleEndian, config::Fixint, config::Limit<BODY_LIMIT>> =
    config::legacy().with_limit::<BODY_LIMIT>();

fn encode(kind: Kind, body: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut frame = Vec::with_capacity(HEADER_LENGTH);
    frame.extend_from_slice(&VERSION.to_le_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(&[0; 4]);
    let length = bincode::serde::encode_into_std_write(body, &mut frame, LAYOUT)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    let too_large = WireError::TooLarge { length: length as u64 };
    if length > BODY_LIMIT {
        return Err(too_large);
    }
    let announced = u32::try_from(length).map_err(|_| too_large)?;
    frame[3..HEADER_LENGTH].copy_from_slice(&announced.to_le_bytes());
    Ok(frame)
}

/// A length inside the body that is larger than the body costs at most the 1 MiB per level of nesting that serde reserves
/// ahead; the elements themselves are never there.
fn decode<T: DeserializeOwned>(header: FrameHeader, body: &[u8]) -> Result<T, WireError> {
    if body.len() < header.length {
        return Err(WireError::Truncated { missing: header.length - body.len() });
    }
    if body.len() > header.length {
        return Err(WireError::Trailing { extra: body.len() - header.length });
    }
    let (message, used) = bincode::serde::decode_from_slice(body, LAYOUT)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    match body.len() - used {
        0 => Ok(message),
        extra => Err(WireError::Trailing { extra }),
    }
}

#[cfg(test)]
mod tests;
