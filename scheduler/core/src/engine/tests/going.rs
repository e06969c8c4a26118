//! Machines that go by our own choice.

use super::*;

#[test]
fn an_empty_machine_goes_once_it_was_quiet_for_long_enough() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(120);
    assert!(driver.deleted().is_empty(), "a pod runs there");
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.wait(29);
    assert!(
        !driver.log.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })),
        "not quiet for long enough"
    );
    let asked = |driver: &Driver| driver.log.iter().any(|one| matches!(one, Effect::DeleteClaim { .. }));
    driver.wait(15);
    assert!(!asked(&driver), "it is looked at twice");
    driver.wait(2);
    assert!(asked(&driver) && driver.deleted().is_empty(), "load balancers get a moment to notice");
    driver.wait(5);
    assert_eq!(driver.deleted(), [claim.name]);
}

#[test]
fn a_protected_pod_keeps_its_node() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let old = driver.bought().remove(0);
    driver.boot(&old);
    driver.measure(&old, 1);
    driver.pod("a", Some(&old.name));
    let mut pod = driver.engine.pods.values().next().cloned().unwrap();
    let keep = (karpenter::DO_NOT_DISRUPT.to_owned(), "true".to_owned());
    pod.annotations = Arc::new(Labels::from([keep]));
    driver.tell(Event::PodApplied(Box::new(pod)));
    driver.measure(&old, 0);
    driver.wait(600);
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. })));
    assert_eq!(driver.bought().len(), 1, "no place is bought for a pod that does not move");
}

#[test]
fn a_machine_made_from_what_has_changed_is_replaced() {
    for changes_class in [false, true] {
        let mut driver = Driver::new();
        let hashed = |template: &str, class: &str| {
            let pool = NodePool { template_hash: Some(template.into()), ..NodePool::with_defaults("gpu") };
            let class = NodeClass { hash: Some(class.into()), ..NodeClass::with_defaults("default") };
            [Event::PoolApplied(Box::new(pool)), Event::ClassApplied(Box::new(class))]
        };
        hashed("1", "1").into_iter().for_each(|event| driver.tell(event));
        driver.pod("a", None);
        let claim = driver.bought().remove(0);
        assert_eq!((claim.template_hash.as_deref(), claim.class_hash.as_deref()), (Some("1"), Some("1")));
        driver.boot(&claim);
        driver.measure(&claim, 1);
        driver.pod("a", Some(&claim.name));
        driver.wait(60);
        assert_eq!(driver.bought().len(), 1, "nothing has changed");

        let (template, class) = if changes_class { ("1", "2") } else { ("2", "1") };
        hashed(template, class).into_iter().for_each(|event| driver.tell(event));
        driver.wait(60);
        assert_eq!(driver.bought().len(), 2, "another machine is bought before this one goes");
        let told = driver.log.iter().find_map(|effect| match effect {
            Effect::SetClaimCondition { condition, .. } if condition.condition_type == "Drifted" => {
                Some(condition.reason)
            }
            _ => None,
        });
        assert_eq!(told, Some(if changes_class { "NodeClassDrift" } else { "NodePoolDrifted" }));
    }
}

#[test]
fn blocked_drift_is_looked_at_again_soon_after_what_blocked_it_changed() {
    // What is changed a minute and a half after nothing was found, and whether that is waited for.
    for (change, soon) in [("nothing", false), ("limit", true), ("pod", true), ("room", true)] {
        let mut driver = Driver::new();
        let pool = |template: &str, nodes| {
            let mut pool =
                NodePool { template_hash: Some(template.into()), ..NodePool::with_defaults("gpu") };
            pool.limits.nodes = Some(nodes);
            Event::PoolApplied(Box::new(pool))
        };
        driver.tell(pool("1", 1));
        driver.pod("a", None);
        let claim = driver.bought().remove(0);
        driver.boot(&claim);
        driver.measure(&claim, 1);
        driver.pod("a", Some(&claim.name));
        driver.tell(pool("2", 1));
        let blocked = |driver: &Driver| {
            let told = |effect: &&Effect| {
                matches!(effect, Effect::RecordEvent { object, reason: "DisruptionBlocked", .. }
                    if object.starts_with("NodeClaim/"))
            };
            driver.log.iter().filter(told).count()
        };
        driver.wait(601);
        assert_eq!((driver.bought().len(), blocked(&driver)), (1, 1), "no place for its pod, said once");
        match change {
            "limit" => driver.tell(pool("2", 2)),
            "pod" => {
                let pod = driver.engine.pods.values().next().unwrap().id.clone();
                driver.tell(Event::PodDeleted(pod));
            }
            "room" => {
                // Another node has a GPU that is free.
                let mut other = driver.engine.nodes[&claim.name].clone();
                other.name = "fixed".into();
                other.provider_id = "elsewhere".to_owned();
                other.labels.remove(karpenter::NODEPOOL);
                driver.tell(Event::NodeApplied(Box::new(other)));
            }
            _ => {}
        }
        // An empty one goes as such, which is looked at twice.
        driver.wait(31);
        let left = driver.engine.machines().get(&claim.name).is_none_or(Machine::is_leaving);
        assert_eq!(left, soon, "{change}");
    }
}

#[test]
fn what_would_save_money_is_abandoned_where_a_pod_came_meanwhile() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(60);
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.wait(35);
    driver.pod("b", Some(&claim.name));
    driver.wait(60);
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })));
    assert_eq!(driver.engine.disruption_counts().failed_validations.get("Empty"), Some(&1));
}

#[test]
fn a_command_whose_replacement_fails_is_undone_and_tried_again_later() {
    let (mut driver, old) = Driver::with_running_pod();
    driver.measure(&old, 0);
    driver.wait(1);
    let spare = driver.bought().remove(1);
    let leaving = |driver: &Driver| driver.engine.machines()[&old.name].leaving;
    assert_eq!(leaving(&driver), Some(LeaveReason::WrongHardware));
    let disrupted = |driver: &Driver| {
        let taints = &driver.engine.nodes[&old.name].taints;
        taints.iter().any(|taint| taint.key == karpenter::DISRUPTED_TAINT)
    };
    assert!(disrupted(&driver));
    driver.refuse(&spare, LaunchFailure::ZonalAllocationFailed);
    driver.wait(20);
    assert_eq!((leaving(&driver), disrupted(&driver), driver.bought().len()), (None, false, 2));
    assert_eq!(driver.engine.disruption_counts().failures.get("WrongHardware"), Some(&1));
    driver.wait(400);
    assert_eq!((leaving(&driver), driver.bought().len()), (Some(LeaveReason::WrongHardware), 3));
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. })));
}
