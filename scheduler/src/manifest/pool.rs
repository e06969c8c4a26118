//! NodePools (`karpenter.sh/v1`), the older spellings of the AKS pages included.

use std::collections::BTreeSet;
use std::time::Duration;

use assay_core::model::{
    Budget, BudgetNodes, BudgetWindow, ConsolidationPolicy, DisruptionPolicy, Labels, Limits, MismatchPolicy,
    NodePool, PaybackRule, Schedule, Wait,
};
use assay_core::requirement::{Operator, Requirement};
use assay_shared::labels::assay::{EVICTION_COST, HARDWARE_MISMATCH_POLICY, PAYBACK_PERIOD};
use assay_shared::units::Usd;
use serde::Deserialize;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Expression, Meta, Quantities, TaintObject};
use super::{amounts, node_terms, restricted, syntax, taints};
use crate::kube::api::hash;

#[derive(Debug, Deserialize)]
struct PoolObject {
    spec: PoolSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    template: Template,
    #[serde(default)]
    disruption: Disruption,
    #[serde(default)]
    limits: Quantities,
    weight: Option<u32>,
    replicas: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Template {
    #[serde(default)]
    metadata: TemplateMeta,
    spec: TemplateSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateMeta {
    labels: Labels,
    annotations: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplateSpec {
    #[serde(default)]
    requirements: Vec<Expression>,
    #[serde(default)]
    taints: Vec<TaintObject>,
    #[serde(default)]
    startup_taints: Vec<TaintObject>,
    #[serde(default)]
    node_class_ref: ClassRef,
    expire_after: Option<String>,
    termination_grace_period: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClassRef {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Disruption {
    consolidation_policy: Option<String>,
    consolidate_after: Option<String>,
    expire_after: Option<String>,
    budgets: Option<Vec<BudgetObject>>,
}

#[derive(Debug, Deserialize)]
struct BudgetObject {
    #[serde(default)]
    nodes: Option<String>,
    #[serde(default)]
    reasons: Vec<String>,
    schedule: Option<String>,
    duration: Option<String>,
}

/// A pool; `None` for a static one, whose size its owner decides.
pub(crate) fn read(
    document: &Document,
    meta: Meta,
    warnings: &mut Vec<ManifestError>,
) -> Result<Option<NodePool>, ManifestError> {
    let PoolObject { spec } = document.typed()?;
    if spec.replicas.is_some() {
        warnings.push(static_pool(document));
        return Ok(None);
    }
    read_any(document, meta, warnings).map(|(pool, _)| Some(pool))
}

/// What is said of a static pool.
pub(super) fn static_pool(document: &Document) -> ManifestError {
    document.error("spec.replicas", "a static pool: nothing is bought for it")
}

/// A pool, and how many nodes it has where it is a static one.
pub(super) fn read_any(
    document: &Document,
    meta: Meta,
    warnings: &mut Vec<ManifestError>,
) -> Result<(NodePool, Option<u64>), ManifestError> {
    let PoolObject { spec } = document.typed()?;
    let template = &spec.template.spec;
    let path = "spec.template.spec";
    if let Some(weight) = spec.weight.filter(|weight| !(1..=100).contains(weight)) {
        return Err(document.error("spec.weight", format!("expected 1 to 100, found {weight}")));
    }
    let disruption = &spec.disruption;
    if disruption.expire_after.is_some() {
        let text = "older spelling, read as spec.template.spec.expireAfter";
        warnings.push(document.error("spec.disruption.expireAfter", text));
    }
    let read = |field: &str, text: Option<&String>| text.map(|text| wait(document, field, text)).transpose();
    let older = read("spec.disruption.expireAfter", disruption.expire_after.as_ref())?;
    let newer = read("spec.template.spec.expireAfter", template.expire_after.as_ref())?;
    let default = NodePool::with_defaults("").expire_after;
    // An API server has filled in the default by the time anybody reads: it says nothing against the older place.
    let expire_after = newer.filter(|newer| *newer != default).or(older).unwrap_or(default);
    let consolidation_policy = match disruption.consolidation_policy.as_deref() {
        None | Some("WhenEmptyOrUnderutilized") => ConsolidationPolicy::WhenEmptyOrUnderutilized,
        Some("WhenEmpty") => ConsolidationPolicy::WhenEmpty,
        Some("Balanced") => ConsolidationPolicy::Balanced,
        Some("WhenUnderutilized") => {
            let text = "older spelling, read as WhenEmptyOrUnderutilized";
            warnings.push(document.error("spec.disruption.consolidationPolicy", text));
            ConsolidationPolicy::WhenEmptyOrUnderutilized
        }
        Some(other) => {
            let problem =
                format!("expected WhenEmpty, WhenEmptyOrUnderutilized or Balanced, found {other:?}");
            return Err(document.error("spec.disruption.consolidationPolicy", problem));
        }
    };
    let consolidate_after = match &disruption.consolidate_after {
        Some(text) => wait(document, "spec.disruption.consolidateAfter", text)?,
        None => Wait::After(Duration::ZERO),
    };
    let mut policy =
        DisruptionPolicy { consolidation_policy, consolidate_after, ..DisruptionPolicy::default() };
    if let Some(budgets) = &disruption.budgets {
        policy.budgets = Vec::new();
        for (index, budget) in budgets.iter().enumerate() {
            let nodes = budget.nodes.as_deref().unwrap_or("10%");
            let field = format!("spec.disruption.budgets[{index}].nodes");
            let nodes = budget_nodes(nodes).ok_or_else(|| {
                document
                    .error(&field, format!("expected a number or a percentage up to 100%, found {nodes:?}"))
            })?;
            let path = format!("spec.disruption.budgets[{index}]");
            check_budget(document, &path, budget)?;
            let window = window(document, &path, budget, warnings);
            policy.budgets.push(Budget { nodes, reasons: budget.reasons.clone(), window });
        }
    }
    let mismatch_policy = match meta.annotations.get(HARDWARE_MISMATCH_POLICY).map(String::as_str) {
        None | Some("Replace") => MismatchPolicy::Replace,
        Some("Taint") => MismatchPolicy::Taint,
        Some("Label") => MismatchPolicy::Label,
        Some(other) => {
            let field = format!("metadata.annotations[{HARDWARE_MISMATCH_POLICY}]");
            return Err(document.error(&field, format!("expected Replace, Taint or Label, found {other:?}")));
        }
    };
    policy.payback = payback(document, &meta.annotations)?;
    let grace = template.termination_grace_period.as_deref();
    let requirements =
        node_terms::requirements(document, &format!("{path}.requirements"), &template.requirements)?;
    check_requirements(document, &format!("{path}.requirements"), &requirements, warnings)?;
    let metadata = "spec.template.metadata";
    syntax::check_labels(document, &format!("{metadata}.labels"), &spec.template.metadata.labels)?;
    syntax::check_annotations(
        document,
        &format!("{metadata}.annotations"),
        &spec.template.metadata.annotations,
    )?;
    for key in spec.template.metadata.labels.keys() {
        let field = format!("spec.template.metadata.labels[{key}]");
        restricted::check(document, &field, key, warnings)?;
    }
    let taints = taints::taints(document, &format!("{path}.taints"), &template.taints)?;
    let startup_taints =
        taints::taints(document, &format!("{path}.startupTaints"), &template.startup_taints)?;
    let mut seen = BTreeSet::new();
    for taint in taints.iter().chain(&startup_taints) {
        if !seen.insert((&taint.key, taint.effect)) {
            let problem = format!("expected each key and effect once, found {taint} again");
            return Err(document.error(&format!("{path}.taints"), problem));
        }
    }
    let pool = NodePool {
        name: meta.name,
        node_class: Some(&template.node_class_ref.name)
            .filter(|name| !name.is_empty())
            .map_or("default", |name| name)
            .to_owned(),
        weight: spec.weight.unwrap_or(0),
        labels: spec.template.metadata.labels,
        annotations: spec.template.metadata.annotations,
        taints,
        startup_taints,
        requirements,
        limits: limits(document, &spec.limits)?,
        disruption: policy,
        expire_after,
        termination_grace_period: grace
            .map(|text| duration(document, &format!("{path}.terminationGracePeriod"), text))
            .transpose()?,
        mismatch_policy,
        template_hash: hash::of_node_pool(&document.value),
        problem: None,
        deleting: meta.deletion_timestamp.is_some(),
    };
    Ok((pool, spec.replicas))
}

/// What a pool says of how much a move must be worth.
fn payback(document: &Document, annotations: &Labels) -> Result<PaybackRule, ManifestError> {
    let at = |key: &str| format!("metadata.annotations[{key}]");
    let period = annotations.get(PAYBACK_PERIOD);
    let eviction = annotations.get(EVICTION_COST).map(|text| {
        text.parse::<f64>().ok().and_then(Usd::from_usd).ok_or_else(|| {
            document.error(&at(EVICTION_COST), format!("expected US dollars such as 0.001, found {text:?}"))
        })
    });
    Ok(PaybackRule {
        period: period.map(|text| duration(document, &at(PAYBACK_PERIOD), text)).transpose()?,
        eviction: eviction.transpose()?,
    })
}

/// Schedules that have a name.
const MACROS: [&str; 7] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];

/// Whether a text has the form of a schedule.
fn is_schedule(text: &str) -> bool {
    MACROS.contains(&text) || !text.starts_with('@') && text.split_whitespace().count() == 5
}

fn check_budget(document: &Document, path: &str, budget: &BudgetObject) -> Result<(), ManifestError> {
    const REASONS: [&str; 3] = ["Underutilized", "Empty", "Drifted"];
    for (index, reason) in budget.reasons.iter().enumerate() {
        if !REASONS.contains(&reason.as_str()) {
            let problem = format!("expected one of {}, found {reason:?}", REASONS.join(", "));
            return Err(document.error(&format!("{path}.reasons[{index}]"), problem));
        }
    }
    if let Some(text) = &budget.duration {
        let seconds = duration(document, &format!("{path}.duration"), text)?.as_secs();
        if seconds % 60 != 0 {
            let problem = format!("expected hours and minutes, found {text:?}");
            return Err(document.error(&format!("{path}.duration"), problem));
        }
    }
    if let Some(text) = budget.schedule.as_deref().filter(|text| !is_schedule(text)) {
        let problem =
            format!("expected five fields as in a CronJob, or one of {}, found {text:?}", MACROS.join(", "));
        return Err(document.error(&format!("{path}.schedule"), problem));
    }
    if budget.schedule.is_some() == budget.duration.is_some() {
        Ok(())
    } else {
        Err(document.error(path, "expected schedule and duration together, found one of them"))
    }
}

/// When a budget counts. A schedule that passes the API server and still says nothing is told, and lets nothing go.
fn window(
    document: &Document,
    path: &str,
    budget: &BudgetObject,
    warnings: &mut Vec<ManifestError>,
) -> BudgetWindow {
    let (Some(schedule), Some(text)) = (&budget.schedule, &budget.duration) else {
        return BudgetWindow::Always;
    };
    match (Schedule::parse(schedule), parse_duration(text)) {
        (Ok(schedule), Some(duration)) => BudgetWindow::From(Box::new(schedule), duration),
        (Err(error), _) => {
            let told = document.error(&format!("{path}.schedule"), format!("{error}: nothing goes"));
            warnings.push(told);
            BudgetWindow::Malformed(error.to_string())
        }
        (_, None) => BudgetWindow::Malformed(format!("duration {text:?}")),
    }
}

/// What the CRD demands of requirements beyond their being sets.
fn check_requirements(
    document: &Document,
    path: &str,
    requirements: &[Requirement],
    warnings: &mut Vec<ManifestError>,
) -> Result<(), ManifestError> {
    for (index, requirement) in requirements.iter().enumerate() {
        let path = format!("{path}[{index}]");
        restricted::check(document, &format!("{path}.key"), &requirement.key, warnings)?;
        let is_range =
            matches!(requirement.operator, Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte);
        if is_range && requirement.values.iter().any(|value| value.starts_with('-')) {
            let found = requirement.values.join(", ");
            let problem = format!("expected a whole number of zero or more, found {found:?}");
            return Err(document.error(&format!("{path}.values"), problem));
        }
        if let Some(least) = requirement.min_values {
            let field = format!("{path}.minValues");
            if !(1..=50).contains(&least) {
                return Err(document.error(&field, format!("expected 1 to 50, found {least}")));
            }
            let values = requirement.values.len();
            if requirement.operator == Operator::In && values < least as usize {
                let problem = format!("expected at most the number of values, {values}, found {least}");
                return Err(document.error(&field, problem));
            }
        }
    }
    Ok(())
}

fn limits(document: &Document, listed: &Quantities) -> Result<Limits, ManifestError> {
    let mut amounts = listed.clone();
    let nodes = amounts.remove("nodes");
    let nodes = nodes.map(assay_shared::Quantity::to_count).transpose();
    Ok(Limits {
        nodes: nodes.map_err(|error| document.error("spec.limits.nodes", error.to_string()))?,
        limited: amounts.keys().cloned().collect(),
        resources: amounts::read(document, "spec.limits", &amounts)?,
    })
}

fn budget_nodes(text: &str) -> Option<BudgetNodes> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().filter(|percent| *percent <= 100).map(BudgetNodes::Percent);
    }
    text.parse().ok().map(BudgetNodes::Count)
}

fn wait(document: &Document, field: &str, text: &str) -> Result<Wait, ManifestError> {
    if text == "Never" { Ok(Wait::Never) } else { duration(document, field, text).map(Wait::After) }
}

pub(super) fn duration(document: &Document, field: &str, text: &str) -> Result<Duration, ManifestError> {
    parse_duration(text).ok_or_else(|| {
        document.error(field, format!("expected a duration such as 30s, 5m, 1h30m, found {text:?}"))
    })
}

/// A duration as Karpenter's pattern allows it: `720h`, `1h30m`, `45s`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let mut letters = tail.chars();
        let unit = match letters.next()? {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = number.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(seconds)?;
        rest = letters.as_str();
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}
