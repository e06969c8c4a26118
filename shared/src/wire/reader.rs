//! Puts a message together from the pieces in which a stream delivers it. No I/O: the caller reads.

use super::{FrameHeader, HEADER_LENGTH, Message, WireError};

/// Collects one frame after the other. It holds what has arrived and nothing in advance: a sender that announces 64 KiB
/// and sends three bytes costs three bytes.
#[derive(Debug, Default)]
pub struct FrameReader {
    header: Option<FrameHeader>,
    bytes: Vec<u8>,
}

impl FrameReader {
    /// How many bytes are missing to the next decision: the rest of the header, or the rest of the body. Never zero.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.header.map_or(HEADER_LENGTH, |header| header.length).saturating_sub(self.bytes.len())
    }

    /// Whether part of a frame has arrived.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.header.is_some() || !self.bytes.is_empty()
    }

    /// Takes the next bytes, at most [`FrameReader::wanted`]; returns the message they complete.
    ///
    /// # Errors
    /// Those of [`FrameHeader::parse`] as soon as the header is there, and of [`Message::decode_body`]; also
    /// [`WireError::Trailing`] for more bytes than wanted. The reader is of no use afterwards.
    pub fn push<M: Message>(&mut self, bytes: &[u8]) -> Result<Option<M>, WireError> {
        if bytes.len() > self.wanted() {
            return Err(WireError::Trailing { extra: bytes.len() - self.wanted() });
        }
        self.bytes.extend_from_slice(bytes);
        let header = match (self.header, <&[u8; HEADER_LENGTH]>::try_from(self.bytes.as_slice())) {
            (Some(header), _) => header,
            (None, Err(_)) => return Ok(None),
            (None, Ok(bytes)) => {
                let header = FrameHeader::parse(bytes)?;
                self.bytes.clear();
                *self.header.insert(header)
            }
        };
        if self.bytes.len() < header.length {
            return Ok(None);
        }
        let message = M::decode_body(header, &self.bytes)?;
        *self = Self::default();
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ServerMessage;
    use crate::wire::{BODY_LIMIT, Kind, VERSION};

    #[test]
    fn frames_arrive_in_any_pieces() {
        let messages = [
            ServerMessage::Ack { generation: 5 },
            ServerMessage::SendFull,
            ServerMessage::Welcome { report_interval_seconds: 60, last_generation: Some(4) },
        ];
        let stream: Vec<u8> = messages.iter().flat_map(|message| message.encode().unwrap()).collect();
        for piece in 1..=stream.len() {
            let mut reader = FrameReader::default();
            let (mut rest, mut arrived) = (&stream[..], Vec::new());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(piece.min(reader.wanted()).min(rest.len()));
                arrived.extend(reader.push::<ServerMessage>(now).unwrap());
                rest = later;
            }
            assert_eq!(arrived, messages, "in pieces of {piece}");
            assert!(!reader.is_partial());
        }
    }

    #[test]
    fn a_frame_is_refused_by_its_header() {
        let mut header = [0; HEADER_LENGTH];
        header[..2].copy_from_slice(&VERSION.to_le_bytes());
        header[2] = Kind::Full as u8;
        header[3..].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = FrameReader::default().push::<ServerMessage>(&header).unwrap_err();
        assert_eq!(error, WireError::TooLarge { length: u32::MAX.into() });
    }

    #[test]
    fn what_is_announced_is_not_reserved() {
        let mut header = [0; HEADER_LENGTH];
        header[..2].copy_from_slice(&VERSION.to_le_bytes());
        header[2] = Kind::Refused as u8;
        header[3..].copy_from_slice(&u32::try_from(BODY_LIMIT).unwrap().to_le_bytes());
        let mut reader = FrameReader::default();
        assert_eq!(reader.push::<ServerMessage>(&header).unwrap(), None);
        assert_eq!(reader.push::<ServerMessage>(&[0; 3]).unwrap(), None);
        assert_eq!(reader.wanted(), BODY_LIMIT - 3);
        assert!(reader.bytes.capacity() < 64);
    }
}
