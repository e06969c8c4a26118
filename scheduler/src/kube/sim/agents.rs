//! The agent of a simulated machine: the agent's own code, surveying a machine that does not exist, on a real link.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use assay_agent::link::ReportSource;
use assay_agent::tree::Machine;
use assay_shared::report::{EventType, ScheduledEvent};
use assay_shared::{Fact, HardwareReport, NodeName};
use tokio::sync::watch;

/// A machine that may change while it is surveyed.
#[derive(Debug, Clone)]
pub struct SharedMachine {
    node: NodeName,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    /// What the cloud has announced for it.
    events: Vec<ScheduledEvent>,
}

impl SharedMachine {
    pub(super) fn new(node: NodeName, machine: Machine) -> Self {
        Self { node, state: Arc::new(Mutex::new(State { machine, events: Vec::new() })) }
    }

    /// The node it is.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// Changes its hardware.
    pub(super) fn change(&self, change: impl FnOnce(Machine) -> Machine) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.machine = change(state.machine.clone());
    }

    /// The cloud announces that it takes the machine back.
    pub(super) fn announce_preemption(&self, not_before: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.events = vec![ScheduledEvent { event_type: EventType::Preempt, not_before }];
    }
}

impl ReportSource for SharedMachine {
    fn survey(&mut self) -> HardwareReport {
        let machine = self.state.lock().unwrap_or_else(PoisonError::into_inner).machine.clone();
        machine.report(Some(self.node.as_str()))
    }

    fn urgent(&mut self) -> Option<Fact<Vec<ScheduledEvent>>> {
        let events = self.state.lock().unwrap_or_else(PoisonError::into_inner).events.clone();
        Some(Fact::Measured(events))
    }
}

/// Connects agents to the scheduler.
pub trait AgentLink: Debug + Send + Sync + 'static {
    /// Connects the agent of a machine and keeps it connected until the sender is dropped or says true.
    fn connect(&self, machine: SharedMachine) -> watch::Sender<bool>;
}
