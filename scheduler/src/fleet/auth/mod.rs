//! Who an agent is: from what it shows to the one node it may report about.
//!
//! ```text
//!  Shown --Authenticator--> Identity{node, until when, how proved} or AuthError{reason}
//!
//!  certificate    the chain of the handshake: development authority, kubelets
//!  (kube)         a service-account token, by TokenReview
//!  either         certificates and tokens, whichever is shown
//!  audit          lets in what another refuses, and tells
//! ```

mod audit;
mod certificate;
mod either;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::SystemTime;

use assay_shared::NodeName;
use assay_shared::protocol::{Credential, RefusalReason};
use rustls_pki_types::CertificateDer;

pub use audit::{Audit, UNPROVED_FOR};
pub use certificate::{CertificateAuthenticator, NameIn};
pub use either::EitherAuthenticator;

/// Decides which node a connection may report about.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Which client certificates TLS asks for.
    fn client_certificates(&self) -> ClientCertificates;

    /// The node that what is shown belongs to. That Hello names the same node is checked by the caller as well.
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> AuthFuture<'a>;
}

/// Answer of an [`Authenticator`], which may have to ask the API server.
pub type AuthFuture<'a> = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>>;

/// Client certificates that TLS asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None: agents show tokens.
    None,
    /// One that leads to these roots, or no connection.
    Required(Vec<CertificateDer<'static>>),
    /// One that leads to these roots, or none.
    Optional(Vec<CertificateDer<'static>>),
}

/// What an agent shows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The node it says it is on; not to be trusted.
    pub claimed: &'a NodeName,
    /// The chain of the handshake, verified by TLS; empty without a client certificate.
    pub certificates: &'a [CertificateDer<'static>],
    /// The credential in Hello.
    pub credential: &'a Credential,
    /// Where it comes from.
    pub address: SocketAddr,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node it may report about.
    pub node: NodeName,
    /// How long that is believed; the connection ends then, and the agent comes back with what it has by then.
    pub valid_until: Option<SystemTime>,
    /// Why it is believed.
    pub proof: Proof,
}

impl Identity {
    /// That Hello names another node.
    pub(super) fn is_not(&self, claimed: &NodeName) -> AuthError {
        let detail = format!("the credential is of node {}, Hello names {claimed}", self.node);
        AuthError::new(RefusalReason::NodeMismatch, detail)
    }
}

/// Why an identity is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A client certificate names the node.
    Certificate,
    /// The API server vouches for a token that is bound to the node.
    Token(TokenBinding),
    /// There is none: this kept it out, were it not only noted.
    Missing(AuthError),
}

/// What a token is bound to, as the API server says. Parts that it does not say are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBinding {
    /// Name of the pod it was made for.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// UID of the node that pod runs on.
    pub node_uid: String,
    /// Number of the token itself, as in the API server's audit log.
    pub credential_id: String,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("certificate"),
            Self::Token(bound) => {
                f.write_str("token")?;
                for (name, value) in [
                    ("pod", &bound.pod),
                    ("pod uid", &bound.pod_uid),
                    ("node uid", &bound.node_uid),
                    ("credential", &bound.credential_id),
                ] {
                    if !value.is_empty() {
                        write!(f, " {name} {}", value.escape_debug())?;
                    }
                }
                Ok(())
            }
            Self::Missing(error) => write!(f, "none: {}: {error}", error.reason),
        }
    }
}

/// Why nothing is proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct AuthError {
    /// What is counted.
    pub reason: RefusalReason,
    /// What is logged, and told to the agent. Holds no secret.
    pub detail: String,
}

impl AuthError {
    /// An error of this kind.
    #[must_use]
    pub fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn invalid(detail: impl Into<String>) -> Self {
        Self::new(RefusalReason::InvalidCredential, detail)
    }
}
