//! The driver's clock: the API server's time, carried on by the own monotonic clock.
//!
//! Times on objects are the API server's or an earlier leader's. A scheduler whose clock is off by minutes would take every
//! launch for overdue, so all schedulers of a cluster go by the one clock they share. After it was asked, steps of the own
//! wall clock do not matter.

use std::time::Duration;

use assay_core::model::Timestamp;
use kube::Client;
use kube::client::Body;
use kube::core::Request;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

/// How long the API server may take to say its time.
const PATIENCE: Duration = Duration::from_secs(5);
/// A difference that is worth telling: certificates and leases begin to fail by it.
const WORTH_TELLING: Duration = Duration::from_secs(10);

/// A clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
    at_origin: Timestamp,
}

impl Clock {
    /// The API server's clock, or the own where it does not answer.
    pub(super) async fn of_server(client: &Client) -> Self {
        let own = Self::own();
        match timeout(PATIENCE, server_time(client)).await {
            Ok(Some(theirs)) => {
                let ours = own.now();
                let off = ours.since(theirs).max(theirs.since(ours));
                if off >= WORTH_TELLING {
                    warn!(
                        seconds = off.as_secs(),
                        "the clock of this machine and that of the API server differ"
                    );
                }
                // The header has whole seconds; half of one is the smallest error on average.
                Self { origin: Instant::now(), at_origin: theirs + Duration::from_millis(500) }
            }
            Ok(None) | Err(_) => {
                debug!("the API server does not tell its time");
                own
            }
        }
    }

    fn own() -> Self {
        let now = k8s_openapi::jiff::Timestamp::now().as_millisecond();
        Self { origin: Instant::now(), at_origin: Timestamp(u64::try_from(now).unwrap_or(0)) }
    }

    pub(super) fn now(self) -> Timestamp {
        self.at_origin + self.origin.elapsed()
    }

    /// When it will be `at`; now where that has passed.
    pub(super) fn instant(self, at: Timestamp) -> Instant {
        self.origin + at.since(self.at_origin)
    }
}

/// What the API server says in the `Date` of an answer.
async fn server_time(client: &Client) -> Option<Timestamp> {
    let request = Request::new("").get("version", &Default::default()).ok()?;
    let answer = client.send(request.map(Body::from)).await.ok()?;
    let date = answer.headers().get(hyper::http::header::DATE)?.to_str().ok()?;
    let date = k8s_openapi::jiff::fmt::rfc2822::parse(date).ok()?;
    u64::try_from(date.timestamp().as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_by_the_monotonic_clock() {
        let origin = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        let clock = Clock { origin, at_origin: Timestamp(1_000_000) };
        assert!(clock.now() >= Timestamp(1_003_000));
        assert_eq!(clock.instant(Timestamp(1_005_000)), origin + Duration::from_secs(5));
        assert!(clock.instant(Timestamp(0)) <= Instant::now());
    }
}
