//! Labels that a pool may not say anything of, because somebody else gives them to nodes.
//!
//! The rules are those of the NodePool CRD as it ships for Azure: keys of the domains of Karpenter and of the provider only
//! where they are meant for pools.

use assay_core::requirement::{is_well_known, nearly_well_known};
use assay_shared::labels::{azure, karpenter, kubernetes};

use super::document::Document;
use super::error::ManifestError;

/// Domains whose labels are given by Karpenter, the provider or AKS.
const DOMAINS: [&str; 3] = ["karpenter.sh", "karpenter.azure.com", "kubernetes.azure.com"];

/// Labels without a domain that AKS gives.
const BARE: [&str; 4] = ["agentpool", "storageprofile", "storagetier", "accelerator"];

/// Labels of these domains that pools may set although no size has them.
const ALLOWED: [&str; 4] = [
    "kubernetes.azure.com/ebpf-dataplane",
    "kubernetes.azure.com/ebpf-host-routing",
    "kubernetes.azure.com/network-policy",
    "kubernetes.azure.com/hostedvm",
];

/// Well-known labels that only the provisioner sets.
const TAKEN: [&str; 2] = [karpenter::NODEPOOL, azure::SKU_HYPERV_GENERATION];

/// What of a key keeps pools from using it, in the words of the CRD.
fn restriction(key: &str) -> Option<String> {
    if key == kubernetes::HOSTNAME || BARE.contains(&key) || TAKEN.contains(&key) {
        return Some(format!("label {key:?} is restricted"));
    }
    let (domain, _) = key.split_once('/')?;
    let is_within = |outer: &&&str| {
        domain.strip_suffix(**outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let outer = DOMAINS.iter().find(is_within)?;
    (!is_well_known(key) && !ALLOWED.contains(&key)).then(|| format!("label domain {outer:?} is restricted"))
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
    use serde_json::json;

    use super::*;

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
            ("notkarpenter.sh/team", ok),
            ("topology.kubernetes.io/zones", (String::new(), 1)),
            ("karpenter.sh/nodepool", refused("label \"karpenter.sh/nodepool\" is restricted")),
            ("kubernetes.io/hostname", refused("label \"kubernetes.io/hostname\" is restricted")),
            ("agentpool", refused("label \"agentpool\" is restricted")),
            ("karpenter.sh/initialized", refused("label domain \"karpenter.sh\" is restricted")),
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
