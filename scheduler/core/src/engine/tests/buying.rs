//! What is bought, once, and what late or repeated news of it means.

use super::*;

#[test]
fn a_lone_pod_is_bought_for_at_once_and_once() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    driver.pod("a", None);
    driver.wait(60);
    assert_eq!(driver.bought().len(), 1);
    assert_eq!(&*driver.bought()[0].zone, "z-1", "the cheapest offering");
}

#[test]
fn a_refused_offering_is_left_alone_and_another_one_is_bought() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let first = driver.bought().remove(0);
    driver.refuse(&first, LaunchFailure::ZonalAllocationFailed);
    driver.wait(30);
    let zones: Vec<_> = driver.bought().into_iter().map(|claim| claim.zone).collect();
    assert_eq!(zones, ["z-1".into(), "z-2".into()] as [Arc<str>; 2]);
}

#[test]
fn a_machine_that_never_joins_is_given_back_and_bought_again() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let lost = driver.bought().remove(0);
    driver.wait(6 * 60);
    assert_eq!(driver.deleted(), [lost.name]);
    assert_eq!(driver.bought().len(), 2);
}

#[test]
fn the_same_events_give_the_same_effects() {
    let run = || {
        let mut driver = Driver::new();
        driver.pod("a", None);
        driver.pod("b", None);
        driver.wait(20);
        for claim in driver.bought() {
            driver.boot(&claim);
            driver.measure(&claim, 0);
        }
        driver.wait(100);
        driver.log
    };
    assert_eq!(run(), run());
}

#[test]
fn repeated_events_change_nothing() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(60);
    let before = driver.log.len();
    driver.boot(&claim);
    driver.measure(&claim, 1);
    driver.pod("a", Some(&claim.name));
    driver.wait(60);
    assert_eq!(driver.log[before..], []);
}

/// A watch that was cut tells of a claim's making when the claim is gone already.
#[test]
fn a_claim_that_was_let_go_is_not_bought_again_for_late_news_of_it() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let claim = driver.bought().remove(0);
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.refuse(&claim, LaunchFailure::AllocationFailed);
    driver.tell(Event::ClaimApplied(Box::new(claim.clone())));
    assert!(driver.engine.machines().is_empty());
    assert_eq!(driver.bought().len(), 1);
    driver.tell(Event::ClaimDeleted { claim: Arc::clone(&claim.name) });
    // One that somebody makes later has nothing but the name in common.
    driver.wait(1);
    let another = NodeClaim { created: driver.now, ..claim };
    driver.tell(Event::ClaimApplied(Box::new(another)));
    assert_eq!(driver.bought().len(), 2);
}

#[test]
fn a_zone_that_keeps_delivering_broken_machines_is_left_alone() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    for _ in 0..3 {
        let broken = driver.bought().pop().unwrap();
        assert_eq!(&*broken.zone, "z-1");
        driver.boot(&broken);
        driver.measure(&broken, 0);
        driver.tell(Event::InstanceGone { claim: Arc::clone(&broken.name) });
        driver.tell(Event::NodeDeleted(broken.name));
        driver.wait(5);
    }
    assert_eq!(&*driver.bought().pop().unwrap().zone, "z-2");
    assert_eq!(driver.bought().len(), 4);
}

#[test]
fn a_restarted_engine_counts_on_claims_in_flight() {
    let mut first = Driver::new();
    first.pod("a", None);
    let claim = first.bought().remove(0);
    let mut second = Driver::new();
    for _ in 0..2 {
        second.tell(Event::ClaimApplied(Box::new(claim.clone())));
    }
    second.pod("a", None);
    second.wait(60);
    let names: Vec<_> = second.bought().into_iter().map(|claim| claim.name).collect();
    assert_eq!(names, [Arc::clone(&claim.name)], "the same machine is asked for once more");
    second.boot(&claim);
    second.measure(&claim, 1);
    assert_eq!(second.state(&claim), Some(ClaimState::Initialized));
}

#[test]
fn the_built_in_catalogue_is_a_source_of_instance_types() {
    let catalog = Catalog::builtin("eastus").unwrap();
    let source: &dyn InstanceTypes = &catalog;
    assert_eq!(source.region(), "eastus");
    assert_eq!(source.sold_memory("Standard_D4s_v5"), Some(Bytes::gib(16)));
    assert_eq!(source.sold_memory("Standard_None"), None);
}
