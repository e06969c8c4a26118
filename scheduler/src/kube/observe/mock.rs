//! An API server of a few lines, at the wire: it answers what a test says, and stops in the middle where the test says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What is done on a connection after its request was read.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// A head with this status and these headers; a body in chunks follows.
    Head(u16, Vec<(&'static str, String)>),
    /// A chunk of the body.
    Chunk(String),
    /// The body ends as it should.
    End,
    /// Wait for a sign of the test.
    Await(Arc<Notify>),
    /// Say nothing more for longer than any test takes.
    Hang,
    /// End the connection here and now; without `End` this is in the middle of the answer.
    Cut,
}

/// A whole answer.
pub(super) fn answer(status: u16, body: &str) -> Vec<Act> {
    vec![Act::Head(status, Vec::new()), Act::Chunk(body.to_owned()), Act::End]
}

/// A list of these objects.
pub(super) fn list(version: &str, rest: &str, items: &[&str]) -> Vec<Act> {
    let items = items.join(",");
    answer(
        200,
        &format!(
            r#"{{"kind":"List","metadata":{{"resourceVersion":"{version}","continue":"{rest}"}},"items":[{items}]}}"#
        ),
    )
}

/// A watch that says these lines and stays open.
pub(super) fn watch(lines: &[String]) -> Vec<Act> {
    let mut acts = vec![Act::Head(200, Vec::new())];
    acts.extend(lines.iter().map(|line| Act::Chunk(format!("{line}\n"))));
    acts.push(Act::Hang);
    acts
}

/// A line of a watch.
pub(super) fn event(kind: &str, object: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}"#)
}

type Script = dyn Fn(&str, usize) -> Vec<Act> + Send + Sync;

/// The server. It ends with the test's runtime.
pub(super) struct MockApi {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl MockApi {
    /// Starts one. The script is told the path and query of a request and how many there were of this path before.
    pub(super) async fn start(script: impl Fn(&str, usize) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    /// Paths and queries so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// A client of it that is not patient.
    pub(super) fn client(&self) -> kube::Client {
        let config = kube::Config::new(self.url.parse().unwrap());
        let settings = super::super::client::ClientSettings {
            idle_timeout: Duration::from_millis(200),
            ..super::super::client::ClientSettings::default()
        };
        super::super::client::client(config, settings, super::super::client::ApiCalls::default()).unwrap()
    }
}

async fn serve(mut connection: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.split(' ').nth(1).unwrap().to_owned();
    let path = target.split('?').next().unwrap().to_owned();
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|target| target.split('?').next() == Some(&path)).count();
        seen.push(target.clone());
        before
    };
    for act in script(&target, before) {
        let bytes = match act {
            Act::Head(status, headers) => {
                let headers: String =
                    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                format!(
                    "HTTP/1.1 {status} x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n{headers}\r\n"
                )
            }
            Act::Chunk(text) => format!("{:x}\r\n{text}\r\n", text.len()),
            Act::End => "0\r\n\r\n".to_owned(),
            Act::Await(sign) => {
                sign.notified().await;
                continue;
            }
            Act::Hang => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                return;
            }
            Act::Cut => return,
        };
        if connection.write_all(bytes.as_bytes()).await.is_err() {
            return;
        }
    }
}
