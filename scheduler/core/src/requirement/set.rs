//! Requirements on several labels at once.

use std::collections::BTreeMap;
use std::fmt;

use assay_shared::labels::{azure, karpenter, kubernetes};

use super::{Requirement, RequirementError, ValueSet, priority};
use crate::model::Labels;

/// Allowed values by label key. A key that is not there is not constrained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    sets: BTreeMap<String, ValueSet>,
}

impl Requirements {
    /// No constraint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All of these requirements together.
    pub fn from_list<'r>(list: impl IntoIterator<Item = &'r Requirement>) -> Result<Self, RequirementError> {
        let mut requirements = Self::new();
        for requirement in list {
            let requirement = &*priority::as_capacity_type(requirement);
            requirements.constrain(&requirement.key, &ValueSet::from_requirement(requirement)?);
        }
        Ok(requirements)
    }

    /// Exactly these labels.
    #[must_use]
    pub fn from_labels(labels: &Labels) -> Self {
        let sets =
            labels.iter().map(|(key, value)| (normalize_key(key).to_owned(), ValueSet::of([value.as_str()])));
        let mut sets: BTreeMap<String, ValueSet> = sets.collect();
        if let (false, Some(value)) =
            (sets.contains_key(karpenter::CAPACITY_TYPE), priority::capacity_type(labels))
        {
            sets.insert(karpenter::CAPACITY_TYPE.to_owned(), ValueSet::of([value]));
        }
        Self { sets }
    }

    /// Allows only what `set` allows too, for `key`. Older spellings of a key count as the key.
    pub fn constrain(&mut self, key: &str, set: &ValueSet) {
        let key = normalize_key(key);
        match self.sets.get_mut(key) {
            Some(kept) => *kept = kept.intersect(set),
            None => {
                self.sets.insert(key.to_owned(), set.clone());
            }
        }
    }

    /// Lifts every constraint on `key`.
    pub fn remove(&mut self, key: &str) {
        self.sets.remove(normalize_key(key));
    }

    /// What is allowed for `key`; `None` where it is not constrained.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ValueSet> {
        self.sets.get(normalize_key(key))
    }

    /// Keys and sets, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ValueSet)> {
        self.sets.iter().map(|(key, set)| (key.as_str(), set))
    }

    /// Whether nothing is constrained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// What both allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (key, set) in &other.sets {
            both.constrain(key, set);
        }
        both
    }

    /// Whether a node with exactly these labels satisfies all of them.
    pub fn check_labels(&self, labels: &Labels) -> Result<(), Box<Incompatible>> {
        for (key, set) in &self.sets {
            let value = value_of(labels, key);
            if !value.map_or_else(|| set.allows_absence(), |value| set.allows(value)) {
                let found = value.map(|value| ValueSet::of([value]));
                return Err(Box::new(Incompatible { key: key.clone(), needed: set.clone(), found }));
            }
        }
        Ok(())
    }

    /// Whether a machine that will be one of `offered` could satisfy all of `self`. A key that `offered` does not constrain
    /// can still get any value where it is well known; any other label would have to come from the pool, so it is missing.
    pub fn check_offered(&self, offered: &Self) -> Result<(), Box<Incompatible>> {
        for (key, set) in &self.sets {
            if !offered.could_satisfy(key, set) {
                let found = offered.sets.get(key).cloned();
                return Err(Box::new(Incompatible { key: key.clone(), needed: set.clone(), found }));
            }
        }
        Ok(())
    }

    /// Whether a machine that will be one of `self` could have `key` in `set`, by the rules of [`Self::check_offered`].
    #[must_use]
    pub fn could_satisfy(&self, key: &str, set: &ValueSet) -> bool {
        let key = normalize_key(key);
        match self.sets.get(key) {
            Some(own) => set.intersects(own),
            None => is_well_known(key) && !set.is_empty() || set.allows_absence(),
        }
    }

    /// As a manifest would write them.
    #[must_use]
    pub fn to_list(&self) -> Vec<Requirement> {
        self.sets.iter().flat_map(|(key, set)| set.to_requirements(key)).collect()
    }
}

/// The value that a node with these labels has for `key`, which is spelled as it is now: under any spelling of the key.
#[must_use]
pub fn value_of<'l>(labels: &'l Labels, key: &str) -> Option<&'l str> {
    let alias = || kubernetes::ALIASES.iter().find(|(_, name)| *name == key);
    let value = labels.get(key).or_else(|| alias().and_then(|(alias, _)| labels.get(*alias)));
    let by_priority = || priority::capacity_type(labels).filter(|_| key == karpenter::CAPACITY_TYPE);
    value.map(String::as_str).or_else(by_priority)
}

/// Two sides that cannot agree on a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Incompatible {
    /// The label.
    pub key: String,
    /// What is needed.
    pub needed: ValueSet,
    /// What there is; `None` where the label is not defined.
    pub found: Option<ValueSet>,
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |set: &ValueSet| {
            let list = set.to_requirements(&self.key);
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        };
        write!(f, "needs {}, ", list(&self.needed))?;
        match &self.found {
            Some(found) => write!(f, "found {}", list(found)),
            None => write!(f, "but the label is not defined"),
        }
    }
}

/// The current spelling of a label key.
#[must_use]
pub fn normalize_key(key: &str) -> &str {
    kubernetes::ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name)
}

/// Whether the provider gives this label to nodes by itself, so that a pool need not define it.
#[must_use]
pub fn is_well_known(key: &str) -> bool {
    WELL_KNOWN.contains(&normalize_key(key))
}

/// Labels the provider gives to nodes.
pub const WELL_KNOWN: &[&str] = &[
    kubernetes::ARCH,
    kubernetes::OS,
    kubernetes::INSTANCE_TYPE,
    kubernetes::REGION,
    kubernetes::ZONE,
    kubernetes::WINDOWS_BUILD,
    karpenter::NODEPOOL,
    karpenter::CAPACITY_TYPE,
    azure::SKU_NAME,
    azure::SKU_FAMILY,
    azure::SKU_SERIES,
    azure::SKU_VERSION,
    azure::SKU_CPU,
    azure::SKU_MEMORY,
    azure::SKU_NETWORKING_ACCELERATED,
    azure::SKU_STORAGE_PREMIUM_CAPABLE,
    azure::SKU_STORAGE_ULTRA_SSD,
    azure::SKU_STORAGE_EPHEMERAL_OS_MAX_SIZE,
    azure::SKU_GPU_NAME,
    azure::SKU_GPU_MANUFACTURER,
    azure::SKU_GPU_COUNT,
    azure::PLACEMENT_SCOPE,
    azure::AKS_CLUSTER,
    azure::AKS_MODE,
    azure::AKS_SCALE_SET_PRIORITY,
    azure::AKS_PRIORITY,
    azure::AKS_OS_SKU,
    azure::AKS_FIPS,
    azure::AKS_SKU_CPU,
    azure::AKS_SKU_MEMORY,
    azure::AKS_NODE_CLASS,
];
