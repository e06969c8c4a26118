//! Taints of nodes and pools, and the tolerations of pods for them.

use assay_core::model::{Taint, TaintEffect, Toleration, TolerationOperator};

use super::document::Document;
use super::error::ManifestError;
use super::objects::{TaintObject, TolerationObject};
use super::syntax;

fn effect(document: &Document, field: &str, text: &str) -> Result<TaintEffect, ManifestError> {
    match text {
        "NoSchedule" => Ok(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Ok(TaintEffect::PreferNoSchedule),
        "NoExecute" => Ok(TaintEffect::NoExecute),
        other => {
            let problem = format!("expected NoSchedule, PreferNoSchedule or NoExecute, found {other:?}");
            Err(document.error(field, problem))
        }
    }
}

fn tolerate(document: &Document, path: &str, object: &TolerationObject) -> Result<Toleration, ManifestError> {
    let operator = match object.operator.as_str() {
        "" | "Equal" => TolerationOperator::Equal(object.value.clone()),
        "Exists" => TolerationOperator::Exists,
        other => {
            let problem = format!("expected Exists or Equal, found {other:?}");
            return Err(document.error(&format!("{path}.operator"), problem));
        }
    };
    if object.key.is_empty() && operator != TolerationOperator::Exists {
        return Err(
            document.error(&format!("{path}.key"), "expected a key, or operator Exists, found neither")
        );
    }
    if !object.key.is_empty() {
        syntax::check_key(document, || format!("{path}.key"), &object.key)?;
    }
    if let TolerationOperator::Equal(value) = &operator {
        syntax::check_value(document, || format!("{path}.value"), value)?;
    }
    let effect = match object.effect.as_str() {
        "" => None,
        text => Some(effect(document, &format!("{path}.effect"), text)?),
    };
    Ok(Toleration { key: Some(object.key.clone()).filter(|key| !key.is_empty()), operator, effect })
}

/// Tolerations of a pod.
pub(super) fn tolerations(
    document: &Document,
    path: &str,
    objects: &[TolerationObject],
) -> Result<Vec<Toleration>, ManifestError> {
    let one = |(index, object)| tolerate(document, &format!("{path}[{index}]"), object);
    objects.iter().enumerate().map(one).collect()
}

/// Taints of a node or a pool.
pub(super) fn taints(
    document: &Document,
    path: &str,
    objects: &[TaintObject],
) -> Result<Vec<Taint>, ManifestError> {
    let taint = |(index, object): (usize, &TaintObject)| {
        syntax::check_key(document, || format!("{path}[{index}].key"), &object.key)?;
        syntax::check_value(document, || format!("{path}[{index}].value"), &object.value)?;
        let effect = effect(document, &format!("{path}[{index}].effect"), &object.effect)?;
        Ok(Taint { key: object.key.clone(), value: object.value.clone(), effect })
    };
    objects.iter().enumerate().map(taint).collect()
}
