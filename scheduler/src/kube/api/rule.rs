//! Validation rules in CEL, which the API server evaluates: `x-kubernetes-validations` of a schema.
//!
//! A rule may quote what it found; Karpenter's own say which rule was broken, and leave the reader to look for where.

use assay_shared::labels::karpenter;
use serde::Serialize;

use crate::manifest::restricted;

/// One rule. What it is about is `self`, and `oldSelf` before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// What must be true.
    rule: String,
    /// What is told where it is not.
    message: String,
    /// The same with what was found, in CEL. Should that fail, `message` is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expression: Option<String>,
}

impl Rule {
    /// A rule, and the words for breaking it.
    #[must_use]
    pub fn new(rule: impl Into<String>, message: impl Into<String>) -> Self {
        Self { rule: rule.into(), message: message.into(), message_expression: None }
    }

    /// Ends the message with what was found: a CEL expression for a text.
    #[must_use]
    pub fn naming(mut self, found: &str) -> Self {
        self.message_expression = Some(format!("{} + {found}", quoted(&format!("{}: ", self.message))));
        self
    }
}

/// A text as a CEL literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What must be true of a text that must not be empty.
#[must_use]
pub fn not_empty(what: &str) -> Vec<Rule> {
    vec![Rule::new("self != ''", format!("{what} must not be empty"))]
}

/// A demand on the CEL expression `key`, a label, and the words for not meeting it.
struct Restriction {
    free: String,
    message: String,
    /// Whether the message leaves open which label it was.
    is_of_many: bool,
}

/// Labels that a pool, or a claim, may not name.
fn restrictions(key: &str, of_claim: bool) -> impl Iterator<Item = Restriction> {
    let domains = restricted::DOMAINS.iter().map(move |(domain, free)| {
        let free: Vec<String> = free.iter().map(|label| quoted(label)).collect();
        let (free, domain_text) = (free.join(", "), quoted(domain));
        Restriction {
            free: format!("{key} in [{free}] || !{key}.split('/')[0].endsWith({domain_text})"),
            message: restricted::of_domain(domain),
            is_of_many: true,
        }
    });
    let labels = restricted::LABELS.iter().filter(move |label| !of_claim || **label != karpenter::NODEPOOL);
    let labels = labels.map(move |label| Restriction {
        free: format!("{key} != {}", quoted(label)),
        message: restricted::of_label(label),
        is_of_many: false,
    });
    domains.chain(labels)
}

/// Keys of the requirements of a pool, or of a claim, which also names its pool.
#[must_use]
pub fn requirement_key(of_claim: bool) -> Vec<Rule> {
    let rules = restrictions("self", of_claim).map(|restriction| {
        let rule = Rule::new(restriction.free, restriction.message);
        if restriction.is_of_many { rule.naming("self") } else { rule }
    });
    rules.collect()
}

/// Labels that a pool gives its nodes. The first of several wrong ones is named: to name them all would cost more than an API
/// server lets a rule cost.
#[must_use]
pub fn pool_labels() -> Vec<Rule> {
    let rules = restrictions("x", false).map(|Restriction { free, message, is_of_many }| {
        let rule = Rule::new(format!("self.all(x, {free})"), message);
        if is_of_many { rule.naming(&format!("self.filter(x, !({free}))[0]")) } else { rule }
    });
    rules.collect()
}

/// One requirement: as many values, and such, as its operator takes.
#[must_use]
pub fn requirement() -> Vec<Rule> {
    vec![
        Rule::new(
            "self.operator != 'In' || (has(self.values) && self.values.size() > 0)",
            "operator In needs at least one value",
        )
        .naming("self.key"),
        Rule::new(
            "!(self.operator in ['Gt', 'Lt', 'Gte', 'Lte']) || \
             (has(self.values) && self.values.size() == 1 && self.values[0].matches('^[0-9]{1,18}$'))",
            "operators Gt, Lt, Gte and Lte need exactly one value, a whole number of zero or more",
        )
        .naming("self.key"),
        Rule::new(
            "!(self.operator == 'In' && has(self.minValues) && has(self.values)) || \
             self.values.size() >= self.minValues",
            "minValues must not be more than there are values",
        )
        .naming("self.key"),
    ]
}

/// A reference to a class: its kind is decided once.
#[must_use]
pub fn class_reference_of_pool() -> Vec<Rule> {
    let fixed = |field: &str| {
        Rule::new(
            format!("self.{field} == oldSelf.{field}"),
            format!("nodeClassRef.{field} cannot be changed; make another NodePool"),
        )
    };
    vec![fixed("group"), fixed("kind")]
}

/// Budgets: a schedule without an end, or an end without a start, says nothing.
#[must_use]
pub fn budget() -> Vec<Rule> {
    vec![Rule::new("has(self.schedule) == has(self.duration)", "schedule and duration must be set together")]
}

/// A pool: what goes with a fixed number of nodes, and what does not.
#[must_use]
pub fn pool() -> Vec<Rule> {
    vec![
        Rule::new(
            "has(self.replicas) == has(oldSelf.replicas)",
            "replicas cannot be set on a NodePool made without, nor taken from one made with; make another NodePool",
        ),
        Rule::new(
            "!has(self.replicas) || !has(self.limits) || self.limits.all(x, x == 'nodes')",
            "with replicas, only limits.nodes can be set",
        )
        .naming("self.limits.filter(x, x != 'nodes')[0]"),
        Rule::new("!has(self.replicas) || !has(self.weight)", "weight has no meaning with replicas"),
    ]
}

/// A claim is what was asked for; what was asked for does not change.
#[must_use]
pub fn claim() -> Vec<Rule> {
    vec![Rule::new(
        "self == oldSelf",
        "spec cannot be changed; delete the NodeClaim, and another is made if it is needed",
    )]
}
