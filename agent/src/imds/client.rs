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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What a stub of IMDS does with every connection.
    #[derive(Clone)]
    enum Behaviour {
        Answer(String),
        Hang,
        Close,
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// Asks a stub on a real socket. Gives the answer, and the requests it saw.
    fn asked(behaviour: Behaviour) -> (Answer, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let (requests, mut seen) = tokio::sync::mpsc::unbounded_channel();
            let server = tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let (behaviour, requests) = (behaviour.clone(), requests.clone());
                    tokio::spawn(async move {
                        let mut request = [0; 2048];
                        let length = stream.read(&mut request).await.unwrap();
                        let _ = requests.send(String::from_utf8_lossy(&request[..length]).into_owned());
                        match behaviour {
                            Behaviour::Answer(answer) => drop(stream.write_all(answer.as_bytes()).await),
                            Behaviour::Hang => std::future::pending().await,
                            Behaviour::Close => {}
                        }
                    });
                }
            });
            let answer = ask(&endpoint).await;
            server.abort();
            let mut requests = Vec::new();
            while let Ok(request) = seen.try_recv() {
                requests.push(request);
            }
            (answer, requests)
        })
    }

    #[test]
    fn it_is_asked_by_get_with_the_header_that_it_wants() {
        let body = r#"{"compute":{"vmSize":"Standard_D4s_v5","name":"a"},"Events":[]}"#;
        let (answer, requests) = asked(Behaviour::Answer(ok(body)));
        let size = answer.instance.measured().map(|instance| instance.vm_size.clone());
        assert_eq!(size, Some(Fact::Measured("Standard_D4s_v5".to_owned())));
        assert_eq!(answer.events, Fact::Measured(Vec::new()));
        assert_eq!(requests.len(), 2);
        for request in requests {
            assert!(request.starts_with("GET /metadata/"), "{request}");
            assert!(request.to_lowercase().contains("\r\nmetadata: true\r\n"), "{request}");
        }
    }

    #[test]
    fn whatever_goes_wrong_is_a_reason() {
        let status = |line: &str| Behaviour::Answer(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
        let long = "x".repeat(BODY_LIMIT + 1);
        let cases = [
            (status("400 Bad Request"), "status 400: it did not understand the request"),
            (status("404 Not Found"), "status 404: it does not have this"),
            (status("410 Gone"), "status 410: it is being updated"),
            (status("429 Too Many Requests"), "status 429: asked too often"),
            (status("503 Service Unavailable"), "status 503: it failed"),
            (status("302 Found"), "status 302: an answer that IMDS does not give"),
            (Behaviour::Answer(ok(&long)), "answer longer than 256 KiB"),
            (
                Behaviour::Answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()),
                "answer broke off",
            ),
            (Behaviour::Answer(ok("<html>")), "not JSON"),
            (Behaviour::Answer("garbage\r\n\r\n".to_owned()), "IMDS instance at http://127.0.0.1:"),
            (Behaviour::Close, "IMDS instance at http://127.0.0.1:"),
            (Behaviour::Hang, "no answer within 1 s"),
        ];
        for (behaviour, expected) in cases {
            let (answer, _) = asked(behaviour);
            let Fact::Unavailable(reason) = &answer.instance else { panic!("{expected}") };
            assert!(reason.contains(expected), "{reason}");
            assert!(matches!(answer.events, Fact::Unavailable(_)), "{expected}");
        }
    }

    #[test]
    fn nobody_there_is_a_reason() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let answer = runtime.block_on(ask(&endpoint));
        assert!(matches!(answer.instance, Fact::Unavailable(reason) if reason.contains("cannot connect")));
    }
}
