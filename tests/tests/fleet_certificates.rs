//! Kubelets' certificates as the identity of agents outside pods, and the scheduler's own, renewed in its files.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assay_agent::link::{Credentials, LinkConfig, LinkEndpoint, report_once};
use assay_scheduler::fleet::ca::{DevCa, SERVER_VALIDITY};
use assay_scheduler::fleet::{
    CertificateAuthenticator, CertificateFiles, EitherAuthenticator, FleetServer, NameIn,
};
use assay_scheduler::kube::token_review::TokenAuthenticator;
use assay_shared::protocol::RefusalReason;
use assay_tests::fleet::{Fleet, agent, config, eventually, report, within};
use assay_tests::token_reviews::{Token, TokenReviewApi, review_config, vouches};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::sync::mpsc;

/// The authority of a cluster, which signs for its kubelets.
struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl ClusterCa {
    fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Writes certificate and key into one file, as the kubelet does.
    fn issue(&self, to: &Path, common_name: &str, organisation: &str) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(to, [certificate.pem(), key.serialize_pem()].concat())?;
        Ok(())
    }
}

async fn once(link: LinkConfig) -> anyhow::Result<String> {
    let name = link.node.as_str().to_owned();
    let ended = within("an answer", report_once(link, LinkEndpoint::bind()?, move || report(&name))).await?;
    Ok(ended.err().map(|error| error.to_string()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelets_certificates_are_taken_beside_tokens() -> anyhow::Result<()> {
    let cluster = ClusterCa::new()?;
    let kubelets = CertificateAuthenticator::new([(
        vec![cluster.certificate.der().clone()],
        NameIn::KubeletCommonName,
    )])?;
    let api = TokenReviewApi::start(Duration::ZERO).await?;
    let tokens = Arc::new(TokenAuthenticator::new(api.client()?, review_config()));
    let either = Arc::new(EitherAuthenticator::new(kubelets, tokens));
    let mut fleet = Fleet::start_with(config(), DevCa::create()?, either)?;
    fleet.ignore_events();

    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("ca.crt");
    std::fs::write(&ca, fleet.ca.certificate_pem())?;
    let kubelet = directory.path().join("kubelet-client-current.pem");
    let link = |node: &str| {
        let mut link = fleet.agent(node)?;
        link.credentials =
            Credentials::Files { ca: ca.clone(), certificate: kubelet.clone(), key: kubelet.clone() };
        anyhow::Ok(link)
    };
    let cases = [
        ("system:node:node-a", "system:nodes", "node-a", None),
        ("system:node:node-b", "system:nodes", "node-a", Some(RefusalReason::NodeMismatch)),
        ("system:node:node-a", "system:masters", "node-a", Some(RefusalReason::InvalidCredential)),
        ("kubernetes-admin", "system:nodes", "node-a", Some(RefusalReason::InvalidCredential)),
    ];
    for (common_name, organisation, node, expected) in cases {
        cluster.issue(&kubelet, common_name, organisation)?;
        let said = once(link(node)?).await?;
        match expected {
            None => assert_eq!(said, ""),
            Some(reason) => {
                assert!(said.contains(&format!("refused by the scheduler: {reason}: ")), "{said}")
            }
        }
    }

    // An agent in a pod, at the same server.
    let path = directory.path().join("token");
    std::fs::write(&path, api.knows(&Token::of("node-c"), vouches("node-c")))?;
    assert_eq!(once(fleet.agent_with_token("node-c", &path)?).await?, "");
    // A certificate of somebody else's authority does not get as far as that, and no certificate no further.
    let said = once(fleet.agent("node-a")?).await?;
    assert!(said.starts_with("the scheduler refused the handshake"), "{said}");
    assert_eq!(fleet.server.counters().refused(RefusalReason::HandshakeFailed), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schedulers_certificate_is_taken_from_its_files_when_they_change() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (first, second) = (DevCa::create()?, DevCa::create()?);
    let issue = |ca: &DevCa| ca.issue_server(&["127.0.0.1"], SERVER_VALIDITY)?.write(directory.path(), "tls");
    let (certificate, key) = issue(&first)?;
    let files = CertificateFiles { certificate, key };
    let roots = vec![first.certificate().clone()];
    let authenticator = CertificateAuthenticator::new([(roots, NameIn::SubjectAltName)])?;
    let (events, mut receiver) = mpsc::channel(1024);
    let server = FleetServer::start(config(), files.read()?, Arc::new(authenticator), events)?;
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let follower = tokio::spawn(files.follow(server.certificate().clone(), Duration::from_millis(20)));

    // An agent of the first authority that trusts this one.
    let issued = first.issue_agent(&"node-a".parse()?, SERVER_VALIDITY)?;
    let trusting = |ca: &DevCa| {
        let mut link = agent(&first, &issued, "node-a", server.local_addr())?;
        if let Credentials::Pem { ca: trusted, .. } = &mut link.credentials {
            *trusted = ca.certificate_pem().to_owned();
        }
        anyhow::Ok(link)
    };
    assert_eq!(once(trusting(&first)?).await?, "");
    let said = once(trusting(&second)?).await?;
    assert!(said.starts_with("the scheduler is not trusted: "), "{said}");

    let before = server.certificate().valid_until();
    // Certificates count seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    issue(&second)?;
    eventually("the new certificate", || server.certificate().valid_until() != before).await?;
    assert_eq!(once(trusting(&second)?).await?, "");
    let said = once(trusting(&first)?).await?;
    assert!(said.starts_with("the scheduler is not trusted: "), "{said}");
    follower.abort();
    Ok(())
}
