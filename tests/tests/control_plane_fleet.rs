//! Who an agent is, by the word of a real API server: tokens of real pods, accounts with no more rights than they need, and what
//! becomes of it all while the API server is away.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use assay_agent::link::{Credentials, LinkConfig, LinkEndpoint, Reconnect, report_once, run_link};
use assay_scheduler::fleet::ca::{DevCa, SERVER_VALIDITY};
use assay_scheduler::fleet::{Audit, FleetEvent, Proof};
use assay_scheduler::kube::fleet::{AgentAuth, ClusterFleet, FleetArgs};
use assay_scheduler::kube::token_review::{TokenAuthenticator, TokenReviewConfig};
use assay_scheduler::web::{Health, Metrics, TextFormat};
use assay_shared::protocol::RefusalReason;
use assay_tests::control_plane::clients::TokenFor;
use assay_tests::control_plane::shared::{on_own, on_shared};
use assay_tests::control_plane::{ControlPlane, FLEET_AUDIENCE, Options};
use assay_tests::fleet::{Fleet, config, eventually, report, within};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// A namespace with the accounts of scheduler and agents, and two nodes whose names are its own.
struct Cluster<'plane> {
    plane: &'plane ControlPlane,
    admin: Client,
    namespace: String,
    nodes: [Node; 2],
    /// Files of this test.
    directory: tempfile::TempDir,
}

async fn create<K>(api: Api<K>, object: Value) -> anyhow::Result<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let object = serde_json::from_value(object).context("an object of this kind")?;
    Ok(api.create(&PostParams::default(), &object).await?)
}

impl<'plane> Cluster<'plane> {
    async fn new(plane: &'plane ControlPlane) -> anyhow::Result<Self> {
        let admin = plane.client().await?;
        let namespace = plane.namespace("fleet").await?;
        let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), &namespace);
        for name in ["assay-scheduler", "assay-agent", "other", "powerless"] {
            create(accounts.clone(), json!({"metadata": {"name": name}})).await?;
        }
        // What the chart grants for tokens, and nothing else.
        create(
            Api::<ClusterRoleBinding>::all(admin.clone()),
            json!({
                "metadata": {"name": format!("{namespace}-token-reviews")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
                "subjects": [{"kind": "ServiceAccount", "name": "assay-scheduler", "namespace": namespace}],
            }),
        )
        .await?;
        let node = async |letter: &str| {
            let name = format!("{namespace}-node-{letter}");
            create(Api::<Node>::all(admin.clone()), json!({"metadata": {"name": name}})).await
        };
        let nodes = [node("a").await?, node("b").await?];
        Ok(Self { plane, admin, namespace, nodes, directory: tempfile::tempdir()? })
    }

    fn node_name(&self, which: usize) -> &str {
        self.nodes[which].metadata.name.as_deref().unwrap()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// A pod of this account on a node.
    async fn pod(&self, name: &str, account: &str, which: usize) -> anyhow::Result<Pod> {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": self.node_name(which),
                "serviceAccountName": account,
                "containers": [{"name": "agent", "image": "assay-agent"}],
            },
        });
        create(self.pods(), pod).await
    }

    /// The token that a kubelet would project into this pod.
    async fn token(&self, pod: &Pod, audience: &str) -> anyhow::Result<String> {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap();
        self.plane.token(&TokenFor::account(&self.namespace, account).audience(audience).bound_to(pod)).await
    }

    fn reviews(&self) -> TokenReviewConfig {
        let account = format!("{}/assay-agent", self.namespace).parse().unwrap();
        TokenReviewConfig {
            deadline: Duration::from_secs(3),
            ..TokenReviewConfig::new(FLEET_AUDIENCE, account)
        }
    }

    /// Decides with the rights of an account.
    async fn authenticator(&self, account: &str) -> anyhow::Result<Arc<TokenAuthenticator>> {
        let client = self.plane.client_of_account(&self.namespace, account).await?;
        Ok(Arc::new(TokenAuthenticator::new(client, self.reviews())))
    }

    /// A token in a file, as an agent finds it.
    fn file(&self, token: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.path().join("token");
        std::fs::write(&path, token)?;
        Ok(path)
    }
}

/// What an agent says after one report; empty where that got through.
async fn once(link: LinkConfig) -> anyhow::Result<String> {
    let name = link.node.as_str().to_owned();
    let ended = within("an answer", report_once(link, LinkEndpoint::bind()?, move || report(&name))).await?;
    Ok(ended.err().map(|error| error.to_string()).unwrap_or_default())
}

#[test]
fn the_token_of_the_agents_pod_on_that_node_is_taken_and_no_other() {
    on_shared(async |plane| {
        let cluster = Cluster::new(plane).await?;
        let mut fleet =
            Fleet::start_with(config(), DevCa::create()?, cluster.authenticator("assay-scheduler").await?)?;
        fleet.ignore_events();
        let here = cluster.pod("agent-a", "assay-agent", 0).await?;
        let there = cluster.pod("agent-b", "assay-agent", 1).await?;
        let somebody = cluster.pod("other-a", "other", 0).await?;
        let name = cluster.node_name(0);

        let good = cluster.token(&here, FLEET_AUDIENCE).await?;
        assert_eq!(once(fleet.agent_with_token(name, &cluster.file(&good)?)?).await?, "");

        let of_account = |account: &str| TokenFor::account(&cluster.namespace, account);
        let (body, signature) = good.rsplit_once('.').context("a token has three parts")?;
        let forged = format!("{body}.{}", signature.chars().rev().collect::<String>());
        let cases = [
            (cluster.token(&there, FLEET_AUDIENCE).await?, RefusalReason::NodeClaimMismatch),
            (cluster.token(&here, "vault").await?, RefusalReason::WrongAudience),
            (cluster.token(&here, "https://kubernetes.default.svc").await?, RefusalReason::WrongAudience),
            (cluster.token(&somebody, FLEET_AUDIENCE).await?, RefusalReason::WrongServiceAccount),
            (
                plane.token(&of_account("assay-agent").audience(FLEET_AUDIENCE)).await?,
                RefusalReason::NodeClaimAbsent,
            ),
            (forged, RefusalReason::TokenInvalid),
        ];
        for (token, expected) in cases {
            let before = fleet.server.counters().refused(expected);
            let said = once(fleet.agent_with_token(name, &cluster.file(&token)?)?).await?;
            assert!(said.starts_with(&format!("refused by the scheduler: {expected}: ")), "{said}");
            assert_eq!(fleet.server.counters().refused(expected), before + 1);
        }

        // What is refused without asking would be refused by the API server as well.
        let elsewhere = cluster.token(&here, "vault").await?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![FLEET_AUDIENCE.to_owned()]),
                token: Some(elsewhere),
            },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(cluster.admin.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.context("a status")?;
        assert_ne!(status.authenticated, Some(true), "{status:?}");
        Ok(())
    });
}

#[test]
fn a_connection_knows_its_pod_and_a_pod_that_is_gone_proves_nothing() {
    on_shared(async |plane| {
        let cluster = Cluster::new(plane).await?;
        let mut fleet =
            Fleet::start_with(config(), DevCa::create()?, cluster.authenticator("assay-scheduler").await?)?;
        fleet.ignore_events();
        let pod = cluster.pod("agent-a", "assay-agent", 0).await?;
        let path = cluster.file(&cluster.token(&pod, FLEET_AUDIENCE).await?)?;
        let name = cluster.node_name(0).to_owned();
        let (stop, stopped) = watch::channel(false);
        let link = fleet.agent_with_token(&name, &path)?;
        let link = tokio::spawn(run_link(link, LinkEndpoint::bind()?, move || report(&name), stopped));
        eventually("the agent", || fleet.server.counters().reports() > 0).await?;
        let agents = fleet.server.connected();
        let Proof::Token(bound) = &*agents[0].proof else { panic!("{:?}", agents[0].proof) };
        assert_eq!(bound.pod, "agent-a");
        assert_eq!(Some(&bound.pod_uid), pod.metadata.uid.as_ref());
        assert_eq!(Some(&bound.node_uid), cluster.nodes[0].metadata.uid.as_ref());
        assert!(!bound.credential_id.is_empty(), "as in the audit log");
        stop.send_replace(true);
        link.await??;

        // Another of the same pod, which nobody has asked about: the API server itself remembers for ten seconds.
        let unknown = cluster.token(&pod, FLEET_AUDIENCE).await?;
        let path = cluster.file(&unknown)?;
        cluster.pods().delete("agent-a", &DeleteParams::default().grace_period(0)).await?;
        let refused = async {
            loop {
                // With nothing kept of the time in which it was still there.
                let fresh = cluster.authenticator("assay-scheduler").await?;
                let mut fleet = Fleet::start_with(config(), DevCa::create()?, fresh)?;
                fleet.ignore_events();
                let said = once(fleet.agent_with_token(cluster.node_name(0), &path)?).await?;
                if !said.is_empty() {
                    return anyhow::Ok(said);
                }
            }
        };
        let said = within("its end to be known", refused).await??;
        assert!(said.starts_with("refused by the scheduler: token_invalid: "), "{said}");
        Ok(())
    });
}

#[test]
fn agents_may_do_nothing_and_the_scheduler_needs_leave_to_ask() {
    on_shared(async |plane| {
        let cluster = Cluster::new(plane).await?;
        let pod = cluster.pod("agent-a", "assay-agent", 0).await?;
        let path = cluster.file(&cluster.token(&pod, FLEET_AUDIENCE).await?)?;
        let agent = plane.client_of_account(&cluster.namespace, "assay-agent").await?;
        let nodes = Api::<Node>::all(agent.clone()).list(&ListParams::default()).await;
        let pods = Api::<Pod>::namespaced(agent, &cluster.namespace).list(&ListParams::default()).await;
        for error in [nodes.map(drop).unwrap_err(), pods.map(drop).unwrap_err()] {
            assert!(matches!(&error, kube::Error::Api(status) if status.code == 403), "{error}");
        }

        let powerless = cluster.authenticator("powerless").await?;
        let strict = Fleet::start_with(config(), DevCa::create()?, Arc::clone(&powerless) as _)?;
        let said = once(strict.agent_with_token(cluster.node_name(0), &path)?).await?;
        let expected = "refused by the scheduler: validator_unavailable: \
                        the API server could not be asked about the token: it answered 403 Forbidden";
        assert_eq!(said, expected);
        let mut audit = Fleet::start_with(config(), DevCa::create()?, Arc::new(Audit::new(powerless)))?;
        audit.ignore_events();
        assert_eq!(once(audit.agent_with_token(cluster.node_name(0), &path)?).await?, "");
        assert_eq!(audit.server.counters().tolerated(RefusalReason::ValidatorUnavailable), 1);
        Ok(())
    });
}

/// A fleet server as `assay serve` starts it, and what agents need to reach it.
struct Served {
    fleet: ClusterFleet,
    metrics: Metrics,
    ca: PathBuf,
}

impl Served {
    async fn start(cluster: &Cluster<'_>, events: mpsc::Sender<FleetEvent>) -> anyhow::Result<Self> {
        let directory = cluster.directory.path();
        let authority = DevCa::create()?;
        let ca = directory.join("fleet-ca.crt");
        std::fs::write(&ca, authority.certificate_pem())?;
        let (cert, key) =
            authority.issue_server(&["127.0.0.1"], SERVER_VALIDITY)?.write(directory, "fleet")?;
        let args = FleetArgs {
            fleet_listen: (Ipv4Addr::LOCALHOST, 0).into(),
            fleet_cert: cert,
            fleet_key: key,
            agent_auth: AgentAuth::Enforce,
            agent_audience: FLEET_AUDIENCE.to_owned(),
            agent_service_account: format!("{}/assay-agent", cluster.namespace).parse()?,
            client_ca: Some(cluster.plane.pki().ca_file()),
        };
        let client = cluster.plane.client_of_account(&cluster.namespace, "assay-scheduler").await?;
        let metrics = Metrics::new();
        let fleet = args.start(client, &metrics, &Health::default(), events)?;
        Ok(Self { fleet, metrics, ca })
    }

    fn agent(&self, node: &str, credentials: Credentials) -> anyhow::Result<LinkConfig> {
        Ok(LinkConfig {
            scheduler: self.fleet.server().local_addr().to_string().parse()?,
            server_name: None,
            node: node.parse()?,
            credentials,
            interval: Some(Duration::from_secs(1)),
            reconnect: Reconnect { first: Duration::from_millis(20), longest: Duration::from_millis(200) },
        })
    }

    fn with_token(&self, node: &str, token: &Path) -> anyhow::Result<LinkConfig> {
        self.agent(node, Credentials::TokenFile { ca: self.ca.clone(), token: token.to_owned() })
    }

    fn shows(&self, line: &str) -> anyhow::Result<()> {
        let page = self.metrics.encode(TextFormat::OpenMetrics)?;
        anyhow::ensure!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        Ok(())
    }
}

#[test]
fn kubelets_of_the_cluster_are_taken_by_their_certificates() {
    on_shared(async |plane| {
        let cluster = Cluster::new(plane).await?;
        let (events, mut receiver) = mpsc::channel(1024);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        let served = Served::start(&cluster, events).await?;
        let kubelet = |user: &str, group: &str| {
            let issued = plane.pki().client(user, Some(group))?;
            // One file, as the kubelet keeps it.
            let path = cluster.directory.path().join("kubelet-client-current.pem");
            std::fs::write(
                &path,
                [std::fs::read(&issued.certificate)?, std::fs::read(&issued.key)?].concat(),
            )?;
            anyhow::Ok(Credentials::Files { ca: served.ca.clone(), certificate: path.clone(), key: path })
        };
        let name = cluster.node_name(0);
        let user = format!("system:node:{name}");
        assert_eq!(once(served.agent(name, kubelet(&user, "system:nodes")?)?).await?, "");
        let said = once(served.agent(cluster.node_name(1), kubelet(&user, "system:nodes")?)?).await?;
        assert!(said.starts_with("refused by the scheduler: node_mismatch: "), "{said}");
        let said = once(served.agent(name, kubelet("assay-test-admin", "system:masters")?)?).await?;
        assert!(said.starts_with("refused by the scheduler: invalid_credential: "), "{said}");
        served.shows(r#"assay_fleet_refusals_total{reason="node_mismatch"} 1"#)?;
        served.shows("assay_fleet_connections_total 1")?;
        served.fleet.stop().await;
        Ok(())
    });
}

#[test]
fn an_api_server_that_is_away_keeps_new_agents_out_and_those_that_are_in_in() {
    on_own(Options::bare(), async |plane| {
        let cluster = Cluster::new(plane).await?;
        let (events, mut receiver) = mpsc::channel(1024);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        let served = Served::start(&cluster, events).await?;
        let first = cluster.pod("agent-a", "assay-agent", 0).await?;
        let second = cluster.pod("agent-b", "assay-agent", 1).await?;
        let token = cluster.token(&first, FLEET_AUDIENCE).await?;
        let name = cluster.node_name(0).to_owned();
        let link = served.with_token(&name, &cluster.file(&token)?)?;
        let (stop, stopped) = watch::channel(false);
        let inside = tokio::spawn(run_link(link, LinkEndpoint::bind()?, move || report(&name), stopped));
        let counters = || served.fleet.server().counters();
        eventually("the first agent", || counters().reports() > 0).await?;

        let token = cluster.token(&second, FLEET_AUDIENCE).await?;
        let other = cluster.directory.path().join("other-token");
        std::fs::write(&other, token)?;
        plane.stop_apiserver()?;
        let said = once(served.with_token(cluster.node_name(1), &other)?).await?;
        assert!(said.starts_with("refused by the scheduler: validator_unavailable: "), "{said}");
        assert_eq!(counters().refused(RefusalReason::ValidatorUnavailable), 1);
        served.shows(r#"assay_fleet_refusals_total{reason="validator_unavailable"} 1"#)?;
        served.shows(r#"assay_fleet_token_reviews_total{outcome="failed"} 1"#)?;
        assert_eq!(counters().connected, 1, "the first is still there");

        plane.start_apiserver().await?;
        assert_eq!(once(served.with_token(cluster.node_name(1), &other)?).await?, "");
        assert!(!inside.is_finished());
        stop.send_replace(true);
        inside.await??;
        served.fleet.stop().await;
        Ok(())
    });
}
