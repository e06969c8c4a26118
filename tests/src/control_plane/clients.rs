//! Who talks to the API server: the administrator, a holder of a certificate, a service account with a real token, or
//! somebody the administrator pretends to be. Each as a client for this process or as a kubeconfig file for another program.
//!
//! A client belongs to the tokio runtime that made it, and each test has its own: make one per test.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};

use super::certificates::write;
use super::{ControlPlane, eventually};

/// Members of it may do everything.
pub const ADMINISTRATORS: &str = "system:masters";

/// Members of it are kubelets: the Node authorizer and NodeRestriction apply.
pub const NODES: &str = "system:nodes";

/// How somebody proves who they are.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The administrator, by certificate.
    Admin,
    /// Anybody, by a certificate made for it.
    Certificate {
        /// The user's name.
        user: String,
        /// Its group.
        group: Option<String>,
    },
    /// Whoever a token is for.
    Token(String),
    /// Anybody; the administrator says so.
    Impersonated {
        /// The user's name.
        user: String,
        /// Its groups.
        groups: Vec<String>,
    },
}

impl Identity {
    /// The kubelet of a node.
    #[must_use]
    pub fn kubelet(node: &str) -> Self {
        Self::Certificate { user: format!("system:node:{node}"), group: Some(NODES.to_owned()) }
    }
}

/// A token to ask for.
#[derive(Debug, Clone)]
pub struct TokenFor {
    namespace: String,
    account: String,
    spec: TokenRequestSpec,
}

impl TokenFor {
    /// A token of a service account for the API server, for an hour.
    #[must_use]
    pub fn account(namespace: &str, account: &str) -> Self {
        let spec = TokenRequestSpec { expiration_seconds: Some(3_600), ..TokenRequestSpec::default() };
        Self { namespace: namespace.to_owned(), account: account.to_owned(), spec }
    }

    /// For this audience instead of the API server.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.spec.audiences.push(audience.to_owned());
        self
    }

    /// Valid only as long as this pod or node is there.
    #[must_use]
    pub fn bound_to<K: Resource<DynamicType = ()>>(mut self, object: &K) -> Self {
        self.spec.bound_object_ref = Some(BoundObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: object.meta().name.clone(),
            uid: object.meta().uid.clone(),
        });
        self
    }
}

impl ControlPlane {
    /// A client of the administrator.
    ///
    /// # Errors
    /// See [`ControlPlane::client_of`].
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_of(&Identity::Admin).await
    }

    /// A client of somebody.
    ///
    /// # Errors
    /// No certificate can be made for such a name.
    pub async fn client_of(&self, identity: &Identity) -> anyhow::Result<Client> {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.kubeconfig(identity)?).context("the kubeconfig is one")?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("the kubeconfig is complete")?;
        // A server that was killed in the middle of an answer is a failure, not a hang.
        config.connect_timeout = Some(Duration::from_secs(10));
        Client::try_from(config).context("cannot make a client")
    }

    /// A client of a service account, with a real token of it.
    ///
    /// # Errors
    /// The account is not there.
    pub async fn client_of_account(&self, namespace: &str, account: &str) -> anyhow::Result<Client> {
        let token = self.token(&TokenFor::account(namespace, account)).await?;
        self.client_of(&Identity::Token(token)).await
    }

    /// The administrator's kubeconfig file.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig_path("admin")
    }

    fn kubeconfig_path(&self, name: &str) -> PathBuf {
        self.directory().join(format!("{name}.kubeconfig"))
    }

    /// Writes `NAME.kubeconfig` in the directory of the control plane, for a program that acts as `identity`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn kubeconfig_file(&self, name: &str, identity: &Identity) -> anyhow::Result<PathBuf> {
        let path = self.kubeconfig_path(name);
        // JSON is YAML.
        write(&path, &format!("{:#}\n", self.kubeconfig(identity)?))?;
        Ok(path)
    }

    fn kubeconfig(&self, identity: &Identity) -> anyhow::Result<Value> {
        let user = match identity {
            Identity::Admin => self.certificate("assay-test-admin", Some(ADMINISTRATORS))?,
            Identity::Certificate { user, group } => self.certificate(user, group.as_deref())?,
            Identity::Token(token) => json!({"token": token}),
            Identity::Impersonated { user, groups } => {
                let mut admin = self.certificate("assay-test-admin", Some(ADMINISTRATORS))?;
                admin["as"] = json!(user);
                admin["as-groups"] = json!(groups);
                admin
            }
        };
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "test",
                "cluster": {"server": self.server(), "certificate-authority": self.pki().ca_file()},
            }],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }))
    }

    fn certificate(&self, user: &str, group: Option<&str>) -> anyhow::Result<Value> {
        let issued = self.pki().client(user, group)?;
        Ok(json!({"client-certificate": issued.certificate, "client-key": issued.key}))
    }

    /// A token from the TokenRequest API.
    ///
    /// # Errors
    /// The account, or what the token is bound to, is not there.
    pub async fn token(&self, request: &TokenFor) -> anyhow::Result<String> {
        let TokenFor { namespace, account, spec } = request;
        let api = Api::<ServiceAccount>::namespaced(self.client().await?, namespace);
        let request = TokenRequest { spec: spec.clone(), ..TokenRequest::default() };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("cannot get a token of service account {namespace}/{account}"))?;
        Ok(answer.status.context("a token request is answered with a token")?.token)
    }

    /// Makes a namespace of its own for a test, with a default service account, so that pods are admitted. Its name begins with
    /// `prefix`.
    ///
    /// # Errors
    /// It cannot be made, or no controller makes the account.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        let client = self.client().await?;
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"generateName": format!("{prefix}-")}}))?;
        let namespace = Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let name = namespace.name_any();
        let accounts = Api::<ServiceAccount>::namespaced(client, &name);
        if self.has_controllers() {
            eventually(&format!("the service account of namespace {name}"), async || {
                Ok(accounts.get_opt("default").await?)
            })
            .await?;
        } else {
            let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
            accounts.create(&PostParams::default(), &account).await?;
        }
        Ok(name)
    }
}
