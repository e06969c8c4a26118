//! How many calls were made, of what and with what answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, Uri};

/// What was called, and what the answer was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiCall {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`, as in RBAC.
    pub verb: &'static str,
    /// The resource, and its subresource where one was meant: `pods`, `pods/eviction`.
    pub resource: String,
    /// Status of the answer; 0 where there was none.
    pub code: u16,
}

/// How often, and how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls.
    pub count: u64,
    /// Time until their answers began, together.
    pub took: Duration,
}

/// Counters that all clients of a process share.
#[derive(Debug, Clone, Default)]
pub struct ApiCalls(Arc<Mutex<BTreeMap<ApiCall, Tally>>>);

impl ApiCalls {
    pub(super) fn record(&self, call: ApiCall, took: Duration) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = counted.entry(call).or_default();
        tally.count += 1;
        tally.took += took;
    }

    /// The counters as they are now.
    #[must_use]
    pub fn counted(&self) -> BTreeMap<ApiCall, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All calls so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counted().values().map(|tally| tally.count).sum()
    }
}

/// What a request is, in the words of RBAC.
pub(super) fn describe(method: &Method, uri: &Uri) -> ApiCall {
    let mut parts = uri.path().trim_matches('/').split('/');
    // `/api/v1/…` or `/apis/group/version/…`
    let versions = match parts.next() {
        Some("api") => 1,
        Some("apis") => 2,
        first => {
            let resource = first.unwrap_or_default().to_owned();
            return ApiCall { verb: "get", resource, code: 0 };
        }
    };
    let mut parts = parts.skip(versions).peekable();
    let mut resource = parts.next().unwrap_or_default().to_owned();
    let mut name = parts.next();
    // `namespaces/x` is a namespace; `namespaces/x/pods` are its pods, but for the parts of a namespace itself.
    if resource == "namespaces"
        && let Some(inside) = parts.peek().copied().filter(|part| !matches!(*part, "status" | "finalize"))
    {
        inside.clone_into(&mut resource);
        parts.next();
        name = parts.next();
    }
    if let Some(part) = parts.next() {
        resource = format!("{resource}/{part}");
    }
    let query = uri.query().unwrap_or_default();
    let is_watch = query.split('&').any(|part| matches!(part, "watch" | "watch=1" | "watch=true"));
    let verb = match (method.as_str(), name) {
        ("GET", _) if is_watch => "watch",
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "other",
    };
    ApiCall { verb, resource, code: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_as_rbac_names_it() {
        let cases = [
            ("GET", "/api/v1/pods?limit=500", "list pods"),
            ("GET", "/api/v1/pods?allowWatchBookmarks=true&watch=true", "watch pods"),
            ("GET", "/api/v1/namespaces/kube-system/pods/p", "get pods"),
            ("GET", "/api/v1/namespaces", "list namespaces"),
            ("GET", "/api/v1/namespaces/kube-system", "get namespaces"),
            ("PUT", "/api/v1/namespaces/kube-system/finalize", "update namespaces/finalize"),
            ("POST", "/api/v1/namespaces/d/pods/p/eviction", "create pods/eviction"),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "create tokenreviews"),
            ("PATCH", "/apis/karpenter.sh/v1/nodeclaims/a/status", "patch nodeclaims/status"),
            ("DELETE", "/apis/karpenter.sh/v1/nodeclaims/a", "delete nodeclaims"),
            ("DELETE", "/apis/karpenter.sh/v1/nodeclaims", "deletecollection nodeclaims"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/d/leases/l", "update leases"),
            ("GET", "/version", "get version"),
        ];
        for (method, uri, expected) in cases {
            let call = describe(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(format!("{} {}", call.verb, call.resource), expected, "{method} {uri}");
        }
    }

    #[test]
    fn calls_are_counted_by_what_they_were() {
        let calls = ApiCalls::default();
        let call = |code| ApiCall { verb: "list", resource: "pods".to_owned(), code };
        calls.record(call(200), Duration::from_millis(5));
        calls.clone().record(call(200), Duration::from_millis(7));
        calls.record(call(429), Duration::ZERO);
        let counted = calls.counted();
        assert_eq!(counted[&call(200)], Tally { count: 2, took: Duration::from_millis(12) });
        assert_eq!((counted[&call(429)].count, calls.total()), (1, 3));
    }
}
