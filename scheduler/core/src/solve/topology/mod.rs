//! Constraints between pods: what they count, over which domains, and how many are there.
//!
//! ```text
//! specs --group--> groups (key, selector, nodes that count) --membership--> which pods are counted where
//! running pods, places --count--> counts per group and domain --settle--> domains for pending pods
//! ```
//!
//! A plan is decided by its final state: after all its pods are placed, every constraint of every planned pod holds, in
//! whatever order they are bound. Constraints over `kubernetes.io/hostname`, host ports and shared volumes are rules within one
//! machine ([`HostRules`](super::host::HostRules)); all others are decided before anything is packed, by giving each pod a domain.

mod counts;
mod group;
mod keys;
mod rules;
#[cfg(test)]
mod tests;

pub(super) use self::counts::Counts;
pub(super) use self::group::{Domain, GroupId, Topology};
pub(super) use self::rules::{ClassRules, Constraint, ConstraintKind, Soft, apply_wish, makes_groups};
