//! Requirements: which values of a label are allowed.
//!
//! A [`Requirement`] is one line of a manifest; a [`ValueSet`] is the set it stands for; [`Requirements`] maps keys to sets.
//! All eight operators become sets over the label's values *and its absence*, so that intersection is exact.

mod priority;
#[cfg(test)]
mod properties;
mod set;
mod typo;
mod value_set;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use set::{Incompatible, Requirements, WELL_KNOWN, is_well_known, normalize_key, value_of};
pub(crate) use typo::distance;
pub use typo::nearly_well_known;
pub use value_set::ValueSet;

/// One requirement as a manifest writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// How the values are compared.
    pub operator: Operator,
    /// The values: any number for In and NotIn, none for Exists and DoesNotExist, one integer for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// How many distinct values must stay possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_values: Option<u32>,
}

impl Requirement {
    /// `key In values`.
    #[must_use]
    pub fn is_in<V: Into<String>>(key: &str, values: impl IntoIterator<Item = V>) -> Self {
        Self {
            key: key.to_owned(),
            operator: Operator::In,
            values: values.into_iter().map(Into::into).collect(),
            min_values: None,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.operator)?;
        if !self.values.is_empty() {
            write!(f, " [{}]", self.values.join(", "))?;
        }
        Ok(())
    }
}

/// How a requirement compares values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values; the label may be missing.
    NotIn,
    /// Any value.
    Exists,
    /// The label is missing.
    DoesNotExist,
    /// An integer above the value.
    Gt,
    /// An integer below the value.
    Lt,
    /// An integer at or above the value.
    Gte,
    /// An integer at or below the value.
    Lte,
}

impl Operator {
    /// All of them, for error messages.
    pub const NAMES: &str = "In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte, Lte";
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
            Self::Gt => "Gt",
            Self::Lt => "Lt",
            Self::Gte => "Gte",
            Self::Lte => "Lte",
        })
    }
}

impl FromStr for Operator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            "Gte" => Self::Gte,
            "Lte" => Self::Lte,
            other => return Err(format!("expected one of {}, found {other:?}", Self::NAMES)),
        })
    }
}

/// A requirement that says nothing meaningful.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// In without values.
    #[error("{key} In: expected at least one value, found none")]
    NoValues {
        /// The key.
        key: String,
    },
    /// Exists or DoesNotExist with values.
    #[error("{key} {operator}: expected no values, found {found}")]
    UnexpectedValues {
        /// The key.
        key: String,
        /// The operator.
        operator: Operator,
        /// How many there were.
        found: usize,
    },
    /// A comparison without exactly one integer.
    #[error("{key} {operator}: expected one integer, found [{found}]")]
    NotAnInteger {
        /// The key.
        key: String,
        /// The operator.
        operator: Operator,
        /// What there was.
        found: String,
    },
}
