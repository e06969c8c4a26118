//! An API server that lists and watches generated objects: a process of its own, so that its memory and time are its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::objects;

/// Changes of pods that are told once the watch of pods is to go on: most mean nothing to a scheduler.
pub(super) const CHANGES: usize = 50_000;
/// Pods that are then created and wait for a node.
pub(super) const PENDING: usize = 500;
/// Path that lets the watch of pods go on.
pub(super) const GO: &str = "/go";

/// Serves until standard input ends; says its address first.
pub(super) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let go = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let go = Arc::clone(&go);
            // An observer that goes away in the middle is no error.
            std::thread::spawn(move || drop(answer(connection, &go)));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
    Ok(())
}

/// Answers requests of one connection.
fn answer(connection: TcpStream, go: &AtomicBool) -> anyhow::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut target = String::new();
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line != "\r\n" {
            if target.is_empty() {
                line.split(' ').nth(1).unwrap_or_default().clone_into(&mut target);
            }
            line.clear();
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        if path.is_empty() {
            return Ok(());
        } else if path == GO {
            go.store(true, Ordering::Release);
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        } else if value("watch").is_some() {
            return watch(&mut writer, path, go);
        } else {
            let start = value("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
            let limit = value("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
            let page = page(path, start, limit);
            write!(
                writer,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                page.len()
            )?;
            writer.write_all(page.as_bytes())?;
        }
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
fn watch(writer: &mut TcpStream, path: &str, go: &AtomicBool) -> anyhow::Result<()> {
    writer.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let mut say = |kind: &str, object: &str| -> std::io::Result<()> {
        let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        write!(writer, "{:x}\r\n{line}\r\n", line.len())
    };
    let mut version = 1;
    if path == "/api/v1/pods" {
        while !go.load(Ordering::Acquire) {
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
        say("BOOKMARK", &format!(r#"{{"metadata":{{"resourceVersion":"{version}"}}}}"#))?;
        std::thread::sleep(Duration::from_secs(5));
    }
}
