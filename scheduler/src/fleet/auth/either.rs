//! Agents in pods show tokens, agents outside of pods certificates: whichever is shown is checked by who knows it.

use std::sync::Arc;

use assay_shared::protocol::Credential;

use super::{AuthFuture, Authenticator, CertificateAuthenticator, ClientCertificates, Shown};

/// Takes certificates and tokens.
#[derive(Debug)]
pub struct EitherAuthenticator {
    certificates: CertificateAuthenticator,
    tokens: Arc<dyn Authenticator>,
}

impl EitherAuthenticator {
    /// Takes these certificates, and the tokens that `tokens` takes.
    #[must_use]
    pub fn new(certificates: CertificateAuthenticator, tokens: Arc<dyn Authenticator>) -> Self {
        Self { certificates, tokens }
    }
}

impl Authenticator for EitherAuthenticator {
    /// Asked for and not required: most agents have none.
    fn client_certificates(&self) -> ClientCertificates {
        match self.certificates.client_certificates() {
            ClientCertificates::Required(roots) => ClientCertificates::Optional(roots),
            other => other,
        }
    }

    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> AuthFuture<'a> {
        match shown.credential {
            Credential::Certificate => self.certificates.authenticate(shown),
            Credential::Token(_) => self.tokens.authenticate(shown),
        }
    }
}
