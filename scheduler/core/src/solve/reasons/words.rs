//! Words of reasons: amounts, requirements, and what was probably meant.

use std::collections::BTreeSet;

use assay_shared::labels::{hardware, karpenter, kubernetes};
use assay_shared::units::{Bytes, MilliCpu};

use crate::model::{HostPort, Protocol};
use crate::requirement::{Incompatible, Requirements, ValueSet, WELL_KNOWN, distance};
use crate::solve::catalog::Shape;
use crate::solve::pack::add_values;

/// Characters of a requirement in a reason.
const REQUIREMENT_AT_MOST: usize = 160;

/// Values of a requirement that are compared with what there is.
const VALUES_COMPARED: usize = 4;

/// An amount as people read it.
pub(in crate::solve) fn amount(name: &str, amount: u64) -> String {
    match name {
        "cpu" => MilliCpu(amount).to_string(),
        "memory" | "ephemeral-storage" => Bytes(amount).to_string(),
        name if name.starts_with("hugepages-") => Bytes(amount).to_string(),
        _ => amount.to_string(),
    }
}

/// A port with its protocol, and its address where it has one.
pub(super) fn port(port: &HostPort) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let address = port.ip.as_ref().map(|ip| format!(" of {ip}")).unwrap_or_default();
    format!("{}/{protocol}{address}", port.port)
}

/// A known key that is a few letters away, or has the right name under another prefix.
pub(super) fn nearest_key(error: &Incompatible, pool: &Requirements, shapes: &[&Shape]) -> Option<String> {
    let from_types = shapes.iter().flat_map(|shape| shape.offered.iter()).map(|(key, _)| key);
    let measured = [
        hardware::GPU_MODEL,
        hardware::GPU_COUNT,
        hardware::CPU_MODEL,
        hardware::CPU_VENDOR,
        hardware::CPU_ISA,
    ];
    let known =
        WELL_KNOWN.iter().copied().chain(pool.iter().map(|(key, _)| key)).chain(from_types).chain(measured);
    let known = known
        .filter(|key| ![karpenter::REGISTERED, karpenter::INITIALIZED, kubernetes::HOSTNAME].contains(key));
    let near = known.map(|key| (distance(key, &error.key), key)).min();
    match near {
        Some((1..=2, key)) => Some(key.to_owned()),
        // The right name under a wrong prefix.
        _ => {
            let name = error.key.rsplit('/').next().unwrap_or(&error.key);
            let same =
                WELL_KNOWN.iter().find(|key| key.rsplit('/').next() == Some(name) && **key != error.key);
            same.map(|key| (*key).to_owned())
        }
    }
}

/// A value of `key` that some type has and that is a few letters from one that is needed: what is needed, what there is.
pub(super) fn nearest_value(key: &str, needed: &ValueSet, shapes: &[&Shape]) -> Option<(String, String)> {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for shape in shapes {
        add_values(shape, u64::MAX, key, &mut known);
    }
    // Long lists are no typos.
    let wanted = needed.finite()?.iter().take(VALUES_COMPARED);
    wanted
        .flat_map(|value| known.iter().map(move |near| (value, *near)))
        .filter(|(value, near)| value.len().abs_diff(near.len()) <= 2 && value.len() > 3)
        .map(|(value, near)| (distance(value, near), near, value))
        .min()
        .filter(|(letters, ..)| (1..=2).contains(letters))
        .map(|(_, near, value)| (value.clone(), near.to_owned()))
}

/// Requirements as a manifest would write them, cut where the list is long.
pub(in crate::solve) fn requirement(key: &str, set: &ValueSet) -> String {
    let list: Vec<String> = set.to_requirements(key).iter().map(ToString::to_string).collect();
    clipped(list.join(" and "), REQUIREMENT_AT_MOST)
}

/// At most so many characters; what is cut shows.
pub(in crate::solve) fn clipped(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
