//! What a case says of the plan; see the table in the parent.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The last document of a case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExpectedPlan {
    #[serde(rename = "kind")]
    _kind: String,
    pub(crate) pending: Option<String>,
    #[serde(default = "general")]
    pub(crate) catalog: Value,
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    pub(crate) scheduler_config: Option<Value>,
    pub(crate) profiles: Option<Value>,
    #[serde(default)]
    pub(crate) refused: Vec<String>,
    /// Fields of `nodeClaims`. Lists of pods are compared without regard to order, other lists as they are; a list where the
    /// plan has one value is a choice; of `requirements` those that are listed must be there.
    pub(crate) machines: Option<Vec<Map<String, Value>>>,
    pub(crate) nodes: Option<Nodes>,
    #[serde(default)]
    pub(crate) existing: BTreeMap<String, Existing>,
    #[serde(default)]
    pub(crate) left_out: BTreeMap<String, LeftOut>,
    #[serde(default)]
    pub(crate) pods: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    pub(crate) together: Vec<Vec<String>>,
    #[serde(default)]
    pub(crate) apart: Vec<Vec<String>>,
    #[serde(default)]
    pub(crate) spread: Vec<Spread>,
    pub(crate) price: Option<f64>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

fn general() -> Value {
    Value::from("general")
}

/// A number of machines.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Nodes {
    /// So many.
    Exactly(usize),
    /// One of these.
    OneOf(Vec<usize>),
}

impl Nodes {
    pub(crate) fn allows(&self, count: usize) -> bool {
        match self {
            Self::Exactly(nodes) => *nodes == count,
            Self::OneOf(choice) => choice.contains(&count),
        }
    }
}

/// Pods of a node.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Existing {
    /// How many.
    Count(usize),
    /// Which.
    Pods(Vec<String>),
}

/// Why a pod is left out: one line for each reason that the plan gives, `POOL REASON`, `-` standing for the pod itself. A
/// pool or reason may be a choice, `A|B`, and a pool `*`. What follows a colon must stand in the detail or fix, a text
/// after each further ` & `.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum LeftOut {
    /// Of every pod that is meant.
    Reasons(Vec<String>),
    /// Of so many of the pods that are meant, any of them.
    Some {
        /// How many.
        count: usize,
        /// Their reasons.
        reasons: Vec<String>,
    },
}

impl LeftOut {
    pub(crate) fn reasons(&self) -> &[String] {
        match self {
            Self::Reasons(reasons) | Self::Some { reasons, .. } => reasons,
        }
    }
}

/// How many of some pods are in each domain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spread {
    pub(crate) pods: String,
    pub(crate) by: String,
    pub(crate) counts: Counts,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Counts {
    /// By domain; a domain that is not listed has none.
    Of(BTreeMap<String, usize>),
    /// In any order; empty domains are not listed.
    InSomeOrder(Vec<usize>),
}
