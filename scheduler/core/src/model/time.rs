//! Time as an argument: the core never asks what time it is.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch (or since the start of a simulation).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero where it is later than `self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// A date as HTTP and Azure's Scheduled Events write it: `Mon, 19 Sep 2016 18:29:47 GMT`.
    #[must_use]
    pub fn from_http_date(text: &str) -> Option<Self> {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        let mut words = text.split_ascii_whitespace().skip(1);
        let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
        let month = words.next().filter(|word| word.len() == 3)?;
        let month = MONTHS.find(month).filter(|at| at % 3 == 0)? as u64 / 3;
        let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
        let mut time = words.next()?.splitn(3, ':').map(str::parse::<u64>);
        let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
        if words.next()? != "GMT" || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        // Years that begin in March have their leap day at the end.
        let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
        let days_before_month = (153 * month + 2) / 5;
        let days = year * 365 + year / 4 - year / 100 + year / 400 + days_before_month + day - 1;
        let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Self(seconds * 1000))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Timestamp {
    /// Seconds with milliseconds, for logs and timelines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_scheduled_events_are_read() {
        let cases = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 19 Sep 2016 18:29:47 GMT", Some(1_474_309_787)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("", None),
            ("Mon, 19 anF 2016 18:29:47 GMT", None),
            ("Mon, 19 Sep 2016 18:29:47 CET", None),
            ("Mon, 19 Sep 2016 25:29:47 GMT", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(Timestamp::from_http_date(text), seconds.map(|s: u64| Timestamp(s * 1000)), "{text}");
        }
    }
}
