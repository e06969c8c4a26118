//! Takes connections: decides on first datagrams, sees handshakes through, and starts sessions.

use std::sync::Arc;
use std::time::Instant;

use assay_shared::protocol::{CloseCode, RefusalReason};
use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::counters::{Counters, Peer};
use super::limits::{Admission, Gate};
use super::session::{self, Shared};

/// Accepts connections until the endpoint is closed, then waits for the sessions to end.
pub(super) async fn listen(endpoint: Endpoint, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let handshakes = Arc::new(Semaphore::new(shared.config.handshakes));
    let connections = Arc::new(Semaphore::new(shared.config.connections));
    let mut gate = Gate::new(&shared.config, Instant::now());
    let mut sessions = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            _ = stop.wait_for(|stop| *stop) => None,
            // Gathers what has ended, so that the set holds the living only.
            Some(_) = sessions.join_next() => continue,
        };
        let Some(incoming) = incoming else { break };
        let in_progress = shared.config.handshakes.saturating_sub(handshakes.available_permits());
        let Some(incoming) = admit(&shared, &mut gate, incoming, in_progress) else { continue };
        let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
            refuse(&shared, incoming, "too many handshakes");
            continue;
        };
        let (shared, connections) = (Arc::clone(&shared), Arc::clone(&connections));
        sessions.spawn(async move {
            let connection = shake_hands(&shared, incoming).await;
            drop(handshake);
            let Some(connection) = connection else { return };
            let Ok(_place) = connections.try_acquire_owned() else {
                let peer = Peer { address: connection.remote_address(), node: None };
                shared.counters.refuse(RefusalReason::Overloaded, peer, &"too many connections");
                let code = CloseCode::Refused(RefusalReason::Overloaded);
                return session::close(&connection, code, "too many connections");
            };
            // On the heap: what the handshake needed is gone for as long as the session lives.
            Box::pin(session::serve(&shared, connection)).await;
        });
    }
    let ended = async { while sessions.join_next().await.is_some() {} };
    if timeout(shared.config.deadlines.stop, ended).await.is_err() {
        tracing::warn!("sessions did not end in time: aborted");
    }
    sessions.shutdown().await;
}

/// Passes an attempt on, or answers it.
fn admit(shared: &Shared, gate: &mut Gate, incoming: Incoming, in_progress: usize) -> Option<Incoming> {
    let address = incoming.remote_address();
    let proved = incoming.remote_address_validated();
    match gate.admit(address.ip(), proved, in_progress, Instant::now()) {
        Admission::Accept => Some(incoming),
        Admission::Retry => {
            Counters::count(&shared.counters.retries);
            // Fails only for an address that is proved already.
            incoming.retry().err().map(quinn::RetryError::into_incoming)
        }
        Admission::Refuse(detail) => {
            refuse(shared, incoming, detail);
            None
        }
    }
}

fn refuse(shared: &Shared, incoming: Incoming, detail: &str) {
    let peer = Peer { address: incoming.remote_address(), node: None };
    shared.counters.refuse(RefusalReason::Overloaded, peer, &detail);
    incoming.refuse();
}

async fn shake_hands(shared: &Shared, incoming: Incoming) -> Option<Connection> {
    let peer = Peer { address: incoming.remote_address(), node: None };
    let failed = |detail: &dyn std::fmt::Display| {
        shared.counters.refuse(RefusalReason::HandshakeFailed, peer, detail);
    };
    let connecting = incoming.accept().inspect_err(|error| failed(error)).ok()?;
    match timeout(shared.config.deadlines.handshake, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            failed(&error);
            None
        }
        Err(_) => {
            failed(&"not complete in time");
            None
        }
    }
}
