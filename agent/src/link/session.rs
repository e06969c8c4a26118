//! One connection: from the name lookup to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::protocol::{
    AgentMessage, CloseCode, Credential, Hello, PROTOCOL_VERSION, ServerMessage, limits,
};
use assay_shared::wire::{FrameReader, Message};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ReadError, RecvStream, VarInt, WriteError};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info};

use super::credentials::Loaded;
use super::endpoint::LinkEndpoint;
use super::error::LinkError;
use super::reporter::Reporter;
use super::surveyor::Surveys;
use super::{CONNECT_DEADLINE, LinkConfig};

/// Time for Welcome: the scheduler may have to ask the API server first, and to wait for its own loop.
const WELCOME_DEADLINE: Duration = Duration::from_secs(20);
/// Time for the acknowledgement of a report: what the scheduler may take for reading and handing it over, and to spare.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(30);

/// When a session has done what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Never: it stays until it is told to stop.
    Stay,
    /// When one report is acknowledged.
    OneReport,
}

/// What a session works with.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) config: &'a LinkConfig,
    pub(super) surveys: &'a mut Surveys,
    pub(super) reporter: &'a mut Reporter,
}

impl Session<'_> {
    /// Connects and reports; returns when the goal is reached or `shutdown` turns true.
    pub(super) async fn run(
        &mut self,
        endpoint: &LinkEndpoint,
        goal: Goal,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let Loaded { tls, credential } = self.config.credentials.load()?;
        let connection = tokio::select! {
            connection = connect(self.config, tls, endpoint) => connection?,
            _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
        };
        let ended = self.report(&connection, credential, goal, shutdown).await;
        connection.close(VarInt::from_u32(CloseCode::Leaving.number()), b"");
        ended
    }

    async fn report(
        &mut self,
        connection: &Connection,
        credential: Credential,
        goal: Goal,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let mut control = self.greet(connection, credential).await?;
        let mut reader = FrameReader::default();
        let mut deadline = None;
        loop {
            while let Some(message) = self.reporter.next() {
                send(connection, &message).await?;
            }
            if !self.reporter.awaits_acknowledgement() {
                if goal == Goal::OneReport {
                    return Ok(());
                }
                deadline = None;
            } else if deadline.is_none() {
                deadline = Some(Instant::now() + ACKNOWLEDGE_DEADLINE);
            }
            tokio::select! {
                message = receive(&mut control, &mut reader) => match message? {
                    ServerMessage::Ack { generation } => self.reporter.acknowledge(generation),
                    ServerMessage::SendFull => self.reporter.send_full(),
                    ServerMessage::Refused { reason, detail } => return Err(LinkError::Refused { reason, detail }),
                    ServerMessage::Welcome { .. } => return Err(LinkError::Protocol("a second Welcome".to_owned())),
                },
                observation = self.surveys.next() => self.reporter.observe(observation?),
                () = at(deadline) => return Err(LinkError::Silent("a report was not acknowledged")),
                _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    /// Hello and Welcome.
    async fn greet(
        &mut self,
        connection: &Connection,
        credential: Credential,
    ) -> Result<RecvStream, LinkError> {
        let hello = AgentMessage::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            node_name: self.config.node.as_str().to_owned(),
            boot_id: self.reporter.boot_id(),
            credential,
        });
        let frame = hello.encode()?;
        let greeting = async {
            let (mut send, mut control) = connection.open_bi().await.map_err(LinkError::of_connection)?;
            send.write_all(&frame).await.map_err(write_error)?;
            // The agent's half of the control stream says Hello and nothing more.
            let _ = send.finish();
            let message = receive(&mut control, &mut FrameReader::default()).await?;
            Ok::<_, LinkError>((control, message))
        };
        let greeted = timeout(WELCOME_DEADLINE, greeting).await;
        let (control, message) = greeted.map_err(|_| LinkError::Silent("no Welcome"))??;
        match message {
            ServerMessage::Welcome { report_interval_seconds, last_generation } => {
                self.surveys.survey_every(Duration::from_secs(report_interval_seconds.into()));
                self.reporter.welcomed(last_generation);
                info!(node = %self.config.node, scheduler = %connection.remote_address(), "connected");
                Ok(control)
            }
            ServerMessage::Refused { reason, detail } => Err(LinkError::Refused { reason, detail }),
            ServerMessage::Ack { .. } | ServerMessage::SendFull => {
                Err(LinkError::Protocol("expected Welcome".to_owned()))
            }
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Looks the scheduler up and connects to the first of its addresses that answers.
async fn connect(
    config: &LinkConfig,
    tls: Arc<QuicClientConfig>,
    endpoint: &LinkEndpoint,
) -> Result<Connection, LinkError> {
    let scheduler = &config.scheduler;
    let deadline = Instant::now() + CONNECT_DEADLINE;
    let unreachable = || LinkError::Unreachable(scheduler.clone());
    let lookup = timeout_at(deadline, lookup_host((scheduler.host(), scheduler.port()))).await;
    let found = lookup.map_err(|_| unreachable())?;
    let addresses: Vec<_> =
        found.map_err(|error| LinkError::Lookup { address: scheduler.clone(), error })?.collect();
    let server_name = config.server_name.as_deref().unwrap_or_else(|| scheduler.host());
    let mut failed = None;
    for (tried, address) in addresses.iter().enumerate() {
        // Each address gets its share of the time that is left.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match timeout(share, attempt(endpoint, Arc::clone(&tls), *address, server_name)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => {
                debug!(%address, "{error}");
                failed = Some(error);
            }
            Err(_) => debug!(%address, "no answer"),
        }
    }
    Err(failed.unwrap_or_else(unreachable))
}

async fn attempt(
    endpoint: &LinkEndpoint,
    tls: Arc<QuicClientConfig>,
    address: SocketAddr,
    server_name: &str,
) -> Result<Connection, LinkError> {
    endpoint.connect(tls, address, server_name)?.await.map_err(LinkError::of_connection)
}

/// Sends one message on a stream of its own.
async fn send(connection: &Connection, message: &AgentMessage) -> Result<(), LinkError> {
    let frame = message.encode()?;
    let sending = async {
        let mut stream = connection.open_uni().await.map_err(LinkError::of_connection)?;
        if matches!(message, AgentMessage::Notice(_)) {
            // Before whatever else waits to be sent.
            let _ = stream.set_priority(1);
        }
        stream.write_all(&frame).await.map_err(write_error)?;
        let _ = stream.finish();
        Ok(())
    };
    let sent = timeout(limits::MESSAGE_DEADLINE, sending).await;
    sent.map_err(|_| LinkError::Silent("a message was not taken"))?
}

/// The next message on the control stream. May be dropped and called again: what has arrived stays in `reader`.
async fn receive(control: &mut RecvStream, reader: &mut FrameReader) -> Result<ServerMessage, LinkError> {
    loop {
        let chunk = control.read_chunk(reader.wanted(), true).await.map_err(read_error)?;
        let Some(chunk) = chunk else {
            return Err(LinkError::Protocol("the control stream ended".to_owned()));
        };
        let message = reader.push(&chunk.bytes).map_err(|error| LinkError::Protocol(error.to_string()))?;
        if let Some(message) = message {
            return Ok(message);
        }
    }
}

fn read_error(error: ReadError) -> LinkError {
    match error {
        ReadError::ConnectionLost(error) => LinkError::of_connection(error),
        other => LinkError::Protocol(other.to_string()),
    }
}

fn write_error(error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => LinkError::of_connection(error),
        other => LinkError::Protocol(other.to_string()),
    }
}
