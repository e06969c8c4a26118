//! Surveys again and again, on threads that may block, and between surveys looks at what cannot wait.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::report::ScheduledEvent;
use assay_shared::{Fact, HardwareReport};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::{LinkError, ReportSource};

/// How often to look at what cannot wait. Azure announces the end of a spot VM 30 s ahead.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was observed.
#[derive(Debug)]
pub(super) enum Observation {
    /// The whole machine.
    Report(Box<HardwareReport>),
    /// What the cloud announced, which is not what it was.
    Events(Fact<Vec<ScheduledEvent>>),
}

/// What is observed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// The whole machine.
    Whole,
    /// What is quick to survey, then the whole: a driver that hangs holds up nothing but its own facts.
    QuickThenWhole,
}

/// The observations of one machine.
#[derive(Debug)]
pub(super) struct Surveys {
    observations: Observations,
    interval: watch::Sender<Duration>,
    /// Set on the command line: the scheduler does not change it.
    fixed: bool,
}

#[derive(Debug)]
enum Observations {
    /// One at a time: nothing is surveyed before the last one was taken.
    Each(mpsc::Receiver<Observation>),
    /// The last one only, with everything that was observed so far: for one of several listeners, who do not wait for each other.
    Last(watch::Receiver<Option<Arc<HardwareReport>>>),
}

impl Surveys {
    pub(super) fn start(
        source: impl ReportSource,
        first: First,
        fixed: Option<Duration>,
        otherwise: Duration,
    ) -> Self {
        let (found, observations) = mpsc::channel(1);
        let (interval, interval_now) = watch::channel(fixed.unwrap_or(otherwise));
        tokio::spawn(observe(source, first, interval_now, found));
        Self { observations: Observations::Each(observations), interval, fixed: fixed.is_some() }
    }

    /// The same surveys for one of several listeners, of which `last` has the last.
    pub(super) fn branch(&self, last: &watch::Sender<Option<Arc<HardwareReport>>>) -> Self {
        let mut last = last.subscribe();
        // What is there is new to whoever begins to listen.
        last.mark_changed();
        Self { observations: Observations::Last(last), interval: self.interval.clone(), fixed: self.fixed }
    }

    /// The next observation.
    pub(super) async fn next(&mut self) -> Result<Observation, LinkError> {
        match &mut self.observations {
            Observations::Each(each) => each.recv().await.ok_or(LinkError::SurveyFailed),
            Observations::Last(last) => loop {
                last.changed().await.map_err(|_| LinkError::SurveyFailed)?;
                let report = last.borrow_and_update().clone();
                if let Some(report) = report {
                    return Ok(Observation::Report(Box::new(HardwareReport::clone(&report))));
                }
            },
        }
    }

    /// Takes the scheduler's interval.
    pub(super) fn survey_every(&self, interval: Duration) {
        if !self.fixed && !interval.is_zero() {
            self.interval.send_replace(interval);
        }
    }
}

/// Ends when nobody listens any more, or the source panicked.
async fn observe(
    mut source: impl ReportSource,
    first: First,
    interval: watch::Receiver<Duration>,
    found: mpsc::Sender<Observation>,
) {
    if first == First::QuickThenWhole {
        let quick = spawn_blocking(move || {
            let report = source.ahead();
            (source, report)
        });
        let Ok((returned, report)) = quick.await else { return };
        source = returned;
        if let Some(report) = report
            && found.send(Observation::Report(Box::new(report))).await.is_err()
        {
            return;
        }
    }
    let mut look = true;
    loop {
        let surveyed = Instant::now();
        let survey = spawn_blocking(move || {
            let report = Box::new(source.survey());
            (source, report)
        });
        let Ok((returned, report)) = survey.await else { return };
        source = returned;
        let mut events = report.events.clone();
        if found.send(Observation::Report(report)).await.is_err() {
            return;
        }
        loop {
            let next = surveyed + *interval.borrow();
            tokio::select! {
                () = sleep_until(next.min(Instant::now() + LOOK_EVERY)) => {}
                () = found.closed() => return,
            }
            if Instant::now() >= next {
                break;
            }
            if !look {
                continue;
            }
            let looking = spawn_blocking(move || {
                let announced = source.urgent();
                (source, announced)
            });
            let Ok((returned, announced)) = looking.await else { return };
            source = returned;
            match announced {
                None => look = false,
                // A look that failed is no news: the next survey says so.
                Some(announced) if announced.is_measured() && announced != events => {
                    events = announced.clone();
                    if found.send(Observation::Events(announced)).await.is_err() {
                        return;
                    }
                }
                Some(_) => {}
            }
        }
    }
}
