//! What an API call's error means, and how long to wait before the next try.

use std::time::Duration;

use kube::Error;

/// First pause after an error that passes.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause: an API server that comes back is not to be waited for much longer than it was away.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// What an error means for whoever sent the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes: too many requests, no connection, a server that restarts. Not before this pause where the server said so.
    Transient(Option<Duration>),
    /// The object changed in between (409): read it again.
    Conflict,
    /// It is there already (409 on a create).
    Exists,
    /// It is not there (404), or another object has its name by now.
    Gone,
    /// The server will say no to the same call again: not valid, or not allowed.
    Refused(String),
}

pub(super) fn verdict(error: &Error) -> Verdict {
    let Error::Api(status) = error else {
        // Connections break, and answers that make no sense come from whatever stands in between.
        return Verdict::Transient(None);
    };
    let after = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let after = (after > 0).then(|| Duration::from_secs(after.into()));
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => Verdict::Exists,
        (409, _) => Verdict::Conflict,
        (404 | 410, _) => Verdict::Gone,
        (408 | 429 | 500..=599, _) => Verdict::Transient(after),
        // Credentials are renewed, rights granted.
        (401, _) => Verdict::Transient(after),
        _ => Verdict::Refused(status.message.clone()),
    }
}

/// The pauses between tries of one call: doubling, each drawn between its half and its whole, so that those who failed
/// together do not come back together.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) const fn new() -> Self {
        Self { next: PAUSE_FIRST }
    }

    /// The next pause; `drawn` is between 0 and 1.
    pub(super) fn next(&mut self, asked: Option<Duration>, drawn: f64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(PAUSE_LONGEST);
        let pause = whole.mul_f64(0.5 + drawn.clamp(0.0, 1.0) / 2.0);
        pause.max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{Status, response::StatusDetails};

    use super::*;

    fn api(code: u16, reason: &str, retry_after_seconds: u32) -> Error {
        let details: StatusDetails =
            serde_json::from_value(serde_json::json!({"retryAfterSeconds": retry_after_seconds})).unwrap();
        let status =
            Status { code, reason: reason.to_owned(), message: "why".to_owned(), ..Status::default() };
        Error::Api(Box::new(Status { details: Some(details), ..status }))
    }

    #[test]
    fn errors_are_told_apart_by_what_to_do_about_them() {
        let cases = [
            (api(429, "TooManyRequests", 3), Verdict::Transient(Some(Duration::from_secs(3)))),
            (api(503, "ServiceUnavailable", 0), Verdict::Transient(None)),
            (api(500, "InternalError", 0), Verdict::Transient(None)),
            (api(401, "Unauthorized", 0), Verdict::Transient(None)),
            (api(409, "Conflict", 0), Verdict::Conflict),
            (api(409, "AlreadyExists", 0), Verdict::Exists),
            (api(404, "NotFound", 0), Verdict::Gone),
            (api(422, "Invalid", 0), Verdict::Refused("why".to_owned())),
            (api(403, "Forbidden", 0), Verdict::Refused("why".to_owned())),
            (Error::LinesCodecMaxLineLengthExceeded, Verdict::Transient(None)),
        ];
        for (error, expected) in cases {
            assert_eq!(verdict(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_are_never_shorter_than_asked() {
        let mut pauses = Pauses::new();
        let drawn: Vec<u128> = (0..10).map(|_| pauses.next(None, 1.0).as_millis()).collect();
        assert_eq!(drawn, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        let mut pauses = Pauses::new();
        assert_eq!(pauses.next(Some(Duration::from_secs(5)), 0.0), Duration::from_secs(5));
        assert_eq!(pauses.next(None, 0.0), Duration::from_millis(200), "half of the second pause");
    }
}
