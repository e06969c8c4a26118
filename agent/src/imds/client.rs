//! Asks IMDS: two GET requests with hard limits on time and size.
//!
//! No proxy is ever used (the service is link-local), no redirect followed, and an answer that is late, long or wrong
//! makes the facts unavailable, with the reason.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use assay_shared::Fact;
use assay_shared::report::ScheduledEvent;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Answer, Instance, parse};

/// Time for a whole request: connecting, asking, reading.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer read. One VM's instance document is 2 to 10 KiB; user data could make it 64 KiB.
const BODY_LIMIT: usize = 256 << 10;
/// New enough for every field used here, old enough for every Azure cloud; sovereign clouds lag behind the public one.
const INSTANCE: &str = "/metadata/instance?api-version=2021-08-01";
/// The newest version of scheduled events.
const SCHEDULED_EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";

/// Where IMDS is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    /// Put before `/metadata`; mostly empty.
    prefix: String,
}

impl Default for Endpoint {
    /// The address that Azure has it at on every VM.
    fn default() -> Self {
        Self { host: "169.254.169.254".to_owned(), port: 80, prefix: String::new() }
    }
}

/// A text that is not the address of an IMDS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address like http://169.254.169.254, found {0:?}")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (Some("http"), Some(host), None) = (uri.scheme_str(), uri.host(), uri.query()) else {
            return Err(wrong());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), prefix })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "http://{open}{}{close}:{}{}", self.host, self.port, self.prefix)
    }
}

/// Asks for the instance and its events at once. Takes [`TIMEOUT`] at most.
pub async fn ask(endpoint: &Endpoint) -> Answer {
    let (instance, events) = tokio::join!(get(endpoint, INSTANCE), get(endpoint, SCHEDULED_EVENTS));
    let instance = read_instance(endpoint, instance);
    let name = vm_name(&instance);
    Answer { events: read_events(endpoint, events, &name), instance }
}

/// Asks what is announced for the VM with this name; for a watch that knows the rest already.
pub async fn scheduled_events(endpoint: &Endpoint, vm_name: &Fact<String>) -> Fact<Vec<ScheduledEvent>> {
    read_events(endpoint, get(endpoint, SCHEDULED_EVENTS).await, vm_name)
}

fn vm_name(instance: &Fact<Instance>) -> Fact<String> {
    instance.as_ref().and_then(|instance| instance.name.clone())
}

fn read_instance(endpoint: &Endpoint, body: Result<Bytes, Failure>) -> Fact<Instance> {
    body.map_or_else(|failure| failure.at(endpoint, "instance"), |body| parse::instance(&body))
}

fn read_events(
    endpoint: &Endpoint,
    body: Result<Bytes, Failure>,
    vm_name: &Fact<String>,
) -> Fact<Vec<ScheduledEvent>> {
    match body {
        Ok(body) => parse::scheduled_events(&body, vm_name),
        // The first request ever enables the feature, which can take two minutes.
        Err(Failure::Late) => Fact::Unavailable(format!(
            "{} (Azure may be enabling them)",
            Failure::Late.text(endpoint, "scheduled events")
        )),
        Err(failure) => failure.at(endpoint, "scheduled events"),
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("answer longer than {} KiB", BODY_LIMIT >> 10)]
    Long,
    #[error("answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("{}", status_reason(*.0))]
    Status(StatusCode),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
}

impl Failure {
    fn text(&self, endpoint: &Endpoint, what: &str) -> String {
        format!("IMDS {what} at {endpoint}: {self}")
    }

    fn at<T>(&self, endpoint: &Endpoint, what: &str) -> Fact<T> {
        Fact::Unavailable(self.text(endpoint, what))
    }
}

/// What a status other than 200 means there.
fn status_reason(status: StatusCode) -> String {
    let meaning = match status.as_u16() {
        400 => "it did not understand the request",
        403 | 405 => "it refused the request",
        404 => "it does not have this",
        410 => "it is being updated",
        429 => "asked too often (5 requests per second are shared by the VM)",
        500..=599 => "it failed",
        _ => "an answer that IMDS does not give",
    };
    format!("status {}: {meaning}", status.as_u16())
}

async fn get(endpoint: &Endpoint, path: &str) -> Result<Bytes, Failure> {
    tokio::time::timeout(TIMEOUT, request(endpoint, path)).await.unwrap_or(Err(Failure::Late))
}

async fn request(endpoint: &Endpoint, path: &str) -> Result<Bytes, Failure> {
    let stream =
        TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(Failure::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(format!("{}{path}", endpoint.prefix))
        .header(header::HOST, &endpoint.host)
        // Proves that the request is meant for IMDS and was not forwarded by someone.
        .header("Metadata", "true")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body =
            body.map_err(
                |error| if error.is::<LengthLimitError>() { Failure::Long } else { Failure::Body(error) },
            )?;
        Ok(body.to_bytes())
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection has to be driven while the exchange waits; when it ends first, the exchange learns it.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}
