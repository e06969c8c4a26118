//! A fleet server on loopback for tests, the agents that report to it, and a client that keeps no rules.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use assay_agent::link::{Credentials, LinkConfig, LinkEndpoint, Reconnect, report_once};
use assay_scheduler::fleet::ca::{AGENT_VALIDITY, DevCa, Issued, SERVER_VALIDITY};
use assay_scheduler::fleet::{
    Authenticator, CertificateAuthenticator, FleetConfig, FleetEvent, FleetHandle, FleetServer, NameIn, Rate,
};
use assay_shared::protocol::{ALPN, AgentMessage, Credential, Hello, PROTOCOL_VERSION, ServerMessage};
use assay_shared::wire::{FrameReader, Message};
use assay_shared::{Fact, HardwareReport};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long to wait for what must happen: more than a connection takes to idle out. Nothing is asserted about how fast it
/// does.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something holds.
///
/// # Errors
/// It does not, for a long time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, waiting).await
}

/// Waits for something.
///
/// # Errors
/// It does not come, for a long time.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(PATIENCE, future).await.with_context(|| format!("waited for {what}"))
}

/// Settings for tests: loopback, a port of the system's choice, no rate limits but those a test sets.
#[must_use]
pub fn config() -> FleetConfig {
    let unlimited = Rate { per_second: 1_000_000, burst: 1_000_000 };
    FleetConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        report_interval: Duration::from_secs(1),
        retry_above: 4_096,
        handshakes: 4_096,
        unproved_handshakes: unlimited,
        handshakes_per_address: unlimited,
        messages_per_agent: unlimited,
        ..FleetConfig::default()
    }
}

/// A report that names its node.
#[must_use]
pub fn report(node: &str) -> HardwareReport {
    let mut report = HardwareReport::default();
    report.identity.node_name = Fact::Measured(node.to_owned());
    report.identity.boot_id = Fact::Measured("boot-1".to_owned());
    report.cpu.logical_cpus = Fact::Measured(4);
    report
}

/// A fleet server with its authority and its events.
#[derive(Debug)]
pub struct Fleet {
    /// The authority that server and agents have their certificates from.
    pub ca: DevCa,
    /// The server.
    pub server: FleetHandle,
    /// What it tells.
    pub events: mpsc::Receiver<FleetEvent>,
    /// Its certificate, for a successor.
    pub identity: Issued,
}

impl Fleet {
    /// Starts a server that takes certificates of its authority.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(config: FleetConfig) -> anyhow::Result<Self> {
        let ca = DevCa::create()?;
        let authenticator = certificates_of(&ca)?;
        Self::start_with(config, ca, authenticator)
    }

    /// Starts a server that takes what `authenticator` takes.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(
        config: FleetConfig,
        ca: DevCa,
        authenticator: Arc<dyn Authenticator>,
    ) -> anyhow::Result<Self> {
        let identity = ca.issue_server(&["127.0.0.1"], SERVER_VALIDITY)?;
        let (events, receiver) = mpsc::channel(1024);
        let server = FleetServer::start(config, identity.server_identity()?, authenticator, events)?;
        Ok(Self { ca, server, events: receiver, identity })
    }

    /// The next event.
    ///
    /// # Errors
    /// There is none, for a long time.
    pub async fn event(&mut self) -> anyhow::Result<FleetEvent> {
        within("an event", self.events.recv()).await?.context("the server is gone")
    }

    /// Throws events away from now on, as a scheduler that keeps up.
    pub fn ignore_events(&mut self) {
        let (_, closed) = mpsc::channel(1);
        let mut events = std::mem::replace(&mut self.events, closed);
        tokio::spawn(async move { while events.recv().await.is_some() {} });
    }

    /// An agent of this node.
    ///
    /// # Errors
    /// It gets no certificate.
    pub fn agent(&self, node: &str) -> anyhow::Result<LinkConfig> {
        let issued = self.ca.issue_agent(&node.parse()?, AGENT_VALIDITY)?;
        agent(&self.ca, &issued, node, self.server.local_addr())
    }

    /// An agent of this node that shows the token in a file.
    ///
    /// # Errors
    /// The node has no valid name, or the authority's certificate cannot be written beside the token.
    pub fn agent_with_token(&self, node: &str, token: &Path) -> anyhow::Result<LinkConfig> {
        let ca = token.with_file_name("ca.crt");
        std::fs::write(&ca, self.ca.certificate_pem())?;
        let credentials = Credentials::TokenFile { ca, token: token.to_owned() };
        link(credentials, node, self.server.local_addr())
    }

    /// A client of this node that does what a test tells it.
    ///
    /// # Errors
    /// It cannot connect.
    pub async fn client(&self, node: &str) -> anyhow::Result<Client> {
        let issued = self.ca.issue_agent(&node.parse()?, AGENT_VALIDITY)?;
        Client::connect(&client_config(&self.ca, &issued, ALPN)?, self.server.local_addr()).await
    }

    /// Lets an honest agent report once.
    ///
    /// # Errors
    /// It is not served.
    pub async fn serves(&self, node: &'static str) -> anyhow::Result<()> {
        let once = report_once(self.agent(node)?, LinkEndpoint::bind()?, move || report(node));
        within("an honest agent's report", once).await?.context("the server no longer serves honest agents")
    }
}

/// Starts a server with an authority's agents.
///
/// # Errors
/// It does not start.
pub fn serve(
    config: FleetConfig,
    ca: &DevCa,
    identity: &Issued,
    events: mpsc::Sender<FleetEvent>,
) -> anyhow::Result<FleetHandle> {
    Ok(FleetServer::start(config, identity.server_identity()?, certificates_of(ca)?, events)?)
}

/// Takes the certificates that an authority issues to agents.
/// Takes certificates of this authority.
///
/// # Errors
/// It has none itself.
pub fn certificates_of(ca: &DevCa) -> anyhow::Result<Arc<dyn Authenticator>> {
    let roots = vec![ca.certificate().clone()];
    Ok(Arc::new(CertificateAuthenticator::new([(roots, NameIn::SubjectAltName)])?))
}

/// An agent with this certificate, that comes back at once.
///
/// # Errors
/// The node has no valid name.
pub fn agent(ca: &DevCa, issued: &Issued, node: &str, server: SocketAddr) -> anyhow::Result<LinkConfig> {
    let credentials = Credentials::Pem {
        ca: ca.certificate_pem().to_owned(),
        certificate: issued.certificate_pem.clone(),
        key: issued.key_pem.clone(),
    };
    link(credentials, node, server)
}

fn link(credentials: Credentials, node: &str, server: SocketAddr) -> anyhow::Result<LinkConfig> {
    Ok(LinkConfig {
        scheduler: server.to_string().parse()?,
        server_name: None,
        node: node.parse()?,
        credentials,
        interval: Some(Duration::from_millis(20)),
        reconnect: Reconnect { first: Duration::from_millis(20), longest: Duration::from_millis(200) },
    })
}

/// TLS of a client that trusts `ca` and shows `issued`.
///
/// # Errors
/// They cannot be used.
pub fn client_config(ca: &DevCa, issued: &Issued, alpn: &[u8]) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)))
}

/// A connection whose bytes are up to the test.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub connection: Connection,
    control: Option<(SendStream, RecvStream)>,
    reader: FrameReader,
    /// Keeps the socket open.
    _endpoint: Endpoint,
}

impl Client {
    /// Connects. The server checks the client's certificate after that.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn connect(config: &ClientConfig, server: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        let connecting = endpoint.connect_with(config.clone(), server, "127.0.0.1")?;
        let connection = within("a connection", connecting).await??;
        Ok(Self { connection, control: None, reader: FrameReader::default(), _endpoint: endpoint })
    }

    /// Writes bytes on the control stream, which it opens first.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn write_control(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let (send, _) = match &mut self.control {
            Some(control) => control,
            none => none.insert(self.connection.open_bi().await?),
        };
        Ok(send.write_all(bytes).await?)
    }

    /// Says Hello.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn hello(&mut self, node: &str, boot: &str) -> anyhow::Result<()> {
        self.write_control(&hello(node, boot).encode()?).await
    }

    /// Says Hello and expects Welcome.
    ///
    /// # Errors
    /// There is none.
    pub async fn welcomed(mut self, node: &str, boot: &str) -> anyhow::Result<Self> {
        self.hello(node, boot).await?;
        match self.answer().await? {
            ServerMessage::Welcome { .. } => Ok(self),
            other => bail!("expected Welcome, found {other:?}"),
        }
    }

    /// The next message of the server.
    ///
    /// # Errors
    /// There is none.
    pub async fn answer(&mut self) -> anyhow::Result<ServerMessage> {
        let (_, receive) = self.control.as_mut().context("no control stream")?;
        loop {
            let chunk = within("an answer", receive.read_chunk(self.reader.wanted(), true)).await??;
            if let Some(message) = self.reader.push(&chunk.context("the control stream ended")?.bytes)? {
                return Ok(message);
            }
        }
    }

    /// Sends bytes on a stream of their own.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.connection.open_uni().await?;
        stream.write_all(bytes).await?;
        stream.finish()?;
        Ok(())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn message(&self, message: &AgentMessage) -> anyhow::Result<()> {
        self.send(&message.encode()?).await
    }

    /// Waits until the connection is over, and says why.
    ///
    /// # Errors
    /// It stays, for a long time.
    pub async fn closed(&self) -> anyhow::Result<quinn::ConnectionError> {
        within("the end of a connection", self.connection.closed()).await
    }
}

/// Hello with a client certificate.
#[must_use]
pub fn hello(node: &str, boot: &str) -> AgentMessage {
    AgentMessage::Hello(Hello {
        protocol: PROTOCOL_VERSION,
        node_name: node.to_owned(),
        boot_id: boot.to_owned(),
        credential: Credential::Certificate,
    })
}

/// A whole report.
#[must_use]
pub fn full(node: &str, generation: u64) -> AgentMessage {
    AgentMessage::Full { generation, report: Box::new(report(node)) }
}
