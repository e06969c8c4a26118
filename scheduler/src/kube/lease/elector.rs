//! What to do about the lease now: a function of what was seen of it, and when.

use std::time::Duration;

/// How long things last. The defaults are those of Kubernetes' own components and of Karpenter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A record that has not changed for so long is nobody's.
    pub lease_duration: Duration,
    /// A leader that has not renewed for so long stops. Smaller than the duration by more than a request may take
    /// ([`Self::request_timeout`]), so that its last write has ended before another one begins.
    pub renew_deadline: Duration,
    /// From one look at the lease to the next.
    pub retry_period: Duration,
    /// A request to the API server may take so long.
    pub request_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            request_timeout: Duration::from_secs(4),
        }
    }
}

/// A Lease object, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` where it was given up.
    pub holder: Option<String>,
    /// How long it lasts for whoever holds it.
    pub duration: Duration,
    /// Changes of holder so far.
    pub transitions: u64,
    /// The version the API server gave it.
    pub resource_version: String,
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// There is no lease: make it ours.
    Create,
    /// Take it over, or renew it.
    Update {
        /// Version that is replaced; the API server refuses where it has changed.
        resource_version: String,
        /// The number of changes of holder to write.
        transitions: u64,
        /// Whether the holder changes.
        acquires: bool,
    },
    /// Another one holds it.
    Wait,
}

/// The state of one candidate. Times are on its own monotonic clock, from any origin.
#[derive(Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    /// The record as it was last seen, and when it was first seen so.
    seen: Option<(Record, Duration)>,
    /// When the last renewal that succeeded was sent.
    renewed: Option<Duration>,
}

impl Elector {
    /// A candidate. The identity must differ from that of every other one, also from its own of an earlier run.
    #[must_use]
    pub const fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, renewed: None }
    }

    /// Its name.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its times.
    #[must_use]
    pub const fn timing(&self) -> Timing {
        self.timing
    }

    /// The lease was read; `None` where there is none.
    pub fn observe(&mut self, now: Duration, record: Option<Record>) {
        let Some(record) = record else {
            self.seen = None;
            return;
        };
        let same = self.seen.as_ref().is_some_and(|(seen, _)| *seen == record);
        if !same {
            if record.holder.as_deref() != Some(&self.identity) {
                self.renewed = None;
            }
            self.seen = Some((record, now));
        }
    }

    /// What to do now.
    #[must_use]
    pub fn decide(&self, now: Duration) -> Action {
        let Some((record, since)) = &self.seen else { return Action::Create };
        let version = record.resource_version.clone();
        let ours = record.holder.as_deref() == Some(&self.identity);
        let over = now >= self.runs_out(record, *since);
        if ours {
            let transitions = record.transitions;
            Action::Update { resource_version: version, transitions, acquires: self.renewed.is_none() }
        } else if record.holder.is_none() || over {
            Action::Update {
                resource_version: version,
                transitions: record.transitions.saturating_add(1),
                acquires: true,
            }
        } else {
            Action::Wait
        }
    }

    /// When a record that was first seen at `since` is nobody's any more. Another holder may think that it has longer than we would.
    fn runs_out(&self, record: &Record, since: Duration) -> Duration {
        since + record.duration.max(self.timing.lease_duration)
    }

    /// How long to wait before the next look: until another one's lease runs out, where that comes first.
    #[must_use]
    pub fn pause(&self, now: Duration) -> Duration {
        let theirs = self
            .seen
            .as_ref()
            .filter(|(record, _)| record.holder.as_ref().is_some_and(|holder| *holder != self.identity));
        let left = theirs.map(|(record, since)| self.runs_out(record, *since).saturating_sub(now));
        // What has run out already could not be taken: not again at once.
        let left = left.filter(|left| !left.is_zero());
        left.map_or(self.timing.retry_period, |left| left.min(self.timing.retry_period))
    }

    /// A create or update that was sent at `sent` came back as `record`.
    pub fn written(&mut self, sent: Duration, now: Duration, record: Record) {
        self.renewed = Some(sent);
        self.seen = Some((record, now));
    }

    /// The lease was given up.
    pub fn resigned(&mut self) {
        self.renewed = None;
        self.seen = None;
    }

    /// Until when this one may write, and the number of its term; `None` where it may not.
    #[must_use]
    pub fn leads(&self, now: Duration) -> Option<(Duration, u64)> {
        let (record, _) = self.seen.as_ref()?;
        let until = self.renewed? + self.timing.renew_deadline;
        (now < until && record.holder.as_deref() == Some(&self.identity))
            .then_some((until, record.transitions))
    }

    /// Who holds the lease, as far as was seen.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().and_then(|(record, _)| record.holder.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn record(holder: Option<&str>, version: u64) -> Record {
        Record {
            holder: holder.map(str::to_owned),
            duration: 15 * SECOND,
            transitions: version,
            resource_version: version.to_string(),
        }
    }

    fn acquires(action: &Action) -> bool {
        matches!(action, Action::Create | Action::Update { acquires: true, .. })
    }

    #[test]
    fn waits_until_the_record_has_not_changed_for_its_whole_duration() {
        let mut elector = Elector::new("b".to_owned(), Timing::default());
        elector.observe(SECOND, Some(record(Some("a"), 1)));
        assert_eq!(elector.decide(15 * SECOND), Action::Wait, "14 s after it was first seen");
        // The holder renews: the wait begins anew.
        elector.observe(15 * SECOND, Some(record(Some("a"), 2)));
        assert_eq!(elector.decide(20 * SECOND), Action::Wait);
        elector.observe(29 * SECOND, Some(record(Some("a"), 2)));
        assert!(acquires(&elector.decide(30 * SECOND)), "15 s without a change");
    }

    #[test]
    fn looks_again_when_another_ones_lease_runs_out() {
        let timing = Timing::default();
        let mut elector = Elector::new("b".to_owned(), timing);
        assert_eq!(elector.pause(SECOND), timing.retry_period);
        elector.observe(SECOND, Some(record(Some("a"), 1)));
        let runs_out = SECOND + timing.lease_duration.max(15 * SECOND);
        assert_eq!(elector.pause(SECOND), timing.retry_period);
        assert_eq!(elector.pause(runs_out - SECOND / 2), SECOND / 2);
        assert_eq!(elector.pause(runs_out), timing.retry_period, "it could not be taken just now");
        elector.written(runs_out, runs_out, record(Some("b"), 2));
        assert_eq!(elector.pause(runs_out + 14 * SECOND), timing.retry_period, "its own it renews");
    }

    #[test]
    fn takes_what_nobody_holds_at_once() {
        let mut elector = Elector::new("b".to_owned(), Timing::default());
        assert_eq!(elector.decide(SECOND), Action::Create);
        elector.observe(SECOND, Some(record(None, 7)));
        let action = Action::Update { resource_version: "7".to_owned(), transitions: 8, acquires: true };
        assert_eq!(elector.decide(SECOND), action);
    }

    #[test]
    fn a_leader_stops_by_itself_counted_from_before_its_last_renewal_was_sent() {
        let mut elector = Elector::new("a".to_owned(), Timing::default());
        elector.written(SECOND, 4 * SECOND, record(Some("a"), 1));
        assert_eq!(elector.leads(10 * SECOND), Some((11 * SECOND, 1)));
        assert_eq!(elector.leads(11 * SECOND), None);
    }

    #[test]
    fn a_record_of_an_earlier_run_of_the_same_name_is_no_leadership() {
        let mut elector = Elector::new("a".to_owned(), Timing::default());
        elector.observe(SECOND, Some(record(Some("a"), 3)));
        assert_eq!(elector.leads(SECOND), None);
        assert!(acquires(&elector.decide(SECOND)));
    }

    #[test]
    fn whoever_sees_another_holder_stops() {
        let mut elector = Elector::new("a".to_owned(), Timing::default());
        elector.written(SECOND, SECOND, record(Some("a"), 1));
        elector.observe(3 * SECOND, Some(record(Some("b"), 2)));
        assert_eq!(elector.leads(3 * SECOND), None);
        assert_eq!(elector.holder(), Some("b"));
    }

    /// One thing that happens to a candidate, after a pause.
    #[derive(Debug, Clone)]
    struct Turn {
        candidate: usize,
        pause_ms: u64,
        /// How long the request is on its way, and its answer on the way back.
        request_ms: u64,
        answer_ms: u64,
        /// What of them gets lost.
        lost: Option<bool>,
    }

    prop_compose! {
        fn turn()(
            candidate in 0..3_usize,
            pause_ms in 0..6_000_u64,
            request_ms in 0..2_000_u64,
            answer_ms in 0..2_000_u64,
            lost in prop::option::weighted(0.2, any::<bool>()),
        ) -> Turn {
            Turn { candidate, pause_ms, request_ms, answer_ms, lost }
        }
    }

    proptest! {
        /// A store that takes a write only for the version it has, candidates whose clocks begin anywhere, requests and
        /// answers that are slow or lost: no two lead at one moment.
        #[test]
        fn no_two_lead_at_one_moment(turns in prop::collection::vec(turn(), 1..200), origins in prop::array::uniform3(0..1_000_000_u64)) {
            let mut electors: Vec<Elector> =
                (0..3).map(|index| Elector::new(format!("c{index}"), Timing::default())).collect();
            let mut stored: Option<Record> = None;
            let mut version = 0_u64;
            let mut now = 0_u64;
            // Each candidate has one request at a time; a later turn of its waits for the answer.
            let mut busy = [0_u64; 3];
            for turn in turns {
                let index = turn.candidate;
                now = (now + turn.pause_ms).max(busy[index]);
                let clock = |at: u64| Duration::from_millis(at + origins[index]);
                electors[index].observe(clock(now), stored.clone());
                let action = electors[index].decide(clock(now));
                let identity = electors[index].identity().to_owned();
                let wanted = match action {
                    Action::Wait => None,
                    Action::Create => stored.is_none().then_some(0),
                    Action::Update { resource_version, transitions, .. } => stored
                        .as_ref()
                        .is_some_and(|record| record.resource_version == resource_version)
                        .then_some(transitions),
                };
                busy[index] = now + turn.request_ms + turn.answer_ms;
                if let Some(transitions) = wanted.filter(|_| turn.lost != Some(true)) {
                    version += 1;
                    let record = Record {
                        holder: Some(identity),
                        duration: Timing::default().lease_duration,
                        transitions,
                        resource_version: version.to_string(),
                    };
                    stored = Some(record.clone());
                    if turn.lost.is_none() {
                        electors[index].written(clock(now), clock(busy[index]), record);
                    }
                }
                for at in [now, busy[index]] {
                    let leaders = electors.iter().zip(origins).filter(|(elector, origin)| {
                        elector.leads(Duration::from_millis(at + origin)).is_some()
                    });
                    prop_assert!(leaders.count() <= 1, "two leaders at {at} ms");
                }
            }
        }
    }
}
