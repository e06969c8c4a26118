//! The definitions of Assay's kinds: that they are current, say what Karpenter's say, and agree with the reader of manifests and
//! with the types they are made from.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use assay_scheduler::kube::api::crd::{self, Definition};
use assay_scheduler::kube::api::{AKSNodeClass, AKSNodeClassSpec, NodeClaim, NodePool, hash};
use assay_scheduler::manifest::{Manifests, Source};
use assay_tests::{objects, schema};
use kube_cel::compile_schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn definitions() -> Vec<Definition> {
    crd::definitions().unwrap()
}

fn schema_of(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap();
    let named = |definition: &&Definition| definition.object["spec"]["names"]["kind"] == kind;
    definitions().iter().find(named).unwrap_or_else(|| panic!("no {kind}")).schema().clone()
}

/// Reads objects as the command line and the cluster's observer do.
fn read(objects: &[Value]) -> Result<Manifests, String> {
    let text = objects.iter().map(|object| format!("{object}\n")).collect();
    Manifests::parse(&[Source { name: "-".to_owned(), text }]).map_err(|error| error.to_string())
}

#[test]
fn the_files_are_current() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .expect("deploy/crds")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut expected: Vec<String> = definitions().into_iter().map(|definition| definition.file).collect();
    expected.sort();
    assert_eq!(files, expected);
    for definition in definitions() {
        let kept = std::fs::read_to_string(format!("{directory}/{}", definition.file)).unwrap();
        assert!(kept == definition.yaml().unwrap(), "{}: run `make crds`", definition.file);
    }
}

/// Every schema below `schema`, with its path.
fn each(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, below) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        each(below, &format!("{path}.{name}"), visit);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(name) {
            each(below, &format!("{path}.{name}"), visit);
        }
    }
}

#[test]
fn schemas_are_structural_and_every_field_is_explained() {
    for definition in definitions() {
        each(definition.schema(), &definition.file, &mut |path, schema| {
            let either = schema["x-kubernetes-int-or-string"] == true;
            assert!(either || schema["type"].is_string(), "{path} has no type");
            for name in ["nullable", "oneOf", "allOf", "not", "$ref", "title"] {
                assert!(schema.get(name).is_none(), "{path} has {name}");
            }
            assert!(schema.get("anyOf").is_none(), "{path} has anyOf");
            let values = schema["enum"].as_array();
            assert!(values.is_none_or(|values| values.iter().all(Value::is_string)), "{path}: {values:?}");
            let format = schema["format"].as_str().unwrap_or("int32");
            assert!(["int32", "int64", "date-time"].contains(&format), "{path} has the format {format}");
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let told = field["description"].as_str().is_some_and(|told| told.len() > 8);
                assert!(told || name == "spec" || name == "status", "{path}.{name} is not explained");
            }
        });
    }
}

#[test]
fn rules_compile_and_say_what_is_wrong_in_a_line() {
    for definition in definitions() {
        let compiled = compile_schema(definition.schema());
        assert!(!compiled.has_errors(), "{}: {:?}", definition.file, compiled.compilation_errors());
        each(definition.schema(), &definition.file, &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap();
                assert!(!message.contains('\n') && message.len() < 200, "{path}: {message}");
            }
        });
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

/// Amounts and times are written in one form, whichever they were given in.
fn canonical(mut object: Value) -> Value {
    fn walk(value: &mut Value, name: &str) {
        match value {
            Value::Object(fields) if matches!(name, "limits" | "requests") => {
                for amount in fields.values_mut() {
                    let quantity: assay_shared::Quantity = serde_json::from_value(amount.clone()).unwrap();
                    *amount = quantity.to_string().into();
                }
            }
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| walk(value, name)),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, name)),
            Value::String(text) if name == "duration" && text == "1h30m0s" => *text = "1h30m".to_owned(),
            _ => {}
        }
    }
    walk(&mut object, "");
    object
}

#[test]
fn valid_objects_are_admitted_read_and_kept_whole() {
    for (path, objects) in objects::valid().unwrap() {
        let path = path.display();
        for object in &objects {
            let schema = schema_of(object);
            assert_eq!(schema::problems(&schema, object, None), [""; 0], "{path}: {object}");
            assert_eq!(schema::problems(&schema, object, Some(object)), [""; 0], "{path}: {object} again");
            let stored = schema::stored(&schema, object);
            let kept = match object["kind"].as_str() {
                Some("NodePool") => round_trip::<NodePool>(&stored),
                Some("NodeClaim") => round_trip::<NodeClaim>(&stored),
                // One without a spec is no object of the type, and has a way of its own.
                _ if stored.get("spec").is_none() => {
                    assert_eq!(AKSNodeClassSpec::of(&stored).unwrap(), AKSNodeClassSpec::default());
                    continue;
                }
                _ => round_trip::<AKSNodeClass>(&stored),
            };
            let mut expected = canonical(stored);
            // Types have one version.
            expected["apiVersion"] = kept["apiVersion"].clone();
            // Where a list or an object is empty, it need not be written.
            if expected.pointer("/spec/limits") == Some(&json!({})) {
                expected["spec"].as_object_mut().unwrap().remove("limits");
            }
            assert_eq!(kept, expected, "{path}");
        }
        read(&objects).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn invalid_objects_are_refused_with_the_reason() {
    let known = objects::by_name().unwrap();
    for invalid in objects::invalid().unwrap() {
        let (valid, object) = invalid.made_from(&known).unwrap();
        let old = invalid.update.then_some(&valid);
        let problems = schema::problems(&schema_of(&object), &object, old);
        let told = problems.iter().any(|problem| problem.contains(&invalid.message));
        assert!(told, "{}: expected {:?}, found {problems:#?}", invalid.of, invalid.message);
        let refused = read(std::slice::from_ref(&object)).is_err();
        assert_eq!(
            refused,
            invalid.reader.is_none(),
            "the reader of manifests, {}: {}",
            invalid.of,
            invalid.message
        );
    }
}

#[test]
fn what_is_left_out_has_karpenters_defaults() {
    let class = json!({"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"});
    let pool = json!({"kind": "NodePool", "spec": {"template": {"spec": {"nodeClassRef": class, "requirements": []}}}});
    let pool = schema::stored(&schema_of(&pool), &pool);
    assert_eq!(
        pool["spec"]["disruption"],
        json!({"consolidateAfter": "0s", "consolidationPolicy": "WhenEmptyOrUnderutilized", "budgets": [{"nodes": "10%"}]})
    );
    assert_eq!(pool["spec"]["template"]["spec"]["expireAfter"], "720h");
    let claim = json!({"kind": "NodeClaim", "spec": {"nodeClassRef": class, "requirements": []}});
    assert_eq!(schema::stored(&schema_of(&claim), &claim)["spec"]["expireAfter"], "720h");
    let class = json!({"kind": "AKSNodeClass", "spec": {"kubelet": {}, "gpu": {}}});
    assert_eq!(
        schema::stored(&schema_of(&class), &class)["spec"],
        json!({
            "imageFamily": "Ubuntu",
            "osDiskSizeGB": 128,
            "gpu": {"mode": "Driver"},
            "kubelet": {
                "cpuManagerPolicy": "none",
                "topologyManagerPolicy": "none",
                "cpuCFSQuota": true,
                "cpuCFSQuotaPeriod": "100ms",
                "containerLogMaxSize": "50Mi",
                "containerLogMaxFiles": 5,
            },
        })
    );
}

#[test]
fn older_spellings_are_kept_by_the_schema_and_understood_with_a_warning() {
    let (_, objects) = objects::valid()
        .unwrap()
        .into_iter()
        .find(|(path, _)| path.ends_with("older-spellings.yaml"))
        .unwrap();
    // As the API server hands it out, defaults and all.
    let stored: Vec<Value> =
        objects.iter().map(|object| schema::stored(&schema_of(object), object)).collect();
    assert_eq!(stored[0]["spec"]["disruption"]["expireAfter"], "Never", "it is not dropped");
    assert_eq!(
        stored[0]["spec"]["template"]["spec"]["expireAfter"], "720h",
        "the newer place has its default"
    );
    let manifests = read(&stored).unwrap();
    let pool = &manifests.pools[0];
    assert_eq!(pool.expire_after, assay_core::model::Wait::Never, "a default says nothing against it");
    assert_eq!(
        pool.disruption.consolidation_policy,
        assay_core::model::ConsolidationPolicy::WhenEmptyOrUnderutilized
    );
    for expected in
        ["spec.disruption.expireAfter: older spelling", "spec.disruption.consolidationPolicy: older spelling"]
    {
        let told = manifests.warnings.iter().any(|warning| warning.contains(expected));
        assert!(told, "{expected}: {:?}", manifests.warnings);
    }
    // Whoever says both means the newer.
    let mut both = stored;
    both[0]["spec"]["template"]["spec"]["expireAfter"] = "24h".into();
    let after = std::time::Duration::from_secs(24 * 3600);
    assert_eq!(read(&both).unwrap().pools[0].expire_after, assay_core::model::Wait::After(after));
}

#[test]
fn hashes_are_those_that_karpenter_computes() {
    let path = objects::directory().join("hashes.json");
    let vectors: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(vectors.len() > 50, "{}", vectors.len());
    let mut read_by_us = 0;
    for vector in vectors {
        let object = &vector["object"];
        let hash = match object["kind"].as_str() {
            Some("NodePool") => {
                let pool: NodePool = serde_json::from_value(object.clone()).unwrap();
                hash::node_pool(&pool.spec.template)
            }
            _ => hash::aks_node_class(&AKSNodeClassSpec::of(object).unwrap()),
        };
        assert_eq!(vector["hash"], hash, "{object}");
        // Karpenter computes a hash of what its validation refuses, too.
        let Ok(manifests) = read(std::slice::from_ref(object)) else { continue };
        read_by_us += 1;
        let pools = manifests.pools.iter().map(|pool| &pool.template_hash);
        let classes = manifests.classes.iter().map(|class| &class.hash);
        assert!(pools.chain(classes).all(|read| read.as_ref() == Some(&hash)), "{object}");
    }
    assert!(read_by_us > 50, "{read_by_us}");
}

#[test]
fn a_claims_hash_counts_where_it_was_computed_as_ours_are() {
    let claim = |version: &str| {
        let mut claim = objects::by_name().unwrap()["NodeClaim/default-x7k2p"].clone();
        claim["metadata"]["annotations"]["karpenter.sh/nodepool-hash-version"] = version.into();
        read(&[claim]).unwrap().into_snapshot(|_| Vec::new()).node_claims.remove(0)
    };
    assert_eq!(claim("v3").template_hash.as_deref(), Some("1234"));
    assert_eq!(claim("v2").template_hash, None);
    assert_eq!(claim("v3").class_hash, None, "it has none");
}
