//! What the answer of a TokenReview means.

use assay_shared::NodeName;
use assay_shared::protocol::RefusalReason;
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

use super::claims::{same_node, shown};
use crate::fleet::{AuthError, TokenBinding};

/// What the API server vouches for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vouched {
    node: Option<String>,
    pub(super) binding: TokenBinding,
}

impl Vouched {
    /// Whether it is of this node.
    pub(super) fn is_of(&self, node: &NodeName) -> Result<(), AuthError> {
        same_node(self.node.as_deref(), node)
    }
}

/// Holds an answer against what a token must be.
pub(super) fn judge(
    status: &TokenReviewStatus,
    audience: &str,
    user_name: &str,
) -> Result<Vouched, AuthError> {
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or("it does not know it");
        return Err(AuthError::new(
            RefusalReason::TokenInvalid,
            format!("the API server does not vouch for the token: {}", shown(why)),
        ));
    }
    // An API server whose authenticators do not know of audiences echoes none: such a token may be meant for anybody.
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|one| one == audience) {
        let found = shown(&audiences.join(", "));
        let detail = format!("the API server vouches for audience {found}, expected {audience:?}");
        return Err(AuthError::new(RefusalReason::WrongAudience, detail));
    }
    let user = status.user.as_ref();
    let found = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    if found != user_name {
        return Err(AuthError::new(
            RefusalReason::WrongServiceAccount,
            format!("token of {}, expected {user_name:?}", shown(found)),
        ));
    }
    let extra = |name: &str| user.and_then(|user| extra(user, name));
    let text = |name: &str| extra(name).unwrap_or_default().chars().take(253).collect();
    Ok(Vouched {
        node: extra("node-name").map(str::to_owned),
        binding: TokenBinding {
            pod: text("pod-name"),
            pod_uid: text("pod-uid"),
            node_uid: text("node-uid"),
            credential_id: text("credential-id"),
        },
    })
}

/// The only value of an extra field of the authenticator's.
fn extra<'a>(user: &'a UserInfo, name: &str) -> Option<&'a str> {
    let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{name}"))?;
    match values.as_slice() {
        [value] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const USER: &str = "system:serviceaccount:assay-system:assay-agent";

    fn sound() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["assay"],
            "user": {
                "username": USER,
                "extra": {
                    "authentication.kubernetes.io/node-name": ["node-a"],
                    "authentication.kubernetes.io/node-uid": ["n-1"],
                    "authentication.kubernetes.io/pod-name": ["agent-x"],
                    "authentication.kubernetes.io/pod-uid": ["p-1"],
                    "authentication.kubernetes.io/credential-id": ["JTI=1"],
                },
            },
        })
    }

    /// The verdict on a sound answer after one change, for node-a.
    fn verdict(pointer: &str, value: Value) -> Result<TokenBinding, RefusalReason> {
        let mut status = sound();
        match status.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => panic!("{pointer} is nowhere"),
        }
        let status: TokenReviewStatus = serde_json::from_value(status).unwrap();
        let vouched = judge(&status, "assay", USER).map_err(|error| error.reason)?;
        vouched.is_of(&"node-a".parse().unwrap()).map_err(|error| error.reason)?;
        Ok(vouched.binding)
    }

    #[test]
    fn nothing_is_taken_for_granted_in_the_answer() {
        let bound = verdict("/authenticated", json!(true)).unwrap();
        assert_eq!((bound.pod.as_str(), bound.pod_uid.as_str()), ("agent-x", "p-1"));
        assert_eq!((bound.node_uid.as_str(), bound.credential_id.as_str()), ("n-1", "JTI=1"));
        let node = "/user/extra/authentication.kubernetes.io~1node-name";
        let cases = [
            ("/authenticated", json!(false), RefusalReason::TokenInvalid),
            ("/authenticated", Value::Null, RefusalReason::TokenInvalid),
            ("/audiences", json!(["other"]), RefusalReason::WrongAudience),
            ("/audiences", Value::Null, RefusalReason::WrongAudience),
            ("/user/username", json!(format!("{USER}2")), RefusalReason::WrongServiceAccount),
            (
                "/user/username",
                json!("system:serviceaccount:other:assay-agent"),
                RefusalReason::WrongServiceAccount,
            ),
            ("/user", Value::Null, RefusalReason::WrongServiceAccount),
            ("/user/extra", Value::Null, RefusalReason::NodeClaimAbsent),
            (node, json!([]), RefusalReason::NodeClaimAbsent),
            (node, json!(["node-a", "node-b"]), RefusalReason::NodeClaimAbsent),
            (node, json!(["node-b"]), RefusalReason::NodeClaimMismatch),
            (node, json!(["NODE-A"]), RefusalReason::NodeClaimMismatch),
        ];
        for (pointer, value, reason) in cases {
            assert_eq!(verdict(pointer, value.clone()), Err(reason), "{pointer} = {value}");
        }
    }
}
