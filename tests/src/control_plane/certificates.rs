//! The certificate authority of one control plane, its server's certificate, clients' certificates, and the key that
//! service-account tokens are signed with. Everything is made anew for each control plane and lies in its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority with its files.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    authority: Certificate,
    /// What users and their groups were given.
    issued: Mutex<BTreeMap<(String, Option<String>), Issued>>,
}

/// A certificate and its key, files in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Pki {
    /// Makes the authority, the certificate of the API server and the key of service accounts in `directory`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub(super) fn create(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.join("pki");
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "assay test control plane");
        let key = KeyPair::generate().context("cannot make a key")?;
        let authority = params.self_signed(&key).context("cannot sign the authority's certificate")?;
        let pki = Self { directory, issuer: Issuer::new(params, key), authority, issued: Mutex::default() };

        write(&pki.ca_file(), &pki.authority.pem())?;
        pki.issue_server()?;
        let accounts = KeyPair::generate().context("cannot make a key")?;
        write(&pki.service_account_key(), &accounts.serialize_pem())?;
        write(&pki.service_account_public_key(), &accounts.public_key_pem())?;
        Ok(pki)
    }

    fn issue_server(&self) -> anyhow::Result<Issued> {
        let names = [
            "127.0.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            super::components::SERVICE_ADDRESS,
        ];
        let mut params =
            CertificateParams::new(names.map(str::to_owned)).context("these are names and addresses")?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        self.issue("apiserver", params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate for a user and a group, as the API server reads them from it: common name and organisation. The
    /// same for the same user and group.
    ///
    /// # Errors
    /// A name cannot stand in a certificate, or the files cannot be written.
    pub fn client(&self, user: &str, group: Option<&str>) -> anyhow::Result<Issued> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.to_owned(), group.map(str::to_owned));
        if let Some(found) = issued.get(&key) {
            return Ok(found.clone());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        // A number: a user may be called what a file cannot.
        let made =
            self.issue(&format!("client-{}", issued.len()), params, ExtendedKeyUsagePurpose::ClientAuth)?;
        issued.insert(key, made.clone());
        Ok(made)
    }

    fn issue(
        &self,
        name: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Issued> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("cannot sign a certificate")?;
        let issued = Issued {
            certificate: self.directory.join(format!("{name}.crt")),
            key: self.directory.join(format!("{name}.key")),
        };
        write(&issued.certificate, &certificate.pem())?;
        write(&issued.key, &key.serialize_pem())?;
        Ok(issued)
    }

    /// The certificate of the authority, a file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    pub(super) fn server_certificate(&self) -> PathBuf {
        self.directory.join("apiserver.crt")
    }

    pub(super) fn server_key(&self) -> PathBuf {
        self.directory.join("apiserver.key")
    }

    pub(super) fn service_account_key(&self) -> PathBuf {
        self.directory.join("service-account.key")
    }

    pub(super) fn service_account_public_key(&self) -> PathBuf {
        self.directory.join("service-account.pub")
    }
}

/// Writes a file, and names it when that fails.
pub(super) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
