//! The fleet server: agents connect over QUIC, prove which node they are on, and report its hardware.
//!
//! ```text
//!  datagrams -> listener -> session ---------> registry -----> FleetEvent (bounded channel) -> the loop
//!  (counted)    (limits,    (auth, frames,     (last report
//!                TLS)        deadlines, rate)   per node)
//! ```
//!
//! Everything an agent sends is a claim of a machine that may be broken or hostile. Whatever it does is bounded in memory
//! and in time, costs that agent only, and is counted by reason (`counters`). `docs/fleet-link.md` has the protocol, the
//! limits and their arithmetic.

mod auth;
pub mod ca;
mod certificate;
mod config;
mod counters;
mod datagrams;
mod event;
mod limits;
mod listener;
mod registry;
mod session;
mod tls;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use assay_shared::protocol::CloseCode;
use quinn::{Endpoint, Runtime, TokioRuntime, VarInt};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

pub use auth::{
    Audit, AuthError, AuthFuture, Authenticator, CertificateAuthenticator, ClientCertificates,
    EitherAuthenticator, Identity, NameIn, Proof, Shown, TokenBinding, UNPROVED_FOR,
};
pub use certificate::{CertificateFiles, LOOK_EVERY, ServerCertificate};
pub use config::{Deadlines, FleetConfig, Rate};
pub use counters::FleetCounters;
pub use event::{ConnectedAgent, FleetEvent};
pub use tls::{ServerIdentity, TlsError, certificates};

use counters::Counters;
use datagrams::{CountingSocket, EndpointKeys};
use registry::Registry;
use session::Shared;

/// Agents that may return per second after the server stopped: a handshake costs about a millisecond of CPU, so a tenth of
/// a core.
const RETURNS_PER_SECOND: usize = 100;
/// How long the last packets have to leave when the server stops, and the socket to be closed.
const LINGER: Duration = Duration::from_secs(1);
/// Receive buffer asked of the kernel, bytes: a first datagram from each of 3,000 agents at once, of which the kernel's
/// usual 208 KiB would lose nine in ten. The kernel grants `net.core.rmem_max` at most.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("listen on UDP {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Starts fleet servers.
#[derive(Debug)]
pub struct FleetServer;

impl FleetServer {
    /// Starts a server on the current tokio runtime. What agents report arrives at `events`; a receiver that lags slows its
    /// agents down, and in the end loses their connections, but never grows memory.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or the certificates cannot be used.
    pub fn start(
        config: FleetConfig,
        identity: ServerIdentity,
        authenticator: Arc<dyn Authenticator>,
        events: mpsc::Sender<FleetEvent>,
    ) -> Result<FleetHandle, StartError> {
        let keys = EndpointKeys::derive(identity.key.secret_der());
        let certificate = ServerCertificate::new(identity)?;
        let server = tls::server_config(&config, &certificate, &authenticator.client_certificates(), &keys)?;
        let listen_error = |error| StartError::Listen { address: config.listen, error };
        let runtime = Arc::new(TokioRuntime);
        let socket = bind(config.listen).map_err(listen_error)?;
        if let Err(error) = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER) {
            debug!("receive buffer: {error}");
        }
        let socket = runtime.wrap_udp_socket(socket).map_err(listen_error)?;
        let counters = Arc::new(Counters::new());
        let socket = CountingSocket { socket, ids: keys.ids.clone(), counters: Arc::clone(&counters) };
        let socket = Arc::new(socket);
        let open = Arc::downgrade(&socket);
        let endpoint =
            Endpoint::new_with_abstract_socket(tls::endpoint_config(&keys), Some(server), socket, runtime);
        let endpoint = endpoint.map_err(listen_error)?;
        let local_addr = endpoint.local_addr().map_err(listen_error)?;
        let registry = Arc::new(Registry::new(config.remembered_nodes, config.connections));
        let shared = Arc::new(Shared { config, authenticator, counters, registry, events });
        let (stop, stopped) = watch::channel(false);
        let listener =
            Listener(tokio::spawn(listener::listen(endpoint.clone(), Arc::clone(&shared), stopped)));
        info!(address = %local_addr, "fleet server listens");
        Ok(FleetHandle { endpoint, open, shared, certificate, stop, listener, local_addr })
    }
}

/// Binds; where the machine has no IPv6, any IPv4 address stands in for any address.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    match UdpSocket::bind(address) {
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, address.port())).map_err(|_| error)
        }
        bound => bound,
    }
}

/// A running fleet server. Dropping it stops the server without a word to the agents; [`FleetHandle::stop`] is polite.
#[derive(Debug)]
pub struct FleetHandle {
    endpoint: Endpoint,
    /// The socket, for as long as someone has it open.
    open: Weak<CountingSocket>,
    shared: Arc<Shared>,
    certificate: ServerCertificate,
    stop: watch::Sender<bool>,
    listener: Listener,
    local_addr: SocketAddr,
}

/// Reads the counters of a fleet server.
#[derive(Debug, Clone)]
pub struct FleetMonitor {
    counters: Arc<Counters>,
    registry: Arc<Registry>,
}

impl FleetMonitor {
    /// What the server has counted so far.
    #[must_use]
    pub fn counters(&self) -> FleetCounters {
        self.counters.snapshot(self.registry.count())
    }
}

/// The task that listens; it and its sessions end when this is dropped.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FleetHandle {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counters(&self) -> FleetCounters {
        self.shared.counters.snapshot(self.shared.registry.count())
    }

    /// Who is connected, by name.
    #[must_use]
    pub fn connected(&self) -> Vec<ConnectedAgent> {
        self.shared.registry.connected()
    }

    /// Reads the counters for as long as it is kept, also after the server has stopped.
    #[must_use]
    pub fn monitor(&self) -> FleetMonitor {
        let Shared { counters, registry, .. } = &*self.shared;
        FleetMonitor { counters: Arc::clone(counters), registry: Arc::clone(registry) }
    }

    /// The certificate it shows, to be renewed.
    #[must_use]
    pub const fn certificate(&self) -> &ServerCertificate {
        &self.certificate
    }

    /// Shows another certificate from now on; connections that exist are not touched.
    ///
    /// # Errors
    /// Where the certificate or key cannot be used; the old one then stays.
    pub fn renew(&self, identity: ServerIdentity) -> Result<(), TlsError> {
        self.certificate.renew(identity)
    }

    /// Stops: tells the agents to come back, spread over a time that suits their number, waits for the sessions to end, and
    /// closes the socket. The last events are those of the agents' disconnection.
    pub async fn stop(mut self) {
        let seconds = self.shared.registry.count().div_ceil(RETURNS_PER_SECOND).max(1);
        self.stop.send_replace(true);
        let code = VarInt::from_u32(CloseCode::Stopping.number());
        self.endpoint.close(code, seconds.to_string().as_bytes());
        // The listener has its own deadline.
        let _ = (&mut self.listener.0).await;
        let refused: u64 = self.counters().refusals().map(|(_, count)| count).sum();
        info!(welcomed = self.counters().welcomed, refused, "fleet server stopped");
        let _ = timeout(LINGER, self.endpoint.wait_idle()).await;
        let Self { endpoint, open, .. } = self;
        drop(endpoint);
        let closed = async {
            while open.strong_count() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(LINGER, closed).await;
    }
}
