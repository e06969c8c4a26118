//! What a token says of itself. Nothing of this is proved: it can only be a reason to refuse.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_shared::NodeName;
use assay_shared::protocol::RefusalReason;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::fleet::AuthError;

/// Longest token, bytes. One of a pod has about 1,200.
pub(super) const LONGEST_TOKEN: usize = 8 << 10;
/// Longest time a token may be valid, from 1970 on: the year 9999. Keeps times within what clocks can add.
const LAST_SECOND: u64 = 253_402_300_799;

/// The claims of a service-account token that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "aud")]
    audiences: OneOrMore,
    #[serde(rename = "sub")]
    subject: String,
    #[serde(rename = "exp")]
    expires: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Kubernetes {
    node: Option<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Named {
    name: String,
}

fn invalid(detail: impl fmt::Display) -> AuthError {
    AuthError::new(RefusalReason::TokenInvalid, format!("token: {detail}"))
}

impl Claims {
    /// Reads them without proof.
    pub(super) fn unverified(token: &str) -> Result<Self, AuthError> {
        if token.len() > LONGEST_TOKEN {
            return Err(invalid(format_args!("{} bytes, expected at most {LONGEST_TOKEN}", token.len())));
        }
        let mut parts = token.split('.');
        let (Some(_header), Some(payload), Some(_signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid("expected the three parts of a JSON Web Token"));
        };
        // What is wrong with it is not said: it could repeat a part of it.
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| invalid("its claims are not base64url"))?;
        let claims: Self = serde_json::from_slice(&payload).map_err(|error| {
            let expected = "expected JSON with aud, sub and exp of a service-account token that expires";
            invalid(format_args!("claims at column {}: {expected}", error.column()))
        })?;
        if claims.expires > LAST_SECOND {
            return Err(invalid("expires beyond the year 9999"));
        }
        Ok(claims)
    }

    /// When it expires.
    pub(super) fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires)
    }

    /// Whether it is for this audience and of this user.
    pub(super) fn are_for(&self, audience: &str, user_name: &str) -> Result<(), AuthError> {
        let audiences = match &self.audiences {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(more) => more,
        };
        if !audiences.iter().any(|one| one == audience) {
            let found = shown(&audiences.join(", "));
            return Err(AuthError::new(
                RefusalReason::WrongAudience,
                format!("token for audience {found}, expected {audience:?}"),
            ));
        }
        if self.subject != user_name {
            return Err(AuthError::new(
                RefusalReason::WrongServiceAccount,
                format!("token of {}, expected {user_name:?}", shown(&self.subject)),
            ));
        }
        Ok(())
    }

    /// Whether it is of this node.
    pub(super) fn are_of(&self, node: &NodeName) -> Result<(), AuthError> {
        let found = self.kubernetes.as_ref().and_then(|kubernetes| kubernetes.node.as_ref());
        same_node(found.map(|found| found.name.as_str()), node)
    }
}

/// Whether the node of a token is the one it should be of.
pub(super) fn same_node(found: Option<&str>, node: &NodeName) -> Result<(), AuthError> {
    match found {
        Some(found) if found == node.as_str() => Ok(()),
        Some(found) => Err(AuthError::new(
            RefusalReason::NodeClaimMismatch,
            format!("the token is of node {}, Hello names {node}", shown(found)),
        )),
        None => Err(AuthError::new(
            RefusalReason::NodeClaimAbsent,
            "the token is bound to no node: expected one projected into a pod, by Kubernetes 1.30 or later",
        )),
    }
}

/// The beginning of a text of somebody else's, for a message.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(128).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "system:serviceaccount:assay-system:assay-agent";

    fn token(payload: &str) -> String {
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(payload))
    }

    fn refused(token: &str) -> Result<(), RefusalReason> {
        let claims = Claims::unverified(token).map_err(|error| error.reason)?;
        let node = "node-a".parse().unwrap();
        claims.are_for("assay", USER).and_then(|()| claims.are_of(&node)).map_err(|error| error.reason)
    }

    #[test]
    fn what_a_token_says_of_itself_can_only_speak_against_it() {
        let claims = |audience: &str, subject: &str, rest: &str| {
            token(&format!(r#"{{"aud":{audience},"sub":"{subject}","exp":4000000000{rest}}}"#))
        };
        let of = |node: &str| {
            format!(r#","kubernetes.io":{{"namespace":"x","node":{{"name":"{node}","uid":"1"}}}}"#)
        };
        let sound = claims(r#"["assay"]"#, USER, &of("node-a"));
        assert_eq!(refused(&sound), Ok(()));
        assert_eq!(refused(&claims(r#""assay""#, USER, &of("node-a"))), Ok(()), "a single audience");
        assert_eq!(refused(&claims(r#"["other","assay"]"#, USER, &of("node-a"))), Ok(()));
        let cases = [
            (claims(r#"["other"]"#, USER, &of("node-a")), RefusalReason::WrongAudience),
            (claims("[]", USER, &of("node-a")), RefusalReason::WrongAudience),
            (claims(r#"["assay"]"#, &format!("{USER}x"), &of("node-a")), RefusalReason::WrongServiceAccount),
            (claims(r#"["assay"]"#, USER, &of("node-b")), RefusalReason::NodeClaimMismatch),
            (claims(r#"["assay"]"#, USER, ""), RefusalReason::NodeClaimAbsent),
            (claims(r#"["assay"]"#, USER, r#","kubernetes.io":{"pod":{}}"#), RefusalReason::NodeClaimAbsent),
            (token("{}"), RefusalReason::TokenInvalid),
            (token(r#"{"aud":["assay"],"sub":"x"}"#), RefusalReason::TokenInvalid),
            (token(r#"{"aud":["assay"],"sub":"x","exp":18446744073709551615}"#), RefusalReason::TokenInvalid),
            (token(&"[".repeat(1_000)), RefusalReason::TokenInvalid),
            ("secret".to_owned(), RefusalReason::TokenInvalid),
            ("a.b.c.d".to_owned(), RefusalReason::TokenInvalid),
            ("a.%%.c".to_owned(), RefusalReason::TokenInvalid),
            (String::new(), RefusalReason::TokenInvalid),
            ("x".repeat(LONGEST_TOKEN + 1), RefusalReason::TokenInvalid),
        ];
        for (token, reason) in cases {
            assert_eq!(refused(&token), Err(reason), "{token:.80}");
        }
    }

    #[test]
    fn what_is_said_of_a_bad_token_repeats_nothing_of_it() {
        for text in ["topsecret", "a.topsecret.b", &token(r#"{"aud":"topsecret"}"#)] {
            let error = Claims::unverified(text).unwrap_err();
            assert!(!error.detail.contains("topsecret"), "{error}");
        }
    }
}
