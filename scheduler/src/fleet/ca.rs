//! The development certificate authority: what `assay demo`, `assay ca` and the tests take their certificates from.
//!
//! ECDSA P-256 throughout: a chain of two is about 1 KiB, so that the server's first flight fits into what QUIC lets it
//! send before the address is proved (three datagrams of 1200 bytes). Private keys are written with mode 0600, are never
//! logged, and leave this module only as PEM.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assay_shared::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::tls::{ServerIdentity, TlsError};

/// Life of the authority itself: it is for development.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// Life of a server's certificate unless asked otherwise.
pub const SERVER_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of an agent's certificate unless asked otherwise. Short, since there is no revocation.
pub const AGENT_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// Certificates are valid from this long ago on: clocks of machines that just booted may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Name of the authority's certificate in its directory.
pub const CERTIFICATE_FILE: &str = "ca.crt";
/// Name of the authority's key in its directory.
pub const KEY_FILE: &str = "ca.key";

/// A certificate authority with its key.
pub struct DevCa {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for DevCa {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa").field("certificate", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// A certificate with its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl fmt::Debug for Issued {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// Why the authority cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A certificate or key cannot be made or read.
    #[error("{what}: {error}")]
    Certificate {
        /// Which.
        what: String,
        /// Why.
        error: rcgen::Error,
    },
    /// The certificate and the key in a directory do not belong together.
    #[error("{}: certificate and key do not belong together", .0.display())]
    Mismatch(PathBuf),
}

fn certificate_error(what: impl Into<String>) -> impl FnOnce(rcgen::Error) -> CaError {
    let what = what.into();
    |error| CaError::Certificate { what, error }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    |error| CaError::File { path, error }
}

impl DevCa {
    /// A new authority, in memory.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn create() -> Result<Self, CaError> {
        Ok(Self::with_new_key()?.0)
    }

    fn with_new_key() -> Result<(Self, String), CaError> {
        let error = || certificate_error("certificate authority");
        let key = KeyPair::generate().map_err(error())?;
        let mut params = params(&[], "Assay development CA", AUTHORITY_VALIDITY).map_err(error())?;
        // It issues certificates of machines only, never of further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(error())?;
        let key_pem = key.serialize_pem();
        let authority = Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        };
        Ok((authority, key_pem))
    }

    /// The authority in this directory.
    ///
    /// # Errors
    /// Where its files cannot be read, or do not belong together.
    pub fn load(directory: &Path) -> Result<Self, CaError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(file_error(&path))
        };
        let (certificate_pem, key_pem) = (read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
        let named = |name: &str| certificate_error(directory.join(name).display().to_string());
        let key = KeyPair::from_pem(&key_pem).map_err(named(KEY_FILE))?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| named(CERTIFICATE_FILE)(rcgen::Error::CouldNotParseCertificate))?;
        let parsed = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|_| named(CERTIFICATE_FILE)(rcgen::Error::CouldNotParseCertificate))?;
        if parsed.1.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CaError::Mismatch(directory.to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(named(CERTIFICATE_FILE))?;
        Ok(Self { certificate_pem, certificate, issuer })
    }

    /// The authority in this directory; a new one where there is none.
    ///
    /// # Errors
    /// Where its files cannot be read or written.
    pub fn load_or_create(directory: &Path) -> Result<Self, CaError> {
        match Self::load(directory) {
            Err(CaError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                match Self::create_in(directory) {
                    // Another process was faster: it has written the key, or is about to write the certificate.
                    Err(CaError::File { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Self::load(directory)
                    }
                    created => created,
                }
            }
            loaded => loaded,
        }
    }

    /// A new authority, written to this directory, which is made where it does not exist.
    ///
    /// # Errors
    /// Where there already is one, or its files cannot be written.
    pub fn create_in(directory: &Path) -> Result<Self, CaError> {
        let (authority, key_pem) = Self::with_new_key()?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file_error(directory))?;
        // The certificate first, so that whoever sees the key sees both; never over an authority that exists.
        for (name, text) in [(CERTIFICATE_FILE, &authority.certificate_pem), (KEY_FILE, &key_pem)] {
            let path = directory.join(name);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode(name))
                .open(&path)
                .map_err(file_error(&path))?;
            file.write_all(text.as_bytes()).map_err(file_error(&path))?;
        }
        Ok(authority)
    }

    /// The authority's certificate, which agents and servers trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The same in binary.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for a server that is reached under these DNS names and IP addresses.
    ///
    /// # Errors
    /// Where there is no name, or one is neither a DNS name nor an address.
    pub fn issue_server(&self, names: &[&str], validity: Duration) -> Result<Issued, CaError> {
        let error = || certificate_error(format!("server certificate for {}", names.join(", ")));
        if names.is_empty() {
            return Err(CaError::Certificate {
                what: "server certificate: no name given".to_owned(),
                error: rcgen::Error::InvalidNameType,
            });
        }
        self.issue(names, "Assay scheduler", ExtendedKeyUsagePurpose::ServerAuth, validity).map_err(error())
    }

    /// A certificate for the agent of this node.
    ///
    /// # Errors
    /// Where the key cannot be made.
    pub fn issue_agent(&self, node: &NodeName, validity: Duration) -> Result<Issued, CaError> {
        let error = certificate_error(format!("agent certificate for {node}"));
        self.issue(&[node.as_str()], "Assay agent", ExtendedKeyUsagePurpose::ClientAuth, validity)
            .map_err(error)
    }

    fn issue(
        &self,
        names: &[&str],
        common_name: &str,
        purpose: ExtendedKeyUsagePurpose,
        validity: Duration,
    ) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params(names, common_name, validity)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

impl Issued {
    /// As the identity of a fleet server.
    ///
    /// # Errors
    /// Never for what [`DevCa`] issues.
    pub fn server_identity(&self) -> Result<ServerIdentity, TlsError> {
        ServerIdentity::from_pem(&self.certificate_pem, &self.key_pem)
    }

    /// Writes `<stem>.crt` and `<stem>.key` into this directory, which is made where it does not exist. Each file is
    /// replaced in one step, so that a reader never sees half of it. Returns both paths.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, directory: &Path, stem: &str) -> Result<(PathBuf, PathBuf), CaError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file_error(directory))?;
        let replace = |name: String, text: &str| {
            let path = directory.join(&name);
            let new = directory.join(format!(".{name}.new"));
            let open = || OpenOptions::new().write(true).create_new(true).mode(mode(&name)).open(&new);
            // Left over from a process that died here; create_new, so that its mode and links are not inherited.
            let _ = fs::remove_file(&new);
            let mut file = open().map_err(file_error(&new))?;
            file.write_all(text.as_bytes()).map_err(file_error(&new))?;
            fs::rename(&new, &path).map_err(file_error(&path))?;
            Ok::<_, CaError>(path)
        };
        let key = replace(format!("{stem}.key"), &self.key_pem)?;
        let certificate = replace(format!("{stem}.crt"), &self.certificate_pem)?;
        Ok((certificate, key))
    }
}

/// Keys are for their owner only.
fn mode(name: &str) -> u32 {
    if name.ends_with(".key") { 0o600 } else { 0o644 }
}

fn params(names: &[&str], common_name: &str, validity: Duration) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::fleet::{Authenticator, CertificateAuthenticator, NameIn, Shown};
    use assay_shared::protocol::{Credential, RefusalReason};

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn an_authority_is_loaded_again_and_its_certificates_still_hold() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca");
        let first = DevCa::load_or_create(&path).unwrap();
        let again = DevCa::load_or_create(&path).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());

        let issued = again.issue_agent(&node("node-a"), AGENT_VALIDITY).unwrap();
        let authenticator =
            CertificateAuthenticator::new([(vec![first.certificate().clone()], NameIn::SubjectAltName)])
                .unwrap();
        let shown = Shown {
            claimed: &node("node-a"),
            certificates: &[der(&issued.certificate_pem)],
            credential: &Credential::Certificate,
            address: ([127, 0, 0, 1], 1).into(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let identity = runtime.block_on(authenticator.authenticate(shown)).unwrap();
        assert_eq!(identity.node, node("node-a"));
        let left = identity.valid_until.unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= AGENT_VALIDITY && left > AGENT_VALIDITY / 2, "{left:?}");
    }

    #[test]
    fn keys_are_for_their_owner_only_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let authority = DevCa::create_in(directory.path()).unwrap();
        let issued = authority.issue_server(&["localhost", "127.0.0.1"], SERVER_VALIDITY).unwrap();
        issued.write(directory.path(), "server").unwrap();
        let (_, key) = issued.write(directory.path(), "server").unwrap();
        for path in [directory.path().join(KEY_FILE), key] {
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                path.display()
            );
        }
        let identity = issued.server_identity().unwrap();
        for shown in [format!("{authority:?}"), format!("{issued:?}"), format!("{identity:?}")] {
            assert!(!shown.contains("PRIVATE"), "{shown}");
        }
    }

    #[test]
    fn an_authority_is_never_overwritten_and_a_broken_one_never_used() {
        let directory = tempfile::tempdir().unwrap();
        DevCa::create_in(directory.path()).unwrap();
        let error = DevCa::create_in(directory.path()).unwrap_err();
        assert!(
            matches!(error, CaError::File { ref error, .. } if error.kind() == io::ErrorKind::AlreadyExists)
        );

        let other = DevCa::create().unwrap();
        fs::write(directory.path().join(CERTIFICATE_FILE), other.certificate_pem()).unwrap();
        assert!(matches!(DevCa::load_or_create(directory.path()), Err(CaError::Mismatch(_))));
        fs::write(directory.path().join(KEY_FILE), "garbage").unwrap();
        assert!(matches!(DevCa::load_or_create(directory.path()), Err(CaError::Certificate { .. })));
    }

    #[test]
    fn each_authority_names_nodes_in_its_own_way_only() {
        // An authority for kubelets beside the development one, and certificates that try to cross over.
        let (dev, kubelets) = (DevCa::create().unwrap(), DevCa::create().unwrap());
        let authenticator = CertificateAuthenticator::new([
            (vec![dev.certificate().clone()], NameIn::SubjectAltName),
            (vec![kubelets.certificate().clone()], NameIn::KubeletCommonName),
        ])
        .unwrap();
        let issue = |authority: &DevCa, names: &[&str], common_name: &str, organisation: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = params(names, common_name, AGENT_VALIDITY).unwrap();
            params.distinguished_name.push(DnType::OrganizationName, organisation);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(&key, &authority.issuer).unwrap().der().clone()
        };
        let stranger = DevCa::create().unwrap();
        let server = dev.issue_server(&["node-a"], SERVER_VALIDITY).unwrap();
        let cases = [
            (issue(&dev, &["node-a"], "x", ""), Ok("node-a")),
            (issue(&dev, &["node-a", "node-b"], "x", ""), Err(RefusalReason::InvalidCredential)),
            (issue(&dev, &[], "system:node:node-a", "system:nodes"), Err(RefusalReason::InvalidCredential)),
            (issue(&dev, &["*.example.com"], "x", ""), Err(RefusalReason::InvalidCredential)),
            (issue(&kubelets, &[], "system:node:node-a", "system:nodes"), Ok("node-a")),
            (issue(&kubelets, &["node-b"], "system:node:node-a", "system:nodes"), Ok("node-a")),
            (issue(&kubelets, &["node-a"], "admin", "system:masters"), Err(RefusalReason::InvalidCredential)),
            (issue(&kubelets, &[], "system:node:node-a", "other"), Err(RefusalReason::InvalidCredential)),
            (
                issue(&kubelets, &[], "system:node:../etc", "system:nodes"),
                Err(RefusalReason::InvalidCredential),
            ),
            (issue(&stranger, &["node-a"], "x", ""), Err(RefusalReason::InvalidCredential)),
            (der(&server.certificate_pem), Err(RefusalReason::InvalidCredential)),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (certificate, expected) in cases {
            let certificates = [certificate];
            let address = ([127, 0, 0, 1], 1).into();
            let claimed = &node("node-a");
            let shown =
                Shown { claimed, certificates: &certificates, credential: &Credential::Certificate, address };
            let found = runtime.block_on(authenticator.authenticate(shown));
            let found = found.as_ref().map(|identity| identity.node.as_str()).map_err(|error| error.reason);
            assert_eq!(found, expected);
        }
        let (claimed, credential) = (&node("node-a"), &Credential::Certificate);
        let nothing = Shown { claimed, certificates: &[], credential, address: ([0; 4], 1).into() };
        let error = runtime.block_on(authenticator.authenticate(nothing)).unwrap_err();
        assert_eq!(error.reason, RefusalReason::NoCredential);
    }
}
