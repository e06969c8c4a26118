//! The UDP socket, and the count of datagrams that are none of ours.
//!
//! QUIC drops what belongs to no connection without a word. An operator wants to see a flood of it, so each datagram is
//! looked at on its way in: a first one of QUIC version 1, or one to a connection id that this server made. Ids carry a
//! keyed checksum for that. The keys derive from the server's private key: a restarted server recognises the ids of its
//! predecessor and answers them with a reset, so that agents notice at their next keep-alive.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use assay_shared::protocol::RefusalReason;
use aws_lc_rs::{hkdf, hmac};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, UdpPoller};

use super::counters::{Counters, Peer};

/// The version of QUIC that is spoken.
pub(super) const QUIC_VERSION_1: u32 = 1;
/// A first datagram is at least this long (RFC 9000, 14.1).
const SHORTEST_INITIAL: usize = 1200;
/// Shortest datagram with a short header that can be authentic (RFC 9000, 10.3: shorter ones never cause a reset).
const SHORTEST_SHORT: usize = 21;
/// Connection ids: four random bytes and four of checksum. A datagram of noise passes one time in 2^32.
const ID_LENGTH: usize = 8;
const NONCE_LENGTH: usize = 4;

/// Keys that outlive a restart, derived from the server's private key.
#[derive(Debug)]
pub(super) struct EndpointKeys {
    pub(super) reset: hmac::Key,
    pub(super) tokens: hkdf::Prk,
    pub(super) ids: ConnectionIds,
}

impl EndpointKeys {
    pub(super) fn derive(private_key: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, private_key);
        let derived = |label: &[u8]| hmac::sign(&secret, label);
        Self {
            reset: hmac::Key::new(hmac::HMAC_SHA256, derived(b"assay stateless reset").as_ref()),
            tokens: hkdf::Salt::new(hkdf::HKDF_SHA256, b"").extract(derived(b"assay retry token").as_ref()),
            ids: ConnectionIds(hmac::Key::new(hmac::HMAC_SHA256, derived(b"assay connection id").as_ref())),
        }
    }
}

/// Makes and recognises the connection ids of this server.
#[derive(Debug, Clone)]
pub(super) struct ConnectionIds(hmac::Key);

impl ConnectionIds {
    fn checksum(&self, nonce: &[u8]) -> [u8; ID_LENGTH - NONCE_LENGTH] {
        let tag = hmac::sign(&self.0, nonce);
        let mut checksum = [0; ID_LENGTH - NONCE_LENGTH];
        checksum.copy_from_slice(&tag.as_ref()[..ID_LENGTH - NONCE_LENGTH]);
        checksum
    }

    fn made(&self, id: &[u8]) -> bool {
        id.split_at_checked(NONCE_LENGTH).is_some_and(|(nonce, checksum)| self.checksum(nonce) == checksum)
    }

    /// Whether a datagram opens a connection or could belong to one (RFC 9000, 17: header forms).
    fn recognise(&self, datagram: &[u8]) -> bool {
        const LONG: u8 = 0x80;
        const FIXED: u8 = 0x40;
        const INITIAL: u8 = 0;
        const HANDSHAKE: u8 = 2;
        let Some(&first) = datagram.first() else { return false };
        if first & FIXED == 0 {
            return false;
        }
        if first & LONG == 0 {
            let id = datagram.get(1..1 + ID_LENGTH);
            return datagram.len() >= SHORTEST_SHORT && id.is_some_and(|id| self.made(id));
        }
        let Some((version, rest)) = datagram[1..].split_first_chunk::<4>() else { return false };
        if u32::from_be_bytes(*version) != QUIC_VERSION_1 {
            return false;
        }
        match first >> 4 & 0b11 {
            INITIAL => datagram.len() >= SHORTEST_INITIAL,
            HANDSHAKE => {
                let id = rest.split_first().filter(|(length, _)| usize::from(**length) == ID_LENGTH);
                id.and_then(|(_, rest)| rest.get(..ID_LENGTH)).is_some_and(|id| self.made(id))
            }
            _ => false,
        }
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LENGTH];
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        id[..NONCE_LENGTH].copy_from_slice(&nonce);
        id[NONCE_LENGTH..].copy_from_slice(&self.checksum(&nonce));
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The socket below QUIC.
pub(super) struct CountingSocket {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    pub(super) ids: ConnectionIds,
    pub(super) counters: Arc<Counters>,
}

impl fmt::Debug for CountingSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountingSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for CountingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, buffers, meta);
        if let Poll::Ready(Ok(count)) = received {
            for (buffer, meta) in buffers.iter().zip(meta.iter()).take(count) {
                // With receive offload a buffer holds several datagrams, `stride` bytes apart.
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    if !self.ids.recognise(datagram) {
                        let peer = Peer { address: meta.addr, node: None };
                        let detail =
                            format_args!("a datagram of {} bytes belongs to no connection", datagram.len());
                        self.counters.refuse(RefusalReason::NotQuic, peer, &detail);
                    }
                }
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_recognised_by_every_server_with_the_same_key_and_by_no_other() {
        let mut keys = EndpointKeys::derive(b"key");
        let again = EndpointKeys::derive(b"key");
        let other = EndpointKeys::derive(b"another key");
        let id = keys.ids.generate_cid();
        assert!(again.ids.made(&id));
        assert!(!other.ids.made(&id));
    }

    #[test]
    fn a_datagram_is_recognised_by_its_header() {
        let mut keys = EndpointKeys::derive(b"key");
        let id = keys.ids.generate_cid();
        let long = |first: u8, version: u32, id: &[u8], length: usize| {
            let mut datagram = vec![first];
            datagram.extend(version.to_be_bytes());
            datagram.push(u8::try_from(id.len()).unwrap());
            datagram.extend(id);
            datagram.resize(length, 0);
            datagram
        };
        let short = |first: u8, id: &[u8], length: usize| {
            let mut datagram = vec![first];
            datagram.extend(id);
            datagram.resize(length, 0);
            datagram
        };
        let cases = [
            (true, long(0xc0, 1, &[7; 20], 1200), "a first datagram"),
            (false, long(0xc0, 1, &[7; 20], 1199), "too short for a first datagram"),
            (false, long(0xc0, 2, &[7; 20], 1200), "another version"),
            (true, long(0xe0, 1, &id, 100), "a handshake"),
            (false, long(0xe0, 1, &[7; 8], 100), "a handshake with no connection of ours"),
            (false, long(0xd0, 1, &id, 1200), "early data"),
            (true, short(0x40, &id, 40), "a packet of a connection"),
            (false, short(0x40, &[7; 8], 40), "a packet of no connection of ours"),
            (false, short(0x40, &id, 20), "too short to be authentic"),
            (false, short(0x00, &id, 40), "no QUIC"),
            (false, vec![0xc0], "cut off"),
            (false, vec![], "nothing"),
        ];
        for (expected, datagram, what) in cases {
            assert_eq!(keys.ids.recognise(&datagram), expected, "{what}");
        }
    }
}
