//! One connection of an agent, from the handshake to its end.
//!
//! Messages of a connection are handled one at a time, in the order of their streams: a report is acknowledged before the
//! next one is looked at, and whatever an agent does can hold up that agent only. While nothing arrives, a session holds no
//! buffer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use assay_shared::protocol::{
    AgentMessage, CloseCode, Generation, Hello, Notice, PROTOCOL_VERSION, RefusalReason, Section,
    ServerMessage, apply_sections,
};
use assay_shared::wire::{FrameReader, Message, WireError, check_report};
use assay_shared::{HardwareReport, NodeName};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::{Instant as Deadline, sleep_until, timeout, timeout_at};
use tracing::{debug, info};

use super::auth::{AuthError, Authenticator, Identity, Proof, Shown};
use super::config::FleetConfig;
use super::counters::{Counters, Peer};
use super::event::FleetEvent;
use super::limits::TokenBucket;
use super::registry::{EVENTS_OF_JOIN, NotStored, Registry, SessionId};

/// How long a refused agent has to fetch the reason, before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);
/// Longest boot id taken; the kernel's has 36 characters.
const BOOT_ID_LIMIT: usize = 64;
/// Longest lifetime of a credential that is timed; beyond, nothing is (a year is not a sensible timer).
const LONGEST_TIMER: Duration = Duration::from_secs(30 * 24 * 3600);

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: FleetConfig,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) counters: Arc<Counters>,
    pub(super) registry: Arc<Registry>,
    pub(super) events: mpsc::Sender<FleetEvent>,
}

/// A session that the server ends.
#[derive(Debug)]
struct Refusal {
    reason: RefusalReason,
    detail: String,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The connection is gone, or the scheduler is.
    Gone,
    /// The agent did something it may not.
    Refused(Refusal),
    /// Its credential expired.
    Expired,
}

impl End {
    fn refused(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal { reason, detail: detail.into() })
    }
}

impl From<ConnectionError> for End {
    fn from(_: ConnectionError) -> Self {
        Self::Gone
    }
}

impl From<AuthError> for End {
    fn from(AuthError { reason, detail }: AuthError) -> Self {
        Self::refused(reason, detail)
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        let reason = match error {
            WireError::TooLarge { .. } => RefusalReason::TooLarge,
            WireError::WrongVersion { .. } => RefusalReason::VersionMismatch,
            WireError::WrongKind { .. } => RefusalReason::UnexpectedKind,
            WireError::Truncated { .. } | WireError::Trailing { .. } | WireError::Malformed(_) => {
                RefusalReason::Malformed
            }
        };
        Self::refused(reason, error.to_string())
    }
}

/// What is known of the other side so far.
#[derive(Debug, Default)]
struct Known {
    /// Where it is answered.
    control: Option<SendStream>,
    /// The name it gives itself; not to be trusted.
    named: Option<String>,
    /// Who it is, from the moment on that it may report.
    agent: Option<Agent>,
}

/// An agent that may report.
#[derive(Debug, Clone)]
struct Agent {
    node: NodeName,
    session: SessionId,
}

/// Serves a connection whose handshake is done, until it ends.
pub(super) async fn serve(shared: &Shared, connection: Connection) {
    let mut known = Known::default();
    let Err(end) = session(shared, &connection, &mut known).await;
    let address = connection.remote_address();
    let node = known.named.as_deref();
    match end {
        End::Gone => debug!(peer = %address, node, "connection ended"),
        End::Expired => {
            info!(peer = %address, node, "credential expired: the agent has to connect with a new one");
            close(&connection, CloseCode::CredentialExpired, "credential expired");
        }
        End::Refused(refusal) => {
            shared.counters.refuse(refusal.reason, Peer { address, node }, &refusal.detail);
            refuse(&connection, known.control, refusal).await;
        }
    }
    // Last, since it waits for the scheduler: the connection keeps its place until then, so that what waits here is bounded
    // by the number of connections.
    if let Some(agent) = known.agent {
        let permit = shared.events.reserve().await.ok();
        shared.registry.leave(&agent.node, agent.session, permit);
    }
}

/// Hello, Welcome, reports: up to whatever ends it.
async fn session(shared: &Shared, connection: &Connection, known: &mut Known) -> Result<Infallible, End> {
    let Greeted { identity, boot, expires } = greet(shared, connection, known).await?;
    let Identity { node, proof, .. } = identity;
    let backlog = timeout(shared.config.deadlines.backlog, shared.events.reserve_many(EVENTS_OF_JOIN));
    let permits = backlog.await.map_err(|_| behind())?.map_err(|_| End::Gone)?;
    let proof = Arc::new(proof);
    let joined = shared.registry.join(&node, boot, Arc::clone(&proof), connection.clone(), permits);
    let agent = known.agent.insert(Agent { node, session: joined.id }).clone();
    if let Some(old) = joined.replaced {
        Counters::count(&shared.counters.replaced);
        let (old_address, new_address) = (old.remote_address(), connection.remote_address());
        info!(node = %agent.node, old = %old_address, new = %new_address, "connection replaced");
        close(&old, CloseCode::Replaced, "a newer connection of this node took its place");
    }
    Counters::count(&shared.counters.welcomed);
    let interval = u32::try_from(shared.config.report_interval.as_secs()).unwrap_or(u32::MAX);
    let welcome =
        ServerMessage::Welcome { report_interval_seconds: interval, last_generation: joined.last_generation };
    send_message(shared, &mut known.control, &welcome).await?;
    debug!(node = %agent.node, peer = %connection.remote_address(), %proof, "agent connected");
    reports(shared, connection, &mut known.control, &agent, expires).await
}

/// Closes a connection, for a reason.
pub(super) fn close(connection: &Connection, code: CloseCode, phrase: &str) {
    connection.close(VarInt::from_u32(code.number()), phrase.as_bytes());
}

/// Tells the agent why, gives it a moment to hear it, and closes.
async fn refuse(connection: &Connection, control: Option<SendStream>, refusal: Refusal) {
    let Refusal { reason, detail } = refusal;
    if let Some(mut control) = control
        && let Ok(frame) = (ServerMessage::Refused { reason, detail: detail.clone() }).encode()
    {
        let farewell = async {
            control.write_all(&frame).await.ok()?;
            control.finish().ok()?;
            control.stopped().await.ok()
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
    close(connection, CloseCode::Refused(reason), &detail);
}

/// An agent that has said Hello, and who it is.
struct Greeted {
    identity: Identity,
    boot: String,
    /// When the connection ends, since its credential is no longer believed.
    expires: Option<Deadline>,
}

/// Reads Hello and finds out who it is.
async fn greet(shared: &Shared, connection: &Connection, known: &mut Known) -> Result<Greeted, End> {
    let late = || End::refused(RefusalReason::NoHello, "no Hello in time");
    let deadline = Deadline::now() + shared.config.deadlines.hello;
    let (send, mut receive) = timeout_at(deadline, connection.accept_bi()).await.map_err(|_| late())??;
    known.control = Some(send);
    let first =
        timeout_at(deadline, read_message(&mut receive, &shared.counters)).await.map_err(|_| late())??;
    let AgentMessage::Hello(hello) = first else {
        return Err(End::refused(RefusalReason::NoHello, "the first message is not Hello"));
    };
    known.named = Some(hello.node_name.chars().take(64).collect());
    let authenticated =
        timeout(shared.config.deadlines.message, authenticate(shared, connection, &hello)).await;
    let identity = authenticated.map_err(|_| {
        End::refused(RefusalReason::Overloaded, "the credential could not be checked in time")
    })??;
    if let Proof::Missing(AuthError { reason, detail }) = &identity.proof {
        let peer = Peer { address: connection.remote_address(), node: Some(identity.node.as_str()) };
        shared.counters.tolerate(*reason, peer, detail);
    }
    let left = identity.valid_until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
    let expires = left.filter(|left| *left < LONGEST_TIMER).map(|left| Deadline::now() + left);
    Ok(Greeted { identity, boot: hello.boot_id, expires })
}

/// Checks Hello against what the connection proves.
async fn authenticate(shared: &Shared, connection: &Connection, hello: &Hello) -> Result<Identity, End> {
    if hello.protocol != PROTOCOL_VERSION {
        let detail = format!("protocol version {}: this server speaks {PROTOCOL_VERSION}", hello.protocol);
        return Err(End::refused(RefusalReason::VersionMismatch, detail));
    }
    let claimed: NodeName = hello
        .node_name
        .parse()
        .map_err(|error| End::refused(RefusalReason::InvalidNodeName, format!("{error}")))?;
    let sound =
        hello.boot_id.len() <= BOOT_ID_LIMIT && hello.boot_id.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound {
        let detail = format!("boot id: expected at most {BOOT_ID_LIMIT} visible ASCII characters");
        return Err(End::refused(RefusalReason::Malformed, detail));
    }
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let shown = Shown {
        claimed: &claimed,
        certificates: chain.as_deref().map_or(&[], Vec::as_slice),
        credential: &hello.credential,
        address: connection.remote_address(),
    };
    let identity = shared.authenticator.authenticate(shown).await?;
    if identity.node != claimed {
        return Err(identity.is_not(&claimed).into());
    }
    Ok(identity)
}

/// Takes messages until something ends the session.
async fn reports(
    shared: &Shared,
    connection: &Connection,
    control: &mut Option<SendStream>,
    agent: &Agent,
    expires: Option<Deadline>,
) -> Result<Infallible, End> {
    let mut allowance = TokenBucket::full(shared.config.messages_per_agent, Instant::now());
    loop {
        let mut receive = tokio::select! {
            stream = connection.accept_uni() => stream?,
            stream = connection.accept_bi() => {
                stream?;
                return Err(End::refused(RefusalReason::UnexpectedKind, "a second control stream"));
            }
            () = expired(expires) => return Err(End::Expired),
        };
        if !allowance.take(Instant::now()) {
            return Err(End::refused(RefusalReason::TooMany, "messages faster than the server takes them"));
        }
        let late = || End::refused(RefusalReason::TooSlow, "a message did not arrive in time");
        let message = timeout(shared.config.deadlines.message, read_stream(&mut receive, &shared.counters));
        match message.await.map_err(|_| late())?? {
            AgentMessage::Full { generation, report } => {
                store(shared, agent, generation, report).await?;
                Counters::count(&shared.counters.full_reports);
                send_message(shared, control, &ServerMessage::Ack { generation }).await?;
            }
            AgentMessage::Delta { base, generation, sections } => {
                let Some(report) = apply(shared, agent, base, sections)? else {
                    Counters::count(&shared.counters.resyncs);
                    send_message(shared, control, &ServerMessage::SendFull).await?;
                    continue;
                };
                store(shared, agent, generation, report).await?;
                Counters::count(&shared.counters.deltas);
                send_message(shared, control, &ServerMessage::Ack { generation }).await?;
            }
            AgentMessage::Notice(notice) => {
                notify(shared, agent, notice).await?;
                Counters::count(&shared.counters.notices);
            }
            AgentMessage::Hello(_) => {
                return Err(End::refused(RefusalReason::UnexpectedKind, "a second Hello"));
            }
        }
    }
}

async fn expired(at: Option<Deadline>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The report that a delta makes of the last one; `None` where the last one is another.
fn apply(
    shared: &Shared,
    agent: &Agent,
    base: Generation,
    sections: Vec<Section>,
) -> Result<Option<Box<HardwareReport>>, End> {
    let Some(last) = shared.registry.base(&agent.node, agent.session, base) else {
        return Ok(None);
    };
    let mut report = Box::new(HardwareReport::clone(&last));
    apply_sections(&mut report, sections);
    // Deltas must not add up to what no full report could be.
    check_report(&report)?;
    Ok(Some(report))
}

/// Hands a report over. A scheduler that does not keep up costs the agent its connection, never the server memory.
async fn store(
    shared: &Shared,
    agent: &Agent,
    generation: Generation,
    report: Box<HardwareReport>,
) -> Result<(), End> {
    if let Some(name) = report.identity.node_name.measured()
        && name != agent.node.as_str()
    {
        let name: String = name.chars().take(64).collect();
        let detail = format!("node {} reports about node {name:?}", agent.node);
        return Err(End::refused(RefusalReason::NodeMismatch, detail));
    }
    let backlog = timeout(shared.config.deadlines.backlog, shared.events.reserve());
    let permit = backlog.await.map_err(|_| behind())?.map_err(|_| End::Gone)?;
    let stored = shared.registry.store(&agent.node, agent.session, generation, report.into(), permit);
    stored.map_err(|error| match error {
        NotStored::Replaced => End::Gone,
        NotStored::OldGeneration(last) => {
            let detail = format!("generation {generation} after {last}: expected a larger one");
            End::refused(RefusalReason::Malformed, detail)
        }
    })
}

async fn notify(shared: &Shared, agent: &Agent, notice: Notice) -> Result<(), End> {
    let backlog = timeout(shared.config.deadlines.backlog, shared.events.reserve());
    let permit = backlog.await.map_err(|_| behind())?.map_err(|_| End::Gone)?;
    shared.registry.notify(&agent.node, agent.session, notice, permit).map_err(|_| End::Gone)
}

fn behind() -> End {
    End::refused(RefusalReason::Overloaded, "the scheduler does not keep up with its agents")
}

/// Sends on the control stream; an agent that does not read it is cut off.
async fn send_message(
    shared: &Shared,
    control: &mut Option<SendStream>,
    message: &ServerMessage,
) -> Result<(), End> {
    let Some(control) = control else { return Ok(()) };
    let frame = message.encode()?;
    match timeout(shared.config.deadlines.message, control.write_all(&frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WriteError::Stopped(_))) => {
            Err(End::refused(RefusalReason::UnexpectedKind, "the control stream was stopped"))
        }
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::refused(RefusalReason::TooSlow, "answers are not read in time")),
    }
}

/// Reads one message from a stream.
async fn read_message(receive: &mut RecvStream, counters: &Counters) -> Result<AgentMessage, End> {
    let mut reader = FrameReader::default();
    loop {
        let Some(chunk) = read_chunk(receive, reader.wanted(), counters).await? else {
            return Err(WireError::Truncated { missing: reader.wanted() }.into());
        };
        if let Some(message) = reader.push(&chunk)? {
            return Ok(message);
        }
    }
}

/// Reads the only message of a stream, to its end.
async fn read_stream(receive: &mut RecvStream, counters: &Counters) -> Result<AgentMessage, End> {
    let message = read_message(receive, counters).await?;
    match read_chunk(receive, 1, counters).await? {
        Some(chunk) => Err(WireError::Trailing { extra: chunk.len() }.into()),
        None => Ok(message),
    }
}

async fn read_chunk(
    receive: &mut RecvStream,
    length: usize,
    counters: &Counters,
) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, End> {
    match receive.read_chunk(length, true).await {
        Ok(chunk) => Ok(chunk.map(|chunk| {
            counters.bytes.fetch_add(chunk.bytes.len() as u64, Relaxed);
            chunk.bytes
        })),
        Err(ReadError::Reset(_)) => Err(End::refused(RefusalReason::Malformed, "the stream was reset")),
        Err(_) => Err(End::Gone),
    }
}
