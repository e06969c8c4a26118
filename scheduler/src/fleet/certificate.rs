//! The certificate that the server shows, and its files, which whoever renews them replaces.
//!
//! ```text
//!  tls.crt, tls.key --CertificateFiles::follow--> ServerCertificate <--rustls, for each handshake
//! ```
//!
//! Files are looked at every few seconds rather than watched: a mounted Secret changes by the rename of a directory two links
//! away, and a certificate that is renewed days ahead is in no hurry. What cannot be used is told, and the old one stays.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::tls::{ServerIdentity, TlsError, provider};

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The certificate that a server shows. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct ServerCertificate(Arc<Slot>);

struct Slot(RwLock<Current>);

struct Current {
    key: Arc<CertifiedKey>,
    valid_until: Option<SystemTime>,
}

impl fmt::Debug for ServerCertificate {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("valid_until", &self.valid_until()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(..)")
    }
}

impl Current {
    fn new(identity: ServerIdentity) -> Result<Self, TlsError> {
        let leaf = identity.chain.first().and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok());
        let seconds = leaf.and_then(|(_, leaf)| u64::try_from(leaf.validity().not_after.timestamp()).ok());
        let valid_until = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        // Also sees whether certificate and key belong together.
        let key = CertifiedKey::from_der(identity.chain, identity.key, &provider())
            .map_err(|error| TlsError::Tls(error.to_string()))?;
        Ok(Self { key: Arc::new(key), valid_until })
    }
}

impl ServerCertificate {
    pub(super) fn new(identity: ServerIdentity) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Slot(RwLock::new(Current::new(identity)?)))))
    }

    /// Shows another from now on; connections that exist are not touched.
    ///
    /// # Errors
    /// Where it cannot be used; the old one then stays.
    pub fn renew(&self, identity: ServerIdentity) -> Result<(), TlsError> {
        let new = Current::new(identity)?;
        // Nothing in here panics half-way through a change.
        *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// When it expires.
    #[must_use]
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.0.0.read().unwrap_or_else(PoisonError::into_inner).valid_until
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::<Slot>::clone(&self.0)
    }
}

impl ResolvesServerCert for Slot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// Where a server's certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file with the certificate, leaf first.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// The contents of the files, told apart without being kept.
type Fingerprint = [u8; 32];

impl CertificateFiles {
    /// What is in the files.
    ///
    /// # Errors
    /// Where one cannot be read, or there is no certificate or no private key in them.
    pub fn read(&self) -> Result<ServerIdentity, TlsError> {
        ServerIdentity::from_files(&self.certificate, &self.key)
    }

    /// Shows what is in the files, for as long as this is polled.
    pub async fn follow(self, shown: ServerCertificate, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut follower = Follower { files: self, taken: None, refused: None };
        loop {
            ticks.tick().await;
            follower.look(&shown).await;
        }
    }

    async fn contents(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        Ok((tokio::fs::read(&self.certificate).await?, tokio::fs::read(&self.key).await?))
    }
}

#[derive(Debug)]
struct Follower {
    files: CertificateFiles,
    taken: Option<Fingerprint>,
    /// What was no use, and whether that was said.
    refused: Option<(String, bool)>,
}

impl Follower {
    async fn look(&mut self, shown: &ServerCertificate) {
        let taken = self.take(shown).await;
        let path: &Path = &self.files.certificate;
        match taken {
            Ok(false) => self.refused = None,
            Ok(true) => {
                self.refused = None;
                info!(file = %path.display(), valid_until = ?shown.valid_until(), "server certificate renewed");
            }
            Err(error) => {
                // Files that are written one after the other do not belong together for a moment: said the second time.
                let said = match &self.refused {
                    Some((last, said)) if *last == error => {
                        if !said {
                            warn!(file = %path.display(), "server certificate not renewed, the old one stays: {error}");
                        }
                        true
                    }
                    _ => false,
                };
                self.refused = Some((error, said));
            }
        }
    }

    /// Whether there was something new.
    async fn take(&mut self, shown: &ServerCertificate) -> Result<bool, String> {
        let (certificate, key) = self.files.contents().await.map_err(|error| error.to_string())?;
        let fingerprint = fingerprint(&certificate, &key);
        if self.taken == Some(fingerprint) {
            return Ok(false);
        }
        let named = |path: &Path| path.display().to_string();
        let identity = ServerIdentity::parse(
            &certificate,
            &named(&self.files.certificate),
            &key,
            &named(&self.files.key),
        );
        let renewed = identity.and_then(|identity| shown.renew(identity));
        renewed.map_err(|error| error.to_string())?;
        // The first look finds what the server was started with.
        Ok(self.taken.replace(fingerprint).is_some())
    }
}

fn fingerprint(certificate: &[u8], key: &[u8]) -> Fingerprint {
    let of = |bytes| digest(&SHA256, bytes);
    let both = [of(certificate).as_ref(), of(key).as_ref()].concat();
    let mut fingerprint = Fingerprint::default();
    // SHA-256 has as many bytes.
    fingerprint.copy_from_slice(of(&both).as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ca::{DevCa, Issued};

    const LIFE: Duration = Duration::from_secs(3600);

    fn leaf(shown: &ServerCertificate) -> Vec<u8> {
        shown.0.0.read().unwrap().key.cert[0].to_vec()
    }

    fn der(issued: &Issued) -> Vec<u8> {
        issued.server_identity().unwrap().chain[0].to_vec()
    }

    #[tokio::test]
    async fn what_is_in_the_files_is_shown_and_what_is_no_use_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::create().unwrap();
        let issue = |life| ca.issue_server(&["localhost"], life).unwrap();
        let first = issue(LIFE);
        let (certificate, key) = first.write(directory.path(), "tls").unwrap();
        let files = CertificateFiles { certificate: certificate.clone(), key };
        let shown = ServerCertificate::new(files.read().unwrap()).unwrap();
        let mut follower = Follower { files, taken: None, refused: None };
        assert_eq!(follower.take(&shown).await, Ok(false), "what it was started with");
        assert_eq!(leaf(&shown), der(&first));

        let second = issue(2 * LIFE);
        std::fs::write(&certificate, &second.certificate_pem).unwrap();
        let error = follower.take(&shown).await.unwrap_err();
        assert!(error.starts_with("TLS: "), "the key is still that of the first: {error}");
        assert_eq!(leaf(&shown), der(&first));
        second.write(directory.path(), "tls").unwrap();
        assert_eq!(follower.take(&shown).await, Ok(true));
        assert_eq!(leaf(&shown), der(&second));
        let left = shown.valid_until().unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left > LIFE, "{left:?}");
        assert_eq!(follower.take(&shown).await, Ok(false), "nothing new");

        std::fs::remove_file(&certificate).unwrap();
        assert!(follower.take(&shown).await.is_err());
        assert_eq!(leaf(&shown), der(&second));
    }

    #[test]
    fn a_key_is_never_shown() {
        let ca = DevCa::create().unwrap();
        let issued = ca.issue_server(&["localhost"], LIFE).unwrap();
        let shown = ServerCertificate::new(issued.server_identity().unwrap()).unwrap();
        assert!(!format!("{shown:?}").to_lowercase().contains("key"));
    }
}
