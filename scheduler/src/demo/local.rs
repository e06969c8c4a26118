//! This machine: a real `assay-agent run`, in a process of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::Context;
use assay_core::model::{Labels, Node, ResourceList, Timestamp};
use assay_shared::NodeName;

use super::fleet::DemoFleet;

/// Name of this machine's node in the demo.
pub(super) const NODE: &str = "this-machine";

/// The agent of this machine. Dropped, it ends.
#[derive(Debug)]
pub(super) struct LocalAgent {
    process: Child,
}

impl LocalAgent {
    /// Starts the agent, with a certificate of the demo's authority.
    pub(super) fn start(program: &Path, fleet: &DemoFleet) -> anyhow::Result<Self> {
        let node: NodeName = NODE.parse()?;
        let [ca, certificate, key] = fleet.issue_files(&node)?;
        let process = Command::new(program)
            .args(["run", "--node-name", NODE, "--scheduler", &fleet.address().to_string()])
            .arg("--ca")
            .arg(ca)
            .arg("--cert")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Self { process })
    }
}

/// This machine's node as it joins: closed to pods, for nothing of the demo's runs here.
pub(super) fn node(now: Timestamp) -> Node {
    Node {
        name: Arc::from(NODE),
        labels: Labels::new(),
        annotations: Labels::new(),
        taints: Vec::new(),
        allocatable: ResourceList::default(),
        capacity: ResourceList::default(),
        provider_id: String::new(),
        ready: true,
        unschedulable: true,
        deleting: false,
        created: now,
    }
}

impl Drop for LocalAgent {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
