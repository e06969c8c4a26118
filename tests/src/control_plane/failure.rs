//! What a person would look at first after a failure: what was refused, what Kubernetes warned of, and where the logs are.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use super::binaries::Component;
use super::{ControlPlane, audit, processes};

/// How many events go into a message.
const EVENTS: usize = 20;

/// A control plane that failed may not answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl ControlPlane {
    /// The last refused requests and the last warnings of each component. Keeps the log files, and ends with their place.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.keep_logs();
        let mut lines: Vec<String> = Vec::new();
        match audit::read(&self.logs().join("audit.log")) {
            Ok(entries) => lines.extend(audit::refused(&entries)),
            Err(error) => lines.push(format!("no audit log: {error:#}")),
        }
        for component in Component::ALL {
            let log = processes::log_of(&self.logs(), component);
            lines.extend(processes::warnings(&log).into_iter().map(|line| format!("{component}: {line}")));
        }
        lines.push(format!("logs are kept in {}", self.logs().display()));
        lines.join("\n")
    }

    /// The last events that warn, a line each; nothing where the API server does not answer.
    pub(super) async fn warning_events(&self) -> Vec<String> {
        let asking = async {
            let warnings = ListParams::default().fields("type=Warning");
            anyhow::Ok(Api::<Event>::all(self.client().await?).list(&warnings).await?.items)
        };
        let mut events = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return vec![format!("no events: {error:#}")],
            Err(_) => return vec![format!("no events: no answer after {PATIENCE:?}")],
        };
        events.sort_by_key(|event| (event.last_timestamp.clone(), event.event_time.clone()));
        let events = events.into_iter().rev().take(EVENTS).rev();
        events
            .map(|event| {
                let object = event.involved_object;
                format!(
                    "event {} on {} {}/{}: {}",
                    event.reason.unwrap_or_default(),
                    object.kind.unwrap_or_default(),
                    object.namespace.unwrap_or_default(),
                    object.name.unwrap_or_default(),
                    event.message.unwrap_or_default(),
                )
            })
            .collect()
    }
}
