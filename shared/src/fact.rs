//! A fact about a machine: measured, known to be absent, or unavailable with the reason.
//!
//! Probes produce facts, the wire carries them as they are, and JSON shows the plain value or `null`
//! (`crate::report::document` lists the reasons beside it). There is no fourth case: never a guess, never a zero that
//! means "don't know".

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a fact could not be read, for people: `permission denied: sys/devices/system/memory/block_size_bytes`.
pub type Reason = String;

/// One fact about a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// Read from the machine.
    Measured(T),
    /// Known not to be there: no such device, or no such notion on this machine.
    Absent,
    /// Not known, and why.
    Unavailable(Reason),
}

impl<T> Fact<T> {
    /// The measured value, if there is one.
    pub const fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(value) => Some(value),
            Self::Absent | Self::Unavailable(_) => None,
        }
    }

    /// The measured value, to be changed in place.
    pub const fn measured_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Measured(value) => Some(value),
            Self::Absent | Self::Unavailable(_) => None,
        }
    }

    /// A measured value through `f`; absent and unavailable stay what they are.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Measured(value) => Fact::Measured(f(value)),
            Self::Absent => Fact::Absent,
            Self::Unavailable(reason) => Fact::Unavailable(reason),
        }
    }

    /// A measured value through `f`, which may know more (an empty file means absent, a bad one unavailable).
    pub fn and_then<U>(self, f: impl FnOnce(T) -> Fact<U>) -> Fact<U> {
        match self {
            Self::Measured(value) => f(value),
            Self::Absent => Fact::Absent,
            Self::Unavailable(reason) => Fact::Unavailable(reason),
        }
    }

    /// The same fact, borrowed.
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Measured(value) => Fact::Measured(value),
            Self::Absent => Fact::Absent,
            Self::Unavailable(reason) => Fact::Unavailable(reason.clone()),
        }
    }

    /// This fact, or where it is not measured the other one.
    #[must_use]
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Measured(_) => self,
            Self::Absent | Self::Unavailable(_) => other(),
        }
    }

    /// Whether a value was measured.
    pub const fn is_measured(&self) -> bool {
        matches!(self, Self::Measured(_))
    }

    /// Unavailable, for this reason.
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self::Unavailable(reason.to_string())
    }
}

impl<T: Copy> Fact<T> {
    /// The measured value by copy, if there is one.
    pub const fn get(&self) -> Option<T> {
        match self {
            Self::Measured(value) => Some(*value),
            Self::Absent | Self::Unavailable(_) => None,
        }
    }
}

impl<T> From<T> for Fact<T> {
    fn from(value: T) -> Self {
        Self::Measured(value)
    }
}

/// The layout of a fact on the wire: all three cases, in this order for ever.
#[derive(Serialize, Deserialize)]
enum Wire<T> {
    Measured(T),
    Absent,
    Unavailable(Reason),
}

impl<T: Serialize> Serialize for Fact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.measured().serialize(serializer);
        }
        match self {
            Self::Measured(value) => Wire::Measured(value),
            Self::Absent => Wire::Absent,
            Self::Unavailable(reason) => Wire::Unavailable(reason.clone()),
        }
        .serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fact<T> {
    /// In text `null` reads as absent; `crate::report::document` then restores the unavailable ones from their list.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Ok(Option::<T>::deserialize(deserializer)?.map_or(Self::Absent, Self::Measured));
        }
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Measured(value) => Self::Measured(value),
            Wire::Absent => Self::Absent,
            Wire::Unavailable(reason) => Self::Unavailable(reason),
        })
    }
}

impl<T> Default for Fact<T> {
    /// Nothing has looked yet.
    fn default() -> Self {
        Self::Unavailable("not surveyed".to_owned())
    }
}
