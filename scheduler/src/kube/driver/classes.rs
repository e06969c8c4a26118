//! What the driver puts on record of node classes and of what claims were made from: hashes, the finalizer, the status.
//!
//! ```text
//!  AKSNodeClass.spec --hash--> its annotations --(a claim is made)--> the claim's annotations; differ: drifted
//!  cloud: images, version, subnet --> status.conditions, Ready --> pools may buy
//!  deleted --> the finalizer holds it until no claim is of it
//! ```
//!
//! Hashes of another version than ours cannot be compared. Claims that carry such get ours instead of being replaced, as with
//! Karpenter, unless they had drifted already.

use assay_core::model::Timestamp;
use assay_shared::labels::{azure, karpenter};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch};
use kube::core::GroupVersionKind;
use kube::{Api, Error, ResourceExt};
use serde_json::{Value, json};
use tracing::info;

use super::records::RecordWriter;
use crate::cloud::ClassFacts;
use crate::kube::api::aks_node_class::{AKSNodeClassSpec, AKSNodeClassStatus, LocalDnsMode, LocalDnsState};
use crate::kube::api::conditions::{self, CLASS_READY, ClassCondition, Status};
use crate::kube::api::{AKSNodeClass, NodePool, hash, names};
use crate::kube::write::{ObjectRef, as_ourselves};

/// What decides whether a class is looked at anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClassNews {
    pub hash: Option<String>,
    pub deleting: bool,
    pub in_use: bool,
}

/// One of the two hashes.
struct Hashed {
    key: &'static str,
    version_key: &'static str,
    version: &'static str,
}

/// Claims in a part of a list.
const CLAIMS_AT_ONCE: u32 = 200;

const POOL: Hashed = Hashed {
    key: karpenter::NODEPOOL_HASH,
    version_key: karpenter::NODEPOOL_HASH_VERSION,
    version: hash::NODE_POOL_VERSION,
};

const CLASS: Hashed = Hashed {
    key: azure::AKS_NODE_CLASS_HASH,
    version_key: azure::AKS_NODE_CLASS_HASH_VERSION,
    version: hash::AKS_NODE_CLASS_VERSION,
};

impl Hashed {
    fn is_ours(&self, metadata: &ObjectMeta) -> bool {
        annotation(metadata, self.version_key) == Some(self.version)
    }

    fn is_on(&self, metadata: &ObjectMeta, hash: &str) -> bool {
        self.is_ours(metadata) && annotation(metadata, self.key) == Some(hash)
    }

    fn annotations(&self, hash: &str) -> Value {
        json!({self.key: hash, self.version_key: self.version})
    }
}

fn annotation<'m>(metadata: &'m ObjectMeta, key: &str) -> Option<&'m str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

impl RecordWriter {
    /// Puts the hash of a pool's template on the pool.
    pub(super) async fn write_pool_hash(&self, name: &str, hash: &str) -> Result<(), Error> {
        let pools: Api<NodePool> = Api::all(self.client.clone());
        let metadata = pools.get_metadata(name).await?.metadata;
        if POOL.is_on(&metadata, hash) {
            return Ok(());
        }
        if !POOL.is_ours(&metadata) {
            let of_pool = ListParams::default().labels(&format!("{}={name}", karpenter::NODEPOOL));
            let mut wanted = Some(of_pool.limit(CLAIMS_AT_ONCE));
            while let Some(claims) = self.part_of_claims(&mut wanted).await? {
                self.restamp(&POOL, hash, claims.iter()).await?;
            }
        }
        let patch = json!({"metadata": {"annotations": POOL.annotations(hash)}});
        pools.patch_metadata(name, &as_ourselves(), &Patch::Merge(&patch)).await.map(drop)
    }

    /// Gives claims our hash in place of one that was computed in another way.
    async fn restamp<'c>(
        &self,
        hashed: &Hashed,
        hash: &str,
        claims: impl Iterator<Item = &'c DynamicObject>,
    ) -> Result<(), Error> {
        for claim in claims.filter(|claim| !hashed.is_ours(&claim.metadata)) {
            let mut annotations = hashed.annotations(hash);
            if is_drifted(claim) {
                // What it was found to have drifted from is not known any more; it stays drifted.
                annotations = json!({hashed.version_key: hashed.version});
            }
            let name = claim.name_any();
            info!(claim = name, annotation = hashed.key, "hash of another version replaced");
            let patch = json!({"metadata": {"annotations": annotations}});
            match self.claims().patch_metadata(&name, &as_ourselves(), &Patch::Merge(&patch)).await {
                Err(Error::Api(status)) if status.code == 404 => {}
                done => drop(done?),
            }
        }
        Ok(())
    }

    /// Sees to a class.
    pub(super) async fn write_class(&self, name: &str, now: Timestamp) -> Result<(), Error> {
        let classes: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::erase::<AKSNodeClass>(&()));
        let class = classes.get(name).await?;
        if class.metadata.deletion_timestamp.is_some() {
            return self.let_class_go(&classes, &class).await;
        }
        let spec = AKSNodeClassSpec::of(&class.data);
        let mut metadata = json!({});
        if let Some(hash) =
            spec.as_ref().ok().map(hash::aks_node_class).filter(|hash| !CLASS.is_on(&class.metadata, hash))
        {
            if !CLASS.is_ours(&class.metadata) {
                let mut wanted = Some(ListParams::default().limit(CLAIMS_AT_ONCE));
                while let Some(claims) = self.part_of_claims(&mut wanted).await? {
                    let of_class = claims.iter().filter(|claim| is_of(claim, name));
                    self.restamp(&CLASS, &hash, of_class).await?;
                }
            }
            metadata["annotations"] = CLASS.annotations(&hash);
        }
        let mut finalizers = class.finalizers().to_vec();
        if !finalizers.iter().any(|one| one == names::CLASS_TERMINATION_FINALIZER) {
            finalizers.push(names::CLASS_TERMINATION_FINALIZER.to_owned());
            metadata["finalizers"] = json!(finalizers);
            // A list is replaced as a whole: this must be the one that was read.
            metadata["resourceVersion"] = json!(class.resource_version());
        }
        if metadata != json!({}) {
            let patch = json!({"metadata": metadata});
            classes.patch_metadata(name, &as_ourselves(), &Patch::Merge(&patch)).await?;
        }
        let facts = match &spec {
            Ok(spec) => match self.cloud.class(spec).await {
                Ok(facts) => Some(facts),
                // What was found before stays true until the cloud says otherwise.
                Err(error) => return Err(Error::Service(Box::new(error))),
            },
            Err(_) => None,
        };
        let before: AKSNodeClassStatus =
            serde_json::from_value(class.data["status"].clone()).unwrap_or_default();
        let after = status(&before, &spec, facts.as_ref(), class.metadata.generation, now);
        if after == before {
            return Ok(());
        }
        let patch = json!({"status": after});
        classes.patch_status(name, &as_ourselves(), &Patch::Merge(&patch)).await.map(drop)
    }

    /// Takes our finalizer off a class that is being deleted, once no claim is of it.
    async fn let_class_go(&self, classes: &Api<DynamicObject>, class: &DynamicObject) -> Result<(), Error> {
        let name = class.name_any();
        let kept: Vec<_> =
            class.finalizers().iter().filter(|one| *one != names::CLASS_TERMINATION_FINALIZER).collect();
        if kept.len() == class.finalizers().len() {
            return Ok(());
        }
        let mut holding: Vec<String> = Vec::new();
        let mut wanted = Some(ListParams::default().limit(CLAIMS_AT_ONCE));
        while let Some(claims) = self.part_of_claims(&mut wanted).await? {
            holding.extend(claims.iter().filter(|claim| is_of(claim, &name)).map(ResourceExt::name_any));
        }
        if !holding.is_empty() {
            let shown: Vec<&str> = holding.iter().take(5).map(String::as_str).collect();
            let more = if holding.len() > shown.len() { " and others" } else { "" };
            let message = format!(
                "{} NodeClaims are made from it and hold its deletion up: {}{more}",
                holding.len(),
                shown.join(", ")
            );
            self.told.inform(
                &ObjectRef::cluster("AKSNodeClass", &name),
                "WaitingOnNodeClaimTermination",
                message,
            );
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": class.resource_version(), "finalizers": kept}});
        classes.patch_metadata(&name, &as_ourselves(), &Patch::Merge(&patch)).await.map(drop)
    }

    /// The next part of a list of claims; whole, the list of a large cluster is hundreds of megabytes.
    async fn part_of_claims(
        &self,
        wanted: &mut Option<ListParams>,
    ) -> Result<Option<Vec<DynamicObject>>, Error> {
        let Some(params) = wanted.take() else { return Ok(None) };
        let list = self.claims().list(&params).await?;
        let rest = list.metadata.continue_.filter(|token| !token.is_empty());
        *wanted = rest.map(|token| params.continue_token(&token));
        Ok(Some(list.items))
    }

    fn claims(&self) -> Api<DynamicObject> {
        let claim = ApiResource::from_gvk(&GroupVersionKind::gvk(names::KARPENTER_GROUP, "v1", "NodeClaim"));
        Api::all_with(self.client.clone(), &claim)
    }
}

/// Whether a claim names a class.
fn is_of(claim: &DynamicObject, class: &str) -> bool {
    claim.data["spec"]["nodeClassRef"]["name"] == class
}

fn is_drifted(claim: &DynamicObject) -> bool {
    let conditions = claim.data["status"]["conditions"].as_array();
    let is_it = |one: &Value| one["type"] == "Drifted" && one["status"] == "True";
    conditions.into_iter().flatten().any(is_it)
}

/// The status of a class: what of it is valid, and what the cloud has for it.
fn status(
    before: &AKSNodeClassStatus,
    spec: &Result<AKSNodeClassSpec, serde_json::Error>,
    facts: Option<&ClassFacts>,
    generation: Option<i64>,
    now: Timestamp,
) -> AKSNodeClassStatus {
    let mut after = before.clone();
    let known = &mut after.conditions;
    let mut set = |kind: ClassCondition, found: Result<(), (Status, &'static str, String)>| {
        let told = match &found {
            Ok(()) => (Status::True, "", ""),
            Err((status, reason, message)) => (*status, *reason, message.as_str()),
        };
        conditions::set(known, kind.as_str(), told, generation, now);
    };
    let refused =
        |found: &Result<(), String>, reason| found.clone().map_err(|why| (Status::False, reason, why));
    let (Ok(spec), Some(facts)) = (spec, facts) else {
        let why = spec.as_ref().err().map(ToString::to_string).unwrap_or_default();
        set(ClassCondition::ValidationSucceeded, Err((Status::False, "NodeClassValidationFailed", why)));
        conditions::set_ready(&mut after.conditions, &CLASS_READY, generation, now);
        return after;
    };
    set(ClassCondition::ValidationSucceeded, Ok(()));
    let images = facts.images.as_ref().map(drop).map_err(Clone::clone);
    set(ClassCondition::ImagesReady, refused(&images, "ImagesNotFound"));
    let version = facts.kubernetes_version.as_ref().map(drop).map_err(Clone::clone);
    set(ClassCondition::KubernetesVersionReady, refused(&version, "KubernetesVersionUnknown"));
    set(ClassCondition::SubnetsReady, refused(&facts.subnet, "SubnetNotFound"));
    set(ClassCondition::LocalDnsReady, Ok(()));
    if let Ok(images) = &facts.images {
        after.images.clone_from(images);
    }
    if let Ok(version) = &facts.kubernetes_version {
        after.local_dns_state = Some(local_dns(spec, version, before.local_dns_state));
        after.kubernetes_version = Some(version.clone());
    }
    conditions::set_ready(&mut after.conditions, &CLASS_READY, generation, now);
    after
}

/// Whether nodes have a DNS cache. Where it is only preferred, it is begun with from Kubernetes 1.36 on, and not taken away.
fn local_dns(spec: &AKSNodeClassSpec, version: &str, before: Option<LocalDnsState>) -> LocalDnsState {
    let minor = || version.trim_start_matches('v').split('.').nth(1)?.parse::<u32>().ok();
    let enabled = match spec.local_dns.as_ref().map(|dns| dns.mode) {
        Some(LocalDnsMode::Required) => true,
        Some(LocalDnsMode::Preferred) => {
            before == Some(LocalDnsState::Enabled) || minor().is_some_and(|minor| minor >= 36)
        }
        Some(LocalDnsMode::Disabled) | None => false,
    };
    if enabled { LocalDnsState::Enabled } else { LocalDnsState::Disabled }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ClassFacts {
        ClassFacts { images: Ok(Vec::new()), kubernetes_version: Ok("1.36.3".to_owned()), subnet: Ok(()) }
    }

    fn ready(status: &AKSNodeClassStatus) -> (&str, &str) {
        let ready = status.conditions.iter().find(|one| one.type_ == "Ready").unwrap();
        (&ready.status, &ready.reason)
    }

    #[test]
    fn a_class_is_ready_when_all_that_machines_are_made_from_is_there() {
        let spec = Ok(AKSNodeClassSpec::default());
        let cases = [
            (facts(), ("True", "Ready")),
            (ClassFacts { images: Err("none for FIPS".to_owned()), ..facts() }, ("False", "ImagesReady")),
            (ClassFacts { subnet: Err("is gone".to_owned()), ..facts() }, ("False", "SubnetsReady")),
            (
                ClassFacts { kubernetes_version: Err("no answer".to_owned()), ..facts() },
                ("False", "KubernetesVersionReady"),
            ),
        ];
        for (facts, expected) in cases {
            let before = AKSNodeClassStatus::default();
            let after = status(&before, &spec, Some(&facts), Some(1), Timestamp(1_000));
            assert_eq!(ready(&after), expected, "{facts:?}");
            let again = status(&after, &spec, Some(&facts), Some(1), Timestamp(9_000));
            assert_eq!(again, after, "the same again is not written again");
        }
        let odd = serde_json::from_value::<AKSNodeClassSpec>(json!({"osDiskSizeGB": "large"}));
        let after = status(&AKSNodeClassStatus::default(), &odd, None, Some(1), Timestamp(0));
        assert_eq!(ready(&after), ("False", "ValidationSucceeded"));
    }

    #[test]
    fn a_dns_cache_that_is_preferred_comes_with_kubernetes_1_36_and_stays() {
        let spec = |mode: &str| {
            serde_json::from_value(
                json!({"localDNS": {"mode": mode, "vnetDNSOverrides": [], "kubeDNSOverrides": []}}),
            )
            .unwrap()
        };
        let cases = [
            ("Preferred", "1.35.9", None, LocalDnsState::Disabled),
            ("Preferred", "v1.36.0", None, LocalDnsState::Enabled),
            ("Preferred", "1.35.9", Some(LocalDnsState::Enabled), LocalDnsState::Enabled),
            ("Required", "1.30.0", None, LocalDnsState::Enabled),
            ("Disabled", "1.36.0", Some(LocalDnsState::Enabled), LocalDnsState::Disabled),
        ];
        for (mode, version, before, expected) in cases {
            assert_eq!(local_dns(&spec(mode), version, before), expected, "{mode} {version} {before:?}");
        }
        assert_eq!(local_dns(&AKSNodeClassSpec::default(), "1.36.0", None), LocalDnsState::Disabled);
    }

    #[test]
    fn hashes_of_another_version_are_not_ours() {
        let metadata = |version: &str| ObjectMeta {
            annotations: Some(
                [(POOL.key.to_owned(), "7".to_owned()), (POOL.version_key.to_owned(), version.to_owned())]
                    .into(),
            ),
            ..ObjectMeta::default()
        };
        assert!(POOL.is_on(&metadata("v3"), "7") && !POOL.is_on(&metadata("v3"), "8"));
        assert!(!POOL.is_ours(&metadata("v2")) && !POOL.is_ours(&ObjectMeta::default()));
    }
}
