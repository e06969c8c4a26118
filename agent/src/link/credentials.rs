//! Certificates of the agent, and the TLS they make.
//!
//! Files are read anew for each connection: certificates are short-lived, and whoever renews them does not restart agents.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_shared::protocol::ALPN;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What an agent shows, and whom it trusts.
#[derive(Clone)]
pub enum Credentials {
    /// PEM files.
    Files {
        /// Certificates of the authorities that the scheduler's certificate leads to.
        ca: PathBuf,
        /// Client certificate, leaf first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// PEM texts.
    Pem {
        /// Certificates of the authorities that the scheduler's certificate leads to.
        ca: String,
        /// Client certificate, leaf first.
        certificate: String,
        /// Its private key.
        key: String,
    },
}

impl fmt::Debug for Credentials {
    /// Never shows a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { ca, certificate, key } => f
                .debug_struct("Files")
                .field("ca", ca)
                .field("certificate", certificate)
                .field("key", key)
                .finish(),
            Self::Pem { .. } => f.write_str("Pem(..)"),
        }
    }
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A text does not hold what it should.
    #[error("{what}: expected PEM with {expected}: {detail}")]
    Pem {
        /// Where it came from.
        what: String,
        /// What was looked for.
        expected: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// rustls does not take them.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A PEM text, and what to call it in errors.
struct Text {
    what: String,
    pem: Vec<u8>,
}

impl Text {
    fn read(path: &Path) -> Result<Self, CredentialsError> {
        let pem = fs::read(path).map_err(|error| CredentialsError::File { path: path.to_owned(), error })?;
        Ok(Self { what: path.display().to_string(), pem })
    }

    fn given(what: &str, pem: &str) -> Self {
        Self { what: what.to_owned(), pem: pem.as_bytes().to_owned() }
    }

    fn wrong(&self, expected: &'static str, detail: impl fmt::Display) -> CredentialsError {
        CredentialsError::Pem { what: self.what.clone(), expected, detail: detail.to_string() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        let expected = "certificates";
        let found = CertificateDer::pem_slice_iter(&self.pem).collect::<Result<Vec<_>, _>>();
        match found {
            Ok(found) if found.is_empty() => Err(self.wrong(expected, "found none")),
            Ok(found) => Ok(found),
            Err(error) => Err(self.wrong(expected, error)),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(&self.pem).map_err(|error| self.wrong("a private key", error))
    }
}

impl Credentials {
    /// Reads them, to see whether they can be used.
    ///
    /// # Errors
    /// Where a file cannot be read or does not hold what it should.
    pub fn check(&self) -> Result<(), CredentialsError> {
        self.tls().map(drop)
    }

    /// TLS 1.3 with these credentials and nothing else: no early data, no resumption, no roots of the system.
    pub(super) fn tls(&self) -> Result<Arc<QuicClientConfig>, CredentialsError> {
        let (ca, certificate, key) = match self {
            Self::Files { ca, certificate, key } => {
                (Text::read(ca)?, Text::read(certificate)?, Text::read(key)?)
            }
            Self::Pem { ca, certificate, key } => {
                (Text::given("ca", ca), Text::given("certificate", certificate), Text::given("key", key))
            }
        };
        let mut roots = RootCertStore::empty();
        for root in ca.certificates()? {
            roots.add(root).map_err(|error| ca.wrong("certificates of an authority", error))?;
        }
        // Given, never the process's default, which panics as soon as another crate enables a second provider.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificate.certificates()?, key.key()?)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        let config = QuicClientConfig::try_from(config)
            .map_err(|error| CredentialsError::Tls(rustls::Error::General(error.to_string())))?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_credentials_is_said_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let files = Credentials::Files { ca: path.clone(), certificate: path.clone(), key: path.clone() };
        let error = files.check().unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains("No such file"), "{error}");
        fs::write(&path, "no PEM at all").unwrap();
        let error = files.check().unwrap_err().to_string();
        assert!(error.ends_with("expected PEM with certificates: found none"), "{error}");
    }

    #[test]
    fn a_key_is_never_shown() {
        let credentials =
            Credentials::Pem { ca: String::new(), certificate: String::new(), key: "secret".to_owned() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
