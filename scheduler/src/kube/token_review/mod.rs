//! Which node a projected service-account token is of: the API server is asked, with a TokenReview.
//!
//! ```text
//!  token --claims (unverified)--> refused at once, or worth a question
//!        --cache (60 s, by SHA-256)--> verdict known
//!        --POST TokenReview--> status --judge--> verdict
//!  verdict + node in Hello --> Identity or AuthError
//! ```
//!
//! What a token says of itself is only ever a reason to refuse it without asking: a flood of tokens for somebody else costs the
//! API server nothing. To be let in it takes the API server's word for all of it: that it is valid, for this audience, of this
//! very service account, and bound to the node that Hello names. Tokens are neither kept nor logged.

mod cache;
mod claims;
mod judge;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use assay_shared::NodeName;
use assay_shared::protocol::{Credential, RefusalReason};
use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::fleet::{AuthError, AuthFuture, Authenticator, ClientCertificates, Identity, Proof, Shown};
use cache::{Key, VerdictCache};
use claims::Claims;
use judge::{Vouched, judge};

/// Longest time a verdict is used again; also the least that a connection lasts.
pub const VERDICT_LIFE: Duration = Duration::from_secs(60);
/// How long a connection lasts at most before its token is looked at again: a pod that is gone, or a service account that
/// was deleted, is noticed by then.
pub const LONGEST_BELIEF: Duration = Duration::from_secs(3600);
/// Of what is left of a token's life, this part is not used up, more or less by node: agents that got their tokens in the same
/// moment do not all come back in another. The kubelet renews with a fifth of its life left.
const SPREAD: u32 = 10;

/// Who may report, and how the API server is asked.
#[derive(Debug, Clone)]
pub struct TokenReviewConfig {
    /// Audience that tokens must be made for.
    pub audience: String,
    /// Service account of the agents.
    pub service_account: ServiceAccount,
    /// How long one credential may take to be checked, waiting for its turn included. Below the fleet server's own deadline.
    pub deadline: Duration,
    /// Questions to the API server at once.
    pub reviews_at_once: usize,
    /// Verdicts kept. At 300 bytes each the default is 5 MB, and more than a fleet of 12,000 has tokens.
    pub verdicts: NonZeroUsize,
}

impl TokenReviewConfig {
    /// The usual limits, for this audience and account.
    #[must_use]
    pub fn new(audience: impl Into<String>, service_account: ServiceAccount) -> Self {
        Self {
            audience: audience.into(),
            service_account,
            deadline: Duration::from_secs(5),
            reviews_at_once: 16,
            verdicts: NonZeroUsize::MIN.saturating_add(16_383),
        }
    }
}

/// A service account: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

/// A text that names no service account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service account: expected NAMESPACE/NAME, such as assay-system/assay-agent, found {0:?}")]
pub struct InvalidServiceAccount(String);

impl std::str::FromStr for ServiceAccount {
    type Err = InvalidServiceAccount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |part: &str| {
            let sound =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !part.is_empty() && part.bytes().all(sound)
        };
        match text.split_once('/') {
            Some((namespace, name)) if part(namespace) && part(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(InvalidServiceAccount(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceAccount {
    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name there.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name as a user of the API server.
    #[must_use]
    pub fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// What time it is.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Of a clock that only goes forward, for what is kept here.
    fn monotonic(&self) -> Instant;
    /// Of the world's clock, for what tokens say of themselves.
    fn wall(&self) -> SystemTime;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// What was asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReviewCounts {
    /// Verdicts that the API server gave.
    pub answered: u64,
    /// Verdicts that were known.
    pub cached: u64,
    /// Questions that it did not answer.
    pub failed: u64,
    /// Tokens refused without asking.
    pub unasked: u64,
}

/// Authenticates by TokenReview.
pub struct TokenAuthenticator {
    config: TokenReviewConfig,
    user_name: String,
    reviews: Api<TokenReview>,
    turn: Semaphore,
    verdicts: Mutex<VerdictCache>,
    clock: Arc<dyn Clock>,
    answered: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
    unasked: AtomicU64,
}

impl fmt::Debug for TokenAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthenticator").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TokenAuthenticator {
    /// Asks through this client, which must be allowed to create TokenReviews (the role `system:auth-delegator`).
    #[must_use]
    pub fn new(client: Client, config: TokenReviewConfig) -> Self {
        Self::with_clock(client, config, Arc::new(SystemClock))
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(client: Client, config: TokenReviewConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            user_name: config.service_account.user_name(),
            reviews: Api::all(client),
            turn: Semaphore::new(config.reviews_at_once.max(1)),
            verdicts: Mutex::new(VerdictCache::new(config.verdicts, VERDICT_LIFE)),
            config,
            clock,
            answered: AtomicU64::default(),
            cached: AtomicU64::default(),
            failed: AtomicU64::default(),
            unasked: AtomicU64::default(),
        }
    }

    /// What was asked so far.
    #[must_use]
    pub fn counts(&self) -> ReviewCounts {
        ReviewCounts {
            answered: self.answered.load(Relaxed),
            cached: self.cached.load(Relaxed),
            failed: self.failed.load(Relaxed),
            unasked: self.unasked.load(Relaxed),
        }
    }

    async fn identify(&self, token: &str, claimed: &NodeName) -> Result<Identity, AuthError> {
        let claims = self.worth_asking(token, claimed).inspect_err(|_| count(&self.unasked))?;
        let vouched = self.verdict(token, &claims).await?;
        vouched.is_of(claimed)?;
        Ok(Identity {
            node: claimed.clone(),
            valid_until: self.valid_until(&claims, claimed),
            proof: Proof::Token(vouched.binding.clone()),
        })
    }

    /// What the token says of itself, unless that alone is a reason to refuse it.
    fn worth_asking(&self, token: &str, claimed: &NodeName) -> Result<Claims, AuthError> {
        let claims = Claims::unverified(token)?;
        claims.are_for(&self.config.audience, &self.user_name)?;
        claims.are_of(claimed)?;
        Ok(claims)
    }

    /// What the API server says of a token, now or not long ago.
    async fn verdict(&self, token: &str, claims: &Claims) -> Result<Arc<Vouched>, AuthError> {
        let key = key(token);
        // A token may expire while its verdict is kept.
        let expired = claims.expires() <= self.clock.wall();
        let known = (!expired).then(|| self.verdicts().get(&key, self.clock.monotonic())).flatten();
        if let Some(verdict) = known {
            count(&self.cached);
            return verdict;
        }
        let asked = timeout(self.config.deadline, self.ask(token)).await;
        let asked = asked.unwrap_or_else(|_| Err(unavailable("it did not answer in time")));
        let status = asked.inspect_err(|_| count(&self.failed))?;
        count(&self.answered);
        let verdict = judge(&status, &self.config.audience, &self.user_name).map(Arc::new);
        self.verdicts().insert(key, verdict.clone(), self.clock.monotonic());
        verdict
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, AuthError> {
        // Never closed.
        let _turn = self.turn.acquire().await.map_err(|_| unavailable("the scheduler stops"))?;
        let spec = TokenReviewSpec {
            audiences: Some(vec![self.config.audience.clone()]),
            token: Some(token.to_owned()),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        match self.reviews.create(&PostParams::default(), &review).await {
            Ok(review) => review.status.ok_or_else(|| unavailable("it answered without a status")),
            Err(kube::Error::Api(status)) => {
                debug!(code = status.code, "token review: {}", status.message);
                Err(unavailable(&format!("it answered {} {}", status.code, status.reason)))
            }
            Err(error) => {
                debug!("token review: {error}");
                Err(unavailable("it cannot be reached"))
            }
        }
    }

    fn verdicts(&self) -> std::sync::MutexGuard<'_, VerdictCache> {
        // Nothing in here panics half-way through a change.
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a token is believed that was just vouched for.
    fn valid_until(&self, claims: &Claims, node: &NodeName) -> Option<SystemTime> {
        let now = self.clock.wall();
        let left = claims.expires().duration_since(now).unwrap_or_default();
        // 0 to 255 of 255 tenths.
        let share = u32::from(key(node.as_str())[0]);
        let kept = left / (SPREAD * 255) * share;
        let believed = left.saturating_sub(kept).clamp(VERDICT_LIFE, LONGEST_BELIEF);
        now.checked_add(believed)
    }
}

impl Authenticator for TokenAuthenticator {
    fn client_certificates(&self) -> ClientCertificates {
        ClientCertificates::None
    }

    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> AuthFuture<'a> {
        match shown.credential {
            Credential::Token(token) => Box::pin(self.identify(token, shown.claimed)),
            Credential::Certificate => Box::pin(async {
                Err(AuthError::new(RefusalReason::NoCredential, "no token: certificates are not taken here"))
            }),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

fn key(text: &str) -> Key {
    let mut key = Key::default();
    // SHA-256 has as many bytes.
    key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    key
}

fn unavailable(why: &str) -> AuthError {
    let detail = format!("the API server could not be asked about the token: {why}");
    AuthError::new(RefusalReason::ValidatorUnavailable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_are_named_in_full() {
        let account: ServiceAccount = "assay-system/assay-agent".parse().unwrap();
        assert_eq!(account.user_name(), "system:serviceaccount:assay-system:assay-agent");
        assert_eq!(account.to_string(), "assay-system/assay-agent");
        for text in ["", "assay-agent", "/assay-agent", "assay-system/", "a/b/c", "a:b/c", "a/b:c", "A/b"] {
            assert!(text.parse::<ServiceAccount>().is_err(), "{text:?}");
        }
    }
}
