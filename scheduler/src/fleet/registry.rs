//! Which nodes are connected, and what each reported last: the server's only memory. Bounded.
//!
//! Every change is made, and its event sent, under one lock: the events are in the order of the changes. The caller brings
//! a reserved place in the event channel, so nothing ever waits while the lock is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use assay_shared::protocol::{Generation, Notice};
use assay_shared::{HardwareReport, NodeName};
use quinn::Connection;
use tokio::sync::mpsc::{Permit, PermitIterator};

use super::auth::Proof;
use super::event::{ConnectedAgent, FleetEvent};

/// Number of a session, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId(u64);

/// Events that a join can cause: the old connection's end and the new one's begin.
pub(super) const EVENTS_OF_JOIN: usize = 2;

#[derive(Debug)]
pub(super) struct Registry {
    /// At least the number of connections, so that there always is a node to forget.
    remembered: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<NodeName, Node>,
    sessions: u64,
    connected: usize,
}

#[derive(Debug)]
struct Node {
    boot: String,
    last: Option<Last>,
    session: Option<Session>,
    /// When it was last heard of.
    heard: Instant,
}

#[derive(Debug)]
struct Last {
    generation: Generation,
    report: Arc<HardwareReport>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    connection: Connection,
    proof: Arc<Proof>,
    since: Instant,
}

/// What a new session learns.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) id: SessionId,
    /// Last report of the same boot.
    pub(super) last_generation: Option<Generation>,
    /// The connection it takes the place of.
    pub(super) replaced: Option<Connection>,
}

/// Why a report was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotStored {
    /// The session was replaced meanwhile.
    Replaced,
    /// Its number is not larger than the last one.
    OldGeneration(Generation),
}

impl Registry {
    pub(super) fn new(remembered: usize, connections: usize) -> Self {
        Self { remembered: remembered.max(connections + 1), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A proven agent begins to report; it takes the place of an older connection of its node.
    pub(super) fn join(
        &self,
        node: &NodeName,
        boot: String,
        proof: Arc<Proof>,
        connection: Connection,
        mut permits: PermitIterator<'_, FleetEvent>,
    ) -> Joined {
        let mut send = |event| {
            if let Some(permit) = permits.next() {
                permit.send(event);
            }
        };
        let now = Instant::now();
        let mut state = self.state();
        if !state.nodes.contains_key(node) && state.nodes.len() >= self.remembered {
            state.forget_one();
        }
        state.sessions += 1;
        let id = SessionId(state.sessions);
        let entry = state.nodes.entry(node.clone()).or_insert_with(|| Node {
            boot: boot.clone(),
            last: None,
            session: None,
            heard: now,
        });
        // Without a boot id nobody can tell whether the machine is still the same.
        if boot.is_empty() || entry.boot != boot {
            entry.last = None;
            entry.boot.clone_from(&boot);
        }
        entry.heard = now;
        let last_generation = entry.last.as_ref().map(|last| last.generation);
        let replaced = entry.session.replace(Session { id, connection, proof, since: now });
        if replaced.is_some() {
            send(FleetEvent::Disconnected { node: node.clone(), replaced: true });
        } else {
            state.connected += 1;
        }
        send(FleetEvent::Connected { node: node.clone(), boot });
        Joined { id, last_generation, replaced: replaced.map(|session| session.connection) }
    }

    /// The report with this number, if it is this session's node's last.
    pub(super) fn base(
        &self,
        node: &NodeName,
        id: SessionId,
        base: Generation,
    ) -> Option<Arc<HardwareReport>> {
        let state = self.state();
        let last = state.of_session(node, id)?.last.as_ref()?;
        (last.generation == base).then(|| Arc::clone(&last.report))
    }

    /// Takes a report.
    pub(super) fn store(
        &self,
        node: &NodeName,
        id: SessionId,
        generation: Generation,
        report: Arc<HardwareReport>,
        permit: Permit<'_, FleetEvent>,
    ) -> Result<(), NotStored> {
        let mut state = self.state();
        let entry = state.of_session_mut(node, id).ok_or(NotStored::Replaced)?;
        if let Some(last) = entry.last.as_ref().filter(|last| generation <= last.generation) {
            return Err(NotStored::OldGeneration(last.generation));
        }
        entry.heard = Instant::now();
        entry.last = Some(Last { generation, report: Arc::clone(&report) });
        permit.send(FleetEvent::Report { node: node.clone(), report, generation });
        Ok(())
    }

    /// Passes a notice on, unless the session was replaced meanwhile.
    pub(super) fn notify(
        &self,
        node: &NodeName,
        id: SessionId,
        notice: Notice,
        permit: Permit<'_, FleetEvent>,
    ) -> Result<(), NotStored> {
        let mut state = self.state();
        state.of_session_mut(node, id).ok_or(NotStored::Replaced)?.heard = Instant::now();
        permit.send(FleetEvent::Notice { node: node.clone(), notice });
        Ok(())
    }

    /// Ends a session; says nothing where a newer one has taken its place. What the node reported is kept.
    pub(super) fn leave(&self, node: &NodeName, id: SessionId, permit: Option<Permit<'_, FleetEvent>>) {
        let mut state = self.state();
        if let Some(entry) = state.of_session_mut(node, id) {
            entry.session = None;
            state.connected -= 1;
            if let Some(permit) = permit {
                permit.send(FleetEvent::Disconnected { node: node.clone(), replaced: false });
            }
        }
    }

    /// How many are connected.
    pub(super) fn count(&self) -> usize {
        self.state().connected
    }

    /// Who is connected, by name.
    pub(super) fn connected(&self) -> Vec<ConnectedAgent> {
        let state = self.state();
        let agents = state.nodes.iter().filter_map(|(node, entry)| {
            let session = entry.session.as_ref()?;
            Some(ConnectedAgent {
                node: node.clone(),
                boot: entry.boot.clone(),
                address: session.connection.remote_address(),
                since: session.since,
                proof: Arc::clone(&session.proof),
                round_trip: session.connection.rtt(),
                generation: entry.last.as_ref().map(|last| last.generation),
                report: entry.last.as_ref().map(|last| Arc::clone(&last.report)),
            })
        });
        let mut agents: Vec<_> = agents.collect();
        agents.sort_by(|a, b| a.node.cmp(&b.node));
        agents
    }
}

impl State {
    fn of_session(&self, node: &NodeName, id: SessionId) -> Option<&Node> {
        self.nodes.get(node).filter(|entry| entry.session.as_ref().is_some_and(|session| session.id == id))
    }

    fn of_session_mut(&mut self, node: &NodeName, id: SessionId) -> Option<&mut Node> {
        self.nodes
            .get_mut(node)
            .filter(|entry| entry.session.as_ref().is_some_and(|session| session.id == id))
    }

    /// Forgets the node that has been gone for longest.
    fn forget_one(&mut self) {
        let gone = self.nodes.iter().filter(|(_, entry)| entry.session.is_none());
        let longest = gone.min_by_key(|(_, entry)| entry.heard).map(|(node, _)| node.clone());
        if let Some(node) = longest {
            self.nodes.remove(&node);
        }
    }
}
