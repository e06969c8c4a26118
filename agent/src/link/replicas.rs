//! One machine, several schedulers: a link to each replica, so that whichever leads has what was measured.
//!
//! ```text
//!  name --looked up now and then--> addresses: one link each
//!  ReportSource --surveyor--> hub --last report--> link, link, ...
//! ```
//!
//! The machine is surveyed once, whoever listens. Links do not wait for each other: one that was busy connecting goes on with the
//! last report.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::HardwareReport;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use super::surveyor::{First, Observation, Surveys};
use super::{FIRST_INTERVAL, LinkConfig, LinkEndpoint, LinkError, ReportSource, stay};

/// How often the name is looked up: a replica that is new waits this long for its agents.
const LOOKUP_EVERY: Duration = Duration::from_secs(10);
/// An address that so many lookups in a row did not give is no replica any more. One may be an answer that was cut short.
const MISSES: u32 = 3;
/// Replicas that are reported to; more are a mistake in the name.
const REPLICAS: usize = 8;

/// Reports to every replica of the scheduler until `shutdown` turns true or its sender is gone. The replicas are the addresses of
/// the scheduler's name; their certificate has that name, or `server_name`.
///
/// # Errors
/// [`LinkError::SurveyFailed`] where the source panicked. Everything else is logged and tried again.
pub async fn run_replicas(
    config: LinkConfig,
    endpoint: LinkEndpoint,
    source: impl ReportSource,
    shutdown: watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let scheduler = config.scheduler.clone();
    let lookup = move || {
        let (host, port) = (scheduler.host().to_owned(), scheduler.port());
        async move { Ok(lookup_host((host, port)).await?.collect()) }
    };
    run_replicas_found(config, endpoint, source, shutdown, LOOKUP_EVERY, lookup).await
}

/// The same with another way to find the replicas, which is asked so often.
///
/// # Errors
/// As [`run_replicas`].
pub async fn run_replicas_found<Found>(
    config: LinkConfig,
    endpoint: LinkEndpoint,
    source: impl ReportSource,
    mut shutdown: watch::Receiver<bool>,
    every: Duration,
    lookup: impl Fn() -> Found,
) -> Result<(), LinkError>
where
    Found: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let mut surveys = Surveys::start(source, First::QuickThenWhole, config.interval, FIRST_INTERVAL);
    let mut hub = Hub { config, endpoint, last: watch::Sender::new(None), links: BTreeMap::new() };
    // Kept while other things happen: a lookup may take longer than a survey.
    let mut looking = Box::pin(after(Duration::ZERO, &lookup));
    let ended = loop {
        tokio::select! {
            observation = surveys.next() => match observation {
                Ok(observation) => hub.tell(observation),
                Err(failed) => break Err(failed),
            },
            found = &mut looking => {
                match found {
                    Ok(found) => hub.settle(found, &surveys),
                    Err(error) => warn!(scheduler = %hub.config.scheduler, "replicas are not found: {error}"),
                }
                looking.set(after(every, &lookup));
            }
            _ = shutdown.wait_for(|stop| *stop) => break Ok(()),
        }
    };
    hub.end(ended).await
}

async fn after<Found: Future>(pause: Duration, lookup: &impl Fn() -> Found) -> Found::Output {
    sleep(pause).await;
    lookup().await
}

/// What all links share.
#[derive(Debug)]
struct Hub {
    config: LinkConfig,
    endpoint: LinkEndpoint,
    /// What all links report.
    last: watch::Sender<Option<Arc<HardwareReport>>>,
    links: BTreeMap<SocketAddr, Link>,
}

/// The link to one replica.
#[derive(Debug)]
struct Link {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), LinkError>>,
    /// Lookups in a row that did not give its address.
    missed: u32,
}

impl Hub {
    /// Hands an observation to every link.
    fn tell(&self, observation: Observation) {
        self.last.send_modify(|last| match (observation, last) {
            (Observation::Report(report), last) => *last = Some(Arc::from(report)),
            (Observation::Events(events), Some(last)) => Arc::make_mut(last).events = events,
            // Nothing was surveyed yet; the survey will say it.
            (Observation::Events(_), None) => {}
        });
    }

    /// Begins links to addresses that are new, and ends those whose address is gone.
    fn settle(&mut self, mut found: Vec<SocketAddr>, surveys: &Surveys) {
        found.sort_unstable();
        found.dedup();
        if found.len() > REPLICAS {
            warn!(scheduler = %self.config.scheduler, found = found.len(), "more than {REPLICAS} replicas: some are left out");
            found.truncate(REPLICAS);
        }
        self.links.retain(|address, link| {
            if link.task.is_finished() {
                // Only a bug of ours ends it: it begins anew.
                return false;
            }
            link.missed = if found.contains(address) { 0 } else { link.missed + 1 };
            if link.missed < MISSES {
                return true;
            }
            info!(scheduler = %address, "no replica any more");
            // It says goodbye, and ends by itself.
            link.stop.send_replace(true);
            false
        });
        for address in found {
            if self.links.len() < REPLICAS && !self.links.contains_key(&address) {
                let link = self.begin(address, surveys);
                self.links.insert(address, link);
            }
        }
    }

    fn begin(&self, address: SocketAddr, surveys: &Surveys) -> Link {
        let mut config = self.config.clone();
        let name = config.server_name.take().unwrap_or_else(|| config.scheduler.host().to_owned());
        config.server_name = Some(name);
        config.scheduler = address.into();
        let own = surveys.branch(&self.last);
        let (stop, stopped) = watch::channel(false);
        let endpoint = self.endpoint.clone();
        let task = tokio::spawn(async move { stay(&config, &endpoint, own, stopped).await });
        Link { stop, task, missed: 0 }
    }

    /// Ends all links.
    async fn end(self, ended: Result<(), LinkError>) -> Result<(), LinkError> {
        for link in self.links.values() {
            link.stop.send_replace(true);
        }
        for link in self.links.into_values() {
            // A link that panicked has ended as well.
            let _ = link.task.await;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use assay_shared::Fact;
    use assay_shared::report::{EventType, ScheduledEvent};

    use super::*;
    use crate::link::{Credentials, Reconnect};

    fn hub() -> (Hub, Surveys) {
        let credentials =
            Credentials::Pem { ca: String::new(), certificate: String::new(), key: String::new() };
        let config = LinkConfig {
            scheduler: "scheduler.example.com:7443".parse().unwrap(),
            server_name: None,
            node: "node-a".parse().unwrap(),
            credentials,
            interval: None,
            // Credentials that are none: each link tries once.
            reconnect: Reconnect { first: Duration::from_secs(3600), longest: Duration::from_secs(3600) },
        };
        let surveys = Surveys::start(HardwareReport::default, First::Whole, None, FIRST_INTERVAL);
        let endpoint = LinkEndpoint::bind().unwrap();
        (Hub { config, endpoint, last: watch::Sender::new(None), links: BTreeMap::new() }, surveys)
    }

    fn addresses(last: &[u8]) -> Vec<SocketAddr> {
        last.iter().map(|last| ([10, 0, 0, *last], 7443).into()).collect()
    }

    fn linked(hub: &Hub) -> Vec<SocketAddr> {
        hub.links.keys().copied().collect()
    }

    #[tokio::test]
    async fn each_address_has_a_link_until_it_was_missed_three_times() {
        let (mut hub, surveys) = hub();
        hub.settle(addresses(&[2, 1, 2]), &surveys);
        assert_eq!(linked(&hub), addresses(&[1, 2]));
        hub.settle(addresses(&[1]), &surveys);
        hub.settle(addresses(&[1]), &surveys);
        assert_eq!(linked(&hub), addresses(&[1, 2]), "an answer may be cut short");
        hub.settle(addresses(&[1, 2, 3]), &surveys);
        for _ in 0..MISSES {
            hub.settle(addresses(&[3]), &surveys);
        }
        assert_eq!(linked(&hub), addresses(&[3]));
        hub.settle(addresses(&(0..100).collect::<Vec<_>>()), &surveys);
        assert_eq!(hub.links.len(), REPLICAS);
        hub.end(Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_listens_late_or_seldom_has_all_that_is_known() {
        let (hub, surveys) = hub();
        let report = |cpus| {
            let mut report = HardwareReport::default();
            report.cpu.logical_cpus = Fact::Measured(cpus);
            Observation::Report(Box::new(report))
        };
        let announced = Fact::Measured(vec![ScheduledEvent {
            event_type: EventType::Preempt,
            not_before: String::new(),
        }]);
        hub.tell(Observation::Events(announced.clone()));
        let mut early = surveys.branch(&hub.last);
        for cpus in 0..100 {
            hub.tell(report(cpus));
        }
        hub.tell(Observation::Events(announced.clone()));
        let mut late = surveys.branch(&hub.last);
        for branch in [&mut early, &mut late] {
            let Ok(Observation::Report(report)) = branch.next().await else { panic!("a report") };
            assert_eq!((report.cpu.logical_cpus, report.events), (Fact::Measured(99), announced.clone()));
        }
        drop(hub);
        assert!(early.next().await.is_err(), "the same is not told twice");
    }

    #[tokio::test]
    async fn a_lookup_that_takes_its_time_is_not_begun_anew_for_every_survey() {
        let (hub, _) = hub();
        let config = LinkConfig { interval: Some(Duration::from_millis(1)), ..hub.config.clone() };
        let lookups = Arc::new(Mutex::new(0));
        let (stop, stopped) = watch::channel(false);
        let stop = Arc::new(stop);
        let (begun, ended) = (Arc::clone(&lookups), Arc::clone(&stop));
        let lookup = move || {
            *begun.lock().unwrap() += 1;
            let ended = Arc::clone(&ended);
            async move {
                sleep(Duration::from_millis(200)).await;
                ended.send_replace(true);
                Ok(Vec::new())
            }
        };
        let every = Duration::from_secs(3600);
        run_replicas_found(config, hub.endpoint.clone(), HardwareReport::default, stopped, every, lookup)
            .await
            .unwrap();
        assert_eq!(*lookups.lock().unwrap(), 1);
    }
}
