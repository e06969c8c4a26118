//! A real Kubernetes control plane on loopback for tests: etcd, kube-apiserver and, where asked for,
//! kube-controller-manager and kube-scheduler, each a process of its own.
//!
//! The programs come from `KUBEBUILDER_ASSETS` or are built from `tests/control-plane` ([`binaries`]); certificates and keys
//! are made for each control plane ([`certificates`]); everything it writes lies in one temporary directory, which goes with
//! the process that started it, however that process ends ([`processes`]). Tests talk to it through [`clients`], and most share
//! one per test program ([`shared`]). See `docs/testing.md`.

pub mod audit;
pub mod binaries;
pub mod certificates;
pub mod clients;
mod components;
mod failure;
pub(crate) mod ports;
pub mod processes;
pub mod shared;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use kube::api::GetParams;
use kube::core::Request;
use serde_json::{Value, json};

use self::binaries::{Binaries, Component};
use self::certificates::Pki;
use self::clients::Identity;
use self::components::Settings;
use self::processes::{Janitor, Process};
pub use self::waiting::eventually;

/// How often to begin anew when another process took a port between choosing and using it.
const ATTEMPTS: usize = 5;

/// The audience of the tokens that agents show to the scheduler.
pub const FLEET_AUDIENCE: &str = "assay-scheduler";

/// What a control plane consists of.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Start kube-controller-manager.
    pub controller_manager: bool,
    /// Start kube-scheduler.
    pub scheduler: bool,
    /// Further flags of kube-apiserver; the last one of a name counts.
    pub apiserver_flags: Vec<String>,
    /// Further flags of kube-controller-manager.
    pub controller_manager_flags: Vec<String>,
}

impl Options {
    /// etcd and kube-apiserver only: nobody acts but the test.
    #[must_use]
    pub fn bare() -> Self {
        Self::default()
    }

    /// All four components.
    #[must_use]
    pub fn whole() -> Self {
        Self { controller_manager: true, scheduler: true, ..Self::default() }
    }

    fn components(&self) -> Vec<Component> {
        let mut components = vec![Component::Etcd, Component::Apiserver];
        components.extend(self.controller_manager.then_some(Component::ControllerManager));
        components.extend(self.scheduler.then_some(Component::Scheduler));
        components
    }
}

/// A running control plane. Dropping it stops its processes and removes its directory.
#[derive(Debug)]
pub struct ControlPlane {
    settings: Settings,
    pki: Pki,
    // In the order in which they are dropped: clients before servers.
    scheduler: Option<Process>,
    controller_manager: Option<Process>,
    apiserver: Mutex<Option<Process>>,
    etcd: Process,
    janitor: Janitor,
}

impl ControlPlane {
    /// Starts a control plane and waits until its API server is ready.
    ///
    /// # Errors
    /// There are no programs (see [`Binaries::find`]), or they do not start; the message names the log files.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let binaries = Binaries::find(&options.components())?;
        let mut attempt = 1;
        loop {
            match Self::try_start(&binaries, &options).await {
                Err(error) if attempt < ATTEMPTS && format!("{error:#}").contains(ports::TAKEN) => {
                    attempt += 1
                }
                result => return result,
            }
        }
    }

    async fn try_start(binaries: &Binaries, options: &Options) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("assay-control-plane-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        // From here on the janitor removes it: it outlives this process, a destructor may not run.
        let janitor = Janitor::start(directory.keep())?;
        let pki = Pki::create(janitor.directory())?;
        let settings = Settings::new(binaries.clone(), janitor.directory().to_owned(), options.clone())?;
        settings.write_files()?;

        let etcd = janitor.spawn(settings.etcd())?;
        let apiserver = janitor.spawn(settings.apiserver(&pki))?;
        let mut plane = Self {
            settings,
            pki,
            scheduler: None,
            controller_manager: None,
            apiserver: Mutex::new(Some(apiserver)),
            etcd,
            janitor,
        };
        plane.finish_start(options).await.inspect_err(|_| plane.janitor.keep_logs())?;
        Ok(plane)
    }

    async fn finish_start(&mut self, options: &Options) -> anyhow::Result<()> {
        self.kubeconfig_file("admin", &Identity::Admin)?;
        // The controllers give up when there is no API server within ten seconds, so they come after it.
        self.wait_until_ready().await?;
        if options.controller_manager {
            let identity =
                Identity::Certificate { user: "system:kube-controller-manager".into(), group: None };
            let kubeconfig = self.kubeconfig_file("controller-manager", &identity)?;
            self.controller_manager =
                Some(self.janitor.spawn(self.settings.controller_manager(&self.pki, &kubeconfig))?);
        }
        if options.scheduler {
            let identity = Identity::Certificate { user: "system:kube-scheduler".into(), group: None };
            let kubeconfig = self.kubeconfig_file("scheduler", &identity)?;
            self.scheduler = Some(self.janitor.spawn(self.settings.scheduler(&kubeconfig)?)?);
        }
        let line = serde_json::to_string(&self.ready()).context("cannot write the ready line")?;
        std::fs::write(self.directory().join("ready.json"), line + "\n").context("cannot write ready.json")
    }

    /// Waits until `/readyz` says so.
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let client = self.client().await?;
        let ready = eventually("kube-apiserver to be ready", async || {
            self.check_processes()?;
            let request = Request::new("").get("readyz", &GetParams::default())?;
            let answer = client.request_text(request).await;
            Ok(answer.inspect_err(|error| tracing::debug!(%error, "not ready")).ok())
        });
        ready.await.map(drop).with_context(|| self.trouble())
    }

    /// An error when a component ended by itself.
    fn check_processes(&self) -> anyhow::Result<()> {
        let apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner);
        let running =
            [Some(&self.etcd), apiserver.as_ref(), self.controller_manager.as_ref(), self.scheduler.as_ref()];
        for process in running.into_iter().flatten() {
            if let Some(status) = process.ended()? {
                bail!(
                    "{} ended by itself with {status}: {}; log: {}",
                    process.component(),
                    process.last_words(),
                    process.log().display()
                );
            }
        }
        Ok(())
    }

    /// Stops kube-apiserver as a crash would: at once, without a word to its clients. Its data stays in etcd.
    ///
    /// # Errors
    /// It cannot be stopped.
    pub fn stop_apiserver(&self) -> anyhow::Result<()> {
        match self.apiserver.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts kube-apiserver again, on the same port and data, and waits until it is ready.
    ///
    /// # Errors
    /// It runs, or it does not become ready.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        {
            let mut apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner);
            if apiserver.is_some() {
                bail!("kube-apiserver runs already");
            }
            *apiserver = Some(self.janitor.spawn(self.settings.apiserver(&self.pki))?);
        }
        self.wait_until_ready().await
    }

    /// What a program needs to know to use this control plane, and whom to blame: one line of JSON when written down, which
    /// `ready.json` in its directory is.
    #[must_use]
    pub fn ready(&self) -> Value {
        let apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner);
        let running =
            [Some(&self.etcd), apiserver.as_ref(), self.controller_manager.as_ref(), self.scheduler.as_ref()];
        let processes: serde_json::Map<_, _> = running
            .into_iter()
            .flatten()
            .map(|process| (process.component().to_string(), json!(process.id())))
            .collect();
        json!({
            "server": self.server(),
            "kubeconfig": self.directory().join("admin.kubeconfig"),
            "ca": self.pki.ca_file(),
            "logs": self.logs(),
            "pid": processes,
        })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn server(&self) -> String {
        self.settings.server()
    }

    /// The certificate authority of server and clients.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Where everything of this control plane lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.janitor.directory()
    }

    /// One log file per component, and `audit.log`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.janitor.logs()
    }

    /// Keeps the log files when the control plane goes: something failed.
    pub fn keep_logs(&self) {
        self.janitor.keep_logs();
    }

    /// Whether controllers act, so that a namespace gets its service account by itself.
    fn has_controllers(&self) -> bool {
        self.controller_manager.is_some()
    }
}
