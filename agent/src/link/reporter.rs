//! What to send next: a state machine without I/O.
//!
//! One report is under way at a time. The first is whole; after it was acknowledged, what changed follows as a delta, and a
//! machine that does not change sends nothing. Notices overtake reports.

use std::collections::VecDeque;
use std::sync::Arc;

use assay_shared::protocol::{AgentMessage, Generation, Notice, changed_sections};
use assay_shared::report::{GpuState, ScheduledEvent};
use assay_shared::{Fact, HardwareReport};

use super::Observation;
use super::fit::fit;

/// Notices kept while there is no connection; older ones are dropped, since the report says the same.
const NOTICES: usize = 64;

/// A report with its number.
#[derive(Debug, Clone)]
struct Numbered {
    generation: Generation,
    report: Arc<HardwareReport>,
}

/// What was observed, sent and acknowledged.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    current: Option<Arc<HardwareReport>>,
    /// The last report that the scheduler certainly has.
    acknowledged: Option<Numbered>,
    /// The report that was sent and not acknowledged yet.
    in_flight: Option<Numbered>,
    /// Largest number used so far in this boot.
    last_generation: Generation,
    notices: VecDeque<Notice>,
    /// Whether a report was acknowledged since [`Reporter::take_progress`].
    progress: bool,
}

impl Reporter {
    /// Takes what the surveyor found.
    pub(super) fn observe(&mut self, observation: Observation) {
        let new = match observation {
            Observation::Report(report) => fit(*report),
            Observation::Events(events) => {
                let Some(current) = &self.current else { return };
                let mut report = HardwareReport::clone(current);
                report.events = events;
                fit(report)
            }
        };
        if let Some(old) = &self.current {
            if **old == new {
                return;
            }
            let notices = new_events(&old.events, &new.events).chain(lost_gpus(old, &new));
            self.notices.extend(notices);
            let surplus = self.notices.len().saturating_sub(NOTICES);
            self.notices.drain(..surplus);
        }
        self.current = Some(Arc::new(new));
    }

    /// The boot that is reported about; empty where it is not known.
    pub(super) fn boot_id(&self) -> String {
        let measured = self.current.as_ref().and_then(|report| report.identity.boot_id.measured());
        measured.cloned().unwrap_or_default()
    }

    /// A new connection: the scheduler still has the report with this number, or none.
    pub(super) fn welcomed(&mut self, last: Option<Generation>) {
        // The acknowledgement of a report that did arrive may be what was lost.
        let known = self.in_flight.take().into_iter().chain(self.acknowledged.take());
        self.acknowledged = known.into_iter().find(|numbered| Some(numbered.generation) == last);
        self.last_generation = self.last_generation.max(last.unwrap_or(0));
    }

    /// The scheduler has this report.
    pub(super) fn acknowledge(&mut self, generation: Generation) {
        if let Some(arrived) = self.in_flight.take_if(|in_flight| in_flight.generation == generation) {
            self.acknowledged = Some(arrived);
            self.progress = true;
        }
    }

    /// The scheduler cannot use a delta.
    pub(super) fn send_full(&mut self) {
        self.in_flight = None;
        self.acknowledged = None;
    }

    /// Whether a report is under way.
    pub(super) const fn awaits_acknowledgement(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a report was acknowledged since the last call.
    pub(super) const fn take_progress(&mut self) -> bool {
        std::mem::replace(&mut self.progress, false)
    }

    /// The next message, if there is one to send now.
    pub(super) fn next(&mut self) -> Option<AgentMessage> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(AgentMessage::Notice(notice));
        }
        let current = self.current.as_ref().filter(|_| self.in_flight.is_none())?;
        let generation = self.last_generation.saturating_add(1);
        let message = match &self.acknowledged {
            Some(base) => {
                let sections = changed_sections(&base.report, current);
                if sections.is_empty() {
                    return None;
                }
                AgentMessage::Delta { base: base.generation, generation, sections }
            }
            None => AgentMessage::Full { generation, report: Box::new(HardwareReport::clone(current)) },
        };
        self.last_generation = generation;
        self.in_flight = Some(Numbered { generation, report: Arc::clone(current) });
        Some(message)
    }
}

/// Notices of what the cloud announced since.
fn new_events(
    old: &Fact<Vec<ScheduledEvent>>,
    new: &Fact<Vec<ScheduledEvent>>,
) -> impl Iterator<Item = Notice> {
    let list = |events: &Fact<Vec<ScheduledEvent>>| events.measured().cloned().unwrap_or_default();
    let old = list(old);
    list(new).into_iter().filter(move |event| !old.contains(event)).map(Notice::Scheduled)
}

/// Notices of GPUs that were there and are lost.
fn lost_gpus(old: &HardwareReport, new: &HardwareReport) -> Vec<Notice> {
    let lost = |report: &HardwareReport| -> Vec<(String, String)> {
        let devices = report.gpus.devices.measured().map_or(&[][..], Vec::as_slice);
        let lost = devices.iter().filter(|device| device.state == GpuState::Lost);
        let named = lost.filter_map(|device| {
            Some((device.pci_address.measured()?.clone(), device.reason.clone().unwrap_or_default()))
        });
        named.collect()
    };
    let before = lost(old);
    let new = lost(new).into_iter().filter(|(address, _)| before.iter().all(|(known, _)| known != address));
    new.map(|(pci_address, reason)| Notice::GpuLost { pci_address, reason }).collect()
}

#[cfg(test)]
mod tests {
    use assay_shared::protocol::{Section, apply_sections};
    use assay_shared::report::{EventType, GpuDevice};
    use proptest::prelude::*;

    use super::*;

    fn report(sockets: u32) -> Observation {
        let mut report = HardwareReport::default();
        report.cpu.sockets = Fact::Measured(sockets);
        Observation::Report(Box::new(report))
    }

    fn full(message: Option<AgentMessage>) -> Generation {
        match message {
            Some(AgentMessage::Full { generation, .. }) => generation,
            other => panic!("expected a full report, found {other:?}"),
        }
    }

    fn delta(message: Option<AgentMessage>) -> (Generation, Generation, Vec<Section>) {
        match message {
            Some(AgentMessage::Delta { base, generation, sections }) => (base, generation, sections),
            other => panic!("expected a delta, found {other:?}"),
        }
    }

    #[test]
    fn whole_first_then_what_changed_and_nothing_when_nothing_did() {
        let mut reporter = Reporter::default();
        reporter.observe(report(1));
        reporter.welcomed(None);
        assert_eq!(full(reporter.next()), 1);
        reporter.observe(report(2));
        assert_eq!(reporter.next(), None, "one report at a time");
        reporter.acknowledge(1);
        let (base, generation, sections) = delta(reporter.next());
        assert_eq!((base, generation, sections.len()), (1, 2, 1));
        reporter.acknowledge(2);
        reporter.observe(report(2));
        assert_eq!(reporter.next(), None, "unchanged");
        reporter.send_full();
        assert_eq!(full(reporter.next()), 3, "asked for");
    }

    #[test]
    fn a_new_connection_continues_where_the_scheduler_is() {
        let connected = |last| {
            let mut reporter = Reporter::default();
            reporter.observe(report(1));
            reporter.welcomed(None);
            reporter.next();
            reporter.acknowledge(1);
            reporter.observe(report(2));
            reporter.next(); // 2, lost or not
            reporter.observe(report(3));
            reporter.welcomed(last);
            reporter.next()
        };
        assert_eq!(delta(connected(Some(2))).0, 2, "the report arrived, its acknowledgement did not");
        assert_eq!(delta(connected(Some(1))).0, 1, "the report did not arrive");
        assert_eq!(full(connected(None)), 3, "a scheduler that knows nothing");
        assert_eq!(full(connected(Some(9))), 10, "a report of an agent before this one");
    }

    #[test]
    fn what_cannot_wait_overtakes() {
        let event = |kind| ScheduledEvent { event_type: kind, not_before: "2026-01-01T00:00:00Z".to_owned() };
        let mut reporter = Reporter::default();
        reporter.observe(report(1));
        reporter.welcomed(None);
        reporter.next();
        let preempt = Observation::Events(Fact::Measured(vec![event(EventType::Preempt)]));
        reporter.observe(preempt);
        assert_eq!(
            reporter.next(),
            Some(AgentMessage::Notice(Notice::Scheduled(event(EventType::Preempt)))),
            "although a report is under way"
        );
        assert_eq!(reporter.next(), None);
        reporter.acknowledge(1);
        assert!(matches!(delta(reporter.next()).2[..], [Section::Events(_)]), "the report says it too");
    }

    #[test]
    fn a_gpu_is_lost_once() {
        let gpus = |states: [GpuState; 2]| {
            let devices = states.into_iter().enumerate().map(|(number, state)| GpuDevice {
                pci_address: Fact::Measured(format!("0000:0{number}:00.0")),
                state,
                reason: (state == GpuState::Lost).then(|| "fell off the bus".to_owned()),
                ..GpuDevice::default()
            });
            let mut report = HardwareReport::default();
            report.gpus.devices = Fact::Measured(devices.collect());
            Observation::Report(Box::new(report))
        };
        let mut reporter = Reporter::default();
        reporter.observe(gpus([GpuState::Lost, GpuState::Usable]));
        assert!(reporter.notices.is_empty(), "lost before: the first report says it");
        reporter.observe(gpus([GpuState::Lost, GpuState::Lost]));
        reporter.observe(report(1));
        let expected =
            Notice::GpuLost { pci_address: "0000:01:00.0".to_owned(), reason: "fell off the bus".to_owned() };
        assert_eq!(Vec::from(reporter.notices), [expected]);
    }

    proptest! {
        /// Whatever is observed, lost and restarted: once all is quiet, the scheduler has the last report.
        #[test]
        fn the_scheduler_ends_up_with_the_last_report(steps in prop::collection::vec((0_u8..6, 0_u32..4), 0..60)) {
            let mut reporter = Reporter::default();
            let mut server: Option<(Generation, HardwareReport)> = None;
            reporter.observe(report(0));
            reporter.welcomed(None);
            let take = |server: &mut Option<(Generation, HardwareReport)>, reporter: &mut Reporter, acknowledge: bool| {
                match reporter.next() {
                    Some(AgentMessage::Full { generation, report }) => *server = Some((generation, *report)),
                    Some(AgentMessage::Delta { base, generation, sections }) => match server {
                        Some((last, report)) if *last == base => {
                            assert!(generation > base);
                            apply_sections(report, sections);
                            *last = generation;
                        }
                        _ => return reporter.send_full(),
                    },
                    _ => return,
                }
                if let Some((generation, _)) = server && acknowledge {
                    reporter.acknowledge(*generation);
                }
            };
            for (step, sockets) in steps {
                match step {
                    0 | 1 => reporter.observe(report(sockets)),
                    2 => take(&mut server, &mut reporter, true),
                    3 => take(&mut server, &mut reporter, false),
                    4 => reporter.welcomed(server.as_ref().map(|(generation, _)| *generation)),
                    _ => { server = None; reporter.welcomed(None); }
                }
            }
            reporter.welcomed(server.as_ref().map(|(generation, _)| *generation));
            for _ in 0..4 {
                take(&mut server, &mut reporter, true);
            }
            prop_assert_eq!(reporter.next(), None);
            prop_assert_eq!(&server.unwrap().1, &**reporter.current.as_ref().unwrap());
        }
    }
}
