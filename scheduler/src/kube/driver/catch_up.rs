//! Before a new leader decides: every claim that an earlier one made must be known to it, and none that is gone.
//!
//! A watch may be behind by as long as it is cut. Whoever decided then would buy once more what was bought last, or buy anew
//! what was just let go. So the API server is asked which claims there are, after the last write of the earlier term was
//! answered, and the watch is waited for until it says the same.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use tokio::time::sleep;
use tracing::{debug, info};

use super::Driver;
use crate::kube::api::names;
use crate::kube::observe::Kind;

/// Pause before the API server is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Claims in a part of a list.
const CLAIMS_AT_ONCE: u32 = 500;

impl Driver {
    /// Waits until the claims that are watched are those that there are; says whether it came to that within the term.
    pub(super) async fn catch_up(&mut self, term: u64) -> bool {
        self.parts.writer.quiet().await;
        let mut told = false;
        while self.parts.leadership.borrow().term(tokio::time::Instant::now()) == Some(term) {
            self.parts.health.turned();
            match claims(&self.parts.client).await {
                Ok(there) => {
                    let known = self.parts.observer.store().names(Kind::NodeClaim);
                    let known: BTreeSet<&str> = known.map(|id| &*id.name).collect();
                    if known.iter().copied().eq(there.iter().map(String::as_str)) {
                        return true;
                    }
                    if !std::mem::replace(&mut told, true) {
                        info!(known = known.len(), there = there.len(), "waits for the watch of claims");
                    }
                }
                Err(error) => debug!(%error, "claims are not listed yet"),
            }
            let more = async {
                self.parts.observer.changed().await;
                self.observed();
            };
            tokio::select! {
                () = more => {}
                () = sleep(PAUSE) => {}
            }
        }
        false
    }
}

/// Names of the claims that the API server has now.
async fn claims(client: &Client) -> Result<BTreeSet<String>, kube::Error> {
    let claim = ApiResource::from_gvk(&GroupVersionKind::gvk(names::KARPENTER_GROUP, "v1", "NodeClaim"));
    let claims: Api<DynamicObject> = Api::all_with(client.clone(), &claim);
    let mut there = BTreeSet::new();
    let mut wanted = Some(ListParams::default().limit(CLAIMS_AT_ONCE));
    while let Some(params) = wanted.take() {
        let part = match claims.list_metadata(&params).await {
            // Nobody has defined the kind.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(BTreeSet::new()),
            part => part?,
        };
        there.extend(part.items.into_iter().filter_map(|claim| claim.metadata.name));
        let rest = part.metadata.continue_.filter(|token| !token.is_empty());
        wanted = rest.map(|token| params.continue_token(&token));
    }
    Ok(there)
}
