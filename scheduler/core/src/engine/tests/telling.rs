//! What people are told.

use super::*;

#[test]
fn a_pool_that_can_buy_nothing_says_so_once() {
    let mut driver = Driver::new();
    let mut pool = NodePool::with_defaults("none");
    pool.requirements = vec![Requirement::is_in(labels::kubernetes::INSTANCE_TYPE, ["another-size"])];
    driver.tell(Event::PoolApplied(Box::new(pool.clone())));
    for name in ["a", "b"] {
        driver.pod(name, None);
        driver.wait(2);
    }
    assert_eq!(driver.told("NodePool/none"), ["NoCompatibleInstanceTypes"]);
    assert!(driver.told("NodePool/gpu").is_empty());
    // All that the other pool could buy is refused.
    for _ in 0..4 {
        let Some(claim) = driver.engine.machines().values().next().map(|machine| machine.claim.clone())
        else {
            break;
        };
        driver.refuse(&claim, LaunchFailure::AllocationFailed);
        driver.wait(2);
    }
    assert_eq!(driver.told("NodePool/gpu"), ["NoCompatibleInstanceTypes"]);
}

#[test]
fn what_an_annotation_on_a_pod_means_is_said() {
    let (mut driver, claim) = Driver::with_running_pod();
    let annotated = |value: &str| {
        let Event::PodApplied(mut pod) = pod_of("a", Some(&claim.name)) else { unreachable!() };
        let annotation = (karpenter::DO_NOT_DISRUPT.to_owned(), value.to_owned());
        pod.annotations = Arc::new(Labels::from([annotation]));
        Event::PodApplied(pod)
    };
    for value in ["until noon", "until noon", "true"] {
        driver.tell(annotated(value));
    }
    assert_eq!(driver.told("Pod/default/a"), ["InvalidDoNotDisruptAnnotation"]);
    // Its machine is to go when it is annotated.
    driver.pod("a", Some(&claim.name));
    driver.measure(&claim, 0);
    driver.wait(1);
    assert!(driver.engine.machines()[&claim.name].is_leaving());
    driver.tell(annotated("10m"));
    assert_eq!(driver.told("Pod/default/a")[1..], ["DoNotDisruptUntil"]);
    driver.wait(600);
    assert!(driver.told("Pod/default/a").contains(&"DoNotDisruptGracePeriodElapsed"));
}

#[test]
fn a_machine_that_has_less_than_its_claim_says_is_told_of() {
    let (mut driver, claim) = Driver::with_running_pod();
    let object = format!("NodeClaim/{}", claim.name);
    let mut node = driver.engine.nodes()[&claim.name].clone();
    node.capacity.cpu = MilliCpu(7_200);
    driver.tell(Event::NodeApplied(Box::new(node.clone())));
    assert!(!driver.told(&object).contains(&"FailedConsistencyCheck"), "nine tenths will do");
    node.capacity.cpu = MilliCpu(7_199);
    for _ in 0..2 {
        driver.tell(Event::NodeApplied(Box::new(node.clone())));
    }
    assert_eq!(driver.told(&object).iter().filter(|one| **one == "FailedConsistencyCheck").count(), 1);
    let condition = |driver: &Driver| {
        driver.engine.machines()[&claim.name].claim_conditions["ConsistentStateFound"].status
    };
    assert_eq!(condition(&driver), ConditionStatus::False);
    node.capacity.cpu = MilliCpu(8_000);
    driver.tell(Event::NodeApplied(Box::new(node)));
    assert_eq!(condition(&driver), ConditionStatus::True);
}

#[test]
fn a_claim_made_by_hand_is_not_launched_without_a_class_that_is_ready() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let ours = driver.bought().remove(0);
    let mut broken = NodeClass::with_defaults("broken");
    broken.readiness = crate::model::ClassReadiness::NotReady("no image".to_owned());
    driver.tell(Event::ClassApplied(Box::new(broken)));
    for (class, reason) in [("broken", "NodeClassNotReady"), ("missing", "NodeClassResolutionError")] {
        let claim = NodeClaim {
            name: class.into(),
            pool: String::new(),
            node_class: class.to_owned(),
            state: ClaimState::Pending,
            ..ours.clone()
        };
        driver.tell(Event::ClaimApplied(Box::new(claim)));
        assert_eq!(driver.told(&format!("NodeClaim/{class}")), [reason]);
        assert!(!driver.engine.machines().contains_key(class), "it is let go");
    }
    assert_eq!(driver.bought().len(), 1);
}
