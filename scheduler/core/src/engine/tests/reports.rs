//! What reports mean for machines: verified, short of something, silent.

use super::*;

#[test]
fn pods_run_only_where_the_hardware_was_verified() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let claim = driver.bought().remove(0);
    assert!(claim.startup_taints.iter().any(|taint| taint.key == assay::HARDWARE_UNVERIFIED_TAINT));
    driver.boot(&claim);
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered), "ready is not enough");
    driver.measure(&claim, 1);
    assert_eq!(driver.state(&claim), Some(ClaimState::Initialized));
    let node = &driver.engine.nodes[&claim.name];
    assert!(node.taints.is_empty());
    assert_eq!(node.label(hardware::VERIFIED), Some("true"));
    assert_eq!(node.label(hardware::MEMORY_TOTAL_MIB), Some("63488"));
}

#[test]
fn a_machine_that_comes_without_its_gpu_is_replaced_and_given_back() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let broken = driver.bought().remove(0);
    driver.boot(&broken);
    driver.measure(&broken, 0);
    driver.wait(30);
    assert_eq!(driver.deleted(), [Arc::clone(&broken.name)], "nothing runs there: it goes at once");
    assert_eq!(driver.bought().len(), 2, "and another one is bought");
    assert_eq!(driver.engine.stats().mismatches.get(&MismatchKind::Gpus), Some(&1));
    assert!(driver.log.iter().any(
        |effect| matches!(effect, Effect::TaintNode { taint, .. } if taint.key == assay::HARDWARE_MISMATCH_TAINT)
    ));
}

#[test]
fn what_three_machines_showed_changes_the_next_purchase() {
    let mut driver = Driver::new();
    for name in ["a", "b", "c"] {
        driver.pod(name, None);
        driver.wait(5);
        let claim = driver.bought().pop().unwrap();
        assert_eq!(claim.capacity.memory, Bytes::gib(60), "the model's guess");
        driver.boot(&claim);
        driver.measure(&claim, 1);
        driver.pod(name, Some(&claim.name));
    }
    driver.pod("d", None);
    driver.wait(5);
    assert_eq!(driver.bought().pop().unwrap().capacity.memory, Bytes::gib(62), "what was measured");
    assert_eq!(driver.engine.stats().learned_purchases, 1);
}

#[test]
fn a_machine_whose_gpus_were_not_counted_waits_until_they_are() {
    let (mut driver, claim) = Driver::with_booted_machine();
    // The driver has not answered yet: one GPU on the bus, nobody knows whether it works.
    let mut early = HardwareReport::default();
    early.memory.total_bytes = Fact::Measured(Bytes::gib(62));
    early.gpus.pci = Fact::Measured(1);
    driver.tell(Event::Report { node: Arc::clone(&claim.name), report: Arc::new(early) });
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered));
    assert_eq!(driver.engine.nodes[&claim.name].label(hardware::VERIFIED), None, "neither true nor false");
    driver.measure(&claim, 1);
    assert_eq!(driver.state(&claim), Some(ClaimState::Initialized));
}

#[test]
fn an_impossible_report_changes_nothing() {
    let (mut driver, claim) = Driver::with_booted_machine();
    driver.measure(&claim, 8);
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered));
    assert_eq!(driver.engine.stats().quarantined, 1);
    assert_eq!(driver.engine.nodes[&claim.name].label(hardware::GPU_COUNT), None);
}

#[test]
fn a_silent_agent_holds_a_node_up_only_for_so_long() {
    let (mut driver, claim) = Driver::with_booted_machine();
    driver.wait(299);
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered));
    driver.wait(2);
    assert_eq!(driver.state(&claim), Some(ClaimState::Initialized));
    assert!(driver.log.iter().any(|effect| matches!(
        effect,
        Effect::SetNodeCondition { condition, .. } if condition.reason == "ReportTimeout"
    )));
    assert!(driver.deleted().is_empty() && driver.bought().len() == 1, "silence deletes nothing");
}

#[test]
fn a_silent_node_is_replaced_where_the_operator_says_so() {
    let mut driver = Driver::new();
    driver.engine.settings.report_timeout_policy = ReportTimeoutPolicy::Replace;
    driver.pod("a", None);
    let claim = driver.bought().remove(0);
    driver.boot(&claim);
    driver.wait(310);
    assert_eq!(driver.deleted(), [claim.name]);
    assert_eq!(driver.bought().len(), 2);
}

#[test]
fn an_agent_that_goes_away_makes_its_facts_stale_and_nothing_else() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(60);
    let before = driver.log.len();
    driver.tell(Event::AgentLost { node: Arc::clone(&claim.name) });
    driver.tell(Event::AgentLost { node: Arc::clone(&claim.name) });
    driver.wait(3600);
    let stale = Labels::from([(hardware::VERIFIED.to_owned(), "stale".to_owned())]);
    let done = driver.log[before..].iter().filter(|effect| !matches!(effect, Effect::RecordEvent { .. }));
    let expected = Effect::LabelNode { node: Arc::clone(&claim.name), labels: stale };
    assert_eq!(done.collect::<Vec<_>>(), [&expected]);
    driver.measure(&claim, 1);
    assert_eq!(driver.engine.nodes[&claim.name].label(hardware::VERIFIED), Some("true"), "it came back");
}

#[test]
fn a_lost_gpu_is_acted_on_before_the_next_report() {
    use assay_shared::protocol::Notice;
    use assay_shared::report::{GpuDevice, GpuState};
    let (mut driver, claim) = Driver::with_booted_machine();
    let mut report = HardwareReport::default();
    report.memory.total_bytes = Fact::Measured(Bytes::gib(62));
    report.gpus.usable = Fact::Measured(1);
    let address = "0001:00:00.0".to_owned();
    let gpu = GpuDevice {
        pci_address: Fact::Measured(address.clone()),
        state: GpuState::Usable,
        ..GpuDevice::default()
    };
    report.gpus.devices = Fact::Measured(vec![gpu]);
    driver.tell(Event::Report { node: Arc::clone(&claim.name), report: Arc::new(report) });
    let notice = Notice::GpuLost { pci_address: address, reason: "Xid 79".to_owned() };
    for _ in 0..2 {
        driver.tell(Event::Notice { node: Arc::clone(&claim.name), notice: notice.clone() });
    }
    assert_eq!(driver.engine.stats().mismatches.get(&MismatchKind::Gpus), Some(&1));
    assert_eq!(driver.engine.machines()[&claim.name].leaving, Some(LeaveReason::WrongHardware));
}

#[test]
fn a_machine_whose_hardware_comes_back_in_time_stays() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.measure(&claim, 0);
    driver.wait(2);
    driver.measure(&claim, 1);
    assert!(driver.engine.nodes[&claim.name].taints.is_empty());
    let spare = driver.bought().remove(1);
    driver.wait(120);
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. })));
    assert_eq!(driver.deleted(), [spare.name], "nobody needs the replacement");
}
