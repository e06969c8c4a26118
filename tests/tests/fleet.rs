//! The fleet link on real sockets: what agents that keep the rules can rely on.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use assay_agent::link::{
    Credentials, LinkEndpoint, LinkError, ReportSource, report_once, run_link, run_replicas,
    run_replicas_found,
};
use assay_scheduler::fleet::ca::{DevCa, SERVER_VALIDITY};
use assay_scheduler::fleet::{FleetEvent, FleetHandle};
use assay_shared::protocol::{AgentMessage, CloseCode, Notice, RefusalReason, Section, ServerMessage};
use assay_shared::report::{EventType, ScheduledEvent};
use assay_shared::{Fact, HardwareReport, NodeName};
use assay_tests::fleet::{Fleet, agent, config, eventually, full, report, serve, within};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// A machine that a test changes while it is surveyed.
#[derive(Debug, Clone)]
struct Machine {
    report: Arc<Mutex<HardwareReport>>,
    surveys: Arc<AtomicU32>,
}

impl Machine {
    fn new(node: &str) -> Self {
        Self { report: Arc::new(Mutex::new(report(node))), surveys: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut HardwareReport)) {
        change(&mut self.report.lock().unwrap());
    }
}

impl ReportSource for Machine {
    fn survey(&mut self) -> HardwareReport {
        self.surveys.fetch_add(1, Relaxed);
        self.report.lock().unwrap().clone()
    }
}

/// A machine with a driver that takes its time.
struct SlowDriver;

impl ReportSource for SlowDriver {
    fn survey(&mut self) -> HardwareReport {
        let mut whole = report("node-a");
        whole.gpus.usable = Fact::Measured(8);
        whole
    }

    fn ahead(&mut self) -> Option<HardwareReport> {
        Some(report("node-a"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_quick_to_survey_is_reported_ahead_of_the_whole() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let (stop, stopped) = watch::channel(false);
    let agent = tokio::spawn(run_link(fleet.agent("node-a")?, LinkEndpoint::bind()?, SlowDriver, stopped));
    let mut usable = Vec::new();
    while usable.len() < 2 {
        if let FleetEvent::Report { report, .. } = fleet.event().await? {
            usable.push(report.gpus.usable.get());
        }
    }
    assert_eq!(usable, [None, Some(8)]);
    stop.send_replace(true);
    agent.await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reports_whole_then_what_changed_and_what_cannot_wait_at_once() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let machine = Machine::new("node-a");
    let (stop, stopped) = watch::channel(false);
    let link = run_link(fleet.agent("node-a")?, LinkEndpoint::bind()?, machine.clone(), stopped);
    let link = tokio::spawn(link);

    let connected = FleetEvent::Connected { node: node("node-a"), boot: "boot-1".to_owned() };
    assert_eq!(fleet.event().await?, connected);
    let FleetEvent::Report { report: first, generation: 1, .. } = fleet.event().await? else {
        bail!("expected the first report");
    };
    assert_eq!(*first, report("node-a"));

    let surveyed = machine.surveys.load(Relaxed);
    eventually("further surveys", || machine.surveys.load(Relaxed) > surveyed + 5).await?;
    assert_eq!(fleet.server.counters().reports(), 1, "a machine that does not change sends nothing");

    machine.change(|report| report.cpu.logical_cpus = Fact::Measured(8));
    let FleetEvent::Report { report: second, generation: 2, .. } = fleet.event().await? else {
        bail!("expected the second report");
    };
    assert_eq!(second.cpu.logical_cpus, Fact::Measured(8));
    assert_eq!(second.identity, first.identity);

    let preempt =
        ScheduledEvent { event_type: EventType::Preempt, not_before: "2026-01-01T00:00:30Z".to_owned() };
    machine.change(|report| report.events = Fact::Measured(vec![preempt.clone()]));
    let notice = FleetEvent::Notice { node: node("node-a"), notice: Notice::Scheduled(preempt) };
    assert_eq!(fleet.event().await?, notice, "before the report that says it too");
    assert!(matches!(fleet.event().await?, FleetEvent::Report { generation: 3, .. }));

    let agents = fleet.server.connected();
    assert_eq!(agents.iter().map(|agent| agent.node.as_str()).collect::<Vec<_>>(), ["node-a"]);
    assert_eq!(agents[0].generation, Some(3));

    stop.send_replace(true);
    link.await??;
    let gone = FleetEvent::Disconnected { node: node("node-a"), replaced: false };
    assert_eq!(fleet.event().await?, gone);
    let counters = fleet.server.counters();
    assert_eq!((counters.full_reports, counters.deltas, counters.notices), (1, 2, 1));
    assert_eq!(counters.refusals().map(|(_, count)| count).sum::<u64>(), 0);
    Ok(())
}

#[tokio::test]
async fn a_delta_that_does_not_fit_is_answered_with_a_request_for_everything() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let mut client = fleet.client("node-a").await?.welcomed("node-a", "boot-1").await?;
    let delta = |base, generation| AgentMessage::Delta {
        base,
        generation,
        sections: vec![Section::Disks(Fact::Absent)],
    };
    client.message(&delta(1, 2)).await?;
    assert_eq!(client.answer().await?, ServerMessage::SendFull);
    client.message(&full("node-a", 3)).await?;
    assert_eq!(client.answer().await?, ServerMessage::Ack { generation: 3 });
    client.message(&delta(2, 4)).await?;
    assert_eq!(client.answer().await?, ServerMessage::SendFull, "a base that is not the last report");
    client.message(&delta(3, 4)).await?;
    assert_eq!(client.answer().await?, ServerMessage::Ack { generation: 4 });
    assert_eq!(fleet.server.counters().resyncs, 2);

    // A new connection in the same boot goes on from there; after another boot nothing is left.
    for (boot, expected) in [("boot-1", Some(4)), ("boot-2", None), ("", None)] {
        let mut client = fleet.client("node-a").await?;
        client.hello("node-a", boot).await?;
        match client.answer().await? {
            ServerMessage::Welcome { last_generation, .. } => {
                assert_eq!(last_generation, expected, "{boot:?}")
            }
            other => bail!("expected Welcome, found {other:?}"),
        }
    }
    fleet.ignore_events();
    fleet.serves("node-b").await
}

#[tokio::test]
async fn a_newer_connection_of_a_node_takes_the_place_of_the_older() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let old = fleet.client("node-a").await?.welcomed("node-a", "boot-1").await?;
    let mut new = fleet.client("node-a").await?.welcomed("node-a", "boot-1").await?;
    let quinn::ConnectionError::ApplicationClosed(close) = old.closed().await? else {
        bail!("the old connection was not closed");
    };
    assert_eq!(CloseCode::from_number(close.error_code.into_inner()), Some(CloseCode::Replaced));
    new.message(&full("node-a", 1)).await?;
    assert_eq!(new.answer().await?, ServerMessage::Ack { generation: 1 });

    let connected = FleetEvent::Connected { node: node("node-a"), boot: "boot-1".to_owned() };
    assert_eq!(fleet.event().await?, connected);
    assert_eq!(fleet.event().await?, FleetEvent::Disconnected { node: node("node-a"), replaced: true });
    assert_eq!(fleet.event().await?, connected);
    assert!(matches!(fleet.event().await?, FleetEvent::Report { .. }));
    assert_eq!(fleet.server.counters().replaced, 1);
    assert_eq!(fleet.server.counters().connected, 1);
    Ok(())
}

/// Agents, and the socket they share.
type Swarm = (JoinSet<Result<(), LinkError>>, LinkEndpoint);

/// Starts `count` agents on one socket; they end when the sender is dropped.
fn swarm(fleet: &Fleet, count: usize, shutdown: &watch::Receiver<bool>) -> anyhow::Result<Swarm> {
    let endpoint = LinkEndpoint::bind()?;
    let mut agents = JoinSet::new();
    for number in 0..count {
        let name = format!("node-{number}");
        let mut link = fleet.agent(&name)?;
        link.interval = Some(Duration::from_secs(3600));
        agents.spawn(run_link(link, endpoint.clone(), move || report(&name), shutdown.clone()));
    }
    Ok((agents, endpoint))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_agents_are_connected_at_once() -> anyhow::Result<()> {
    const AGENTS: usize = 2_000;
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let (stop, stopped) = watch::channel(false);
    let (mut agents, endpoint) = swarm(&fleet, AGENTS, &stopped)?;
    eventually("all reports", || {
        let counters = fleet.server.counters();
        counters.connected == AGENTS as u64 && counters.full_reports >= AGENTS as u64
    })
    .await?;
    let connected = fleet.server.connected();
    assert!(connected.len() == AGENTS && connected.iter().all(|agent| agent.generation.is_some()));
    stop.send_replace(true);
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    endpoint.wait_idle().await;
    eventually("all to be gone", || fleet.server.counters().connected == 0).await?;
    assert_eq!(fleet.server.counters().replaced, 0, "nobody connected twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_come_back_to_a_scheduler_that_restarted() -> anyhow::Result<()> {
    const AGENTS: usize = 100;
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let (stop, stopped) = watch::channel(false);
    let (mut agents, _endpoint) = swarm(&fleet, AGENTS, &stopped)?;
    let reported = |fleet: &Fleet| fleet.server.counters().full_reports == AGENTS as u64;
    eventually("all agents", || reported(&fleet)).await?;

    let address = fleet.server.local_addr();
    let (events, receiver) = mpsc::channel(1024);
    let again = assay_scheduler::fleet::FleetConfig { listen: address, ..config() };
    fleet.server.stop().await;
    fleet.server = serve(again, &fleet.ca, &fleet.identity, events)?;
    fleet.events = receiver;
    fleet.ignore_events();

    eventually("all agents to come back", || reported(&fleet)).await?;
    let counters = fleet.server.counters();
    assert_eq!((counters.connected, counters.replaced), (AGENTS as u64, 0), "each of them once");
    stop.send_replace(true);
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    Ok(())
}

#[test]
fn agents_notice_that_a_scheduler_died_from_its_successor() -> anyhow::Result<()> {
    // The server runs in a runtime of its own, which ends in the middle of everything: nobody says goodbye.
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (first, second, agents) = (runtime()?, runtime()?, runtime()?);
    let mut fleet = {
        let _inside = first.enter();
        Fleet::start(config())?
    };
    let address = fleet.server.local_addr();
    let machine = Machine::new("node-a");
    let (_stop, stopped) = watch::channel(false);
    let link = {
        let _inside = agents.enter();
        run_link(fleet.agent("node-a")?, LinkEndpoint::bind()?, machine.clone(), stopped)
    };
    agents.spawn(link);
    agents.block_on(async {
        while !matches!(fleet.event().await?, FleetEvent::Report { .. }) {}
        anyhow::Ok(())
    })?;

    first.shutdown_timeout(Duration::from_secs(5));
    drop(fleet.server);
    let (events, mut receiver) = mpsc::channel(1024);
    let _server = {
        let _inside = second.enter();
        serve(
            assay_scheduler::fleet::FleetConfig { listen: address, ..config() },
            &fleet.ca,
            &fleet.identity,
            events,
        )?
    };
    // The next message meets a server that knows the connection id as one of its kind, and resets the connection. Without
    // that the agent would wait for an acknowledgement, or for the connection to idle out.
    machine.change(|report| report.cpu.logical_cpus = Fact::Measured(8));
    agents.block_on(async {
        let event = tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await;
        let event = event.context("the agent did not notice")?;
        assert!(matches!(event, Some(FleetEvent::Connected { .. })), "{event:?}");
        anyhow::Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_on_either_side() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let directory = tempfile::tempdir()?;
    let name = node("node-a");
    let short_lived = fleet.ca.issue_agent(&name, Duration::from_secs(3))?;
    let (certificate, key) = short_lived.write(directory.path(), "node-a")?;
    let ca = directory.path().join("ca.crt");
    std::fs::write(&ca, fleet.ca.certificate_pem())?;
    let mut link = agent(&fleet.ca, &short_lived, "node-a", fleet.server.local_addr())?;
    link.credentials = Credentials::Files { ca: ca.clone(), certificate, key };
    let (_stop, stopped) = watch::channel(false);
    let link = tokio::spawn(run_link(link, LinkEndpoint::bind()?, || report("node-a"), stopped));
    while !matches!(fleet.event().await?, FleetEvent::Report { .. }) {}

    // The agent's certificate expires; by then there is a new one in its place, and the server has another authority.
    let successor = DevCa::create()?;
    std::fs::write(&ca, [fleet.ca.certificate_pem(), successor.certificate_pem()].concat())?;
    fleet.server.renew(successor.issue_server(&["127.0.0.1"], SERVER_VALIDITY)?.server_identity()?)?;
    fleet.ca.issue_agent(&name, Duration::from_secs(3600))?.write(directory.path(), "node-a")?;
    assert!(matches!(fleet.event().await?, FleetEvent::Disconnected { replaced: false, .. }));
    assert!(matches!(fleet.event().await?, FleetEvent::Connected { .. }));
    assert!(!link.is_finished());
    assert_eq!(fleet.server.counters().refusals().map(|(_, count)| count).sum::<u64>(), 0);
    Ok(())
}

#[tokio::test]
async fn an_agent_says_why_a_single_report_did_not_get_through() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let once = async |link| {
        let endpoint = LinkEndpoint::bind()?;
        let ended = within("an answer", report_once(link, endpoint, || report("node-a"))).await?;
        Ok::<_, anyhow::Error>(ended.err().map(|error| error.to_string()).unwrap_or_default())
    };

    let mut unknown_name = fleet.agent("node-a")?;
    unknown_name.server_name = Some("scheduler.example.com".to_owned());
    let said = once(unknown_name).await?;
    assert!(said.starts_with("the scheduler is not trusted: "), "{said}");

    let stranger = DevCa::create()?;
    let address = fleet.server.local_addr();
    let foreign = stranger.issue_agent(&node("node-a"), Duration::from_secs(3600))?;
    let said = once(agent(&stranger, &foreign, "node-a", address)?).await?;
    assert!(said.starts_with("the scheduler is not trusted: "), "{said}");
    let said = once(agent(&fleet.ca, &foreign, "node-a", address)?).await?;
    assert!(said.starts_with("the scheduler refused the handshake"), "{said}");

    let of_another = fleet.ca.issue_agent(&node("node-b"), Duration::from_secs(3600))?;
    let said = once(agent(&fleet.ca, &of_another, "node-a", address)?).await?;
    assert_eq!(
        said,
        "refused by the scheduler: node_mismatch: the credential is of node node-b, Hello names node-a"
    );

    assert_eq!(once(fleet.agent("node-a")?).await?, "", "a sound agent is served afterwards");
    assert_eq!(fleet.server.counters().refused(RefusalReason::HandshakeFailed), 3);
    assert_eq!(fleet.server.counters().refused(RefusalReason::NodeMismatch), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_of_the_scheduler_has_the_same_reports() -> anyhow::Result<()> {
    let ca = DevCa::create()?;
    let identity = ca.issue_server(&["localhost"], SERVER_VALIDITY)?;
    let start = || {
        let (events, mut receiver) = mpsc::channel(1024);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        serve(config(), &ca, &identity, events)
    };
    let mut replicas = vec![start()?, start()?];
    let issued = ca.issue_agent(&node("node-a"), SERVER_VALIDITY)?;
    let mut link = agent(&ca, &issued, "node-a", replicas[0].local_addr())?;
    link.server_name = Some("localhost".to_owned());
    let addresses =
        |replicas: &[FleetHandle]| replicas.iter().map(FleetHandle::local_addr).collect::<Vec<_>>();
    let (known, found) = watch::channel(addresses(&replicas));
    let lookup = move || {
        let found = found.borrow().clone();
        async { Ok(found) }
    };
    let machine = Machine::new("node-a");
    let (stop, stopped) = watch::channel(false);
    let often = Duration::from_millis(20);
    let endpoint = LinkEndpoint::bind()?;
    let agent = tokio::spawn(run_replicas_found(link, endpoint, machine.clone(), stopped, often, lookup));
    let last = |replica: &FleetHandle| replica.connected().first().and_then(|agent| agent.report.clone());
    eventually("all replicas to have the first report", || {
        replicas.iter().all(|replica| last(replica).is_some())
    })
    .await?;

    // One is replaced by another; what is found out meanwhile reaches those that are there.
    let gone = replicas.remove(0);
    replicas.push(start()?);
    known.send_replace(addresses(&replicas));
    gone.stop().await;
    machine.change(|report| report.cpu.logical_cpus = Fact::Measured(8));
    let changed = |replica: &FleetHandle| {
        last(replica).is_some_and(|report| report.cpu.logical_cpus == Fact::Measured(8))
    };
    eventually("all replicas to have the change", || replicas.iter().all(changed)).await?;
    assert_eq!(replicas[0].counters().welcomed, 1, "the one that stayed was not left");
    assert!(!agent.is_finished());
    stop.send_replace(true);
    agent.await??;
    eventually("its leave", || replicas.iter().all(|replica| replica.counters().connected == 0)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_found_by_the_name_of_the_scheduler() -> anyhow::Result<()> {
    let ca = DevCa::create()?;
    // Of the name, and of no address.
    let identity = ca.issue_server(&["localhost"], SERVER_VALIDITY)?;
    let (events, mut receiver) = mpsc::channel(1024);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let fleet = serve(config(), &ca, &identity, events)?;
    let issued = ca.issue_agent(&node("node-a"), SERVER_VALIDITY)?;
    let mut link = agent(&ca, &issued, "node-a", fleet.local_addr())?;
    link.scheduler = format!("localhost:{}", fleet.local_addr().port()).parse()?;
    let (stop, stopped) = watch::channel(false);
    let agent = tokio::spawn(run_replicas(link, LinkEndpoint::bind()?, Machine::new("node-a"), stopped));
    eventually("the report", || fleet.connected().iter().any(|agent| agent.report.is_some())).await?;
    stop.send_replace(true);
    agent.await??;
    eventually("its leave", || fleet.counters().connected == 0).await
}
