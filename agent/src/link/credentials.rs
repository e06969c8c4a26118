//! What the agent proves its node with, a certificate or a token, and the TLS they make.
//!
//! Files are read anew for each connection: certificates and tokens are short-lived, and whoever renews them does not restart
//! agents. Keys and tokens are never logged.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_shared::protocol::{ALPN, Credential};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Longest token that is read, bytes. One of a pod has about 1,200; the scheduler takes no longer one.
const LONGEST_TOKEN: u64 = 8 << 10;

/// What an agent shows, and whom it trusts.
#[derive(Clone)]
pub enum Credentials {
    /// PEM files.
    Files {
        /// Certificates of the authorities that the scheduler's certificate leads to.
        ca: PathBuf,
        /// Client certificate, leaf first.
        certificate: PathBuf,
        /// Its private key; may be the same file, as the kubelet's is.
        key: PathBuf,
    },
    /// A service-account token that the kubelet keeps fresh in a file.
    TokenFile {
        /// PEM file with the authorities that the scheduler's certificate leads to.
        ca: PathBuf,
        /// The token.
        token: PathBuf,
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
    /// Never shows a key or token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { ca, certificate, key } => f
                .debug_struct("Files")
                .field("ca", ca)
                .field("certificate", certificate)
                .field("key", key)
                .finish(),
            Self::TokenFile { ca, token } => {
                f.debug_struct("TokenFile").field("ca", ca).field("token", token).finish()
            }
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
    /// A file does not hold a token.
    #[error("{}: expected a service-account token: {detail}", path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// What is wrong; repeats nothing of it.
        detail: &'static str,
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

/// Credentials as one connection uses them.
pub(super) struct Loaded {
    pub(super) tls: Arc<QuicClientConfig>,
    /// What Hello says.
    pub(super) credential: Credential,
}

/// The token in a file, of which no more is read than a token can be long.
fn read_token(path: &Path) -> Result<String, CredentialsError> {
    let failed = |error| CredentialsError::File { path: path.to_owned(), error };
    let wrong = |detail| CredentialsError::Token { path: path.to_owned(), detail };
    let mut token = Vec::new();
    File::open(path).and_then(|file| file.take(LONGEST_TOKEN + 1).read_to_end(&mut token)).map_err(failed)?;
    if token.len() as u64 > LONGEST_TOKEN {
        return Err(wrong("more than 8 KiB"));
    }
    let token = token.trim_ascii();
    match std::str::from_utf8(token) {
        Ok("") => Err(wrong("found nothing")),
        Ok(text) if token.iter().all(u8::is_ascii_graphic) => Ok(text.to_owned()),
        _ => Err(wrong("found something else")),
    }
}

impl Credentials {
    /// Reads them, to see whether they can be used.
    ///
    /// # Errors
    /// Where a file cannot be read or does not hold what it should.
    pub fn check(&self) -> Result<(), CredentialsError> {
        self.load().map(drop)
    }

    /// Reads them for one connection.
    pub(super) fn load(&self) -> Result<Loaded, CredentialsError> {
        let (ca, pair, credential) = match self {
            Self::Files { ca, certificate, key } => {
                let pair = (Text::read(certificate)?, Text::read(key)?);
                (Text::read(ca)?, Some(pair), Credential::Certificate)
            }
            Self::Pem { ca, certificate, key } => {
                let pair = (Text::given("certificate", certificate), Text::given("key", key));
                (Text::given("ca", ca), Some(pair), Credential::Certificate)
            }
            Self::TokenFile { ca, token } => (Text::read(ca)?, None, Credential::Token(read_token(token)?)),
        };
        Ok(Loaded { tls: Self::tls(&ca, pair.as_ref())?, credential })
    }

    /// TLS 1.3 with these certificates and nothing else: no early data, no resumption, no roots of the system.
    fn tls(ca: &Text, pair: Option<&(Text, Text)>) -> Result<Arc<QuicClientConfig>, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for root in ca.certificates()? {
            roots.add(root).map_err(|error| ca.wrong("certificates of an authority", error))?;
        }
        // Given, never the process's default, which panics as soon as another crate enables a second provider.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match pair {
            Some((certificate, key)) => {
                config.with_client_auth_cert(certificate.certificates()?, key.key()?)?
            }
            None => config.with_no_client_auth(),
        };
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
    fn a_token_is_read_anew_and_said_to_be_none_where_it_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "header.claims.signature\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "header.claims.signature");
        fs::write(&path, "header.claims.another").unwrap();
        assert_eq!(read_token(&path).unwrap(), "header.claims.another");
        let cases: [(&[u8], &str); 4] = [
            (b" \n", "found nothing"),
            (b"two words", "found something else"),
            (b"\xff\xfe", "found something else"),
            (&[b'x'; 8193], "more than 8 KiB"),
        ];
        for (bytes, expected) in cases {
            fs::write(&path, bytes).unwrap();
            let error = read_token(&path).unwrap_err().to_string();
            assert_eq!(error, format!("{}: expected a service-account token: {expected}", path.display()));
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let credentials =
            Credentials::Pem { ca: String::new(), certificate: String::new(), key: "secret".to_owned() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
