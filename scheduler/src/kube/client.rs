//! The client of the API server, the same for all that talks to it: where the server is, TLS, how many calls a second, how long
//! one may take, and how many were made.
//!
//! ```text
//!  kube::Client --> calls are counted --> limiter --> time-outs --> credentials, TLS (aws-lc-rs), HTTP/1.1 --> API server
//! ```
//!
//! Nothing is tried again here: who makes a call knows whether it still matters.

mod calls;
mod limiter;
mod timeouts;

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::http::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use kube::Config;
use kube::client::{Body, ClientBuilder};
use kube::config::KubeConfigOptions;
use tower::{BoxError, Layer, Service};

pub use calls::{ApiCall, ApiCalls, Tally};
use limiter::Limiter;
use timeouts::IdleBody;

/// How the API server may be used.
#[derive(Debug, Clone, Copy)]
pub struct ClientSettings {
    /// Calls a second, on average (`KUBE_CLIENT_QPS`).
    pub qps: u32,
    /// Calls at once before that counts (`KUBE_CLIENT_BURST`).
    pub burst: u32,
    /// How long an answer may take to begin.
    pub response_timeout: Duration,
    /// How long it may then pause. Watches have their own.
    pub idle_timeout: Duration,
    /// Who is calling.
    pub user_agent: &'static str,
}

impl Default for ClientSettings {
    /// Karpenter's limits; the API server itself gives up a call after a minute.
    fn default() -> Self {
        Self {
            qps: 200,
            burst: 300,
            response_timeout: Duration::from_secs(65),
            idle_timeout: Duration::from_secs(30),
            user_agent: concat!("assay/", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A kubeconfig was named or found, and cannot be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// There is neither a kubeconfig nor a pod's service account.
    #[error("no cluster: {0}")]
    NoCluster(#[from] kube::config::InferConfigError),
    /// Certificates or credentials are no good.
    #[error("credentials: {0}")]
    Credentials(#[from] kube::Error),
}

/// Where the API server is and who we are: by the kubeconfig that is named, else by `KUBECONFIG`, `~/.kube/config` or the service
/// account of the pod we are.
pub async fn configuration(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, ClientError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    match kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
        }
        None if context.is_some() => Ok(Config::from_kubeconfig(&options).await?),
        None => Ok(Config::infer().await?),
    }
}

/// A client. All its clones share one limit; `calls` counts.
pub fn client(
    mut config: Config,
    settings: ClientSettings,
    calls: ApiCalls,
) -> Result<kube::Client, ClientError> {
    // kube takes the provider of the process. There is no other in this build; this says which.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(settings.user_agent)));
    let limiter = Arc::new(Limiter::new(settings.qps, settings.burst));
    Ok(ClientBuilder::try_from(config)?.with_layer(&Bounds { limiter, settings, calls }).build())
}

/// Puts limits, time-outs and counters around the client of kube.
#[derive(Debug, Clone)]
struct Bounds {
    limiter: Arc<Limiter>,
    settings: ClientSettings,
    calls: ApiCalls,
}

impl<S> Layer<S> for Bounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, bounds: self.clone() }
    }
}

#[derive(Debug)]
struct Bounded<S> {
    inner: S,
    bounds: Bounds,
}

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = Response<IdleBody<B>>;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = calls::describe(request.method(), request.uri());
        let is_watch = call.verb == "watch";
        let Bounds { settings, calls, .. } = self.bounds.clone();
        let wait = self.bounds.limiter.reserve(tokio::time::Instant::now());
        // Nothing of it happens before it is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let started = tokio::time::Instant::now();
            let answer = match tokio::time::timeout(settings.response_timeout, answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(timeouts::no_answer(settings.response_timeout)),
            };
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            calls.record(ApiCall { code, ..call }, started.elapsed());
            let pause = (!is_watch).then_some(settings.idle_timeout);
            Ok(answer?.map(|body| IdleBody::new(body, pause)))
        })
    }
}
