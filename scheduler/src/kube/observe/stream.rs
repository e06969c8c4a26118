//! All objects of one kind, for as long as anybody wants to know: a list, then a watch from there, and a list again when the
//! API server has forgotten that moment.
//!
//! ```text
//!            pages                      events, bookmarks
//!  list ----------------> watch <--------------------------+
//!    ^                      |--- ends, breaks, stands still -+
//!    +------ 410 Gone ------+
//! ```
//!
//! kube's own watcher is not used: it reads an object up to three times to survive one that it cannot decode, and asks for ever
//! from a moment that is answered with 410 before the stream begins.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::http::header::{ACCEPT, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use rand::Rng;
use rand_pcg::Pcg64Mcg;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::health::Health;
use super::kind::{Kind, Missing};
use super::store::Change;
use super::wire::{self, Line, Lines, Status};

/// Limits of a stream. The defaults are for clusters; tests are less patient.
#[derive(Debug, Clone, Copy)]
pub struct StreamSettings {
    /// Objects in a part of a list. 500 pods are about 5 MB of text.
    pub page_size: u32,
    /// Longest part of a list in bytes; where one is longer, smaller parts are asked for.
    pub page_bytes_max: usize,
    /// How long the API server is asked to keep a watch open; up to twice that.
    pub watch_timeout: Duration,
    /// How long a watch may say nothing before it is taken for dead. The API server sends a bookmark a minute.
    pub watch_idle: Duration,
    /// First wait after a failure.
    pub backoff_least: Duration,
    /// Longest wait after failures.
    pub backoff_most: Duration,
    /// How often a kind is asked for that the API server does not know and need not.
    pub missing_again: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            page_size: 500,
            page_bytes_max: 128 << 20,
            watch_timeout: Duration::from_secs(5 * 60),
            watch_idle: Duration::from_secs(150),
            backoff_least: Duration::from_millis(400),
            backoff_most: Duration::from_secs(10),
            missing_again: Duration::from_secs(5 * 60),
        }
    }
}

/// A watch that lasted so long was a good one, even if it brought nothing.
const GOOD_AFTER: Duration = Duration::from_secs(2);
/// Longest refusal that is read.
const STATUS_BYTES_MAX: usize = 64 << 10;
/// Longest wait that the server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why a list or a watch came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the moment to go on from is forgotten: {0}")]
    Gone(String),
    #[error("there is no such kind")]
    NoSuchKind,
    #[error("more than {0} bytes")]
    TooLarge(usize),
    #[error("{code} {reason}: {message}")]
    Refused { code: u16, reason: String, message: String, retry_after: Option<Duration> },
    #[error("{0}")]
    Transport(String),
    #[error("nothing for {0:?}")]
    Silent(Duration),
    /// Nobody wants to know any more.
    #[error("nobody listens")]
    Closed,
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Transport(with_causes(&error))
    }
}

/// One stream.
pub(super) struct Stream {
    pub(super) client: Client,
    pub(super) kind: Kind,
    pub(super) settings: StreamSettings,
    pub(super) changes: mpsc::Sender<Change>,
    /// Parts of lists that may be held at once, by all streams together.
    pub(super) pages: Arc<Semaphore>,
    pub(super) health: Health,
    pub(super) random: Pcg64Mcg,
}

impl Stream {
    /// Tells what there is and what becomes of it, until nobody listens.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.backoff_least, self.settings.backoff_most);
        let mut page_size = self.settings.page_size.max(1);
        let mut version: Option<String> = None;
        loop {
            let started = Instant::now();
            let done = match &mut version {
                None => self.list(page_size).await.map(|listed| version = Some(listed)),
                Some(version) => {
                    let mut heard = false;
                    let done = self.watch(version, &mut heard).await;
                    if heard || started.elapsed() > GOOD_AFTER {
                        backoff.reset();
                        done
                    } else {
                        // One that ends at once is not asked for again at once.
                        done.and_then(|()| Err(Failure::Transport("the watch ended as it began".to_owned())))
                    }
                }
            };
            let Err(failure) = done else { continue };
            let kind = self.kind;
            let mut wait = backoff.next(retry_after(&failure), &mut self.random);
            match &failure {
                Failure::Closed => return,
                Failure::Gone(_) => version = None,
                Failure::TooLarge(_) => {
                    page_size = (page_size / 2).max(1);
                    version = None;
                }
                Failure::NoSuchKind if kind.missing() == Missing::Empty => {
                    version = None;
                    if self.say(Change::Listing(kind)).await.is_err()
                        || self.say(Change::Listed(kind)).await.is_err()
                    {
                        return;
                    }
                    wait = self.settings.missing_again.mul_f64(self.random.random_range(0.5..1.0));
                }
                _ => {}
            }
            tracing::debug!(%kind, %failure, ?wait, "watch interrupted");
            self.health.failed(kind, failure.to_string());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changes.closed() => return,
            }
        }
    }

    /// Tells all objects; gives the moment that they show.
    async fn list(&mut self, page_size: u32) -> Result<String, Failure> {
        self.say(Change::Listing(self.kind)).await?;
        let mut rest: Option<String> = None;
        loop {
            let pages = Arc::clone(&self.pages);
            // It is never closed.
            let _held = pages.acquire_owned().await.map_err(|_| Failure::Closed)?;
            let mut query = vec![("limit", page_size.to_string())];
            query.extend(rest.take().map(|rest| ("continue", rest)));
            let answer = self.get(&query).await?;
            let most = self.settings.page_bytes_max;
            let text = match Limited::new(answer.into_body(), most).collect().await {
                Ok(text) => text.to_bytes(),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    return Err(Failure::TooLarge(most));
                }
                Err(error) => return Err(Failure::Transport(with_causes(&*error))),
            };
            let page = self.decode(text).await?;
            for found in page.found {
                self.say(Change::Applied(found)).await?;
            }
            match page.rest {
                Some(more) => rest = Some(more),
                None => {
                    self.say(Change::Listed(self.kind)).await?;
                    self.health.listed(self.kind);
                    return Ok(page.version);
                }
            }
        }
    }

    /// Reads a page where it does not hold up other tasks: some megabytes take some hundredths of a second.
    async fn decode(&self, text: Bytes) -> Result<wire::Page, Failure> {
        let kind = self.kind;
        let read = tokio::task::spawn_blocking(move || wire::page(kind, &text)).await;
        match read {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(Failure::Transport(format!("a list that is none: {error}"))),
            Err(error) => Err(Failure::Transport(error.to_string())),
        }
    }

    /// Tells what happens from `version` on, which moves along, until the watch ends.
    async fn watch(&mut self, version: &mut String, heard: &mut bool) -> Result<(), Failure> {
        let timeout = self.settings.watch_timeout.as_secs().max(1);
        let timeout = self.random.random_range(timeout..=2 * timeout);
        let query = [
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", version.clone()),
            ("timeoutSeconds", timeout.to_string()),
        ];
        let mut body = self.get(&query).await?.into_body();
        self.health.connected(self.kind);
        let mut lines = Lines::default();
        loop {
            let idle = self.settings.watch_idle;
            let frame = tokio::select! {
                frame = tokio::time::timeout(idle, body.frame()) => frame.map_err(|_| Failure::Silent(idle))?,
                () = self.changes.closed() => return Err(Failure::Closed),
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| Failure::Transport(with_causes(&error)))?;
            let Ok(bytes) = frame.into_data() else { continue };
            lines
                .push(&bytes)
                .map_err(|wire::LineTooLong| Failure::Gone("a line without an end".to_owned()))?;
            while let Some(line) = lines.next() {
                let (change, moved) = match wire::line(self.kind, line) {
                    Line::Applied(found, moved) => (Some(Change::Applied(found)), moved),
                    Line::Deleted(id, moved) => (Some(Change::Deleted(self.kind, id)), moved),
                    Line::Bookmark(moved) => (None, Some(moved)),
                    Line::Failed(status) => return Err(refusal(status, None)),
                };
                if let Some(change) = change {
                    self.say(change).await?;
                }
                if let Some(moved) = moved {
                    *heard = true;
                    *version = moved;
                }
            }
        }
    }

    async fn get(&self, query: &[(&str, String)]) -> Result<Response<Body>, Failure> {
        let mut uri = format!("{}?", self.kind.path());
        let selector = self.kind.selector().map(|selector| ("fieldSelector", selector.to_owned()));
        for (name, value) in query.iter().cloned().chain(selector) {
            uri.push_str(name);
            uri.push('=');
            push_encoded(&mut uri, &value);
            uri.push('&');
        }
        uri.pop();
        let request = Request::get(uri)
            .header(ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| Failure::Transport(error.to_string()))?;
        let answer = self.client.send(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status();
        let header = answer.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok()?.parse().ok());
        let text = Limited::new(answer.into_body(), STATUS_BYTES_MAX).collect().await;
        let text = text.map(|text| text.to_bytes()).unwrap_or_default();
        let status: Status = serde_json::from_slice(&text).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(text.get(..text.len().min(200)).unwrap_or_default())
                .into_owned(),
            ..Status::default()
        });
        Err(refusal(Status { code: code.as_u16(), ..status }, header))
    }

    async fn say(&self, change: Change) -> Result<(), Failure> {
        self.changes.send(change).await.map_err(|_| Failure::Closed)
    }
}

/// What a refusal means.
fn refusal(status: Status, header: Option<u64>) -> Failure {
    let Status { code, reason, message, details } = status;
    if code == StatusCode::GONE.as_u16() || matches!(reason.as_str(), "Expired" | "Gone") {
        return Failure::Gone(message);
    }
    if code == StatusCode::NOT_FOUND.as_u16() {
        return Failure::NoSuchKind;
    }
    let retry_after = header.or(details.retry_after_seconds).map(Duration::from_secs);
    Failure::Refused { code, reason, message, retry_after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)) }
}

fn retry_after(failure: &Failure) -> Option<Duration> {
    match failure {
        Failure::Refused { retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// An error and what is behind it.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Appends a value to a query as RFC 3986 has it.
fn push_encoded(uri: &mut String, value: &str) {
    use std::fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
}
