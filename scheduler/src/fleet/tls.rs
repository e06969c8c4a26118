//! TLS and transport of the fleet server: TLS 1.3 only, no early data, the limits of `docs/fleet-link.md`.
//!
//! The crypto provider is given, never the process's default: a library that relies on that panics as soon as another
//! crate enables a second provider.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_shared::protocol::{ALPN, limits};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::auth::ClientCertificates;
use super::certificate::ServerCertificate;
use super::config::FleetConfig;
use super::datagrams::{EndpointKeys, QUIC_VERSION_1};

/// First datagrams that wait to be looked at.
const INCOMING: usize = 1_024;
/// What one of them, and all together, may send ahead, bytes. A ClientHello with client certificate is below 4 KiB.
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFERS: u64 = 4 << 20;
/// Handshake bytes buffered per connection: a certificate chain of four, and half of quinn's default.
const CRYPTO_BUFFER: usize = 8 << 10;

/// Certificate and key that the server shows.
pub struct ServerIdentity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for ServerIdentity {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No certificate in it, or none that can be read.
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
    Tls(String),
}

impl ServerIdentity {
    /// From PEM texts.
    ///
    /// # Errors
    /// Where there is no certificate or no private key in them.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        Self::parse(certificate.as_bytes(), "server certificate", key.as_bytes(), "server key")
    }

    /// From PEM files.
    ///
    /// # Errors
    /// Where one cannot be read, or there is no certificate or no private key in them.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read =
            |path: &Path| fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), error });
        let (chain, private) = (read(certificate)?, read(key)?);
        Self::parse(&chain, &certificate.display().to_string(), &private, &key.display().to_string())
    }

    pub(super) fn parse(
        chain: &[u8],
        chain_name: &str,
        key: &[u8],
        key_name: &str,
    ) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Pem {
            what: key_name.to_owned(),
            expected: "a private key",
            detail: error.to_string(),
        })?;
        Ok(Self { chain: certificates(chain, chain_name)?, key })
    }
}

/// The certificates in a PEM text; `what` names it in errors.
///
/// # Errors
/// Where there is none, or one cannot be read.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |detail: String| TlsError::Pem { what: what.to_owned(), expected: "certificates", detail };
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(wrong("found none".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(error.to_string())),
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(super) fn root_store(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| TlsError::Tls(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn crypto(shown: &ServerCertificate, clients: &ClientCertificates) -> Result<QuicServerConfig, TlsError> {
    let tls = |error: &dyn fmt::Display| TlsError::Tls(error.to_string());
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(&error))?;
    let verifier = |roots: &[CertificateDer<'static>]| {
        root_store(roots).map(|roots| WebPkiClientVerifier::builder_with_provider(roots, provider()))
    };
    let builder = match clients {
        ClientCertificates::None => builder.with_no_client_auth(),
        ClientCertificates::Required(roots) => {
            builder.with_client_cert_verifier(verifier(roots)?.build().map_err(|error| tls(&error))?)
        }
        ClientCertificates::Optional(roots) => {
            let verifier = verifier(roots)?.allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build().map_err(|error| tls(&error))?)
        }
    };
    let mut config = builder.with_cert_resolver(shown.resolver());
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Early data can be replayed, and resumption would skip the certificate: every connection proves itself anew.
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map_err(|error| tls(&error))
}

fn transport(segmentation_offload: bool) -> TransportConfig {
    // MAX_IDLE is far below the 2^62 ms that QUIC can carry, so this never falls back to the default.
    let idle = IdleTimeout::try_from(limits::MAX_IDLE).ok();
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(idle)
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW))
        .receive_window(VarInt::from_u32(limits::CONNECTION_WINDOW))
        .send_window(limits::SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::BIDIRECTIONAL_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::UNIDIRECTIONAL_STREAMS))
        .datagram_receive_buffer_size(None)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .enable_segmentation_offload(segmentation_offload);
    transport
}

/// The server's side of every connection.
pub(super) fn server_config(
    config: &FleetConfig,
    shown: &ServerCertificate,
    clients: &ClientCertificates,
    keys: &EndpointKeys,
) -> Result<quinn::ServerConfig, TlsError> {
    let crypto = Arc::new(crypto(shown, clients)?);
    let mut server = quinn::ServerConfig::new(crypto, Arc::new(keys.tokens.clone()));
    server
        .transport_config(Arc::new(transport(config.segmentation_offload)))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS)
        // Nodes do not roam.
        .migration(false);
    Ok(server)
}

/// What all connections share.
pub(super) fn endpoint_config(keys: &EndpointKeys) -> EndpointConfig {
    let mut endpoint = EndpointConfig::new(Arc::new(keys.reset.clone()));
    let ids = keys.ids.clone();
    endpoint
        .cid_generator(move || Box::new(ids.clone()))
        .supported_versions(vec![QUIC_VERSION_1])
        // Agents never clear the fixed bit, so that noise is recognised by it.
        .grease_quic_bit(false);
    endpoint
}
