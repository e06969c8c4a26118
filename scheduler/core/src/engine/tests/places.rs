//! Where pods are expected to run, and what happens when they run elsewhere.

use super::*;

#[test]
fn a_running_pod_moves_only_to_a_place_that_is_ready() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let old = driver.bought().remove(0);
    driver.boot(&old);
    driver.measure(&old, 1);
    driver.pod("a", Some(&old.name));
    // The GPU is lost while the pod runs.
    driver.measure(&old, 0);
    driver.wait(30);
    let new = driver.bought().remove(1);
    let evicted = |driver: &Driver| driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. }));
    driver.boot(&new);
    assert!(!evicted(&driver) && driver.deleted().is_empty(), "the new machine is not verified yet");
    driver.measure(&new, 1);
    driver.wait(1);
    assert!(evicted(&driver), "now there is a place");
    assert!(driver.deleted().is_empty(), "the pod is still there");
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.wait(6);
    assert_eq!(driver.deleted(), [old.name]);
}

#[test]
fn a_pod_that_is_not_bound_to_its_ready_node_is_planned_anew() {
    let (mut driver, claim) = Driver::with_booted_machine();
    driver.measure(&claim, 1);
    // Somebody else took the GPU, so the cluster's scheduler cannot bind the pod.
    driver.pod("other", Some(&claim.name));
    driver.wait(19);
    assert_eq!(driver.bought().len(), 1);
    driver.wait(5);
    assert_eq!(driver.bought().len(), 2);
}

/// The cluster's scheduler binds the first pod to the second one's machine, which was ready first. The first one's machine is not
/// empty then: the second pod needs it, however late the taint on it goes.
#[test]
fn a_pod_whose_place_another_one_took_is_expected_at_the_other_s_place() {
    let mut driver = Driver::new();
    for pod in ["a", "b"] {
        driver.engine.handle(driver.now, pod_of(pod, None));
    }
    driver.wait(2);
    let claims = driver.bought();
    let place = |driver: &Driver, pod: &str| {
        driver.engine.nomination(&PodId::new("default", pod)).map(ToString::to_string)
    };
    let own = claims.iter().find(|claim| Some(&*claim.name) == place(&driver, "a").as_deref()).unwrap();
    let other = claims.iter().find(|claim| claim.name != own.name).unwrap();
    driver.boot(other);
    driver.measure(other, 1);
    driver.pod("a", Some(&other.name));
    assert_eq!(place(&driver, "b").as_deref(), Some(&*own.name));
    driver.boot(own);
    driver.measure(own, 1);
    driver.wait(300);
    assert_eq!((driver.bought().len(), driver.deleted()), (2, Vec::new()));
}

/// The same where the two are not alike: the second is planned anew, and nothing is given back before.
#[test]
fn pods_whose_place_is_taken_are_planned_anew_before_a_machine_counts_as_empty() {
    let mut driver = Driver::new();
    let mut pool = NodePool::with_defaults("gpu");
    pool.disruption.consolidate_after = crate::model::Wait::After(Duration::ZERO);
    driver.tell(Event::PoolApplied(Box::new(pool)));
    let labelled = |name: &str, node: Option<&str>| {
        let Event::PodApplied(mut pod) = pod_of(name, node) else { unreachable!() };
        pod.labels = Arc::new(Labels::from([("pod".to_owned(), name.to_owned())]));
        Event::PodApplied(pod)
    };
    for pod in ["a", "b"] {
        driver.engine.handle(driver.now, labelled(pod, None));
    }
    driver.wait(2);
    let claims = driver.bought();
    let expected = driver.engine.nomination(&PodId::new("default", "a")).cloned();
    let (own, other): (Vec<_>, Vec<_>) =
        claims.iter().partition(|claim| Some(&claim.name) == expected.as_ref());
    for claim in [other[0], own[0]] {
        driver.boot(claim);
        driver.measure(claim, 1);
    }
    driver.tell(labelled("a", Some(&other[0].name)));
    driver.wait(60);
    assert_eq!(driver.engine.nomination(&PodId::new("default", "b")), Some(&own[0].name));
    assert_eq!((driver.bought().len(), driver.deleted()), (2, Vec::new()));
}
