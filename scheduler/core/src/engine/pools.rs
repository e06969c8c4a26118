//! What a pool's status says, and whether it may buy: its own validity, its class, and how registrations went.

use std::collections::{BTreeMap, VecDeque};

use super::{Condition, ConditionStatus, Engine};
use crate::model::{ClassReadiness, NodePool, ResourceList};

/// How many registrations are remembered, and how many failures among them make a pool unhealthy (Karpenter's).
const REMEMBERED: usize = 4;
const FAILURES: usize = 2;

/// How the last registrations of each pool went.
#[derive(Debug, Default)]
pub(super) struct Registrations(BTreeMap<String, VecDeque<bool>>);

impl Registrations {
    fn note(&mut self, pool: &str, succeeded: bool) {
        let last = self.0.entry(pool.to_owned()).or_default();
        last.push_back(succeeded);
        if last.len() > REMEMBERED {
            last.pop_front();
        }
    }

    pub(super) fn forget(&mut self, pool: &str) {
        self.0.remove(pool);
    }

    /// Whether the pool's nodes register; `None` where none was tried.
    fn healthy(&self, pool: &str) -> Option<bool> {
        let last = self.0.get(pool).filter(|last| !last.is_empty())?;
        Some(last.iter().filter(|succeeded| !**succeeded).count() < FAILURES)
    }
}

/// What a driver writes to a pool's status, when it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Capacity of its nodes, those on their way included.
    pub resources: ResourceList,
    /// Its nodes, those on their way included.
    pub nodes: u64,
    /// `ValidationSucceeded`, `NodeClassReady`, `Ready`, `NodeRegistrationHealthy`.
    pub conditions: [Condition; 4],
}

impl Engine {
    /// The status of a pool.
    #[must_use]
    pub fn pool_status(&self, pool: &str) -> Option<PoolStatus> {
        let pool = self.pools.get(pool)?;
        let (resources, nodes) = self.holdings.of_pool(&pool.name);
        let (valid, class) = (validation(pool), self.class_condition(pool));
        let ready = [&valid, &class].into_iter().find(|one| one.status != ConditionStatus::True);
        let ready = ready.map_or_else(
            || Condition::holds("Ready", String::new()),
            |missing| Condition { condition_type: "Ready", ..missing.clone() },
        );
        Some(PoolStatus {
            resources,
            nodes,
            conditions: [valid, class, ready, self.registration_health(pool)],
        })
    }

    /// Pools that may buy.
    pub(super) fn buying_pools(&self) -> impl Iterator<Item = &NodePool> {
        self.pools.values().filter(|pool| {
            !pool.deleting
                && pool.problem.is_none()
                && self.class_condition(pool).status == ConditionStatus::True
        })
    }

    fn class_condition(&self, pool: &NodePool) -> Condition {
        let condition_type = "NodeClassReady";
        let not =
            |reason, message| Condition { condition_type, status: ConditionStatus::False, reason, message };
        let name = &pool.node_class;
        match self.classes.get(name).map(|class| &class.readiness) {
            None => not("NodeClassNotFound", format!("there is no class {name}")),
            Some(ClassReadiness::Terminating) => {
                not("NodeClassTerminating", format!("class {name} is being deleted"))
            }
            Some(ClassReadiness::NotReady(why)) => not("NodeClassNotReady", format!("class {name}: {why}")),
            Some(ClassReadiness::Unknown) => Condition {
                condition_type,
                status: ConditionStatus::Unknown,
                reason: "NodeClassReadinessUnknown",
                message: format!("class {name} has not been looked at yet"),
            },
            Some(ClassReadiness::Ready) => Condition::holds(condition_type, String::new()),
        }
    }

    fn registration_health(&self, pool: &NodePool) -> Condition {
        let condition_type = "NodeRegistrationHealthy";
        let (status, reason, message) = match self.registrations.healthy(&pool.name) {
            None => (
                ConditionStatus::Unknown,
                "NoRegistrationYet",
                "no node has joined or failed to since the pool changed",
            ),
            Some(true) => (ConditionStatus::True, condition_type, ""),
            Some(false) => (
                ConditionStatus::False,
                "RegistrationFailed",
                "of the last four nodes two or more were not launched or did not join in time",
            ),
        };
        Condition { condition_type, status, reason, message: message.to_owned() }
    }

    /// A node of a pool joined its claim, or failed to in time.
    pub(super) fn registered(&mut self, pool: &str, succeeded: bool) {
        if !pool.is_empty() {
            self.registrations.note(pool, succeeded);
        }
    }

    /// What `NodeRegistrationHealthy` of a pool says from an earlier run; a driver tells it at start.
    pub fn recall_registration_health(&mut self, pool: &str, healthy: bool) {
        self.registrations.forget(pool);
        for _ in 0..if healthy { 1 } else { FAILURES } {
            self.registrations.note(pool, healthy);
        }
    }

    /// A pool was told; whether it is new or changed. What was seen of its registrations spoke of another pool then.
    pub(super) fn pool_applied(&mut self, pool: NodePool) -> bool {
        let before = self.pools.insert(pool.name.clone(), pool.clone());
        let changed = before.as_ref() != Some(&pool);
        if changed && before.is_some() {
            self.registrations.forget(&pool.name);
        }
        changed
    }

    /// A class was created, changed or deleted: the same for its pools.
    pub(super) fn class_changed(&mut self, class: &str) {
        self.types_told.remove(class);
        for pool in self.pools.values().filter(|pool| pool.node_class == class) {
            self.registrations.forget(&pool.name);
        }
    }
}

fn validation(pool: &NodePool) -> Condition {
    match &pool.problem {
        None => Condition::holds("ValidationSucceeded", String::new()),
        Some(problem) => Condition {
            condition_type: "ValidationSucceeded",
            status: ConditionStatus::False,
            reason: "NodePoolValidationFailed",
            message: problem.clone(),
        },
    }
}
