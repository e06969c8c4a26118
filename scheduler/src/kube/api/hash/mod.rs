//! Hashes of pools and classes: a claim carries the hash of what it was made from, and has drifted once that has another.
//!
//! The numbers are those that Karpenter computes (its hash version `v3`), bit for bit: a cluster that changes from one to the
//! other, in either direction, finds its nodes as they were, and replaces none. Karpenter walks its Go structs with
//! hashstructure, format 2, slices as sets, zero values left out; [`Struct`] does the same with the names that those structs
//! and fields have there. `tests/api/hashes.json` holds what Karpenter's own code computed.
//!
//! Of the quirks of that walk all are kept: a struct's hash depends on the order of its fields, and two equal members of a
//! slice cancel each other out.

mod aks_node_class;
mod node_pool;

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

pub use aks_node_class::aks_node_class;
pub use node_pool::node_pool;

use super::aks_node_class::AKSNodeClassSpec;
use super::node_pool::NodeClaimTemplate;

/// Version of [`node_pool()`].
pub const NODE_POOL_VERSION: &str = "v3";
/// Version of [`aks_node_class()`].
pub const AKS_NODE_CLASS_VERSION: &str = "v3";

/// Hash of a `NodePool` object. A sketch that is no whole one has none.
#[must_use]
pub fn of_node_pool(object: &Value) -> Option<String> {
    let template = NodeClaimTemplate::deserialize(object.pointer("/spec/template")?).ok()?;
    Some(node_pool(&template))
}

/// Hash of an `AKSNodeClass` object.
#[must_use]
pub fn of_aks_node_class(object: &Value) -> Option<String> {
    AKSNodeClassSpec::of(object).ok().as_ref().map(aks_node_class)
}

/// FNV-1, 64 bits.
fn fnv(parts: &[&[u8]]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    parts.iter().copied().flatten().fold(BASIS, |hash, byte| hash.wrapping_mul(PRIME) ^ u64::from(*byte))
}

/// A text.
#[must_use]
pub fn text(text: &str) -> u64 {
    fnv(&[text.as_bytes()])
}

/// A 32-bit number.
fn int32(number: i32) -> u64 {
    fnv(&[&number.to_le_bytes()])
}

/// A 64-bit number.
fn int64(number: i64) -> u64 {
    fnv(&[&number.to_le_bytes()])
}

/// A flag, one byte.
fn flag(flag: bool) -> u64 {
    fnv(&[&[u8::from(flag)]])
}

/// Two hashes, one after the other.
fn pair(first: u64, second: u64) -> u64 {
    fnv(&[&first.to_le_bytes(), &second.to_le_bytes()])
}

/// Hardens a sum of hashes, so that parts of it do not cancel out against others.
fn finish(hash: u64) -> u64 {
    fnv(&[&hash.to_le_bytes()])
}

/// Members in any order.
fn set(members: impl Iterator<Item = u64>) -> u64 {
    members.fold(0, |sum, member| sum ^ member)
}

/// Texts by text.
fn map(entries: &BTreeMap<String, String>) -> u64 {
    finish(set(entries.iter().map(|(key, value)| pair(text(key), text(value)))))
}

/// A struct: its name, then its fields in their order. A field that is not there, or zero, is left out.
#[derive(Debug, Clone, Copy)]
struct Struct(u64);

impl Struct {
    fn new(name: &str) -> Self {
        Self(text(name))
    }

    /// Adds a field, where it has a value.
    #[must_use]
    fn field(self, name: &str, value: Option<u64>) -> Self {
        value.map_or(self, |value| Self(finish(self.0 ^ pair(text(name), value))))
    }
}

/// A text that counts as not there when it is empty, as Go's strings are.
fn unless_empty(value: &str) -> Option<u64> {
    (!value.is_empty()).then(|| text(value))
}
