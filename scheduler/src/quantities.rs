//! Resource lists as Kubernetes writes them: names with quantities.

use std::collections::BTreeMap;

use assay_core::model::ResourceList;
use assay_shared::Quantity;
use assay_shared::units::{Bytes, MilliCpu};

/// Amounts by resource name; what there is none of is left out.
pub(crate) fn quantities(list: &ResourceList) -> BTreeMap<String, String> {
    let bytes = |amount: u64| Quantity::from(Bytes(amount)).to_string();
    let common = [
        ("cpu", list.cpu.0, Quantity::from(MilliCpu(list.cpu.0)).to_string()),
        ("memory", list.memory.0, bytes(list.memory.0)),
        ("ephemeral-storage", list.ephemeral_storage.0, bytes(list.ephemeral_storage.0)),
        ("pods", list.pods, list.pods.to_string()),
    ];
    let common = common.into_iter().filter(|(_, amount, _)| *amount > 0);
    let mut amounts: BTreeMap<_, _> = common.map(|(name, _, text)| (name.to_owned(), text)).collect();
    amounts.extend(list.extended.iter().map(|(name, amount)| {
        let text = if name.starts_with("hugepages-") { bytes(*amount) } else { amount.to_string() };
        (name.clone(), text)
    }));
    amounts
}
