//! The set of values a label may have, its absence included.

use std::collections::BTreeSet;

use super::{Operator, Requirement, RequirementError};

/// A set of label values: a finite set, or everything but a finite set, inside integer bounds; and whether the label may be
/// missing altogether. Closed under intersection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueSet {
    /// Whether `values` are the ones left out.
    complement: bool,
    values: BTreeSet<String>,
    /// Smallest and largest integer allowed; a bound excludes values that are no integers.
    at_least: Option<i64>,
    at_most: Option<i64>,
    /// Whether a node without the label is in the set.
    absence: bool,
}

impl ValueSet {
    /// Any value, or none.
    #[must_use]
    pub const fn anything() -> Self {
        Self { complement: true, values: BTreeSet::new(), at_least: None, at_most: None, absence: true }
    }

    /// One of these values.
    #[must_use]
    pub fn of<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Self {
        Self {
            complement: false,
            values: values.into_iter().map(Into::into).collect(),
            at_least: None,
            at_most: None,
            absence: false,
        }
    }

    /// The label is missing.
    #[must_use]
    pub const fn missing() -> Self {
        Self { complement: false, values: BTreeSet::new(), at_least: None, at_most: None, absence: true }
    }

    /// The set a requirement stands for.
    pub fn from_requirement(requirement: &Requirement) -> Result<Self, RequirementError> {
        let Requirement { key, operator, values, .. } = requirement;
        let any = Self { absence: false, ..Self::anything() };
        let integer = || match values.as_slice() {
            [value] => value.parse::<i64>().ok(),
            _ => None,
        };
        let bound = || {
            integer().ok_or_else(|| RequirementError::NotAnInteger {
                key: key.clone(),
                operator: *operator,
                found: values.join(", "),
            })
        };
        Ok(match operator {
            Operator::In if values.is_empty() => return Err(RequirementError::NoValues { key: key.clone() }),
            Operator::In => Self::of(values.iter().cloned()),
            Operator::NotIn => Self { values: values.iter().cloned().collect(), ..Self::anything() },
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(RequirementError::UnexpectedValues {
                    key: key.clone(),
                    operator: *operator,
                    found: values.len(),
                });
            }
            Operator::Exists => any,
            Operator::DoesNotExist => Self::missing(),
            // `x > i64::MAX` and `x < i64::MIN` allow nothing.
            Operator::Gt => match bound()?.checked_add(1) {
                Some(least) => Self { at_least: Some(least), ..any },
                None => Self::of(Vec::<String>::new()),
            },
            Operator::Lt => match bound()?.checked_sub(1) {
                Some(most) => Self { at_most: Some(most), ..any },
                None => Self::of(Vec::<String>::new()),
            },
            Operator::Gte => Self { at_least: Some(bound()?), ..any },
            Operator::Lte => Self { at_most: Some(bound()?), ..any },
        })
    }

    fn in_bounds(&self, value: &str) -> bool {
        if self.at_least.is_none() && self.at_most.is_none() {
            return true;
        }
        value.parse::<i64>().is_ok_and(|number| {
            self.at_least.is_none_or(|least| number >= least)
                && self.at_most.is_none_or(|most| number <= most)
        })
    }

    /// Whether a node with this value is in the set.
    #[must_use]
    pub fn allows(&self, value: &str) -> bool {
        self.values.contains(value) != self.complement && self.in_bounds(value)
    }

    /// Whether a node without the label is in the set.
    #[must_use]
    pub const fn allows_absence(&self) -> bool {
        self.absence
    }

    /// The values, where they are finitely many.
    #[must_use]
    pub const fn finite(&self) -> Option<&BTreeSet<String>> {
        if self.complement { None } else { Some(&self.values) }
    }

    /// Whether it leaves no choice: one value, or absence.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        !self.complement && self.values.len() + usize::from(self.absence) == 1
    }

    /// What both allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let at_least = self.at_least.max(other.at_least);
        let at_most = match (self.at_most, other.at_most) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        let complement = self.complement && other.complement;
        let mut both = Self {
            complement,
            values: BTreeSet::new(),
            at_least,
            at_most,
            absence: self.absence && other.absence,
        };
        both.values = match (self.complement, other.complement) {
            (true, true) => {
                self.values.union(&other.values).filter(|value| both.in_bounds(value)).cloned().collect()
            }
            (false, true) => self.values.iter().filter(|value| other.allows(value)).cloned().collect(),
            (true, false) => other.values.iter().filter(|value| self.allows(value)).cloned().collect(),
            (false, false) => self.values.intersection(&other.values).cloned().collect(),
        };
        if !complement {
            // A finite set has its bounds applied: one form for one set.
            both.values.retain(|value| self.in_bounds(value) && other.in_bounds(value));
            (both.at_least, both.at_most) = (None, None);
        }
        both
    }

    /// Whether it allows some value (absence aside).
    #[must_use]
    pub fn has_values(&self) -> bool {
        if !self.complement {
            return self.values.iter().any(|value| self.in_bounds(value));
        }
        match (self.at_least, self.at_most) {
            // Between bounds there are finitely many integers, some of which may be left out.
            (Some(least), Some(most)) => {
                let inside = i128::from(most) - i128::from(least) + 1;
                let canonical = |value: &&String| {
                    value
                        .parse::<i64>()
                        .is_ok_and(|number| (least..=most).contains(&number) && number.to_string() == **value)
                };
                inside > 0
                    && i128::try_from(self.values.iter().filter(canonical).count())
                        .is_ok_and(|out| out < inside)
            }
            _ => true,
        }
    }

    /// Whether it allows nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.absence && !self.has_values()
    }

    /// Whether a node could satisfy both.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        if self.absence && other.absence {
            return true;
        }
        // The common case, a finite side, needs no new set.
        match (self.finite(), other.finite()) {
            (Some(values), _) => values.iter().any(|value| self.in_bounds(value) && other.allows(value)),
            (None, Some(values)) => values.iter().any(|value| other.in_bounds(value) && self.allows(value)),
            (None, None) => self.intersect(other).has_values(),
        }
    }

    /// As requirements a manifest could hold; one, or two where both bounds are set or values are left out besides.
    #[must_use]
    pub fn to_requirements(&self, key: &str) -> Vec<Requirement> {
        let one = |operator, values: Vec<String>| Requirement {
            key: key.to_owned(),
            operator,
            values,
            min_values: None,
        };
        if !self.complement {
            return match (self.values.is_empty(), self.absence) {
                (true, true) => vec![one(Operator::DoesNotExist, Vec::new())],
                // Nothing at all: no single operator says that.
                (true, false) => {
                    vec![one(Operator::Exists, Vec::new()), one(Operator::DoesNotExist, Vec::new())]
                }
                _ => vec![one(Operator::In, self.values.iter().cloned().collect())],
            };
        }
        let mut list = Vec::new();
        list.extend(self.at_least.map(|least| one(Operator::Gte, vec![least.to_string()])));
        list.extend(self.at_most.map(|most| one(Operator::Lte, vec![most.to_string()])));
        if !self.values.is_empty() {
            list.push(one(Operator::NotIn, self.values.iter().cloned().collect()));
        }
        // NotIn alone would allow absence; bounds never do.
        if self.at_least.is_none() && self.at_most.is_none() && !self.absence {
            list.push(one(Operator::Exists, Vec::new()));
        }
        list
    }
}
