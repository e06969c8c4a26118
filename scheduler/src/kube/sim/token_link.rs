//! Simulated agents prove their node as real ones do, with a service-account token that the API server makes for this node, and
//! report to every replica of the scheduler as real ones do.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use assay_agent::link::{Credentials, LinkConfig, LinkEndpoint, Reconnect, SchedulerAddress, run_replicas};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount as ServiceAccountObject};
use kube::api::PostParams;
use kube::{Api, Client};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::agents::{AgentLink, SharedMachine};
use crate::kube::token_review::ServiceAccount;

/// Life of a token, s; the API server makes none shorter than ten minutes.
const TOKEN_SECONDS: i64 = 3_600;
/// A token is renewed at this age, as the kubelet does at 80 %.
const RENEWED_AFTER: Duration = Duration::from_secs(2_880);
/// Pause before a token that was not given is asked for again.
const RETRY: Duration = Duration::from_secs(2);
/// How often a simulated machine is surveyed.
const SURVEY_INTERVAL: Duration = Duration::from_secs(5);

/// Links with tokens.
pub struct TokenLink {
    client: Client,
    account: ServiceAccount,
    audience: String,
    server: SchedulerAddress,
    /// Authority of the fleet server's certificate.
    ca: PathBuf,
    endpoint: LinkEndpoint,
    /// Where tokens are, one file a node; nobody else can look into it, and it goes with this.
    tokens: Arc<TempDir>,
}

impl fmt::Debug for TokenLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLink").field("account", &self.account).finish_non_exhaustive()
    }
}

impl TokenLink {
    /// Agents of a service account, whose tokens are for `audience`, that reach the fleet server at `server`.
    ///
    /// # Errors
    /// Where there is no socket or directory to be had.
    pub fn new(
        client: Client,
        account: ServiceAccount,
        audience: String,
        server: SchedulerAddress,
        ca: PathBuf,
    ) -> io::Result<Self> {
        let tokens = tempfile::Builder::new().prefix("assay-agents-").tempdir()?;
        Ok(Self {
            client,
            account,
            audience,
            server,
            ca,
            endpoint: LinkEndpoint::bind()?,
            tokens: Arc::new(tokens),
        })
    }
}

impl AgentLink for TokenLink {
    fn connect(&self, machine: SharedMachine) -> watch::Sender<bool> {
        let (stop, stopped) = watch::channel(false);
        let token = self.tokens.path().join(machine.node().as_str());
        let config = LinkConfig {
            scheduler: self.server.clone(),
            server_name: None,
            node: machine.node().clone(),
            credentials: Credentials::TokenFile { ca: self.ca.clone(), token: token.clone() },
            interval: Some(SURVEY_INTERVAL),
            reconnect: Reconnect::default(),
        };
        let request = Tokens {
            client: self.client.clone(),
            account: self.account.clone(),
            audience: self.audience.clone(),
            node: machine.node().to_string(),
            path: token,
            _directory: Arc::clone(&self.tokens),
        };
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            request.renew().await;
            let mut ended = stopped.clone();
            tokio::select! {
                link = run_replicas(config, endpoint, machine, stopped) => if let Err(error) = link {
                    warn!(%error, "simulated agent");
                },
                () = request.keep_fresh() => {}
                _ = ended.wait_for(|stop| *stop) => {}
            }
            let _ = fs::remove_file(&request.path);
        });
        stop
    }
}

/// The token of one node.
struct Tokens {
    client: Client,
    account: ServiceAccount,
    audience: String,
    node: String,
    path: PathBuf,
    _directory: Arc<TempDir>,
}

impl Tokens {
    async fn keep_fresh(&self) {
        loop {
            sleep(RENEWED_AFTER).await;
            self.renew().await;
        }
    }

    async fn renew(&self) {
        loop {
            match self.request().await {
                Ok(token) => match write_private(&self.path, &token) {
                    Ok(()) => return,
                    Err(error) => warn!(node = self.node, %error, "token not kept"),
                },
                Err(error) => warn!(node = self.node, %error, "no token"),
            }
            sleep(RETRY).await;
        }
    }

    async fn request(&self) -> Result<String, kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get_metadata(&self.node).await?;
        let accounts: Api<ServiceAccountObject> =
            Api::namespaced(self.client.clone(), self.account.namespace());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![self.audience.clone()],
                expiration_seconds: Some(TOKEN_SECONDS),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Node".to_owned()),
                    name: Some(self.node.clone()),
                    uid: node.metadata.uid,
                }),
            },
            ..TokenRequest::default()
        };
        let made =
            accounts.create_token_request(self.account.name(), &PostParams::default(), &request).await?;
        Ok(made.status.map(|status| status.token).unwrap_or_default())
    }
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    fs::rename(fresh, path)
}
