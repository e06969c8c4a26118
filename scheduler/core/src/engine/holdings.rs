//! What the machines of each pool have together, and how many there are of each class. Kept as machines change, for both are asked
//! for all the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ResourceList;

/// Sums by pool and by class. They hold after [`sort_out`](super::Engine::sort_out).
#[derive(Debug, Default)]
pub(super) struct Holdings {
    machines: BTreeMap<Arc<str>, Held>,
    pools: BTreeMap<String, (ResourceList, u64)>,
    classes: BTreeMap<String, u64>,
}

/// What a machine counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) pool: String,
    pub(super) class: String,
    pub(super) capacity: ResourceList,
}

impl Holdings {
    /// Enters what a machine counts for now; `None` where it is gone.
    pub(super) fn enter(&mut self, claim: &Arc<str>, held: Option<Held>) {
        if self.machines.get(claim) == held.as_ref() {
            return;
        }
        if let Some(before) = self.machines.remove(claim) {
            if let Some((sum, count)) = self.pools.get_mut(&before.pool) {
                *sum = std::mem::take(sum) - &before.capacity;
                *count -= 1;
                if *count == 0 {
                    self.pools.remove(&before.pool);
                }
            }
            if let Some(count) = self.classes.get_mut(&before.class) {
                *count -= 1;
                if *count == 0 {
                    self.classes.remove(&before.class);
                }
            }
        }
        if let Some(held) = held {
            let (sum, count) = self.pools.entry(held.pool.clone()).or_default();
            *sum += &held.capacity;
            *count += 1;
            *self.classes.entry(held.class.clone()).or_default() += 1;
            self.machines.insert(Arc::clone(claim), held);
        }
    }

    /// What the machines of a pool have, and how many they are.
    pub(super) fn of_pool(&self, pool: &str) -> (ResourceList, u64) {
        self.pools.get(pool).cloned().unwrap_or_default()
    }

    /// Whether there is a machine of a class.
    pub(super) fn uses_class(&self, class: &str) -> bool {
        self.classes.contains_key(class)
    }
}

#[cfg(test)]
mod tests {
    use assay_shared::units::MilliCpu;
    use proptest::prelude::*;

    use super::*;

    fn held(pool: u8, cpu: u64) -> Held {
        let mut capacity = ResourceList { cpu: MilliCpu(cpu), ..ResourceList::default() };
        if cpu % 2 == 1 {
            capacity.set_extended("gpu", cpu);
        }
        Held { pool: pool.to_string(), class: (pool % 2).to_string(), capacity }
    }

    proptest! {
        /// However machines come, change and go, the sums are those of the machines that there are.
        #[test]
        fn sums_are_those_of_the_machines_that_there_are(
            changes in proptest::collection::vec((0_u8..6, proptest::option::of((0_u8..4, 0_u64..9))), 0..40),
        ) {
            let mut holdings = Holdings::default();
            let mut machines: BTreeMap<Arc<str>, Held> = BTreeMap::new();
            for (name, change) in changes {
                let name: Arc<str> = name.to_string().into();
                let now = change.map(|(pool, cpu)| held(pool, cpu));
                holdings.enter(&name, now.clone());
                match now {
                    Some(now) => drop(machines.insert(name, now)),
                    None => drop(machines.remove(&name)),
                }
            }
            for pool in 0..4_u8 {
                let there = machines.values().filter(|one| one.pool == pool.to_string());
                let sum: ResourceList = there.clone().map(|one| &one.capacity).sum();
                prop_assert_eq!(holdings.of_pool(&pool.to_string()), (sum, there.count() as u64));
                let class = (pool % 2).to_string();
                prop_assert_eq!(holdings.uses_class(&class), machines.values().any(|one| one.class == class));
            }
        }
    }
}
