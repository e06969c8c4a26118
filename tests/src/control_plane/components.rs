//! The flags and configuration files of each component.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::binaries::{Binaries, Component};
use super::certificates::{Pki, write};
use super::processes::Program;
use super::{FLEET_AUDIENCE, Options, ports};

/// The first address of [`SERVICE_RANGE`], which the API server gives itself.
pub(super) const SERVICE_ADDRESS: &str = "10.0.0.1";
const SERVICE_RANGE: &str = "10.0.0.0/16";

/// Who issues service-account tokens, and their audience where nothing else is asked for.
const ISSUER: &str = "https://kubernetes.default.svc";

/// Controllers that do nothing without a cloud or a network of pods.
const CONTROLLERS: &str = "*,-cloud-node-lifecycle-controller,-node-ipam-controller,-node-route-controller,\
    -service-lb-controller";

/// Requests per second of the controllers and of the scheduler. Their defaults (20 and 50) would be what a test with thousands
/// of pods measures.
const CLIENT_QPS: u32 = 1_000;

/// What stays the same when a component is started again.
#[derive(Debug)]
pub(super) struct Settings {
    binaries: Binaries,
    directory: PathBuf,
    options: Options,
    etcd_port: u16,
    etcd_peer_port: u16,
    apiserver_port: u16,
}

impl Settings {
    /// Chooses ports.
    pub(super) fn new(binaries: Binaries, directory: PathBuf, options: Options) -> anyhow::Result<Self> {
        let (etcd_port, etcd_peer_port, apiserver_port) = (ports::free()?, ports::free()?, ports::free()?);
        Ok(Self { binaries, directory, options, etcd_port, etcd_peer_port, apiserver_port })
    }

    /// Writes what components read from files.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        // Requests of the components themselves would hide those of the program under test.
        let quiet = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"];
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "omitManagedFields": true,
            "rules": [
                {"level": "None", "users": quiet},
                {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
                {"level": "Metadata"},
            ],
        });
        write(&self.audit_policy(), &policy.to_string())
    }

    fn audit_policy(&self) -> PathBuf {
        self.directory.join("audit-policy.json")
    }

    /// Where clients find the API server.
    pub(super) fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.apiserver_port)
    }

    fn program(&self, component: Component, flags: Vec<String>) -> Program {
        let mut command = self.binaries.command(component);
        command.args(flags);
        Program { component, command }
    }

    pub(super) fn etcd(&self) -> Program {
        let clients = format!("http://127.0.0.1:{}", self.etcd_port);
        let peers = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        let flags = vec![
            format!("--data-dir={}", self.directory.join("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            // The data need not survive a power cut: it lives as long as the test.
            "--unsafe-no-fsync".to_owned(),
            "--quota-backend-bytes=8589934592".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.program(Component::Etcd, flags)
    }

    pub(super) fn apiserver(&self, pki: &Pki) -> Program {
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.apiserver_port),
            format!("--tls-cert-file={}", pki.server_certificate().display()),
            format!("--tls-private-key-file={}", pki.server_key().display()),
            format!("--client-ca-file={}", pki.ca_file().display()),
            "--anonymous-auth=false".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", pki.service_account_public_key().display()),
            format!("--service-account-signing-key-file={}", pki.service_account_key().display()),
            format!("--api-audiences={ISSUER},{FLEET_AUDIENCE}"),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--profiling=false".to_owned(),
            format!("--audit-policy-file={}", self.audit_policy().display()),
            format!("--audit-log-path={}", self.directory.join("logs/audit.log").display()),
        ];
        flags.extend(self.options.apiserver_flags.iter().cloned());
        self.program(Component::Apiserver, flags)
    }

    pub(super) fn controller_manager(&self, pki: &Pki, kubeconfig: &Path) -> Program {
        let mut flags = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--controllers={CONTROLLERS}"),
            // Each controller as its own service account, with the rights that Kubernetes gives it and no more.
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", pki.service_account_key().display()),
            format!("--root-ca-file={}", pki.ca_file().display()),
            format!("--kube-api-qps={CLIENT_QPS}"),
            format!("--kube-api-burst={CLIENT_QPS}"),
            "--leader-elect=false".to_owned(),
            // Nobody asks it anything: no port.
            "--secure-port=0".to_owned(),
            "--profiling=false".to_owned(),
        ];
        flags.extend(self.options.controller_manager_flags.iter().cloned());
        self.program(Component::ControllerManager, flags)
    }

    pub(super) fn scheduler(&self, kubeconfig: &Path) -> anyhow::Result<Program> {
        let configuration = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig, "qps": CLIENT_QPS, "burst": CLIENT_QPS},
            "leaderElection": {"leaderElect": false},
            "enableProfiling": false,
        });
        let path = self.directory.join("scheduler.json");
        write(&path, &configuration.to_string()).context("configuration of kube-scheduler")?;
        let flags = vec![format!("--config={}", path.display()), "--secure-port=0".to_owned()];
        Ok(self.program(Component::Scheduler, flags))
    }
}
