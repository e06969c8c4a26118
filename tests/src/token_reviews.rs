//! An API server that knows of TokenReviews and nothing else, and the tokens it is asked about.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use assay_scheduler::kube::token_review::{Clock, TokenReviewConfig};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Audience of the tokens that count.
pub const AUDIENCE: &str = "assay";
/// Their service account.
pub const ACCOUNT: &str = "assay-system/assay-agent";
/// The same as a user.
pub const USER: &str = "system:serviceaccount:assay-system:assay-agent";

/// Settings for these tokens.
#[must_use]
pub fn review_config() -> TokenReviewConfig {
    match ACCOUNT.parse() {
        Ok(account) => TokenReviewConfig::new(AUDIENCE, account),
        Err(error) => unreachable!("{error}"),
    }
}

/// What a token says of itself.
#[derive(Debug, Clone)]
pub struct Token {
    /// Whom it is for.
    pub audience: String,
    /// Of whom it is.
    pub user: String,
    /// The node it is bound to.
    pub node: Option<String>,
    /// How long it is valid from now on.
    pub life: Duration,
    /// Makes it differ from others that say the same.
    pub number: u32,
}

impl Token {
    /// A sound one of this node.
    #[must_use]
    pub fn of(node: &str) -> Self {
        Self {
            audience: AUDIENCE.to_owned(),
            user: USER.to_owned(),
            node: Some(node.to_owned()),
            life: Duration::from_secs(3600),
            number: 0,
        }
    }

    /// As it is shown. Its signature is nothing: the API server's word is what counts.
    #[must_use]
    pub fn text(&self) -> String {
        let expires = SystemTime::now() + self.life;
        let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let node = self.node.as_ref().map(|name| json!({"name": name, "uid": "n-1"}));
        let claims = json!({
            "aud": [self.audience],
            "sub": self.user,
            "exp": expires,
            "jti": self.number.to_string(),
            "kubernetes.io": {"namespace": "assay-system", "node": node, "pod": {"name": "agent-x", "uid": "p-1"}},
        });
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }
}

/// What an API server says of a sound token of this node.
#[must_use]
pub fn vouches(node: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": [AUDIENCE],
        "user": {
            "username": USER,
            "uid": "s-1",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/node-name": [node],
                "authentication.kubernetes.io/node-uid": ["n-1"],
                "authentication.kubernetes.io/pod-name": ["agent-x"],
                "authentication.kubernetes.io/pod-uid": ["p-1"],
            },
        },
    })
}

/// How the API server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Sound,
    /// It answers with this status.
    Fails(u16),
    /// It takes requests and never answers.
    Hangs,
}

#[derive(Debug)]
struct State {
    answers: Mutex<BTreeMap<String, Value>>,
    health: Mutex<Health>,
    asked: Mutex<Vec<Value>>,
    /// How long an answer takes.
    thinks: Duration,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

/// An API server that answers TokenReviews.
#[derive(Debug)]
pub struct TokenReviewApi {
    state: Arc<State>,
    address: SocketAddr,
    listener: JoinHandle<()>,
}

impl Drop for TokenReviewApi {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TokenReviewApi {
    /// Starts one whose answers take this long.
    ///
    /// # Errors
    /// There is no port for it.
    pub async fn start(thinks: Duration) -> anyhow::Result<Self> {
        let state = Arc::new(State {
            answers: Mutex::default(),
            health: Mutex::new(Health::Sound),
            asked: Mutex::default(),
            thinks,
            under_way: AtomicUsize::default(),
            most_under_way: AtomicUsize::default(),
        });
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let shared = Arc::clone(&state);
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    // A client that goes away is no business of a test.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { state, address, listener })
    }

    /// A client of it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn client(&self) -> anyhow::Result<kube::Client> {
        let uri = format!("http://{}", self.address).parse().context("the address of a test server")?;
        Ok(kube::Client::try_from(kube::Config::new(uri))?)
    }

    /// What it says of this token from now on.
    pub fn knows(&self, token: &Token, status: Value) -> String {
        let text = token.text();
        lock(&self.state.answers).insert(text.clone(), status);
        text
    }

    /// How it is from now on.
    pub fn is(&self, health: Health) {
        *lock(&self.state.health) = health;
    }

    /// The reviews it was asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<Value> {
        lock(&self.state.asked).clone()
    }

    /// The most reviews that were asked for at once.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.state.most_under_way.load(SeqCst)
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let respond = |status: u16, body: &Value| {
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(response)
    };
    let failure = |code: u16, reason: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": format!("tokenreviews: {reason}")});
        respond(code, &status)
    };
    let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let review: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let Some(mut review) = review.filter(|_| {
        (method.as_str(), path.as_str()) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
    }) else {
        return failure(404, "NotFound");
    };
    lock(&state.asked).push(review.clone());
    let under_way = state.under_way.fetch_add(1, SeqCst) + 1;
    state.most_under_way.fetch_max(under_way, SeqCst);
    tokio::time::sleep(state.thinks).await;
    let health = *lock(&state.health);
    if health == Health::Hangs {
        std::future::pending::<()>().await;
    }
    state.under_way.fetch_sub(1, SeqCst);
    if let Health::Fails(code) = health {
        return failure(code, "Unwell");
    }
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    let unknown = json!({"authenticated": false, "error": "[invalid bearer token]"});
    review["status"] = lock(&state.answers).get(&token).cloned().unwrap_or(unknown);
    respond(201, &review)
}

/// A clock that a test sets.
#[derive(Debug)]
pub struct TestClock {
    start: (std::time::Instant, SystemTime),
    passed: Mutex<Duration>,
}

impl TestClock {
    /// One that shows `behind` less than the machine's, and stands still.
    #[must_use]
    pub fn behind(behind: Duration) -> Arc<Self> {
        let wall = SystemTime::now() - behind;
        Arc::new(Self { start: (std::time::Instant::now(), wall), passed: Mutex::default() })
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        *lock(&self.passed) += time;
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> std::time::Instant {
        self.start.0 + *lock(&self.passed)
    }

    fn wall(&self) -> SystemTime {
        self.start.1 + *lock(&self.passed)
    }
}
