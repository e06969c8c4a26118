//! Taints of nodes and tolerations of pods.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Keeps pods that do not tolerate it off a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often empty.
    #[serde(default)]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

impl fmt::Display for Taint {
    /// As kubectl writes it: `key=value:Effect`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}:{:?}", self.key, self.effect)
        } else {
            write!(f, "{}={}:{:?}", self.key, self.value, self.effect)
        }
    }
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// They are not scheduled there.
    NoSchedule,
    /// They are scheduled there only where nothing better is.
    PreferNoSchedule,
    /// They are not scheduled there, and leave where they run.
    NoExecute,
}

/// Lets a pod onto nodes with a taint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// Key it tolerates; `None` with `Exists` tolerates every key.
    pub key: Option<String>,
    /// How the value is compared.
    pub operator: TolerationOperator,
    /// Effect it tolerates; `None` is every effect.
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This value.
    Equal(String),
}

impl Toleration {
    /// Whether this toleration covers `taint`.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && match &self.operator {
                TolerationOperator::Exists => true,
                TolerationOperator::Equal(value) => self.key.is_some() && *value == taint.value,
            }
    }
}

/// The first taint that keeps a pod with these tolerations away for certain (`NoSchedule` or `NoExecute`).
#[must_use]
pub fn untolerated<'t>(taints: &'t [Taint], tolerations: &[Toleration]) -> Option<&'t Taint> {
    taints
        .iter()
        .filter(|taint| taint.effect != TaintEffect::PreferNoSchedule)
        .find(|taint| !tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_cover_taints_as_kubernetes_says() {
        let taint = Taint { key: "gpu".into(), value: "yes".into(), effect: TaintEffect::NoSchedule };
        let equal = |value: &str| TolerationOperator::Equal(value.into());
        let cases = [
            (Some("gpu"), TolerationOperator::Exists, None, true),
            (None, TolerationOperator::Exists, None, true),
            (Some("gpu"), equal("yes"), Some(TaintEffect::NoSchedule), true),
            (Some("gpu"), equal("no"), None, false),
            (Some("gpu"), equal("yes"), Some(TaintEffect::NoExecute), false),
            (Some("cpu"), TolerationOperator::Exists, None, false),
            (None, equal("yes"), None, false),
        ];
        for (key, operator, effect, covered) in cases {
            let toleration = Toleration { key: key.map(str::to_owned), operator, effect };
            assert_eq!(toleration.tolerates(&taint), covered, "{toleration:?}");
        }
    }

    #[test]
    fn a_soft_taint_keeps_nobody_away() {
        let soft = Taint { key: "k".into(), value: String::new(), effect: TaintEffect::PreferNoSchedule };
        assert_eq!(untolerated(&[soft], &[]), None);
    }
}
