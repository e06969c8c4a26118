//! Counts what the Kubernetes client asks: a layer of the client, so that no caller can forget.
//!
//! Verb and resource are read off the request, as the API server's own audit does it: `list pods`, `watch nodes`,
//! `create pods/eviction`, `apply nodes/status`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, Uri};
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

use super::family::{Counters, Histograms};

/// A layer of a Kubernetes client that counts its requests. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct ApiCalls {
    calls: Counters<3>,
    durations: Histograms<2>,
}

impl ApiCalls {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            calls: Counters::register(
                r,
                "assay_kubernetes_requests",
                "Requests to the API server by verb, resource and status code; code 0 is no answer",
                ["verb", "resource", "code"],
            ),
            durations: Histograms::durations(
                r,
                "assay_kubernetes_request_duration_seconds",
                "Until the API server begins to answer",
                ["verb", "resource"],
            ),
        }
    }
}

impl<S> Layer<S> for ApiCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, count: self.clone() }
    }
}

/// A client's service whose requests are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    count: ApiCalls,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let called = Called::of(request.method(), request.uri(), request.headers());
        let (count, begun, answer) = (self.count.clone(), Instant::now(), self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            count.calls.add([called.verb, &called.resource, &code.to_string()]);
            count.durations.took([called.verb, &called.resource], begun.elapsed());
            answer
        })
    }
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
struct Called {
    verb: &'static str,
    /// Resource and subresource; the path itself for what is no resource.
    resource: String,
}

impl Called {
    fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let Some((resource, named)) = resource(uri.path()) else {
            let resource = uri.path().chars().take(32).collect();
            return Self { verb: "get", resource };
        };
        let query = uri.query().unwrap_or_default();
        let watches = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
        let applies = headers
            .get(CONTENT_TYPE)
            .is_some_and(|content| content.as_bytes().starts_with(b"application/apply-patch"));
        let verb = match *method {
            Method::GET if watches => "watch",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH if applies => "apply",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => "other",
        };
        Self { verb, resource }
    }
}

/// Resource and subresource of a path, and whether it names one object. `None` where it is not about a resource.
fn resource(path: &str) -> Option<(String, bool)> {
    let mut parts = path.trim_matches('/').split('/');
    match parts.next()? {
        "api" => parts.next()?,
        "apis" => {
            parts.next()?;
            parts.next()?
        }
        _ => return None,
    };
    let mut parts: Vec<&str> = parts.collect();
    // Of a namespace, unless it is about the namespace.
    if parts.len() > 2 && parts[0] == "namespaces" && !matches!(parts[2], "status" | "finalize") {
        parts.drain(..2);
    }
    match parts.as_slice() {
        [] => None,
        [resource] => Some(((*resource).to_owned(), false)),
        [resource, _] => Some(((*resource).to_owned(), true)),
        [resource, _, subresource, ..] => Some((format!("{resource}/{subresource}"), true)),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn requests_are_named_as_the_audit_log_names_them() {
        let cases = [
            (Method::GET, "/api/v1/pods?limit=500", "list", "pods"),
            (Method::GET, "/api/v1/pods?watch=true&resourceVersion=7", "watch", "pods"),
            (Method::GET, "/api/v1/nodes/node-a", "get", "nodes"),
            (Method::GET, "/api/v1/namespaces/default/pods/web-1", "get", "pods"),
            (Method::GET, "/api/v1/namespaces/default/pods", "list", "pods"),
            (Method::GET, "/api/v1/namespaces/default", "get", "namespaces"),
            (Method::PUT, "/api/v1/namespaces/default/status", "update", "namespaces/status"),
            (Method::POST, "/api/v1/namespaces/default/pods/web-1/eviction", "create", "pods/eviction"),
            (Method::POST, "/apis/karpenter.sh/v1/nodeclaims", "create", "nodeclaims"),
            (
                Method::PATCH,
                "/apis/karpenter.sh/v1/nodeclaims/a/status?force=true",
                "apply",
                "nodeclaims/status",
            ),
            (Method::DELETE, "/apis/karpenter.sh/v1/nodeclaims/a", "delete", "nodeclaims"),
            (Method::DELETE, "/api/v1/pods", "deletecollection", "pods"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/x/leases/y", "update", "leases"),
            (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", "create", "tokenreviews"),
            (Method::GET, "/version", "get", "/version"),
            (Method::GET, "/apis", "get", "/apis"),
            (Method::GET, "/apis/karpenter.sh/v1", "get", "/apis/karpenter.sh/v1"),
        ];
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/apply-patch+yaml"));
        for (method, uri, verb, resource) in cases {
            let called = Called::of(&method, &uri.parse().unwrap(), &headers);
            assert_eq!((called.verb, called.resource.as_str()), (verb, resource), "{method} {uri}");
        }
        let patch = "/api/v1/nodes/node-a".parse().unwrap();
        assert_eq!(Called::of(&Method::PATCH, &patch, &HeaderMap::new()).verb, "patch");
    }
}
