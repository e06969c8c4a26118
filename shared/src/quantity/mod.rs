//! Kubernetes resource quantities: `1500m`, `16Gi`, `1e3`.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/api/resource`: what is parsed, how it is rounded, how it is printed.
//! Manifests and catalogues bring them in; the core keeps [`Bytes`] and [`MilliCpu`] instead.
//!
//! One deviation, on purpose: text without any digit (`Mi`, `-`) is an error here, where apimachinery reads it as zero.

mod parse;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::units::{Bytes, MilliCpu};

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// Largest magnitude, in billionths: 10^29. Far above any resource, so that sums stay exact.
const MAX_NANOS: i128 = 10_i128.pow(38);

/// Largest number a binary suffix may stand for, 2^63 - 1, in billionths.
const BINARY_MAX_NANOS: i128 = i64::MAX as i128 * NANO;

/// How a quantity was written, and so how it is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi` (12·2^20)
    BinarySi,
    /// `12M` (12·10^6)
    #[default]
    DecimalSi,
}

/// A Kubernetes quantity: a number exact to one billionth, and the format it is printed in. Two quantities are equal where
/// the numbers are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Text that is not a quantity, or a quantity that cannot be what it is used for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No number in it, or something behind the suffix.
    #[error("expected a quantity such as 500m, 2 or 16Gi, found {found:?}")]
    Format {
        /// The text.
        found: String,
    },
    /// A number with a suffix that does not exist.
    #[error(
        "expected a quantity with a suffix of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent, \
         found {suffix:?} in {found:?}"
    )]
    Suffix {
        /// The text.
        found: String,
        /// Its suffix.
        suffix: String,
    },
    /// A negative amount of something that can be counted.
    #[error("expected a quantity of zero or more, found {found}")]
    Negative {
        /// The quantity.
        found: Quantity,
    },
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number, printed in `format`.
    #[must_use]
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANO, format }
    }

    /// Thousandths, as CPU is given.
    #[must_use]
    pub const fn from_milli(value: i64) -> Self {
        Self { nanos: value as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    const fn from_nanos(nanos: i128, format: Format) -> Self {
        let nanos = if nanos > MAX_NANOS {
            MAX_NANOS
        } else if nanos < -MAX_NANOS {
            -MAX_NANOS
        } else {
            nanos
        };
        Self { nanos, format }
    }

    /// How it is printed.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// In units of `unit` billionths, rounded away from zero; the nearest `i64` where it is larger.
    fn in_units_of(self, unit: i128) -> i64 {
        let whole = self.nanos / unit;
        let up = if self.nanos % unit == 0 { 0 } else { self.nanos.signum() };
        let limit = if whole < 0 { i64::MIN } else { i64::MAX };
        i64::try_from(whole + up).unwrap_or(limit)
    }

    /// As a whole number, rounded away from zero.
    #[must_use]
    pub fn value(self) -> i64 {
        self.in_units_of(NANO)
    }

    /// In thousandths, rounded away from zero.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        self.in_units_of(NANO / 1000)
    }

    /// As a whole count of anything, rounded up.
    ///
    /// # Errors
    /// [`QuantityError::Negative`].
    pub fn to_count(self) -> Result<u64, QuantityError> {
        u64::try_from(self.value()).map_err(|_| QuantityError::Negative { found: self })
    }

    /// As memory or storage, rounded up to a byte.
    ///
    /// # Errors
    /// [`QuantityError::Negative`].
    pub fn to_bytes(self) -> Result<Bytes, QuantityError> {
        self.to_count().map(Bytes)
    }

    /// As CPU, rounded up to a thousandth.
    ///
    /// # Errors
    /// [`QuantityError::Negative`].
    pub fn to_milli_cpu(self) -> Result<MilliCpu, QuantityError> {
        u64::try_from(self.milli_value()).map(MilliCpu).map_err(|_| QuantityError::Negative { found: self })
    }
}

impl From<Bytes> for Quantity {
    /// Printed with a binary suffix.
    fn from(bytes: Bytes) -> Self {
        Self { nanos: i128::from(bytes.0) * NANO, format: Format::BinarySi }
    }
}

impl From<MilliCpu> for Quantity {
    fn from(cpu: MilliCpu) -> Self {
        Self { nanos: i128::from(cpu.0) * (NANO / 1000), format: Format::DecimalSi }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::quantity(text)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        const DECIMAL: [(i32, &str); 10] = [
            (-9, "n"),
            (-6, "u"),
            (-3, "m"),
            (0, ""),
            (3, "k"),
            (6, "M"),
            (9, "G"),
            (12, "T"),
            (15, "P"),
            (18, "E"),
        ];
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        // Below 1024, with a fraction or above what is parsed, a binary suffix could only lose digits.
        let binary = whole && (1024 * NANO..=BINARY_MAX_NANOS).contains(&self.nanos.abs());
        if self.format == Format::BinarySi && binary {
            let (mut value, mut step) = (self.nanos / NANO, 0);
            while value % 1024 == 0 && step + 1 < BINARY.len() {
                value /= 1024;
                step += 1;
            }
            return write!(f, "{value}{}", BINARY[step]);
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 {
            value /= 1000;
            exponent += 3;
        }
        match DECIMAL.iter().find(|(power, _)| *power == exponent) {
            _ if self.format == Format::DecimalExponent && exponent == 0 => write!(f, "{value}"),
            Some((_, suffix)) if self.format != Format::DecimalExponent => write!(f, "{value}{suffix}"),
            // There is no suffix above E.
            _ => write!(f, "{value}e{exponent}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl Add for Quantity {
    type Output = Self;
    /// The sum, in the format of the first that is not zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::from_nanos(self.nanos.saturating_add(other.nanos), format)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}

impl Sub for Quantity {
    type Output = Self;
    /// The difference; it may be negative.
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// From a string or, as the API server accepts too, a plain number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as \"500m\", 2 or \"16Gi\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity { nanos: i128::from(value) * NANO, format: Format::DecimalSi })
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity::new(value, Format::DecimalSi))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                value.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
