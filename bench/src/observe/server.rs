//! An API server that lists and watches generated objects, and takes what is written without keeping it: a process of its own,
//! so that its memory and time are its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::objects;

/// Changes of pods that are told once the watch of pods is to go on: most mean nothing to a scheduler.
pub(super) const CHANGES: usize = 50_000;
/// Pods that are then created and wait for a node.
pub(super) const PENDING: usize = 500;
/// Path that lets the watch of pods go on.
pub(super) const GO: &str = "/go";
/// Path that tells how many claims were made.
pub(super) const BOUGHT: &str = "/bought";

const PODS: &str = "/api/v1/pods";

const NOT_FOUND: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"not there","code":404}"#;

/// Whether a path is of one object, not of a list.
fn is_object(path: &str) -> bool {
    let inside = path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/'));
    inside.is_some_and(|(_, rest)| rest.contains('/'))
}

struct State {
    go: AtomicBool,
    bought: AtomicU64,
    /// The lease of the leader, which is kept.
    lease: Mutex<Option<String>>,
    started: Instant,
}

/// Serves until standard input ends; says its address first.
pub(super) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let state = State {
        go: AtomicBool::new(false),
        bought: AtomicU64::new(0),
        lease: Mutex::new(None),
        started: Instant::now(),
    };
    let state = Arc::new(state);
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let state = Arc::clone(&state);
            // A scheduler that goes away in the middle is no error.
            std::thread::spawn(move || drop(answer(connection, &state)));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
    Ok(())
}

/// Answers requests of one connection.
fn answer(connection: TcpStream, state: &State) -> anyhow::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let (mut method, mut target, mut length) = (String::new(), String::new(), 0);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line != "\r\n" {
            if target.is_empty() {
                let mut words = line.split(' ').map(str::to_owned);
                (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
            line.clear();
        }
        if target.is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        if method == "GET" && value("watch").is_some() {
            // Those of the simulated machines: there are none.
            let is_told = path == PODS && !query.contains("nodeName");
            return watch(&mut writer, is_told, state);
        }
        let (code, text) = match (method.as_str(), path) {
            (_, GO) => {
                state.go.store(true, Ordering::Release);
                (200, String::new())
            }
            (_, BOUGHT) => (200, state.bought.load(Ordering::Acquire).to_string()),
            (_, path) if path.contains("/leases") => lease(&method, &body, state),
            ("GET", path) => match objects::named(path) {
                Some(object) => (200, object),
                None if is_object(path) => (404, NOT_FOUND.to_owned()),
                None if path == PODS && query.contains("nodeName") => (200, page("", 0, 0)),
                None => {
                    let start = value("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
                    let limit = value("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
                    (200, page(path, start, limit))
                }
            },
            ("POST", path) => {
                if path.ends_with("/nodeclaims") {
                    state.bought.fetch_add(1, Ordering::AcqRel);
                }
                (201, String::from_utf8_lossy(&body).into_owned())
            }
            (_, path) => {
                (200, objects::named(path).unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()))
            }
        };
        // Its time is one at which the objects are a day old.
        let second = 43_200 + state.started.elapsed().as_secs();
        let (hour, minute, second) = (second / 3_600 % 24, second / 60 % 60, second % 60);
        write!(
            writer,
            "HTTP/1.1 {code} OK\r\ndate: Fri, 02 Oct 2026 {hour:02}:{minute:02}:{second:02} GMT\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        )?;
        writer.write_all(text.as_bytes())?;
        if matches!(path, GO | BOUGHT) {
            // Who measures reads to the end.
            return Ok(());
        }
    }
}

fn lease(method: &str, body: &[u8], state: &State) -> (u16, String) {
    let mut lease = state.lease.lock().unwrap_or_else(PoisonError::into_inner);
    if method != "GET" {
        let mut object: Value = serde_json::from_slice(body).unwrap_or_default();
        object["metadata"]["resourceVersion"] = Value::from(state.started.elapsed().as_nanos().to_string());
        *lease = Some(object.to_string());
    }
    match &*lease {
        Some(lease) => (200, lease.clone()),
        None => (404, NOT_FOUND.to_owned()),
    }
}

fn page(path: &str, start: usize, limit: usize) -> String {
    let (count, object) = objects::at(path);
    let end = count.min(start.saturating_add(limit));
    let rest = if end < count { end.to_string() } else { String::new() };
    let items: Vec<String> = (start..end).map(object).collect();
    format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1","continue":"{rest}"}},"items":[{}]}}"#,
        items.join(",")
    )
}

/// Tells nothing, but of pods, once it may.
fn watch(writer: &mut TcpStream, is_told: bool, state: &State) -> anyhow::Result<()> {
    writer.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let mut say = |kind: &str, object: &str| -> std::io::Result<()> {
        let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        write!(writer, "{:x}\r\n{line}\r\n", line.len())
    };
    let mut version = 1;
    if is_told {
        while !state.go.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for change in 0..CHANGES {
            version += 1;
            // 7,919 is prime: changes come from all over the cluster.
            say("MODIFIED", &objects::pod(change * 7_919 % objects::PODS, version))?;
        }
        for number in 0..PENDING {
            version += 1;
            say("ADDED", &objects::pending_pod(number, version))?;
        }
    }
    loop {
        let bookmark = r#"{"kind":"Object","apiVersion":"v1","metadata":{"resourceVersion":"#;
        say("BOOKMARK", &format!("{bookmark}\"{version}\"}}}}"))?;
        std::thread::sleep(Duration::from_secs(5));
    }
}
