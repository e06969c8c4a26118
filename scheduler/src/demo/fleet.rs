//! The demo's fleet: a server on loopback, and one real link per simulated machine.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use assay_agent::link::{Credentials, LinkConfig, LinkEndpoint, Reconnect, run_link};
use assay_agent::tree::Machine;
use assay_core::engine::Event;
use assay_shared::{HardwareReport, NodeName};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::fleet::ca::{AGENT_VALIDITY, DevCa, Issued, SERVER_VALIDITY};
use crate::fleet::{
    CertificateAuthenticator, FleetConfig, FleetCounters, FleetEvent, FleetHandle, FleetServer, NameIn, Rate,
};
use crate::sim::Agents;

/// How often a simulated machine is surveyed, on the wall clock.
const SURVEY_INTERVAL: Duration = Duration::from_secs(1);

/// Server, authority and agents.
#[derive(Debug)]
pub(super) struct DemoFleet {
    ca: DevCa,
    server: FleetHandle,
    endpoint: LinkEndpoint,
    agents: BTreeMap<Arc<str>, SimulatedAgent>,
    /// Where certificates of processes outside are written; nobody else can look into it, and it goes with the demo.
    directory: TempDir,
}

/// The agent of a simulated machine.
#[derive(Debug)]
struct SimulatedAgent {
    machine: Arc<Mutex<Machine>>,
    /// Dropped or set, it ends the agent.
    stop: watch::Sender<bool>,
}

impl DemoFleet {
    /// Starts the server; what agents report arrives at `events`.
    pub(super) fn start(events: mpsc::Sender<FleetEvent>) -> anyhow::Result<Self> {
        let ca = DevCa::create()?;
        let identity = ca.issue_server(&["127.0.0.1"], SERVER_VALIDITY)?.server_identity()?;
        let authenticator =
            CertificateAuthenticator::new([(vec![ca.certificate().clone()], NameIn::SubjectAltName)])?;
        // All agents of the demo come from one address at once.
        let plenty = Rate { per_second: 10_000, burst: 10_000 };
        let config = FleetConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            report_interval: SURVEY_INTERVAL,
            unproved_handshakes: plenty,
            handshakes_per_address: plenty,
            ..FleetConfig::default()
        };
        let server = FleetServer::start(config, identity, Arc::new(authenticator), events)?;
        let endpoint = LinkEndpoint::bind().context("open a UDP socket")?;
        let directory =
            tempfile::Builder::new().prefix("assay-demo-").tempdir().context("temporary directory")?;
        Ok(Self { ca, server, endpoint, agents: BTreeMap::new(), directory })
    }

    /// Where the server listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// How many agents are connected.
    pub(super) fn connected(&self) -> u64 {
        self.server.counters().connected
    }

    /// A certificate for the agent of `node`, in files: authority, certificate, key.
    pub(super) fn issue_files(&self, node: &NodeName) -> anyhow::Result<[PathBuf; 3]> {
        let issued = self.ca.issue_agent(node, AGENT_VALIDITY)?;
        let (certificate, key) = issued.write(self.directory.path(), node.as_str())?;
        let ca = self.directory.path().join(crate::fleet::ca::CERTIFICATE_FILE);
        std::fs::write(&ca, self.ca.certificate_pem()).with_context(|| ca.display().to_string())?;
        Ok([ca, certificate, key])
    }

    /// Ends all agents and the server; what it counted.
    pub(super) async fn stop(mut self) -> FleetCounters {
        self.agents.clear();
        let counters = self.server.counters();
        self.endpoint.wait_idle().await;
        self.server.stop().await;
        counters
    }

    fn link(&self, node: &NodeName, issued: Issued) -> anyhow::Result<LinkConfig> {
        Ok(LinkConfig {
            scheduler: self.address().to_string().parse()?,
            server_name: None,
            node: node.clone(),
            credentials: Credentials::Pem {
                ca: self.ca.certificate_pem().to_owned(),
                certificate: issued.certificate_pem,
                key: issued.key_pem,
            },
            interval: None,
            reconnect: Reconnect::default(),
        })
    }

    fn connect(&mut self, name: &Arc<str>, machine: &Machine) -> anyhow::Result<()> {
        let node: NodeName = name.parse()?;
        let issued = self.ca.issue_agent(&node, AGENT_VALIDITY)?;
        let config = self.link(&node, issued)?;
        let machine = Arc::new(Mutex::new(machine.clone()));
        let (stop, stopped) = watch::channel(false);
        let surveyed = Arc::clone(&machine);
        let survey = move || -> HardwareReport {
            surveyed.lock().unwrap_or_else(PoisonError::into_inner).report(Some(node.as_str()))
        };
        tokio::spawn(run_link(config, self.endpoint.clone(), survey, stopped));
        self.agents.insert(Arc::clone(name), SimulatedAgent { machine, stop });
        Ok(())
    }
}

impl Agents for DemoFleet {
    fn start(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event> {
        if let Err(error) = self.connect(node, machine) {
            warn!(%node, "no agent: {error:#}");
        }
        Vec::new()
    }

    fn changed(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event> {
        if let Some(agent) = self.agents.get(node) {
            *agent.machine.lock().unwrap_or_else(PoisonError::into_inner) = machine.clone();
        }
        Vec::new()
    }

    fn reconnect(&mut self, _: &Arc<str>, _: &Machine) -> Vec<Event> {
        // The server they are connected to goes on; they report within a second.
        Vec::new()
    }

    fn stop(&mut self, node: &Arc<str>) -> Vec<Event> {
        if let Some(agent) = self.agents.remove(node) {
            agent.stop.send_replace(true);
        }
        Vec::new()
    }
}
