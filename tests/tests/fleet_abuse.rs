//! The fleet link against agents that break its rules, and strangers: each refusal is counted by its reason, nobody else is
//! harmed, and memory stays bounded.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use assay_scheduler::fleet::ca::{AGENT_VALIDITY, DevCa};
use assay_scheduler::fleet::{CertificateAuthenticator, Deadlines, FleetConfig, FleetServer, NameIn, Rate};
use assay_shared::protocol::{
    ALPN, AgentMessage, CloseCode, Credential, Hello, Notice, RefusalReason, Section, ServerMessage,
};
use assay_shared::report::Disk;
use assay_shared::wire::{BODY_LIMIT, Message};
use assay_shared::{Fact, HardwareReport};
use assay_tests::fleet::{Client, Fleet, client_config, config, eventually, full, hello, report, within};
use tokio::sync::mpsc;

/// Deadlines that a test can wait for.
fn impatient() -> FleetConfig {
    let short = Duration::from_millis(300);
    FleetConfig { deadlines: Deadlines { hello: short, message: short, ..Deadlines::default() }, ..config() }
}

/// A frame with any header; version 1 is the one spoken.
fn frame(version: u16, kind: u8, announced: usize, body: &[u8]) -> Vec<u8> {
    let mut frame = version.to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(u32::try_from(announced).unwrap().to_le_bytes());
    frame.extend(body);
    frame
}

/// Something an agent does that it may not, once connected as `node-a`.
enum Abuse {
    /// In place of Hello.
    Greeting(Vec<u8>),
    /// On a stream, after Welcome.
    Stream(Vec<u8>),
    /// On several streams, after Welcome.
    Streams(Vec<Vec<u8>>),
}

#[tokio::test]
async fn every_breach_is_refused_for_what_it_is() -> anyhow::Result<()> {
    use Abuse::{Greeting, Stream, Streams};
    use RefusalReason as Reason;
    let with = |change: fn(&mut Hello)| {
        let AgentMessage::Hello(mut hello) = hello("node-a", "boot-1") else { unreachable!() };
        change(&mut hello);
        AgentMessage::Hello(hello).encode().unwrap()
    };
    let good = full("node-a", 1).encode()?;
    let notice =
        AgentMessage::Notice(Notice::GpuLost { pci_address: "0".into(), reason: String::new() }).encode()?;
    let delta = |sections| AgentMessage::Delta { base: 1, generation: 2, sections }.encode().unwrap();
    let mut renamed = report("node-a").identity;
    renamed.node_name = Fact::Measured("node-b".to_owned());
    // Each of two sections fits a message, but the report that they make does not.
    let disks = vec![Disk { name: "x".repeat(200), ..Disk::default() }; 120];
    let half = AgentMessage::Full {
        generation: 1,
        report: Box::new(HardwareReport { disks: Fact::Measured(disks), ..HardwareReport::default() }),
    };
    let mut cpu = report("node-a").cpu;
    cpu.model = Fact::Measured("x".repeat(40_000));

    let cases = [
        ("another protocol version", Greeting(with(|hello| hello.protocol += 1)), Reason::VersionMismatch),
        ("another frame version", Greeting(frame(2, 1, 4, &[0; 4])), Reason::VersionMismatch),
        (
            "a name that is none",
            Greeting(with(|hello| hello.node_name = "Node A\n".into())),
            Reason::InvalidNodeName,
        ),
        (
            "the name of another node",
            Greeting(with(|hello| hello.node_name = "node-b".into())),
            Reason::NodeMismatch,
        ),
        ("a boot id that is none", Greeting(with(|hello| hello.boot_id = "x".repeat(65))), Reason::Malformed),
        (
            "a token where none is taken",
            Greeting(with(|hello| hello.credential = Credential::Token("secret".into()))),
            Reason::InvalidCredential,
        ),
        ("a report before Hello", Greeting(good.clone()), Reason::NoHello),
        ("an oversized Hello", Greeting(frame(1, 1, BODY_LIMIT + 1, &[])), Reason::TooLarge),
        ("noise instead of Hello", Greeting(frame(1, 1, 9, &[0xff; 9])), Reason::Malformed),
        ("an unknown kind first", Greeting(frame(1, 77, 0, &[])), Reason::UnexpectedKind),
        ("an unknown kind", Stream(frame(1, 77, 0, &[])), Reason::UnexpectedKind),
        (
            "a message of the server",
            Stream(ServerMessage::Ack { generation: 1 }.encode()?),
            Reason::UnexpectedKind,
        ),
        ("a second Hello", Stream(with(|_| ())), Reason::UnexpectedKind),
        ("another frame version later", Stream(frame(9, 2, 0, &[])), Reason::VersionMismatch),
        ("an oversized frame", Stream(frame(1, 2, BODY_LIMIT + 1, &[0; 100])), Reason::TooLarge),
        ("the largest length", Stream(frame(1, 2, u32::MAX as usize, &[])), Reason::TooLarge),
        ("noise", Stream(frame(1, 2, 50, &[0xa5; 50])), Reason::Malformed),
        ("a body that is too short", Stream(good[..good.len() - 1].to_vec()), Reason::Malformed),
        ("a frame with something after it", Stream([&good[..], &[0]].concat()), Reason::Malformed),
        ("two frames on one stream", Stream([&good[..], &good[..]].concat()), Reason::Malformed),
        ("an empty stream", Stream(vec![]), Reason::Malformed),
        ("a report about another node", Stream(full("node-b", 1).encode()?), Reason::NodeMismatch),
        (
            "a delta that makes it another node",
            Streams(vec![good.clone(), delta(vec![Section::Identity(renamed)])]),
            Reason::NodeMismatch,
        ),
        (
            "deltas that add up to too much",
            Streams(vec![half.encode()?, delta(vec![Section::Cpu(cpu)])]),
            Reason::TooLarge,
        ),
        ("a number that was used", Streams(vec![good.clone(), good.clone()]), Reason::Malformed),
        ("a flood", Streams(vec![notice; 40]), Reason::TooMany),
    ];

    let limited = FleetConfig { messages_per_agent: Rate { per_second: 1, burst: 8 }, ..impatient() };
    let mut fleet = Fleet::start(limited)?;
    fleet.ignore_events();
    for (what, abuse, reason) in cases {
        let before = fleet.server.counters().refused(reason);
        let mut client = fleet.client("node-a").await?;
        let streams = match abuse {
            Greeting(bytes) => {
                client.write_control(&bytes).await?;
                vec![]
            }
            Stream(bytes) => vec![bytes],
            Streams(streams) => streams,
        };
        if !streams.is_empty() {
            // Another boot each time, so that generations begin anew.
            client = client.welcomed("node-a", &format!("boot-{}", what.len())).await?;
        }
        for bytes in streams {
            // The server may close the connection half-way.
            let _ = client.send(&bytes).await;
        }
        let closed = client.closed().await.context(what)?;
        let quinn::ConnectionError::ApplicationClosed(close) = closed else { bail!("{what}: {closed}") };
        assert_eq!(
            CloseCode::from_number(close.error_code.into_inner()),
            Some(CloseCode::Refused(reason)),
            "{what}"
        );
        assert_eq!(fleet.server.counters().refused(reason), before + 1, "{what}");
        assert!(
            !String::from_utf8_lossy(&close.reason).contains("secret"),
            "{what}: a credential is never repeated"
        );
    }
    fleet.serves("node-b").await?;
    eventually("the connections to end", || fleet.server.counters().connected == 0).await
}

#[tokio::test]
async fn a_refusal_is_told_in_words() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let mut client = fleet.client("node-a").await?;
    client.hello("node-b", "").await?;
    let ServerMessage::Refused { reason, detail } = client.answer().await? else { bail!("not refused") };
    assert_eq!(reason, RefusalReason::NodeMismatch);
    assert_eq!(detail, "the credential is of node node-a, Hello names node-b");
    Ok(())
}

#[tokio::test]
async fn who_dawdles_is_cut_off() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(impatient())?;
    fleet.ignore_events();

    let silent = fleet.client("node-a").await?;
    let mut halfway = fleet.client("node-b").await?;
    let hello = hello("node-b", "").encode()?;
    halfway.write_control(&hello[..hello.len() - 1]).await?;
    for client in [silent, halfway] {
        client.closed().await?;
    }
    assert_eq!(fleet.server.counters().refused(RefusalReason::NoHello), 2);

    // One byte at a time: each comes soon, the message never.
    let client = fleet.client("node-c").await?.welcomed("node-c", "").await?;
    let mut stream = client.connection.open_uni().await?;
    let dribble = async {
        for byte in full("node-c", 1).encode()? {
            stream.write_all(&[byte]).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    within("the server to lose patience", dribble).await?.unwrap_err();
    client.closed().await?;
    assert_eq!(fleet.server.counters().refused(RefusalReason::TooSlow), 1);

    // A second stream beside the control stream, and a stream that is opened and given up.
    let client = fleet.client("node-d").await?.welcomed("node-d", "").await?;
    client.connection.open_bi().await?.0.write_all(&[1]).await?;
    client.closed().await?;
    assert_eq!(fleet.server.counters().refused(RefusalReason::UnexpectedKind), 1);
    let client = fleet.client("node-d").await?.welcomed("node-d", "").await?;
    let mut stream = client.connection.open_uni().await?;
    stream.write_all(&[1]).await?;
    stream.reset(0_u32.into())?;
    client.closed().await?;
    fleet.serves("node-e").await
}

#[tokio::test]
async fn strangers_do_not_get_past_the_handshake() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let address = fleet.server.local_addr();
    let stranger = DevCa::create()?;
    let of_stranger = stranger.issue_agent(&"node-a".parse()?, AGENT_VALIDITY)?;
    let of_server = &fleet.identity;
    let of_agent = fleet.ca.issue_agent(&"node-a".parse()?, AGENT_VALIDITY)?;
    let expired = fleet.ca.issue_agent(&"node-a".parse()?, Duration::ZERO)?;
    let cases = [
        ("a certificate of another authority", client_config(&fleet.ca, &of_stranger, ALPN)?),
        ("a certificate of a server", client_config(&fleet.ca, of_server, ALPN)?),
        ("another application protocol", client_config(&fleet.ca, &of_agent, b"h3")?),
        ("an expired certificate", client_config(&fleet.ca, &expired, ALPN)?),
    ];
    tokio::time::sleep(Duration::from_millis(1100)).await; // certificates count in seconds
    for (count, (what, config)) in (1..).zip(cases) {
        // The server looks at the client's certificate when the client thinks that all is well.
        if let Ok(client) = Client::connect(&config, address).await {
            client.closed().await.context(what)?;
        }
        let failed = || fleet.server.counters().refused(RefusalReason::HandshakeFailed) == count;
        eventually(what, failed).await?;
    }
    fleet.serves("node-a").await?;
    assert_eq!(fleet.server.counters().welcomed, 1);
    Ok(())
}

#[tokio::test]
async fn noise_on_the_socket_is_counted() -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 200;
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Every first byte there is, so every form of header.
    for number in 0..DATAGRAMS {
        let byte = u8::try_from(number * 255 / DATAGRAMS)?;
        let mut datagram = vec![byte; 40 + usize::from(byte)];
        datagram[1..5].copy_from_slice(&1_u32.to_be_bytes());
        socket.send_to(&datagram, fleet.server.local_addr())?;
        tokio::task::yield_now().await;
    }
    let counted = || fleet.server.counters().refused(RefusalReason::NotQuic) == DATAGRAMS;
    eventually("all datagrams to be counted", counted).await?;
    fleet.serves("node-a").await
}

#[tokio::test]
async fn too_much_of_everything_is_refused() -> anyhow::Result<()> {
    let refused = |fleet: &Fleet| fleet.server.counters().refused(RefusalReason::Overloaded);

    let mut fleet = Fleet::start(FleetConfig { connections: 1, ..config() })?;
    fleet.ignore_events();
    let first = fleet.client("node-a").await?.welcomed("node-a", "").await?;
    let second = fleet.client("node-b").await?;
    second.closed().await?;
    assert_eq!(refused(&fleet), 1, "more connections than places");
    drop(first);
    eventually("the place to be free", || fleet.server.counters().connected == 0).await?;
    fleet.serves("node-b").await?;

    // Every address has to be proved first, and each has two handshakes.
    let two = Rate { per_second: 0, burst: 2 };
    let mut fleet = Fleet::start(FleetConfig { retry_above: 0, handshakes_per_address: two, ..config() })?;
    fleet.ignore_events();
    fleet.serves("node-a").await?;
    fleet.serves("node-a").await?;
    fleet.serves("node-a").await.unwrap_err();
    assert_eq!(refused(&fleet), 1, "more handshakes than an address may begin");
    assert_eq!(fleet.server.counters().retries, 3);
    Ok(())
}

#[tokio::test]
async fn a_scheduler_that_does_not_keep_up_loses_agents_and_not_memory() -> anyhow::Result<()> {
    let mut settings = config();
    settings.deadlines.backlog = Duration::from_millis(200);
    let ca = DevCa::create()?;
    let identity = ca.issue_server(&["127.0.0.1"], AGENT_VALIDITY)?;
    let authenticator =
        CertificateAuthenticator::new([(vec![ca.certificate().clone()], NameIn::SubjectAltName)])?;
    let (sender, mut events) = mpsc::channel(2);
    let server = FleetServer::start(settings, identity.server_identity()?, Arc::new(authenticator), sender)?;
    let issued = ca.issue_agent(&"node-a".parse()?, AGENT_VALIDITY)?;
    let connect = || async {
        let client = Client::connect(&client_config(&ca, &issued, ALPN)?, server.local_addr()).await?;
        client.welcomed("node-a", "").await
    };
    // Connected and one report fill the channel; nobody takes the next.
    let client = connect().await?;
    for generation in 1..=2 {
        client.message(&full("node-a", generation)).await?;
    }
    let closed = client.closed().await?;
    assert!(closed.to_string().contains("keep up"), "{closed}");
    assert_eq!(server.counters().refused(RefusalReason::Overloaded), 1);

    // The scheduler catches up: it hears of the end, and the agent is served again.
    for _ in 0..3 {
        within("an event", events.recv()).await?.context("the server is gone")?;
    }
    let mut client = connect().await?;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    client.message(&full("node-a", 3)).await?;
    assert_eq!(client.answer().await?, ServerMessage::Ack { generation: 3 });
    Ok(())
}

/// Resident memory of this process, bytes.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kib << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_do_not_grow_memory() -> anyhow::Result<()> {
    /// Coarse on purpose: what is to be caught is growth with the length of the flood, and the allocator keeps some of it.
    const GROWTH_LIMIT: u64 = 48 << 20;
    let mut fleet = Fleet::start(config())?;
    fleet.ignore_events();
    let address = fleet.server.local_addr();
    let flood = async |rounds: usize| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let oversized = frame(1, 2, u32::MAX as usize, &vec![0; 32 << 10]);
        let lie = frame(1, 3, 24, &[[0; 16].as_slice(), &(1_u64 << 60).to_le_bytes()].concat());
        let issued = fleet.ca.issue_agent(&"node-a".parse()?, AGENT_VALIDITY)?;
        let config = client_config(&fleet.ca, &issued, ALPN)?;
        for round in 0..rounds {
            for _ in 0..200 {
                // What the socket does not take is lost: it is a flood.
                let _ = socket.send_to(&[0xc5; 1200], address);
            }
            let client = Client::connect(&config, address).await?.welcomed("node-a", "").await?;
            let _ = client.send(if round % 2 == 0 { &oversized } else { &lie }).await;
            client.closed().await?;
        }
        anyhow::Ok(())
    };
    flood(30).await?; // buffers, threads and the allocator's arenas come into being
    let before = resident()?;
    flood(300).await?;
    let grown = resident()?.saturating_sub(before);
    assert!(grown < GROWTH_LIMIT, "{} MiB more than before the flood", grown >> 20);
    let counters = fleet.server.counters();
    assert_eq!(counters.refused(RefusalReason::TooLarge), 165);
    assert_eq!(counters.refused(RefusalReason::Malformed), 165);
    eventually("the connections to end", || fleet.server.counters().connected == 0).await?;
    fleet.serves("node-b").await
}
