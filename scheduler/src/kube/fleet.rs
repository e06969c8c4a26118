//! The fleet server of a cluster: who its agents are, which certificate it shows, and where it listens.
//!
//! ```text
//!  FleetArgs + Kubernetes client --start--> ClusterFleet --FleetEvent--> the loop
//!    tokens (TokenReview), kubelet certificates (--client-ca), enforce or audit
//!    certificate files, read again when they change
//! ```

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use assay_shared::protocol::DEFAULT_PORT;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::token_review::{ServiceAccount, TokenAuthenticator, TokenReviewConfig};
use crate::fleet::{
    Audit, Authenticator, CertificateAuthenticator, CertificateFiles, EitherAuthenticator, FleetConfig,
    FleetEvent, FleetHandle, FleetServer, LOOK_EVERY, NameIn, StartError, TlsError, certificates,
};
use crate::web::{Condition, Health, Metrics};

/// Audience of agents' tokens unless another is given.
pub const DEFAULT_AUDIENCE: &str = "assay-scheduler";

/// What becomes of agents that do not prove their node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AgentAuth {
    /// They are refused.
    #[default]
    Enforce,
    /// They are let in, counted and logged: for the time in which a fleet gets its credentials.
    Audit,
}

/// How agents connect to `assay serve` in a cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Agents")]
pub struct FleetArgs {
    /// UDP address that agents connect to.
    #[arg(long, value_name = "ADDRESS", default_value_t = default_listen(), env = "ASSAY_FLEET_LISTEN")]
    pub fleet_listen: SocketAddr,
    /// PEM file with the certificate that agents are shown; read again when it changes.
    #[arg(long, value_name = "FILE", env = "ASSAY_FLEET_CERT")]
    pub fleet_cert: PathBuf,
    /// PEM file with its private key; read again when it changes.
    #[arg(long, value_name = "FILE", env = "ASSAY_FLEET_KEY")]
    pub fleet_key: PathBuf,
    /// What becomes of agents that do not prove their node.
    #[arg(long, value_name = "MODE", value_enum, default_value_t, env = "ASSAY_AGENT_AUTH")]
    pub agent_auth: AgentAuth,
    /// Audience that agents' tokens must be made for.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_AUDIENCE, env = "ASSAY_AGENT_AUDIENCE")]
    pub agent_audience: String,
    /// Service account that agents' tokens must be of.
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        default_value = "assay-system/assay-agent",
        env = "ASSAY_AGENT_SERVICE_ACCOUNT"
    )]
    pub agent_service_account: ServiceAccount,
    /// PEM file with the authority of kubelets' client certificates, for agents outside of pods; read at start.
    #[arg(long, value_name = "FILE", env = "ASSAY_CLIENT_CA")]
    pub client_ca: Option<PathBuf>,
}

fn default_listen() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()
}

impl FleetArgs {
    /// Who decides about agents: the tokens' part of it, and all of it.
    ///
    /// # Errors
    /// Where the authority of kubelets cannot be read.
    pub fn authenticator(
        &self,
        client: Client,
    ) -> Result<(Arc<TokenAuthenticator>, Arc<dyn Authenticator>), TlsError> {
        let config = TokenReviewConfig::new(self.agent_audience.clone(), self.agent_service_account.clone());
        let tokens = Arc::new(TokenAuthenticator::new(client, config));
        let strict: Arc<dyn Authenticator> = match &self.client_ca {
            None => Arc::<TokenAuthenticator>::clone(&tokens),
            Some(path) => {
                let pem =
                    std::fs::read(path).map_err(|error| TlsError::File { path: path.clone(), error })?;
                let roots = certificates(&pem, &path.display().to_string())?;
                let kubelets = CertificateAuthenticator::new([(roots, NameIn::KubeletCommonName)])?;
                Arc::new(EitherAuthenticator::new(kubelets, Arc::<TokenAuthenticator>::clone(&tokens)))
            }
        };
        let authenticator = match self.agent_auth {
            AgentAuth::Enforce => strict,
            AgentAuth::Audit => Arc::new(Audit::new(strict)),
        };
        Ok((tokens, authenticator))
    }

    /// Starts the fleet server on the current tokio runtime; what agents report arrives at `events`. Tokens are asked about
    /// through `client`: best one of its own, whose limits nothing else uses up.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or a certificate cannot be used.
    pub fn start(
        &self,
        client: Client,
        metrics: &Metrics,
        health: &Health,
        events: mpsc::Sender<FleetEvent>,
    ) -> Result<ClusterFleet, StartError> {
        let files = CertificateFiles { certificate: self.fleet_cert.clone(), key: self.fleet_key.clone() };
        let (tokens, authenticator) = self.authenticator(client)?;
        let config = FleetConfig { listen: self.fleet_listen, ..FleetConfig::default() };
        let server = FleetServer::start(config, files.read()?, authenticator, events)?;
        let follower = tokio::spawn(files.follow(server.certificate().clone(), LOOK_EVERY));
        metrics.watch_fleet(server.monitor(), server.certificate().clone());
        metrics.watch_reviews(tokens);
        health.set(Condition::FleetListens, true);
        Ok(ClusterFleet { server, health: health.clone(), follower: Follower(follower) })
    }
}

/// A fleet server that follows its certificate files.
#[derive(Debug)]
pub struct ClusterFleet {
    server: FleetHandle,
    health: Health,
    follower: Follower,
}

/// The task that looks at the files; it ends when this is dropped.
#[derive(Debug)]
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ClusterFleet {
    /// The server.
    #[must_use]
    pub const fn server(&self) -> &FleetHandle {
        &self.server
    }

    /// Stops politely: see [`FleetHandle::stop`].
    pub async fn stop(self) {
        self.health.set(Condition::FleetListens, false);
        drop(self.follower);
        self.server.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::fleet::ClientCertificates;
    use crate::fleet::ca::DevCa;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        fleet: FleetArgs,
    }

    fn parse(options: &[&str]) -> FleetArgs {
        let always = ["assay", "--fleet-cert", "tls.crt", "--fleet-key", "tls.key"];
        Command::try_parse_from(always.iter().chain(options)).unwrap().fleet
    }

    #[tokio::test]
    async fn what_tls_asks_for_follows_from_the_options() {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::create().unwrap();
        let path = directory.path().join("ca.crt");
        std::fs::write(&path, ca.certificate_pem()).unwrap();
        let path = path.to_str().unwrap();
        let roots = vec![ca.certificate().clone()];
        let cases: [(&[&str], ClientCertificates); 4] = [
            (&[], ClientCertificates::None),
            (&["--agent-auth", "audit"], ClientCertificates::None),
            (&["--client-ca", path], ClientCertificates::Optional(roots.clone())),
            (&["--client-ca", path, "--agent-auth", "audit"], ClientCertificates::Optional(roots)),
        ];
        for (options, expected) in cases {
            let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
            let (_, authenticator) = parse(options).authenticator(client).unwrap();
            assert_eq!(authenticator.client_certificates(), expected, "{options:?}");
        }
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let error = parse(&["--client-ca", "/nonexistent"]).authenticator(client).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent: "), "{error}");
    }
}
