//! The agent's end of the fleet link: reports this machine to the scheduler, and stays.
//!
//! ```text
//!   ReportSource --surveyor--> reporter --session--> QUIC --> scheduler
//!   (blocking thread)          (what to   (one         |
//!                               send)      connection) +-- Ack, SendFull, Refused
//! ```
//!
//! [`run_link`] is the whole life of an agent; [`run_replicas`] the same for several schedulers at once; [`report_once`] one
//! report of it. All work inside any tokio runtime, so the
//! simulator and the tests run thousands in one process. `docs/fleet-link.md` has the protocol.

mod address;
pub mod args;
mod credentials;
mod endpoint;
mod error;
mod fit;
mod pause;
mod replicas;
mod reporter;
mod session;
mod surveyor;

use std::time::Duration;

use assay_shared::report::ScheduledEvent;
use assay_shared::{Fact, HardwareReport, NodeName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

pub use address::{InvalidAddress, SchedulerAddress};
pub use credentials::{Credentials, CredentialsError};
pub use endpoint::LinkEndpoint;
pub use error::LinkError;
pub use pause::Reconnect;
pub use replicas::{run_replicas, run_replicas_found};

use reporter::Reporter;
use session::{Goal, Session};
use surveyor::{First, Observation, Surveys};

/// Time to reach the scheduler: name lookup and handshake.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How often to survey until the scheduler says otherwise.
const FIRST_INTERVAL: Duration = Duration::from_secs(60);

/// Where an agent's reports come from.
pub trait ReportSource: Send + 'static {
    /// Surveys the machine. Called on a thread that may block.
    fn survey(&mut self) -> HardwareReport;

    /// Surveys what is quick to survey, where the whole may take long: an agent that stays sends it ahead of its first
    /// report. `None` where nothing takes long.
    fn ahead(&mut self) -> Option<HardwareReport> {
        None
    }

    /// Looks at what cannot wait for the next survey: what the cloud announced. Called every few seconds, on a thread that
    /// may block; `None` where there is nothing to look at.
    fn urgent(&mut self) -> Option<Fact<Vec<ScheduledEvent>>> {
        None
    }
}

impl<F: FnMut() -> HardwareReport + Send + 'static> ReportSource for F {
    fn survey(&mut self) -> HardwareReport {
        self()
    }
}

/// How one agent connects.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The scheduler.
    pub scheduler: SchedulerAddress,
    /// Name in the scheduler's certificate, where it is not the host it is reached at.
    pub server_name: Option<String>,
    /// The node to report about.
    pub node: NodeName,
    /// What proves that it may; read anew for each connection.
    pub credentials: Credentials,
    /// How often to survey; otherwise what the scheduler says.
    pub interval: Option<Duration>,
    /// Pauses between connections.
    pub reconnect: Reconnect,
}

/// Reports, reconnects, and goes on until `shutdown` turns true or its sender is gone.
///
/// # Errors
/// [`LinkError::SurveyFailed`] where the source panicked. Everything else is logged and tried again.
pub async fn run_link(
    config: LinkConfig,
    endpoint: LinkEndpoint,
    source: impl ReportSource,
    shutdown: watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let surveys = Surveys::start(source, First::QuickThenWhole, config.interval, FIRST_INTERVAL);
    stay(&config, &endpoint, surveys, shutdown).await
}

/// Reports what `surveys` find.
async fn stay(
    config: &LinkConfig,
    endpoint: &LinkEndpoint,
    mut surveys: Surveys,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let mut reporter = Reporter::default();
    let mut pauses = config.reconnect.pauses();
    // The first connection says which boot it is about, so it waits for the first survey.
    tokio::select! {
        first = surveys.next() => reporter.observe(first?),
        _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
    }
    loop {
        let mut session = Session { config, surveys: &mut surveys, reporter: &mut reporter };
        let ended = session.run(endpoint, Goal::Stay, &mut shutdown).await;
        let Err(why) = ended else { return Ok(()) };
        if matches!(why, LinkError::SurveyFailed) {
            return Err(why);
        }
        if reporter.take_progress() {
            pauses.reset();
        }
        let pause = pauses.next(why.patience());
        let (node, scheduler, retry_seconds) = (&config.node, &config.scheduler, pause.as_secs_f32());
        match why {
            LinkError::ServerStops { .. } | LinkError::CredentialExpired => {
                info!(%node, %scheduler, retry_seconds, "{why}");
            }
            _ if why.needs_people() => error!(%node, %scheduler, retry_seconds, "{why}"),
            _ => warn!(%node, %scheduler, retry_seconds, "{why}"),
        }
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                observation = surveys.next() => reporter.observe(observation?),
                _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }
}

/// Surveys, reports once, and returns when the scheduler has acknowledged it.
///
/// # Errors
/// Where the scheduler is not reached within [`CONNECT_DEADLINE`], refuses, or does not answer.
pub async fn report_once(
    config: LinkConfig,
    endpoint: LinkEndpoint,
    source: impl ReportSource,
) -> Result<(), LinkError> {
    let mut surveys = Surveys::start(source, First::Whole, config.interval, FIRST_INTERVAL);
    let mut reporter = Reporter::default();
    reporter.observe(surveys.next().await?);
    let (_stay, mut shutdown) = watch::channel(false);
    Session { config: &config, surveys: &mut surveys, reporter: &mut reporter }
        .run(&endpoint, Goal::OneReport, &mut shutdown)
        .await
}
