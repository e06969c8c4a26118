//! Client certificates: the development authority's, and those of kubelets.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use assay_shared::protocol::{Credential, RefusalReason};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::super::tls::{TlsError, provider, root_store};
use super::{AuthError, AuthFuture, Authenticator, ClientCertificates, Identity, Proof, Shown};

/// Prefix of the common name of a kubelet's certificate.
const KUBELET_USER: &str = "system:node:";
/// Organisation of a kubelet's certificate.
const KUBELET_GROUP: &str = "system:nodes";

/// Where a certificate authority puts the node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameIn {
    /// The only DNS name of the subject alternative names: the development CA.
    SubjectAltName,
    /// The common name `system:node:<name>`, with organisation `system:nodes`: the CA of kubelets.
    KubeletCommonName,
}

/// Authenticates by client certificate.
#[derive(Debug)]
pub struct CertificateAuthenticator {
    authorities: Vec<Authority>,
}

#[derive(Debug)]
struct Authority {
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
    name_in: NameIn,
}

impl CertificateAuthenticator {
    /// Trusts these authorities, each for the names where it puts them.
    ///
    /// # Errors
    /// Where a root is no certificate, or there is none.
    pub fn new(
        authorities: impl IntoIterator<Item = (Vec<CertificateDer<'static>>, NameIn)>,
    ) -> Result<Self, TlsError> {
        let authorities = authorities.into_iter().map(|(roots, name_in)| {
            let verifier = WebPkiClientVerifier::builder_with_provider(root_store(&roots)?, provider());
            let verifier = verifier.build().map_err(|error| TlsError::Tls(error.to_string()))?;
            Ok(Authority { roots, verifier, name_in })
        });
        Ok(Self { authorities: authorities.collect::<Result<_, TlsError>>()? })
    }

    fn identify(&self, certificates: &[CertificateDer<'static>]) -> Result<Identity, AuthError> {
        let Some((leaf, intermediates)) = certificates.split_first() else {
            return Err(AuthError {
                reason: RefusalReason::NoCredential,
                detail: "no client certificate".to_owned(),
            });
        };
        // TLS accepted the chain for one of the authorities; which one decides where the name is looked for. Without
        // that, whoever can get some certificate of one authority could name a node in the way of the other.
        let now = UnixTime::now();
        let issued =
            |authority: &&Authority| authority.verifier.verify_client_cert(leaf, intermediates, now).is_ok();
        let authority = self.authorities.iter().find(issued);
        let authority = authority.ok_or_else(|| AuthError::invalid("certificate of an unknown authority"))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| AuthError::invalid(format!("certificate: {error}")))?;
        let name = match authority.name_in {
            NameIn::SubjectAltName => name_in_subject_alt_name(&certificate)?,
            NameIn::KubeletCommonName => name_in_kubelet_common_name(&certificate)?,
        };
        let node = name.parse().map_err(|error| AuthError::invalid(format!("certificate: {error}")))?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let valid_until = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Identity { node, valid_until, proof: Proof::Certificate })
    }
}

impl Authenticator for CertificateAuthenticator {
    fn client_certificates(&self) -> ClientCertificates {
        let roots = self.authorities.iter().flat_map(|authority| &authority.roots);
        ClientCertificates::Required(roots.cloned().collect())
    }

    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> AuthFuture<'a> {
        let identity = match shown.credential {
            Credential::Certificate => self.identify(shown.certificates),
            Credential::Token(_) => Err(AuthError::invalid("tokens are not taken here")),
        };
        Box::pin(async { identity })
    }
}

fn name_in_subject_alt_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, AuthError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| AuthError::invalid(format!("subject alternative names: {error}")))?;
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    match names {
        [GeneralName::DNSName(name)] => Ok(name),
        _ => Err(AuthError::invalid(format!(
            "certificate: expected one DNS name, that of the node, found {} subject alternative names",
            names.len()
        ))),
    }
}

fn name_in_kubelet_common_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, AuthError> {
    let subject = certificate.subject();
    let in_group =
        subject.iter_organization().any(|group| group.as_str().is_ok_and(|group| group == KUBELET_GROUP));
    let mut names = subject.iter_common_name();
    match (names.next().and_then(|name| name.as_str().ok()), names.next()) {
        (Some(name), None) if in_group && name.starts_with(KUBELET_USER) => Ok(&name[KUBELET_USER.len()..]),
        _ => Err(AuthError::invalid(format!(
            "certificate: expected common name {KUBELET_USER}<node> and organisation {KUBELET_GROUP}"
        ))),
    }
}
