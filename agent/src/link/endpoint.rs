//! The UDP socket of one or more agents, and the transport settings of their connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use assay_shared::protocol::limits;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connecting, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use tokio::time::timeout;
use tracing::debug;

/// Handshake bytes buffered: a certificate chain of four, and half of quinn's default.
const CRYPTO_BUFFER: usize = 8 << 10;
/// Receive buffer asked of the kernel, bytes: for a simulated fleet that shares a socket. It takes memory only when it fills.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the last packets have to leave.
const LINGER: Duration = Duration::from_secs(1);

/// A UDP socket that agents connect from. Cheap to clone: a simulated fleet shares one.
#[derive(Debug, Clone)]
pub struct LinkEndpoint(Endpoint);

impl LinkEndpoint {
    /// Opens a socket on any port, for IPv6 and IPv4 where the machine has both. Needs a tokio runtime.
    ///
    /// # Errors
    /// Where no socket can be opened.
    pub fn bind() -> io::Result<Self> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind(any).or_else(|_| UdpSocket::bind(ipv4))?;
        if let Err(error) = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER) {
            debug!("receive buffer: {error}");
        }
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map(Self)
    }

    /// Waits until the connections that were closed are gone, for a second at most.
    pub async fn wait_idle(&self) {
        let _ = timeout(LINGER, self.0.wait_idle()).await;
    }

    pub(super) fn connect(
        &self,
        tls: Arc<QuicClientConfig>,
        address: SocketAddr,
        server_name: &str,
    ) -> Result<Connecting, quinn::ConnectError> {
        let mut config = ClientConfig::new(tls);
        config.transport_config(Arc::new(transport()));
        self.0.connect_with(config, address, server_name)
    }
}

fn transport() -> TransportConfig {
    // MAX_IDLE is far below the 2^62 ms that QUIC can carry, so this never falls back to the default.
    let idle = IdleTimeout::try_from(limits::MAX_IDLE).ok();
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(idle)
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW))
        .receive_window(VarInt::from_u32(limits::CONNECTION_WINDOW))
        // A whole message always fits, so that sending never waits half-way.
        .send_window(2 * limits::SEND_WINDOW)
        // The scheduler answers on the stream that the agent opens, and opens none.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .crypto_buffer_size(CRYPTO_BUFFER);
    transport
}
