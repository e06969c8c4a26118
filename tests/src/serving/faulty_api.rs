//! An API server that misbehaves as real ones do: a proxy on loopback between `assay serve` and the real one. It passes calls on
//! as the administrator, unless its rule says otherwise.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::control_plane::ControlPlane;

/// A call, before it is passed on.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path, such as `/api/v1/nodes/a`.
    pub path: String,
    /// Query, without question mark.
    pub query: String,
    /// What is sent along, where that is JSON.
    pub body: Value,
}

impl Call {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    /// Whether it goes on until somebody ends it.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|part| matches!(part, "watch" | "watch=1" | "watch=true"))
    }

    /// Whether its path is of this resource: `nodes` is also `nodes/status`.
    #[must_use]
    pub fn is_of(&self, resource: &str) -> bool {
        self.path.split('/').any(|part| part == resource)
    }

    /// The object of a resource that it is about.
    #[must_use]
    pub fn name(&self, resource: &str) -> Option<&str> {
        let mut parts = self.path.split('/').skip_while(|part| *part != resource).skip(1);
        parts.next().or_else(|| self.body["metadata"]["name"].as_str())
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on.
    None,
    /// It is refused with this status and reason, without being passed on.
    Refuse(u16, &'static str),
    /// The connection breaks before it is passed on.
    Drop,
    /// It is passed on; the connection breaks before the answer.
    DropAnswer,
    /// A watch that is told that its version is too old, as soon as it begins.
    ExpireWatch,
    /// It is neither passed on nor answered; [`FaultyApi::held`] says when.
    Hold,
    /// It is passed on and never answered; [`FaultyApi::held`] says when.
    HoldAnswer,
}

type Rule = dyn Fn(&Call) -> Fault + Send + Sync;

struct State {
    client: Client,
    rule: Mutex<Arc<Rule>>,
    faults: AtomicUsize,
    held: Notify,
    /// A change cuts all watches.
    cut: watch::Sender<u64>,
}

/// The proxy. Dropping it ends it.
pub struct FaultyApi {
    state: Arc<State>,
    kubeconfig: PathBuf,
    listener: JoinHandle<()>,
}

impl fmt::Debug for FaultyApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyApi").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl FaultyApi {
    /// A proxy that misbehaves by no rule yet.
    ///
    /// # Errors
    /// No port, or nowhere to write the kubeconfig.
    pub async fn start(plane: &ControlPlane) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port on loopback")?;
        let address = listener.local_addr()?;
        let kubeconfig = plane.directory().join(format!("proxy-{}.kubeconfig", address.port()));
        std::fs::write(&kubeconfig, kubeconfig_of(address).to_string())?;
        let state = Arc::new(State {
            client: plane.client().await?,
            rule: Mutex::new(Arc::new(|_: &Call| Fault::None)),
            faults: AtomicUsize::new(0),
            held: Notify::new(),
            cut: watch::channel(0).0,
        });
        let serving = Arc::clone(&state);
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let answer = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(async move {
                    // A peer that goes away in the middle, or a fault of ours, is no error.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Ok(Self { state, kubeconfig, listener })
    }

    /// A kubeconfig that leads here.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// Misbehaves by this rule from now on.
    pub fn misbehave(&self, rule: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.state.rule.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rule);
    }

    /// Behaves.
    pub fn behave(&self) {
        self.misbehave(|_| Fault::None);
    }

    /// Ends all watches that are open, in the middle.
    pub fn cut_watches(&self) {
        self.state.cut.send_modify(|count| *count += 1);
    }

    /// Calls so far with which something went wrong.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.state.faults.load(Relaxed)
    }

    /// Waits until a call is held.
    pub async fn held(&self) {
        self.state.held.notified().await;
    }
}

fn kubeconfig_of(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    })
}

/// What breaks a connection: hyper closes it without an answer.
fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionAborted)
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Passed>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let call = Call {
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let rule = Arc::clone(&state.rule.lock().unwrap_or_else(PoisonError::into_inner));
    let fault = rule(&call);
    if fault != Fault::None {
        state.faults.fetch_add(1, Relaxed);
    }
    match fault {
        Fault::Drop => return Err(broken()),
        Fault::Hold => return hold(&state).await,
        Fault::Refuse(code, reason) => return Ok(refusal(code, reason)),
        Fault::ExpireWatch => return Ok(expired()),
        Fault::None | Fault::DropAnswer | Fault::HoldAnswer => {}
    }
    let mut request = Request::new(kube::client::Body::from(body.to_vec()));
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    for (name, value) in &head.headers {
        let ours = [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::ACCEPT_ENCODING];
        if !ours.contains(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let answered = state.client.send(request).await;
    match fault {
        Fault::DropAnswer => return Err(broken()),
        Fault::HoldAnswer => return hold(&state).await,
        _ => {}
    }
    let (head, mut body) = answered.map_err(io::Error::other)?.into_parts();
    let (sender, frames) = mpsc::channel(16);
    let mut cut = call.is_watch().then(|| state.cut.subscribe());
    tokio::spawn(async move {
        loop {
            let cut = async {
                match &mut cut {
                    Some(cut) => cut.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            let frame = tokio::select! {
                frame = body.frame() => match frame {
                    Some(frame) => frame.map_err(io::Error::other),
                    None => return,
                },
                _ = cut => Err(broken()),
                () = sender.closed() => return,
            };
            let over = frame.is_err();
            if sender.send(frame).await.is_err() || over {
                return;
            }
        }
    });
    let mut response = Response::from_parts(head, Passed(frames));
    // The body goes on in chunks of its own.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(response)
}

/// Says that a call is held, and holds it.
async fn hold(state: &State) -> Result<Response<Passed>, io::Error> {
    state.held.notify_one();
    std::future::pending::<Infallible>().await;
    Err(broken())
}

fn status(code: u16, reason: &str) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "code": code, "message": format!("{reason}, by the test")});
    if code == 429 {
        status["details"] = json!({"retryAfterSeconds": 1});
    }
    status
}

fn expired() -> Response<Passed> {
    whole(&format!("{}\n", json!({"type": "ERROR", "object": status(410, "Expired")})))
}

fn whole(text: &str) -> Response<Passed> {
    let (sender, frames) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Ok(Frame::data(Bytes::from(text.to_owned()))));
    Response::new(Passed(frames))
}

fn refusal(code: u16, reason: &str) -> Response<Passed> {
    let mut response = whole(&status(code, reason).to_string());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if code == 429 {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

/// The answer's body as it comes.
struct Passed(mpsc::Receiver<io::Result<Frame<Bytes>>>);

impl hyper::body::Body for Passed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context)
    }
}
