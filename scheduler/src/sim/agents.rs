//! How reports of simulated machines reach the engine.

use std::sync::Arc;

use assay_agent::tree::Machine;
use assay_core::engine::Event;

/// The agents of simulated machines.
pub trait Agents {
    /// A machine has booted: its agent surveys it and reports. Returns what the engine hears at once.
    fn start(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event>;

    /// The hardware of a machine changed: its agent surveys it anew.
    fn changed(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event>;

    /// The scheduler is back after it was away: the agent connects again and reports.
    fn reconnect(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event>;

    /// A machine is gone, and its agent with it.
    fn stop(&mut self, node: &Arc<str>) -> Vec<Event>;
}

/// Reports are handed over directly, at the moment of the survey.
#[derive(Debug, Default)]
pub struct DirectAgents;

impl Agents for DirectAgents {
    fn start(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event> {
        let mut events = vec![Event::AgentConnected { node: Arc::clone(node) }];
        events.extend(self.changed(node, machine));
        events
    }

    fn changed(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event> {
        let report = Arc::new(machine.report(Some(node)));
        vec![Event::Report { node: Arc::clone(node), report }]
    }

    fn reconnect(&mut self, node: &Arc<str>, machine: &Machine) -> Vec<Event> {
        self.start(node, machine)
    }

    fn stop(&mut self, node: &Arc<str>) -> Vec<Event> {
        vec![Event::AgentLost { node: Arc::clone(node) }]
    }
}
