//! `assay-agent run` as a program: what it prints and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use assay_scheduler::fleet::ca::{AGENT_VALIDITY, DevCa};
use assay_scheduler::fleet::{FleetConfig, FleetEvent, FleetHandle, FleetServer};
use assay_tests::control_plane::shared::must_run;
use assay_tests::fleet::{Fleet, certificates_of, config, eventually, within};
use assay_tests::programs::program;
use tokio::sync::mpsc;

/// `assay-agent run` as node-a, with the certificate of node `of`; these options replace or join the others.
fn command(
    fleet: &Fleet,
    directory: &Path,
    of: &str,
    scheduler: &str,
    replaced: &[(&str, &str)],
) -> anyhow::Result<Command> {
    let ca = directory.join("ca.crt");
    std::fs::write(&ca, fleet.ca.certificate_pem())?;
    let (certificate, key) = fleet.ca.issue_agent(&of.parse()?, AGENT_VALIDITY)?.write(directory, of)?;
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut options = BTreeMap::from([
        ("--node-name", "node-a".to_owned()),
        ("--nvml", "off".to_owned()),
        ("--imds", "off".to_owned()),
        ("--scheduler", scheduler.to_owned()),
        ("--ca", text(&ca)),
        ("--cert", text(&certificate)),
        ("--key", text(&key)),
    ]);
    options.extend(replaced.iter().map(|(option, value)| (*option, (*value).to_owned())));
    let mut command = Command::new(program("assay-agent", "assay-agent")?);
    command.arg("run").args(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    Ok(command)
}

async fn output(mut command: Command) -> anyhow::Result<Output> {
    Ok(within("the program", tokio::task::spawn_blocking(move || command.output())).await???)
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_says_whether_the_report_got_through() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let directory = tempfile::tempdir()?;
    let address = fleet.server.local_addr().to_string();

    let mut once = command(&fleet, directory.path(), "node-a", &address, &[])?;
    once.arg("--once");
    let done = output(once).await?;
    assert_eq!(done.status.code(), Some(0), "{}", last_line(&done));
    assert!(matches!(fleet.event().await?, FleetEvent::Connected { .. }));
    let FleetEvent::Report { report, .. } = fleet.event().await? else { panic!("expected a report") };
    assert_eq!(report.identity.node_name.measured().map(String::as_str), Some("node-a"));
    assert!(report.memory.total_bytes.is_measured(), "this machine");

    let mut other = command(&fleet, directory.path(), "node-b", &address, &[])?;
    other.arg("--once");
    let done = output(other).await?;
    assert_eq!(done.status.code(), Some(1));
    let said = last_line(&done);
    assert!(said.starts_with("assay-agent: refused by the scheduler: node_mismatch: "), "{said}");

    // A socket that never answers.
    let deaf = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = deaf.local_addr()?.to_string();
    let mut nobody = command(&fleet, directory.path(), "node-a", &address, &[])?;
    nobody.arg("--once");
    let done = output(nobody).await?;
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(last_line(&done), format!("assay-agent: no answer from {address} within 10 s"));
    Ok(())
}

#[tokio::test]
async fn what_it_is_given_is_checked_before_anything_else() -> anyhow::Result<()> {
    let fleet = Fleet::start(config())?;
    let directory = tempfile::tempdir()?;
    let cases = [
        (("--key", "/nonexistent"), "assay-agent: credentials: /nonexistent: "),
        (
            ("--ca", "/dev/null"),
            "assay-agent: credentials: /dev/null: expected PEM with certificates: found none",
        ),
        (("--root", "/nonexistent"), "assay-agent: --root /nonexistent: "),
        (("--interval", "0"), "assay-agent: invalid value '0' for '--interval <SECONDS>'"),
        (
            ("--scheduler", "a b"),
            "assay-agent: invalid value 'a b' for '--scheduler <HOST[:PORT]>': expected HOST:PORT",
        ),
        (
            ("--node-name", "Node_A"),
            "assay-agent: invalid value 'Node_A' for '--node-name <NAME>': node name: expected",
        ),
    ];
    for (option, expected) in cases {
        let done = output(command(&fleet, directory.path(), "node-a", "127.0.0.1:1", &[option])?).await?;
        assert_eq!(done.status.code(), Some(2), "{option:?}");
        let said = String::from_utf8(done.stderr)?;
        assert!(said.starts_with(expected) && said.lines().count() == 1, "{option:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn it_shows_a_certificate_or_a_token_and_says_what_is_missing() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ca = DevCa::create()?;
    let path = directory.path().join("ca.crt");
    std::fs::write(&path, ca.certificate_pem())?;
    let path = path.to_str().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&[], "--token-file"),
        (&["--cert", "x"], "--key"),
        (&["--key", "x"], "--token-file"),
        (&["--token-file", "x", "--cert", "x", "--key", "x"], "cannot be used with"),
        (&["--token-file", "/dev/null"], "/dev/null: expected a service-account token: found nothing"),
    ];
    for (options, expected) in cases {
        let mut command = Command::new(program("assay-agent", "assay-agent")?);
        command
            .args(["run", "--node-name", "node-a", "--scheduler", "127.0.0.1:1", "--ca", path])
            .args(options);
        let done = output(command).await?;
        assert_eq!(done.status.code(), Some(2), "{options:?}");
        let said = String::from_utf8(done.stderr)?;
        assert!(said.contains(expected) && said.lines().count() == 1, "{options:?}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_its_leave_when_it_is_terminated() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(config())?;
    let directory = tempfile::tempdir()?;
    let address = fleet.server.local_addr().to_string();
    let mut agent =
        command(&fleet, directory.path(), "node-a", &address, &[])?.stderr(Stdio::null()).spawn()?;
    while !matches!(fleet.event().await?, FleetEvent::Report { .. }) {}
    let killed = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status();
    assert!(killed.context("kill")?.success());
    loop {
        // Deltas may come before.
        if let FleetEvent::Disconnected { replaced, .. } = fleet.event().await? {
            assert!(!replaced);
            break;
        }
    }
    let ended = within("its end", tokio::task::spawn_blocking(move || agent.wait())).await???;
    assert_eq!(ended.code(), Some(0));
    Ok(())
}

/// The agent itself asks the system for a name that has two addresses, one of each replica: both have its reports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_scheduler_s_name_is_reported_to() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 replicas.test\n127.0.0.2 replicas.test\n")?;
    // What it asks is a hosts file of its own, which the rest of the machine does not see.
    let with_hosts = |command: &Command| {
        let mut own = Command::new("unshare");
        let shell = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
        own.args(["--map-root-user", "--mount", "--", "sh", "-c", shell]).arg(&hosts);
        own.arg(command.get_program()).args(command.get_args());
        own
    };
    let mut probe = Command::new("getent");
    probe.args(["ahosts", "replicas.test"]);
    let probed = with_hosts(&probe).output();
    if !probed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("127.0.0.2")) {
        anyhow::ensure!(!must_run(), "this machine lets nobody have a hosts file of his own (unshare)");
        let _ = writeln!(std::io::stderr(), "skipped: no hosts file of one's own on this machine (unshare)");
        return Ok(());
    }

    let mut first = Fleet::start(config())?;
    let port = first.server.local_addr().port();
    let listen = ([127, 0, 0, 2], port).into();
    let (events, mut told) = mpsc::channel(1024);
    let authenticator = certificates_of(&first.ca)?;
    let identity = first.identity.server_identity()?;
    let second = FleetServer::start(FleetConfig { listen, ..config() }, identity, authenticator, events)?;
    first.ignore_events();
    tokio::spawn(async move { while told.recv().await.is_some() {} });

    let scheduler = format!("replicas.test:{port}");
    let mut agent =
        command(&first, directory.path(), "node-a", &scheduler, &[("--server-name", "127.0.0.1")])?;
    agent.arg("--all-replicas");
    let mut agent = with_hosts(&agent).stderr(Stdio::null()).spawn()?;
    let has_report = |server: &FleetHandle| server.connected().iter().any(|agent| agent.report.is_some());
    let seen =
        eventually("both replicas to have a report", || has_report(&first.server) && has_report(&second))
            .await;
    agent.kill()?;
    agent.wait()?;
    seen
}
