//! Tells people what happens: a line per event, on a terminal a status line below, at the end the sums.

use std::collections::BTreeSet;
use std::io::{self, Write};

use assay_core::engine::EventKind;
use assay_core::model::Timestamp;
use assay_shared::HardwareReport;
use assay_shared::report::GpuState;

use super::Options;
use super::fleet::DemoFleet;
use super::local;
use crate::cli::narration;
use crate::fleet::{FleetCounters, FleetEvent};
use crate::sim::{Entry, Summary, World};

/// Writes lines and keeps the status line below them.
#[derive(Debug)]
pub(super) struct Narrator {
    terminal: bool,
    colour: bool,
    /// Nodes whose first report was told.
    measured: BTreeSet<String>,
    status_shown: bool,
}

impl Narrator {
    pub(super) fn new(terminal: bool) -> Self {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { terminal, colour, measured: BTreeSet::new(), status_shown: false }
    }

    /// What is about to be seen.
    pub(super) fn opening(
        &self,
        out: &mut dyn Write,
        fleet: &DemoFleet,
        options: &Options,
    ) -> anyhow::Result<()> {
        writeln!(
            out,
            "Assay demo: a simulated cloud and cluster, real agents over real QUIC on {}.",
            fleet.address()
        )?;
        writeln!(
            out,
            "One second here is {} seconds there. Times are there; `!` marks what somebody should look at.",
            options.speed
        )?;
        if options.agent.is_none() {
            writeln!(
                out,
                "No assay-agent beside this program: this machine does not join. Build it with `make build`."
            )?;
        }
        if options.keep {
            let node: assay_shared::NodeName = "my-node".parse()?;
            let [ca, certificate, key] = fleet.issue_files(&node)?;
            writeln!(
                out,
                "Stays until interrupted. Another agent joins with:\n  assay-agent run --scheduler {} --node-name {node} --ca {} --cert {} --key {}",
                fleet.address(),
                ca.display(),
                certificate.display(),
                key.display()
            )?;
        }
        writeln!(out)?;
        Ok(())
    }

    /// What happened in the world. The arrival of an agent is told by its report.
    pub(super) fn entries(&mut self, entries: &[Entry], out: &mut dyn Write) -> io::Result<()> {
        for entry in entries.iter().filter(|entry| entry.reason != "AgentConnected") {
            self.line(entry, out)?;
        }
        out.flush()
    }

    /// What came over the link: of each machine its first report.
    pub(super) fn fleet_event(
        &mut self,
        now: Timestamp,
        event: &FleetEvent,
        world: &World,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let FleetEvent::Report { node, report, .. } = event else { return Ok(()) };
        if !self.measured.insert(node.as_str().to_owned()) {
            return Ok(());
        }
        let counted_on =
            world.engine().machines().get(node.as_str()).map(|machine| machine.claim.capacity.memory);
        let mut message = facts(report);
        if let Some(memory) = counted_on {
            message.push_str(&format!(" (counted on {memory})"));
        }
        let reason = if node.as_str() == local::NODE { "MeasuredForReal" } else { "Measured" };
        let object = format!("Node/{node}");
        let entry = Entry { at: now, object, kind: EventKind::Normal, reason: reason.to_owned(), message };
        self.line(&entry, out)
    }

    fn line(&mut self, entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
        self.clear_status(out)?;
        let line = narration::line(entry);
        let colour = match (self.colour, entry.kind, entry.reason.as_str()) {
            (false, ..) => None,
            (true, EventKind::Warning, _) => Some("33"),
            (true, _, "Learned" | "MeasuredForReal") => Some("32"),
            (true, _, "Launching") => Some("36"),
            (true, ..) => None,
        };
        match colour {
            Some(colour) => writeln!(out, "\x1b[{colour}m{line}\x1b[0m"),
            None => writeln!(out, "{line}"),
        }
    }

    /// Draws the status line; only a terminal has one.
    pub(super) fn status(&mut self, summary: &Summary, agents: u64, out: &mut dyn Write) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        self.clear_status(out)?;
        let Summary { nodes, pods_running, pods_pending, price_per_hour, .. } = summary;
        write!(
            out,
            "  {nodes} nodes, {agents} agents, {pods_running} pods run, {pods_pending} wait, ${price_per_hour:.2}/h"
        )?;
        self.status_shown = true;
        out.flush()
    }

    /// Takes the status line away.
    pub(super) fn clear_status(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::take(&mut self.status_shown) {
            write!(out, "\r\x1b[K")?;
        }
        Ok(())
    }

    /// The sums.
    pub(super) fn closing(
        &self,
        out: &mut dyn Write,
        summary: &Summary,
        counters: &FleetCounters,
    ) -> anyhow::Result<()> {
        narration::summary(out, summary)?;
        let refused: u64 = counters.refusals().map(|(_, count)| count).sum();
        writeln!(out, "link        {} reports over QUIC, {refused} refused", counters.reports())?;
        Ok(())
    }
}

/// The facts of a report that a buyer looks at first.
fn facts(report: &HardwareReport) -> String {
    let mut facts = Vec::new();
    facts.extend(report.cpu.logical_cpus.get().map(|count| format!("{count} CPUs")));
    facts.extend(report.cpu.model.measured().cloned());
    facts.extend(report.cpu.isa_level.get().map(|level| format!("x86-64-{level}")));
    if let Some(devices) = report.gpus.devices.measured().filter(|devices| !devices.is_empty()) {
        let usable = devices.iter().filter(|gpu| gpu.state == GpuState::Usable).count();
        facts.push(format!("{usable} of {} GPUs usable", devices.len()));
    }
    let network = report.network.accelerated_networking.get();
    facts.extend(network.map(|state| state.as_str().to_owned()));
    facts.extend(report.memory.total_bytes.get().map(|total| format!("{total} of memory")));
    facts.join(", ")
}
