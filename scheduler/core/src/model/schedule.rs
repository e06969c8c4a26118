//! Cron schedules of disruption budgets, in UTC, as `robfig/cron`'s `ParseStandard` reads and evaluates them.

use std::fmt;

use super::Timestamp;

/// When something begins, again and again: five fields as in a CronJob, or a name such as `@daily`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// Values of one field, a bit each, and whether it was left open (`*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    is_open: bool,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither five fields nor a known name.
    #[error("expected five fields as in a CronJob, or one of @hourly, @daily, @weekly, @monthly, @yearly")]
    Form,
    /// A field that holds something else than it may.
    #[error("{field}: expected {least} to {most}, lists, ranges or steps of them, found {found:?}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its smallest value.
        least: u32,
        /// Its largest.
        most: u32,
        /// What stands there.
        found: String,
    },
}

/// What may stand in a field.
struct Bounds {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Bounds; 5] = [
    Bounds { name: "minute", least: 0, most: 59, names: &[] },
    Bounds { name: "hour", least: 0, most: 23, names: &[] },
    Bounds { name: "day of month", least: 1, most: 31, names: &[] },
    Bounds { name: "month", least: 1, most: 12, names: &MONTHS },
    Bounds { name: "day of week", least: 0, most: 6, names: &WEEKDAYS },
];

/// Years that are looked at for the next beginning.
const YEARS: i64 = 5;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// Where `robfig/cron` refuses it too.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let words: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = words[..] else { return Err(ScheduleError::Form) };
        let [minute, hour, day, month, weekday] = &FIELDS;
        Ok(Self {
            text: text.to_owned(),
            minutes: Field::parse(minutes, minute)?,
            hours: Field::parse(hours, hour)?,
            days: Field::parse(days, day)?,
            months: Field::parse(months, month)?,
            weekdays: Field::parse(weekdays, weekday)?,
        })
    }

    /// The first beginning after a moment; `None` where there is none within five years, as of 30 February.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let first = (after.0 / MINUTE + 1) * MINUTE;
        let last_year = civil(first / DAY).0 + YEARS;
        for day in first / DAY.. {
            let (year, month, of_month) = civil(day);
            if year > last_year {
                return None;
            }
            // The first of January 1970 was a Thursday.
            let weekday = u32::try_from((day + 4) % 7).unwrap_or(0);
            if !self.months.has(month) || !self.is_day(of_month, weekday) {
                continue;
            }
            let earliest = first.saturating_sub(day * DAY) / MINUTE;
            for hour in u32::try_from(earliest / 60).unwrap_or(0)..24 {
                let from = if u64::from(hour) == earliest / 60 { earliest % 60 } else { 0 };
                let minute = (u32::try_from(from).unwrap_or(0)..60).find(|minute| self.minutes.has(*minute));
                if let Some(minute) = minute.filter(|_| self.hours.has(hour)) {
                    let minutes = u64::from(hour) * 60 + u64::from(minute);
                    return Some(Timestamp(day * DAY + minutes * MINUTE));
                }
            }
        }
        None
    }

    /// Either day matches where both are given, and both must where one is open.
    const fn is_day(&self, of_month: u32, weekday: u32) -> bool {
        let (by_month, by_week) = (self.days.has(of_month), self.weekdays.has(weekday));
        if self.days.is_open || self.weekdays.is_open { by_month && by_week } else { by_month || by_week }
    }
}

impl fmt::Display for Schedule {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Field {
    const fn has(self, value: u32) -> bool {
        self.bits & (1 << value) != 0
    }

    fn parse(text: &str, bounds: &Bounds) -> Result<Self, ScheduleError> {
        let mut field = Self { bits: 0, is_open: false };
        // As there, empty parts of a list are passed over.
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let one = Self::part(part, bounds).ok_or_else(|| ScheduleError::Field {
                field: bounds.name,
                least: bounds.least,
                most: bounds.most,
                found: text.to_owned(),
            })?;
            field.bits |= one.bits;
            field.is_open |= one.is_open;
        }
        Ok(field)
    }

    /// `*`, a value, or a range, each with or without a step.
    fn part(text: &str, bounds: &Bounds) -> Option<Self> {
        let mut halves = text.split('/');
        let range = halves.next()?;
        let step = halves.next();
        if halves.next().is_some() {
            return None;
        }
        let mut ends = range.split('-');
        let (low, high) = (ends.next()?, ends.next());
        if ends.next().is_some() {
            return None;
        }
        let is_open = matches!(low, "*" | "?");
        let (first, mut last) = match (is_open, high) {
            (true, _) => (bounds.least, bounds.most),
            (false, None) => (bounds.value(low)?, bounds.value(low)?),
            (false, Some(high)) => (bounds.value(low)?, bounds.value(high)?),
        };
        let step = match step {
            None => 1,
            Some(step) => {
                // A value with a step begins there and goes to the end.
                if high.is_none() {
                    last = bounds.most;
                }
                step.parse::<u32>().ok().filter(|step| *step > 0)?
            }
        };
        if first < bounds.least || last > bounds.most || first > last {
            return None;
        }
        let mut bits = 0;
        let mut value = first;
        while value <= last {
            bits |= 1 << value;
            value = value.saturating_add(step);
        }
        Some(Self { bits, is_open: is_open && step == 1 })
    }
}

impl Bounds {
    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match named {
            Some(at) => Some(u32::try_from(at).ok()? + self.least),
            None => text.parse().ok(),
        }
    }
}

/// Year, month and day of a day since the Unix epoch (Howard Hinnant's `civil_from_days`).
fn civil(day: u64) -> (i64, u32, u32) {
    let shifted = i64::try_from(day).unwrap_or(i64::MAX / 2) + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years that begin in March have their leap day at the end.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes since the epoch of a date, by counting days.
    fn at(year: i64, month: u32, day: u32, hour: u64, minute: u64) -> Timestamp {
        let days = (0..).find(|days| civil(*days) == (year, month, day)).unwrap();
        Timestamp(days * DAY + (hour * 60 + minute) * MINUTE)
    }

    #[test]
    fn the_next_beginning_is_found() {
        let friday = at(2026, 1, 30, 22, 30);
        let cases = [
            ("* * * * *", at(2026, 1, 30, 22, 31)),
            ("@hourly", at(2026, 1, 30, 23, 0)),
            ("@daily", at(2026, 1, 31, 0, 0)),
            ("@midnight", at(2026, 1, 31, 0, 0)),
            ("@weekly", at(2026, 2, 1, 0, 0)),
            ("@monthly", at(2026, 2, 1, 0, 0)),
            ("@yearly", at(2027, 1, 1, 0, 0)),
            ("30 22 * * *", at(2026, 1, 31, 22, 30)),
            ("0 9 * * mon-fri", at(2026, 2, 2, 9, 0)),
            ("0 9 * * MON", at(2026, 2, 2, 9, 0)),
            ("*/20 * * * *", at(2026, 1, 30, 22, 40)),
            ("5/20 * * * *", at(2026, 1, 30, 22, 45)),
            ("0 0 29 2 *", at(2028, 2, 29, 0, 0)),
            // Both days given: either.
            ("0 0 13 * fri", at(2026, 2, 6, 0, 0)),
            // One open: both. A step opens nothing.
            ("0 0 13 * ?", at(2026, 2, 13, 0, 0)),
            ("0 0 13 * */2", at(2026, 1, 31, 0, 0)),
            ("0 0 */1 * tue", at(2026, 2, 3, 0, 0)),
            ("0 12 1-7,15 feb,MAR *", at(2026, 2, 1, 12, 0)),
        ];
        for (text, expected) in cases {
            assert_eq!(Schedule::parse(text).unwrap().next(friday), Some(expected), "{text}");
        }
        assert_eq!(Schedule::parse("0 0 30 2 *").unwrap().next(friday), None, "there is no such day");
        let moment = Timestamp(friday.0 + 1);
        assert_eq!(Schedule::parse("30 22 * * *").unwrap().next(moment), Some(at(2026, 1, 31, 22, 30)));
    }

    #[test]
    fn what_robfig_refuses_is_refused() {
        let texts = [
            "",
            "* * * *",
            "* * * * * *",
            "@every 1h",
            "@reboot",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "* * * foo *",
            "5-1 * * * *",
            "*/0 * * * *",
            "1/2/3 * * * *",
            "1-2-3 * * * *",
            "-1 * * * *",
            "a b c d e",
        ];
        for text in texts {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_beginning_is_the_first_minute_that_matches() {
        // Against a walk over every minute of some weeks.
        let texts = ["*/17 3-5 * * *", "0 0 1,15 * wed", "59 23 * * sun", "7 */6 2-9/3 * *"];
        for text in texts {
            let schedule = Schedule::parse(text).unwrap();
            let begins = |time: u64| {
                let (_, month, day) = civil(time / DAY);
                let minutes = u32::try_from(time % DAY / MINUTE).unwrap();
                let weekday = u32::try_from((time / DAY + 4) % 7).unwrap();
                schedule.minutes.has(minutes % 60)
                    && schedule.hours.has(minutes / 60)
                    && schedule.months.has(month)
                    && schedule.is_day(day, weekday)
            };
            let start = at(2026, 2, 20, 0, 0).0;
            for step in 0..400 {
                let from = start + step * 97 * MINUTE + step;
                let walked = (from / MINUTE + 1..).map(|minute| minute * MINUTE).find(|time| begins(*time));
                assert_eq!(schedule.next(Timestamp(from)).map(|time| time.0), walked, "{text} after {from}");
            }
        }
    }
}
