//! Audit mode: for the time in which a fleet gets its credentials. Whoever would be refused is let in as the node it says it
//! is, and what would have kept it out is counted and logged. TLS itself is not relaxed: a client certificate that leads to
//! no known authority ends the handshake in either mode.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{AuthFuture, Authenticator, ClientCertificates, Identity, Proof, Shown};

/// How long an agent without proof is let in before it is looked at again: it may have got a credential, and an API server
/// that could not be asked may be back.
pub const UNPROVED_FOR: Duration = Duration::from_secs(600);

/// Lets in what another authenticator refuses.
#[derive(Debug)]
pub struct Audit(Arc<dyn Authenticator>);

impl Audit {
    /// Notes what `strict` refuses.
    #[must_use]
    pub fn new(strict: Arc<dyn Authenticator>) -> Self {
        Self(strict)
    }
}

impl Authenticator for Audit {
    fn client_certificates(&self) -> ClientCertificates {
        match self.0.client_certificates() {
            // Whoever has none comes as far as Hello, so that its node is known.
            ClientCertificates::Required(roots) => ClientCertificates::Optional(roots),
            other => other,
        }
    }

    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> AuthFuture<'a> {
        Box::pin(async move {
            let refused = match self.0.authenticate(shown).await {
                Ok(identity) if identity.node == *shown.claimed => return Ok(identity),
                // The same as the session says, which does not know of audits.
                Ok(identity) => identity.is_not(shown.claimed),
                Err(error) => error,
            };
            Ok(Identity {
                node: shown.claimed.clone(),
                valid_until: SystemTime::now().checked_add(UNPROVED_FOR),
                proof: Proof::Missing(refused),
            })
        })
    }
}
