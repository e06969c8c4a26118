//! `SkuProfile` (`assay.dev/v1alpha1`): what machines of one size in one region on one image turned out to be.
//!
//! What the scheduler learned outlives it in these objects: the driver writes those that changed, and a new leader begins
//! with what it finds. Their fields stand at the top, so that the list of them is the file that `assay plan --profiles` takes:
//! `kubectl get --raw /apis/assay.dev/v1alpha1/skuprofiles`.

use assay_core::profile::{self, ProfileKey, SAMPLES_KEPT};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rule::Rule;

/// What machines of one size turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "assay.dev",
    version = "v1alpha1",
    kind = "SkuProfile",
    root = "SkuProfile",
    plural = "skuprofiles",
    shortname = "skup",
    category = "assay",
    no_spec,
    derive = "PartialEq",
    doc = "A SkuProfile is what machines of one size in one region on one image turned out to be, and what the next purchase counts on.",
    printcolumn(name = "Size", type_ = "string", json_path = ".sku"),
    printcolumn(name = "Region", type_ = "string", json_path = ".region"),
    printcolumn(
        name = "VMs",
        type_ = "integer",
        description = "distinct machines seen lately",
        json_path = ".summary.vms"
    ),
    printcolumn(
        name = "Memory",
        type_ = "string",
        description = "what the next purchase counts on",
        json_path = ".summary.memory"
    ),
    printcolumn(
        name = "Quarantined",
        type_ = "integer",
        description = "reports that cannot be",
        json_path = ".quarantined"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Image", type_ = "string", json_path = ".image", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct SkuProfileFields {
    /// The little of it that fits a line.
    pub summary: ProfileSummary,
    /// What it is about: sku, region and image.
    #[serde(flatten)]
    #[schemars(schema_with = "key")]
    pub key: ProfileKey,
    /// What was learned.
    #[serde(flatten)]
    #[schemars(schema_with = "learned")]
    pub profile: profile::SkuProfile,
}

/// The little of a profile that fits a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileSummary {
    /// Distinct machines seen, of those that are remembered.
    pub vms: u32,
    /// Memory that the next purchase counts on. Not there before enough machines agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

fn rules() -> Vec<Rule> {
    let same = "self.sku == oldSelf.sku && self.region == oldSelf.region && self.image == oldSelf.image";
    vec![Rule::new(same, "sku, region and image cannot be changed; make another SkuProfile")]
}

fn key(_: &mut SchemaGenerator) -> Schema {
    let text = |description: &str| json!({"type": "string", "description": description});
    json_schema!({
        "type": "object",
        "properties": {
            "sku": text("Size of the machines, such as Standard_D4s_v5."),
            "region": text("Region they are in."),
            "image": text("Image and kernel they run, which decide what is left of the memory."),
        },
        "required": ["sku", "region", "image"],
    })
}

fn learned(_: &mut SchemaGenerator) -> Schema {
    let count = |description: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": description});
    let moment = |what: &str| count(&format!("{what}, in milliseconds since 1970."));
    let sample = json!({
        "type": "object",
        "description": "What one machine showed.",
        "properties": {
            "vm": {"type": "string", "description": "The cloud's id of the machine, or its node's name."},
            "seen": moment("When it last reported"),
            "installed": count("Bytes of memory that the hypervisor gave."),
            "total": count("Bytes of memory that the kernel has."),
            "labels": {
                "type": "object",
                "description": "Its labels hardware.assay.dev/*, without those of memory.",
                "additionalProperties": {"type": "string"},
                "x-kubernetes-map-type": "atomic",
            },
        },
        "required": ["vm", "seen", "labels"],
    });
    json_schema!({
        "type": "object",
        "properties": {
            "reports": count("Reports taken into account, repeated ones included."),
            "quarantined": count("Reports put aside because they cannot be."),
            "samples": {
                "type": "array",
                "description": "The last report of each machine, the one that was heard of longest ago first.",
                "items": sample,
                "maxItems": SAMPLES_KEPT,
                "x-kubernetes-list-type": "atomic",
            },
            "settled": {
                "type": "object",
                "description": "Memory that the next purchase counts on.",
                "properties": {
                    "memory": count("Bytes of it."),
                    "since": moment("Since when"),
                },
                "required": ["memory", "since"],
            },
        },
        "required": ["reports", "quarantined", "samples"],
    })
}

/// Longest part of a name that is for people.
const READABLE_MAX: usize = 200;

impl SkuProfile {
    /// A profile as an object.
    #[must_use]
    pub fn of(key: &ProfileKey, profile: &profile::SkuProfile) -> Self {
        let memory = profile.memory().map(|bytes| format!("{}Mi", bytes.as_mib()));
        let vms = u32::try_from(profile.vms()).unwrap_or(u32::MAX);
        let summary = ProfileSummary { vms, memory };
        Self::new(&name(key), SkuProfileFields { summary, key: key.clone(), profile: profile.clone() })
    }
}

/// The name of the object for `key`: the same for the same key, another for another. Readable at its beginning.
#[must_use]
pub fn name(key: &ProfileKey) -> String {
    let readable = |text: &str| {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let text: String = text.chars().map(letter).collect();
        text.trim_matches('-').to_owned()
    };
    let mut parts: Vec<String> = [&key.sku, &key.region].into_iter().map(|text| readable(text)).collect();
    parts.retain(|part| !part.is_empty());
    let mut readable = parts.join(".");
    readable.truncate(READABLE_MAX);
    // What separates them is in no name, so no two keys make the same text.
    let whole = format!("{}\0{}\0{}", key.sku, key.region, key.image);
    let hash = super::hash::text(&whole);
    match readable.trim_end_matches(['.', '-']) {
        "" => format!("{hash:016x}"),
        readable => format!("{readable}.{hash:016x}"),
    }
}

#[cfg(test)]
mod tests {
    use assay_core::profile::ProfileStore;
    use proptest::prelude::*;

    use super::*;

    /// Lists of profiles as the store exports them.
    fn exported() -> impl Strategy<Value = serde_json::Value> {
        let sample = ("[a-z]{1,8}", 0_u64..1 << 50, proptest::option::of(0_u64..1 << 50), "v[1-4]").prop_map(
            |(vm, seen, total, isa)| {
                let mut sample =
                    json!({"vm": vm, "seen": seen, "labels": {"hardware.assay.dev/cpu-isa": isa}});
                if let Some(total) = total {
                    sample["total"] = total.into();
                }
                sample
            },
        );
        let settled = proptest::option::of((0_u64..1 << 50, 0_u64..1 << 50));
        let samples = proptest::collection::vec(sample, 0..5);
        let profile = ("[A-Za-z0-9_]{1,30}", "[a-z]{0,10}", "[ -~]{0,20}", 0_u64..1 << 50, samples, settled);
        let profile = profile.prop_map(|(sku, region, image, count, samples, settled)| {
            let mut profile = json!({
                "sku": sku, "region": region, "image": image, "reports": count, "quarantined": count / 2, "samples": samples,
            });
            if let Some((memory, since)) = settled {
                profile["settled"] = json!({"memory": memory, "since": since});
            }
            profile
        });
        proptest::collection::vec(profile, 0..6).prop_map(
            |items| json!({"apiVersion": "assay.dev/v1alpha1", "kind": "SkuProfileList", "items": items}),
        )
    }

    proptest! {
        #[test]
        fn what_was_learned_survives_as_objects(document in exported()) {
            let store = ProfileStore::import(&document.to_string()).unwrap();
            let objects: Vec<SkuProfile> = store.iter().map(|(key, profile)| SkuProfile::of(key, profile)).collect();
            let listed = json!({"apiVersion": "assay.dev/v1alpha1", "kind": "SkuProfileList", "items": objects});

            let restored: Vec<SkuProfile> = serde_json::from_value(listed["items"].clone()).unwrap();
            let restored = ProfileStore::of(restored.into_iter().map(|object| (object.spec.key, object.spec.profile)));
            prop_assert!(restored.iter().eq(store.iter()));

            let imported = ProfileStore::import(&listed.to_string()).unwrap();
            prop_assert!(imported.iter().eq(store.iter()), "the list of objects is a file of profiles");
        }
    }

    #[test]
    fn names_are_valid_and_differ_where_keys_do() {
        let key = |sku: &str, region: &str, image: &str| {
            name(&ProfileKey { sku: sku.into(), region: region.into(), image: image.into() })
        };
        let plain = key("Standard_D4s_v5", "eastus", "Ubuntu 24.04 6.8.0-1021-azure");
        assert!(plain.starts_with("standard-d4s-v5.eastus."), "{plain}");
        assert_eq!(plain, key("Standard_D4s_v5", "eastus", "Ubuntu 24.04 6.8.0-1021-azure"));
        let others = [
            key("Standard-D4s_v5", "eastus", "Ubuntu 24.04 6.8.0-1021-azure"),
            key("Standard_D4s_v5", "eastus", "Ubuntu 24.04 6.8.0-1022-azure"),
            key("Standard_D4s_v5", "", "eastusUbuntu 24.04 6.8.0-1021-azure"),
        ];
        assert!(others.iter().all(|other| *other != plain));
        for name in others.into_iter().chain([key("", "", ""), key(&"x".repeat(500), "é", "")]) {
            let part = |part: &str| {
                let ends = [part.chars().next(), part.chars().next_back()];
                ends.iter().all(|c| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
                    && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            };
            assert!(name.len() <= 253 && name.split('.').all(part), "{name}");
        }
    }
}
