//! Why a connection ended, and how long to stay away after it.

use std::io;
use std::time::Duration;

use assay_shared::protocol::{CloseCode, RefusalReason};
use assay_shared::wire::WireError;
use quinn::ConnectionError;

use super::address::SchedulerAddress;
use super::credentials::CredentialsError;
use super::pause::Patience;

/// TLS alerts are QUIC transport errors of this range (RFC 9001, 4.8).
const CRYPTO_ERRORS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// Why a connection ended, or none came about.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The certificates, key or token cannot be used.
    #[error("credentials: {0}")]
    Credentials(#[from] CredentialsError),
    /// The scheduler's name has no address.
    #[error("{address}: {error}")]
    Lookup {
        /// What was looked up.
        address: SchedulerAddress,
        /// Why it was not found.
        error: io::Error,
    },
    /// Nobody answers.
    #[error("no answer from {0} within {time} s", time = super::CONNECT_DEADLINE.as_secs())]
    Unreachable(SchedulerAddress),
    /// The connection could not be attempted.
    #[error("{0}")]
    Connect(#[from] quinn::ConnectError),
    /// The scheduler's certificate does not lead to a trusted authority, has another name, or it speaks no `assay/1`.
    #[error("the scheduler is not trusted: {0}")]
    NotTrusted(String),
    /// TLS at the scheduler does not take the agent's certificate.
    #[error("the scheduler refused the handshake: {0}")]
    HandshakeRefused(String),
    /// The scheduler refused, and said why.
    #[error("refused by the scheduler: {reason}: {detail}")]
    Refused {
        /// Why.
        reason: RefusalReason,
        /// Why, for people.
        detail: String,
    },
    /// Another agent reports for the same node.
    #[error("replaced: another agent connected as this node; is one running twice?")]
    Replaced,
    /// The scheduler stops, and asks its agents to spread their return.
    #[error("the scheduler stops")]
    ServerStops {
        /// Over this time.
        spread: Duration,
    },
    /// The certificate or token expired during the connection.
    #[error("the credential expired: connecting with what there is now")]
    CredentialExpired,
    /// The scheduler does not answer as it should.
    #[error("the scheduler breaks the protocol: {0}")]
    Protocol(String),
    /// The scheduler stopped answering.
    #[error("no answer from the scheduler: {0}")]
    Silent(&'static str),
    /// The connection is gone.
    #[error("connection lost: {0}")]
    Lost(ConnectionError),
    /// The report does not fit a message.
    #[error("report: {0}")]
    Report(#[from] WireError),
    /// The survey panicked.
    #[error("the survey failed")]
    SurveyFailed,
}

impl LinkError {
    /// What the end of a connection means.
    pub(super) fn of_connection(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let phrase = String::from_utf8_lossy(&close.reason).into_owned();
                match CloseCode::from_number(close.error_code.into_inner()) {
                    Some(CloseCode::Replaced) => Self::Replaced,
                    Some(CloseCode::Stopping) => {
                        Self::ServerStops { spread: Duration::from_secs(phrase.parse().unwrap_or(1)) }
                    }
                    Some(CloseCode::CredentialExpired) => Self::CredentialExpired,
                    Some(CloseCode::Refused(reason)) => Self::Refused { reason, detail: phrase },
                    Some(CloseCode::Leaving) | None => Self::Lost(ConnectionError::ApplicationClosed(close)),
                }
            }
            ConnectionError::TransportError(error) if CRYPTO_ERRORS.contains(&u64::from(error.code)) => {
                Self::NotTrusted(error.reason)
            }
            ConnectionError::ConnectionClosed(close)
                if CRYPTO_ERRORS.contains(&u64::from(close.error_code)) =>
            {
                let reason = String::from_utf8_lossy(&close.reason);
                Self::HandshakeRefused(if reason.is_empty() {
                    close.error_code.to_string()
                } else {
                    reason.into()
                })
            }
            other => Self::Lost(other),
        }
    }

    /// Whether it will stay like this until someone changes something.
    #[must_use]
    pub const fn needs_people(&self) -> bool {
        match self {
            Self::Credentials(_)
            | Self::NotTrusted(_)
            | Self::HandshakeRefused(_)
            | Self::Replaced
            | Self::Protocol(_)
            | Self::Report(_)
            | Self::SurveyFailed => true,
            Self::Refused { reason, .. } => !matches!(
                reason,
                RefusalReason::Overloaded
                    | RefusalReason::TooMany
                    | RefusalReason::TooSlow
                    | RefusalReason::ValidatorUnavailable
            ),
            Self::Lookup { .. }
            | Self::Unreachable(_)
            | Self::Connect(_)
            | Self::ServerStops { .. }
            | Self::CredentialExpired
            | Self::Silent(_)
            | Self::Lost(_) => false,
        }
    }

    /// How long to stay away.
    pub(super) const fn patience(&self) -> Patience {
        match self {
            Self::ServerStops { spread } => Patience::Spread(*spread),
            // Nothing is wrong with this agent, and an API server that restarts is back within seconds.
            Self::Refused { reason: RefusalReason::ValidatorUnavailable, .. } => Patience::Usual,
            Self::Refused { .. } => Patience::Long,
            _ if self.needs_people() => Patience::Long,
            _ => Patience::Usual,
        }
    }
}
