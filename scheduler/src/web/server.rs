//! The HTTP server: three paths, no request body, one request per connection.
//!
//! | limit | why |
//! |---|---|
//! | connections at once | two scrapers, a kubelet and a person; others wait in the kernel's queue |
//! | 10 s per connection, 5 s of them for the head | slow-loris |
//! | 16 KiB of head | a scraper's has 300 bytes |
//! | two pages of metrics at once, until their readers have them | with 5,000 nodes one has 20 MB |

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::health::Health;
use super::metrics::{Metrics, TextFormat};

/// Longest head of a request, bytes.
const HEAD_LIMIT: usize = 16 << 10;
/// How long a client has for the head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Pages of metrics at once.
const METRICS_AT_ONCE: usize = 2;
/// Pause after a connection could not be taken: mostly too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// Connections at once.
    pub connections: usize,
    /// How long one may take altogether.
    pub deadline: Duration,
}

impl Default for WebConfig {
    /// Karpenter's port for metrics.
    fn default() -> Self {
        Self {
            listen: (Ipv6Addr::UNSPECIFIED, 8080).into(),
            connections: 32,
            deadline: Duration::from_secs(10),
        }
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct WebServer;

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct WebHandle {
    local_addr: SocketAddr,
    task: JoinHandle<()>,
}

impl WebHandle {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Drop for WebHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Pages {
    metrics: Arc<Metrics>,
    health: Health,
    /// Places for pages of metrics.
    places: Arc<Semaphore>,
}

impl WebServer {
    /// Starts a server on the current tokio runtime.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn start(config: WebConfig, metrics: Arc<Metrics>, health: Health) -> io::Result<WebHandle> {
        let listener = bind(config.listen).await?;
        let local_addr = listener.local_addr()?;
        let pages = Pages { metrics, health, places: Arc::new(Semaphore::new(METRICS_AT_ONCE)) };
        info!(address = %local_addr, "web server listens");
        Ok(WebHandle { local_addr, task: tokio::spawn(listen(listener, config, pages)) })
    }
}

/// Binds; where the machine has no IPv6, any IPv4 address stands in for any address.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        bound => bound,
    }
}

async fn listen(listener: TcpListener, config: WebConfig, pages: Pages) {
    let places = Arc::new(Semaphore::new(config.connections.max(1)));
    let mut connections = JoinSet::new();
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        match stream {
            Ok((stream, _)) => {
                let (pages, deadline) = (pages.clone(), config.deadline);
                connections.spawn(async move {
                    let _place = place;
                    if timeout(deadline, serve(stream, pages)).await.is_err() {
                        debug!("a web client took too long");
                    }
                });
            }
            Err(error) => {
                warn!("web server: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!("web client: {error}");
    }
}

type Page = Response<Text>;

/// A text that keeps its place until it is sent or given up.
#[derive(Debug)]
struct Text {
    text: Full<Bytes>,
    place: Option<OwnedSemaphorePermit>,
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.text).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.text.size_hint()
    }
}

fn page(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Text { text: Full::new(body.into()), place: None });
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, content_type);
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Page {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut page = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return page;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(request).await,
            "/healthz" => self.health(self.health.illness(Instant::now()).as_deref().as_slice()),
            "/readyz" => self.health(&self.health.unmet()),
            _ => page(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n"),
        }
    }

    fn health(&self, against: &[&str]) -> Page {
        if against.is_empty() {
            return page(StatusCode::OK, TEXT, "ok\n");
        }
        page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", against.join("\n")))
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Page {
        let wanted = request.headers().get(ACCEPT).and_then(|wanted| wanted.to_str().ok());
        let format = TextFormat::wanted(wanted.unwrap_or_default());
        // Never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let metrics = Arc::clone(&self.metrics);
        // Tens of thousands of lines: not on a thread that others wait for.
        match tokio::task::spawn_blocking(move || metrics.encode(format)).await {
            Ok(Ok(text)) => {
                let mut page = page(StatusCode::OK, HeaderValue::from_static(format.content_type()), text);
                page.body_mut().place = place;
                page
            }
            // Writing to memory does not fail, and nothing in it panics.
            Ok(Err(_)) | Err(_) => {
                warn!("metrics cannot be written");
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be written\n")
            }
        }
    }
}
