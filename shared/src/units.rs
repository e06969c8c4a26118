//! Quantities that carry their unit in the type, so that a mebibyte is never added to a millicore.
//!
//! Every unit is a whole number in its base unit: no rounding hides in a float, and equal facts compare equal.
//! JSON and the wire carry the plain number; the unit is in the name of the field (`memoryBytes`, `speedMbps`).

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub, SubAssign};
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// `self - other`, or zero where `other` is larger.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// Whether there is none.
            #[must_use]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl Add for $name {
            type Output = Self;
            /// Saturates at the largest value: an absurd input stays absurd and never wraps to a small one.
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $name {
            type Output = Self;
            /// Saturates at zero.
            fn sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl Mul<$inner> for $name {
            type Output = Self;
            /// Saturates at the largest value.
            fn mul(self, times: $inner) -> Self {
                Self(self.0.saturating_mul(times))
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::ZERO, Add::add)
            }
        }
    };
}

unit!(
    /// Bytes of memory or storage.
    Bytes(u64)
);
unit!(
    /// Thousandths of a logical CPU, the unit Kubernetes schedules CPU in.
    MilliCpu(u64)
);
unit!(
    /// Megabits per second (10^6), as the kernel reports link speed.
    Mbps(u32)
);
unit!(
    /// Gigabits per second (10^9), as InfiniBand rates are quoted.
    Gbps(u32)
);
unit!(
    /// A price in US dollars per hour, kept in billionths of a dollar so that sums are exact.
    UsdPerHour(u64)
);
unit!(
    /// An amount of US dollars, in billionths.
    Usd(u64)
);

impl Bytes {
    /// One kibibyte.
    pub const KIB: Self = Self(1 << 10);
    /// One mebibyte.
    pub const MIB: Self = Self(1 << 20);
    /// One gibibyte.
    pub const GIB: Self = Self(1 << 30);

    /// `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// `n` gibibytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// Whole mebibytes, rounded down.
    #[must_use]
    pub const fn as_mib(self) -> u64 {
        self.0 >> 20
    }

    /// Whole gibibytes, rounded down.
    #[must_use]
    pub const fn as_gib(self) -> u64 {
        self.0 >> 30
    }
}

impl fmt::Display for Bytes {
    /// For people: the largest binary unit that keeps at least one digit before the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (name, size) in UNITS {
            if self.0 >= size {
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                return match tenths % 10 {
                    0 => write!(f, "{} {name}", tenths / 10),
                    rest => write!(f, "{}.{rest} {name}", tenths / 10),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl fmt::Display for Mbps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1000 && self.0.is_multiple_of(1000) {
            write!(f, "{} Gb/s", self.0 / 1000)
        } else {
            write!(f, "{} Mb/s", self.0)
        }
    }
}

impl fmt::Display for Gbps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Gb/s", self.0)
    }
}

impl UsdPerHour {
    const NANO: f64 = 1e9;

    /// From dollars, rounded to the nearest billionth; `None` where it is negative, not a number or above 10^9.
    #[must_use]
    pub fn from_usd(usd: f64) -> Option<Self> {
        if !(0.0..=1e9).contains(&usd) {
            return None;
        }
        // In range by the check above: at most 1e18, below u64::MAX.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(Self((usd * Self::NANO).round() as u64))
    }

    /// In dollars; exact to the digits that prices have.
    #[must_use]
    pub fn usd(self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // prices have far fewer than 16 digits
        let nano = self.0 as f64;
        nano / Self::NANO
    }

    /// What it comes to over a time.
    #[must_use]
    pub fn over(self, time: Duration) -> Usd {
        const HOUR_MILLIS: u128 = 3_600_000;
        let product = u128::from(self.0).saturating_mul(time.as_millis());
        Usd(u64::try_from(product / HOUR_MILLIS).unwrap_or(u64::MAX))
    }
}

impl Usd {
    /// From dollars, rounded to the nearest billionth; `None` where it is negative, not a number or above 10^9.
    #[must_use]
    pub fn from_usd(usd: f64) -> Option<Self> {
        UsdPerHour::from_usd(usd).map(|price| Self(price.0))
    }

    /// In dollars.
    #[must_use]
    pub fn usd(self) -> f64 {
        UsdPerHour(self.0).usd()
    }
}

impl fmt::Display for Usd {
    /// Four decimals: `$0.0300`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.4}", self.usd())
    }
}

impl fmt::Display for UsdPerHour {
    /// Four decimals, as prices are quoted: `$0.1920/h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.4}/h", self.usd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_people_write_them() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (17_179_869_184, "16 GiB")];
        for (bytes, shown) in cases {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Bytes(u64::MAX) + Bytes(1), Bytes(u64::MAX));
        assert_eq!(Bytes(1) - Bytes(2), Bytes::ZERO);
        assert_eq!(MilliCpu(u64::MAX) * 2, MilliCpu(u64::MAX));
    }

    #[test]
    fn a_price_comes_to_an_amount_over_time() {
        let price = UsdPerHour::from_usd(0.2).unwrap();
        assert_eq!(price.over(Duration::from_secs(900)), Usd::from_usd(0.05).unwrap());
        assert_eq!(UsdPerHour(u64::MAX).over(Duration::MAX), Usd(u64::MAX));
    }

    #[test]
    fn prices_survive_the_way_through_dollars() {
        for usd in [0.0, 0.0074, 0.192, 0.214_748_364_8, 98.32] {
            let price = UsdPerHour::from_usd(usd).unwrap();
            assert!((price.usd() - usd).abs() < 1e-9, "{usd} became {}", price.usd());
        }
        for wrong in [-0.1, f64::NAN, f64::INFINITY] {
            assert_eq!(UsdPerHour::from_usd(wrong), None);
        }
    }
}
