//! Pods that run, by namespace and labels: what selectors see of them, and where they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use assay_shared::labels::kubernetes;

use crate::model::{Labels, Pod, PodSelector};
use crate::requirement::Requirements;

/// How many pods there are in each domain.
pub(super) type ByDomain = BTreeMap<String, u64>;

/// Pods with the same labels in one namespace.
#[derive(Debug, Default)]
struct Flock {
    labels: Arc<Labels>,
    /// How many are on each node.
    at: HashMap<Arc<str>, u64>,
    /// How many are in each domain of every topology key that was asked for, by number.
    domains: Vec<ByDomain>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Flocks {
    by_namespace: HashMap<Arc<str>, HashMap<Arc<Labels>, Flock>>,
    /// Topology keys that were asked for.
    keys: Vec<String>,
}

/// The domain of a node for each topology key.
type Domains<'d> = &'d dyn Fn(&str, &str) -> Option<String>;

impl Flocks {
    /// Counts a pod on a node, or takes it off.
    pub(super) fn count(&mut self, pod: &Pod, node: &Arc<str>, domain_of: Domains<'_>, more: bool) {
        let step = |held: &mut u64| *held = if more { *held + 1 } else { held.saturating_sub(1) };
        let namespace = self.by_namespace.entry(Arc::clone(&pod.id.namespace)).or_default();
        let flock = namespace.entry(Arc::clone(&pod.labels)).or_insert_with(|| Flock {
            labels: Arc::clone(&pod.labels),
            domains: vec![ByDomain::new(); self.keys.len()],
            ..Flock::default()
        });
        let here = flock.at.entry(Arc::clone(node)).or_default();
        step(here);
        if *here == 0 {
            flock.at.remove(node);
        }
        for (key, domains) in self.keys.iter().zip(&mut flock.domains) {
            if let Some(domain) = domain_of(node, key) {
                step(domains.entry(domain).or_default());
            }
        }
        if flock.at.is_empty() {
            namespace.remove(&pod.labels);
        }
    }

    /// Keeps the counts over a topology key from now on; those on single nodes are kept anyway.
    pub(super) fn learn(&mut self, key: &str, domain_of: Domains<'_>) {
        if key == kubernetes::HOSTNAME || self.keys.iter().any(|known| known == key) {
            return;
        }
        self.keys.push(key.to_owned());
        for flock in self.by_namespace.values_mut().flat_map(HashMap::values_mut) {
            let mut domains = ByDomain::new();
            for (node, count) in &flock.at {
                if let Some(domain) = domain_of(node, key) {
                    *domains.entry(domain).or_default() += count;
                }
            }
            flock.domains.push(domains);
        }
    }

    /// Those that a selector matches, to be counted over a topology key that was learned.
    pub(super) fn select(&self, selector: &PodSelector, key: &str) -> Selected<'_> {
        let needs = selector.labels.as_ref().and_then(|list| Requirements::from_list(list).ok());
        let Some(needs) = needs else { return Selected::default() };
        let namespaces =
            self.by_namespace.iter().filter(|(namespace, _)| selector.namespaces.contains(namespace));
        let flocks = namespaces.flat_map(|(_, flocks)| flocks.values());
        let flocks = flocks.filter(|flock| needs.check_labels(&flock.labels).is_ok());
        Selected { flocks: flocks.collect(), key: self.keys.iter().position(|known| known == key) }
    }
}

/// Pods that a selector matches.
#[derive(Debug, Default)]
pub(super) struct Selected<'f> {
    flocks: Vec<&'f Flock>,
    /// Number of the topology key; `None` where domains are single nodes.
    key: Option<usize>,
}

impl Selected<'_> {
    /// How many are in a domain.
    pub(super) fn at(&self, domain: &str) -> u64 {
        let held = |flock: &&Flock| match self.key {
            Some(key) => flock.domains[key].get(domain).copied(),
            None => flock.at.get(domain).copied(),
        };
        self.flocks.iter().filter_map(held).sum()
    }

    /// How many are in any domain.
    pub(super) fn anywhere(&self) -> u64 {
        let held = |flock: &&Flock| match self.key {
            Some(key) => flock.domains[key].values().sum::<u64>(),
            None => flock.at.values().sum(),
        };
        self.flocks.iter().map(held).sum()
    }

    /// How many are in each domain.
    pub(super) fn in_domains(&self) -> ByDomain {
        let mut found = ByDomain::new();
        let Some(key) = self.key else { return found };
        for (domain, count) in self.flocks.iter().flat_map(|flock| &flock.domains[key]) {
            *found.entry(domain.clone()).or_default() += count;
        }
        found
    }

    /// The same on nodes for which `counted` gives a domain.
    pub(super) fn in_domains_of(&self, counted: impl Fn(&str) -> Option<String>) -> ByDomain {
        let mut found = ByDomain::new();
        let mut known: HashMap<&str, Option<String>> = HashMap::new();
        for (node, count) in self.flocks.iter().flat_map(|flock| &flock.at) {
            let domain = known.entry(node).or_insert_with(|| counted(node));
            if let Some(domain) = domain {
                *found.entry(domain.clone()).or_default() += count;
            }
        }
        found
    }
}
