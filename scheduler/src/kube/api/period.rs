//! Lengths of time as manifests write them: `30s`, `1h30m`, and `Never` where that is possible.
//!
//! The text is Karpenter's subset of Go's durations. Equal lengths are equal, however they are written.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use assay_core::model::Wait;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::manifest::parse_duration;

/// Pattern of [`Period`].
const PERIOD: &str = "^([0-9]+(s|m|h))+$";
/// Pattern of [`NillablePeriod`].
const NILLABLE: &str = "^(([0-9]+(s|m|h))+|Never)$";

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Duration);

/// A length of time, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NillablePeriod(pub Wait);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 30s, 5m, 1h30m, found {0:?}")]
pub struct PeriodError(String);

impl NillablePeriod {
    /// So many hours.
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Self(Wait::After(Duration::from_secs(hours * 3600)))
    }

    /// At once.
    #[must_use]
    pub const fn zero() -> Self {
        Self(Wait::After(Duration::ZERO))
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Self).ok_or_else(|| PeriodError(text.to_owned()))
    }
}

impl FromStr for NillablePeriod {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "Never" {
            Ok(Self(Wait::Never))
        } else {
            text.parse().map(|Period(time)| Self(Wait::After(time)))
        }
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for NillablePeriod {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Period {
    /// The largest units first, none of them zero: `720h`, `1h30m`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let mut text = String::new();
        for (amount, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')] {
            if amount > 0 {
                write!(text, "{amount}{unit}")?;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl fmt::Display for NillablePeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Wait::After(time) => Period(time).fmt(f),
            Wait::Never => f.pad("Never"),
        }
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl From<NillablePeriod> for String {
    fn from(period: NillablePeriod) -> Self {
        period.to_string()
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PERIOD})
    }
}

impl JsonSchema for NillablePeriod {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NillablePeriod".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": NILLABLE})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_written_with_the_largest_units_and_read_back() {
        let cases = [
            ("720h", "720h"),
            ("60m", "1h"),
            ("90m", "1h30m"),
            ("1h1m1s", "1h1m1s"),
            ("0s", "0s"),
            ("0h", "0s"),
            ("Never", "Never"),
        ];
        for (text, written) in cases {
            let period: NillablePeriod = text.parse().unwrap();
            assert_eq!(period.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(period), "{text}");
        }
        for wrong in ["", "never", "5", "m", "1d", "-5m", "1.5h", "99999999999999999999h"] {
            assert!(wrong.parse::<NillablePeriod>().is_err(), "{wrong}");
        }
        assert!("Never".parse::<Period>().is_err());
    }
}
