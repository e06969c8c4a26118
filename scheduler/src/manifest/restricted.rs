//! Labels that a pool may not say anything of, because somebody else gives them to nodes.
//!
//! The rules are those of the NodePool CRD as it ships for Azure: keys of the domains of Karpenter and of the provider only
//! where they are meant for pools.

use assay_core::requirement::nearly_well_known;
use assay_shared::labels::{azure, karpenter, kubernetes};

use super::document::Document;
use super::error::ManifestError;

/// Domains whose labels are given by Karpenter, the provider or AKS, and the labels of each that are free.
pub(crate) const DOMAINS: [(&str, &[&str]); 3] = [
    ("karpenter.sh", &[karpenter::CAPACITY_TYPE, karpenter::NODEPOOL]),
    (
        "karpenter.azure.com",
        &[
            azure::AKS_NODE_CLASS,
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
        ],
    ),
    (
        "kubernetes.azure.com",
        &[
            azure::AKS_MODE,
            azure::AKS_SCALE_SET_PRIORITY,
            azure::AKS_PRIORITY,
            azure::AKS_FIPS,
            azure::AKS_OS_SKU,
            azure::AKS_CLUSTER,
            azure::AKS_SKU_CPU,
            azure::AKS_SKU_MEMORY,
            "kubernetes.azure.com/ebpf-dataplane",
            "kubernetes.azure.com/ebpf-host-routing",
            "kubernetes.azure.com/network-policy",
            "kubernetes.azure.com/hostedvm",
        ],
    ),
];

/// Labels that are not free although their domain is, or they have none: only the provisioner, the kubelet or AKS sets them.
pub(crate) const LABELS: [&str; 6] =
    [karpenter::NODEPOOL, kubernetes::HOSTNAME, "agentpool", "storageprofile", "storagetier", "accelerator"];

/// Why a label of `domain` is refused.
pub(crate) fn of_domain(domain: &str) -> String {
    format!("label domain {domain:?} is restricted")
}

/// Why `label` is refused.
pub(crate) fn of_label(label: &str) -> String {
    format!("label {label:?} is restricted")
}

/// What of a key keeps pools from using it, in the words of the CRD. As there, a domain is what stands before the `/`, and any
/// that ends as a restricted one does is restricted too.
fn restriction(key: &str) -> Option<String> {
    let within = key.split('/').next().unwrap_or(key);
    let domain = DOMAINS.iter().find(|(domain, free)| within.ends_with(domain) && !free.contains(&key));
    domain
        .map(|(domain, _)| of_domain(domain))
        .or_else(|| LABELS.iter().find(|label| **label == key).map(|label| of_label(label)))
}

/// Refuses a key that pools may not use. One that is nearly a well-known label is most likely misspelt: `warnings` get a hint.
pub(super) fn check(
    document: &Document,
    field: &str,
    key: &str,
    warnings: &mut Vec<ManifestError>,
) -> Result<(), ManifestError> {
    let hint = nearly_well_known(key).filter(|meant| restriction(meant).is_none());
    let hint = hint.map(|meant| format!("did you mean {meant}?"));
    if let Some(why) = restriction(key) {
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        let problem = format!("expected a label that pools may set, found {key}: {why}{hint}");
        return Err(document.error(field, problem));
    }
    if let Some(hint) = hint {
        warnings.push(document.error(field, format!("{key} is no label that sizes have; {hint}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use assay_core::requirement::is_well_known;
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_of_restricted_domains_are_free_where_sizes_have_them() {
        // Nothing that these say of a size can be looked up: they are for nodes that AKS made otherwise.
        let others = ["ebpf-dataplane", "ebpf-host-routing", "network-policy", "hostedvm"];
        for label in DOMAINS.iter().flat_map(|(_, free)| *free) {
            let name = label.rsplit('/').next().unwrap();
            assert_eq!(is_well_known(label), !others.contains(&name), "{label}");
        }
    }

    #[test]
    fn labels_that_others_give_are_refused_with_the_one_that_was_meant() {
        let document =
            Document { file: "-".to_owned(), number: 1, kind: "NodePool".to_owned(), value: json!({}) };
        let ok = (String::new(), 0);
        let refused = |text: &str| (text.to_owned(), 0);
        let cases = [
            ("example.com/team", ok.clone()),
            ("team", ok.clone()),
            ("karpenter.sh/capacity-type", ok.clone()),
            ("karpenter.azure.com/sku-cpu", ok.clone()),
            ("kubernetes.azure.com/network-policy", ok.clone()),
            ("failure-domain.beta.kubernetes.io/zone", ok.clone()),
            ("karpenter.io/team", ok),
            ("topology.kubernetes.io/zones", (String::new(), 1)),
            ("karpenter.sh/nodepool", refused("label \"karpenter.sh/nodepool\" is restricted")),
            ("kubernetes.io/hostname", refused("label \"kubernetes.io/hostname\" is restricted")),
            ("agentpool", refused("label \"agentpool\" is restricted")),
            ("karpenter.sh/initialized", refused("label domain \"karpenter.sh\" is restricted")),
            ("notkarpenter.sh/team", refused("label domain \"karpenter.sh\" is restricted")),
            ("my.karpenter.sh/team", refused("label domain \"karpenter.sh\" is restricted")),
            ("kubernetes.azure.com/role", refused("label domain \"kubernetes.azure.com\" is restricted")),
            (
                "karpenter.azure.com/sku-famly",
                refused(
                    "label domain \"karpenter.azure.com\" is restricted; did you mean karpenter.azure.com/sku-family?",
                ),
            ),
        ];
        for (key, (end, warned)) in cases {
            let mut warnings = Vec::new();
            let told = check(&document, "f", key, &mut warnings).err().map(|error| error.problem);
            assert!(told.clone().unwrap_or_default().ends_with(&end), "{key}: {told:?}");
            assert_eq!((told.is_none(), warnings.len()), (end.is_empty(), warned), "{key}");
        }
    }
}
