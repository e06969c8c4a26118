//! NodePools (`karpenter.sh/v1`) and AKSNodeClasses (`karpenter.azure.com/v1beta1`), the older spellings of the AKS pages included.

use std::time::Duration;

use assay_core::model::{
    Budget, BudgetNodes, ConsolidationPolicy, DisruptionPolicy, Labels, Limits, MismatchPolicy, NodeClass,
    NodePool, Wait,
};
use assay_shared::units::Bytes;
use serde::Deserialize;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Expression, Meta, Quantities, TaintObject};
use super::pod;

/// Annotation of a pool: what happens to a node whose hardware is not what was bought.
const MISMATCH_POLICY: &str = "assay.dev/hardware-mismatch-policy";

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
}

/// A pool.
pub(super) fn read(document: &Document, warnings: &mut Vec<String>) -> Result<NodePool, ManifestError> {
    let meta = Meta::read(document)?;
    let PoolObject { spec } = document.typed()?;
    let mut warn = |field: &str, text: &str| warnings.push(document.error(field, text).to_string());
    let template = &spec.template.spec;
    let path = "spec.template.spec";
    let weight = spec.weight.unwrap_or(0);
    if weight > 100 {
        return Err(document.error("spec.weight", format!("expected 1 to 100, found {weight}")));
    }
    let disruption = &spec.disruption;
    if disruption.expire_after.is_some() {
        warn("spec.disruption.expireAfter", "older spelling, read as spec.template.spec.expireAfter");
    }
    let expire_after = match template.expire_after.as_ref().or(disruption.expire_after.as_ref()) {
        Some(text) => wait(document, "spec.template.spec.expireAfter", text)?,
        None => NodePool::with_defaults("").expire_after,
    };
    let consolidation_policy = match disruption.consolidation_policy.as_deref() {
        None | Some("WhenEmptyOrUnderutilized") => ConsolidationPolicy::WhenEmptyOrUnderutilized,
        Some("WhenEmpty") => ConsolidationPolicy::WhenEmpty,
        Some("Balanced") => ConsolidationPolicy::Balanced,
        Some("WhenUnderutilized") => {
            warn("spec.disruption.consolidationPolicy", "older spelling, read as WhenEmptyOrUnderutilized");
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
            policy.budgets.push(Budget { nodes, reasons: budget.reasons.clone() });
        }
    }
    let mismatch_policy = match meta.annotations.get(MISMATCH_POLICY).map(String::as_str) {
        None | Some("Replace") => MismatchPolicy::Replace,
        Some("Taint") => MismatchPolicy::Taint,
        Some("Label") => MismatchPolicy::Label,
        Some(other) => {
            let field = format!("metadata.annotations[{MISMATCH_POLICY}]");
            return Err(document.error(&field, format!("expected Replace, Taint or Label, found {other:?}")));
        }
    };
    let grace = template.termination_grace_period.as_deref();
    Ok(NodePool {
        name: meta.name,
        node_class: Some(&template.node_class_ref.name)
            .filter(|name| !name.is_empty())
            .map_or("default", |name| name)
            .to_owned(),
        weight,
        labels: spec.template.metadata.labels,
        annotations: spec.template.metadata.annotations,
        taints: pod::taints(document, &format!("{path}.taints"), &template.taints)?,
        startup_taints: pod::taints(document, &format!("{path}.startupTaints"), &template.startup_taints)?,
        requirements: pod::requirements(document, &format!("{path}.requirements"), &template.requirements)?,
        limits: limits(document, &spec.limits)?,
        disruption: policy,
        expire_after,
        termination_grace_period: grace
            .map(|text| duration(document, &format!("{path}.terminationGracePeriod"), text))
            .transpose()?,
        mismatch_policy,
    })
}

fn limits(document: &Document, listed: &Quantities) -> Result<Limits, ManifestError> {
    let mut amounts = listed.clone();
    let nodes = amounts.remove("nodes");
    let nodes = nodes.map(assay_shared::Quantity::to_count).transpose();
    Ok(Limits {
        nodes: nodes.map_err(|error| document.error("spec.limits.nodes", error.to_string()))?,
        limited: amounts.keys().cloned().collect(),
        resources: pod::resource_list(document, "spec.limits", &amounts)?,
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

/// A duration as Karpenter's pattern allows it: `720h`, `1h30m`, `45s`.
fn duration(document: &Document, field: &str, text: &str) -> Result<Duration, ManifestError> {
    let wrong =
        || document.error(field, format!("expected a duration such as 30s, 5m, 1h30m, found {text:?}"));
    let mut seconds = 0_u64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.chars().next() {
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
        rest = tail.get(1..).unwrap_or_default();
    }
    Ok(Duration::from_secs(seconds))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClassObject {
    spec: ClassSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassSpec {
    max_pods: Option<u32>,
    #[serde(rename = "osDiskSizeGB")]
    os_disk_size_gb: Option<u64>,
    image_family: Option<String>,
}

/// A node class.
pub(super) fn read_class(document: &Document) -> Result<NodeClass, ManifestError> {
    const FAMILIES: [&str; 4] = ["Ubuntu", "Ubuntu2204", "Ubuntu2404", "AzureLinux"];
    let meta = Meta::read(document)?;
    let ClassObject { spec } = document.typed()?;
    let mut class = NodeClass::with_defaults(&meta.name);
    if let Some(pods) = spec.max_pods {
        if !(10..=250).contains(&pods) {
            return Err(document.error("spec.maxPods", format!("expected 10 to 250, found {pods}")));
        }
        class.max_pods = Some(pods);
    }
    if let Some(gigabytes) = spec.os_disk_size_gb {
        if !(30..=2048).contains(&gigabytes) {
            return Err(
                document.error("spec.osDiskSizeGB", format!("expected 30 to 2048, found {gigabytes}"))
            );
        }
        class.os_disk = Bytes(gigabytes * 1_000_000_000);
    }
    if let Some(family) = spec.image_family {
        if !FAMILIES.contains(&family.as_str()) {
            let problem = format!("expected one of {}, found {family:?}", FAMILIES.join(", "));
            return Err(document.error("spec.imageFamily", problem));
        }
        class.image_family = family;
    }
    Ok(class)
}
