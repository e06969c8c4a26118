//! Gangs: pods of a `PodGroup` of scheduler-plugins, or of an indexed Job that asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::model::{Gang, GangScope, Labels, Pod, PodId};
use assay_shared::labels::kubernetes;
use serde::Deserialize;
use serde_json::Value;

use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::objects::Meta;

/// Labels that name the group of a pod, the present one first.
const GROUP_LABELS: [&str; 2] = ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io"];

/// Annotation of an indexed Job whose pods are a gang.
pub(super) const GANG: &str = "assay.dev/gang";

/// Annotation of a pod or group that must stay in one domain of this node label; zones are understood.
const GANG_TOPOLOGY: &str = "assay.dev/gang-topology";

/// A `PodGroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodGroup {
    min_member: Option<u32>,
    scope: GangScope,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodGroupObject {
    spec: PodGroupSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodGroupSpec {
    min_member: Option<i64>,
}

impl PodGroup {
    pub(super) fn read(document: &Document) -> Result<Self, ManifestError> {
        let PodGroupObject { spec } = document.typed()?;
        let min_member = match spec.min_member {
            None => None,
            Some(count) => Some(u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
                let problem = format!("expected a whole number of 1 or more, found {count}");
                document.error("spec.minMember", problem)
            })?),
        };
        let meta = Meta::read(document)?;
        Ok(Self { min_member, scope: scope(document, &meta.annotations)? })
    }
}

fn scope(document: &Document, annotations: &Labels) -> Result<GangScope, ManifestError> {
    match annotations.get(GANG_TOPOLOGY).map(String::as_str) {
        None => Ok(GangScope::Cluster),
        Some(kubernetes::ZONE) => Ok(GangScope::Zone),
        Some(other) => {
            let field = format!("metadata.annotations[{GANG_TOPOLOGY}]");
            Err(document.error(&field, format!("expected {}, found {other:?}", kubernetes::ZONE)))
        }
    }
}

/// The name of the group that labels say, with its namespace.
pub(crate) fn group_of(namespace: &str, labels: &Labels) -> Option<String> {
    let name = GROUP_LABELS.iter().find_map(|key| labels.get(*key))?;
    (!name.is_empty()).then(|| format!("{namespace}/{name}"))
}

/// What is told of labels, standing at `path`, that name two groups.
pub(crate) fn two_groups(document: &Document, path: &str) -> Option<String> {
    let labels = document.value.pointer(&format!("/{}", path.replace('.', "/")))?;
    let [taken, other] = GROUP_LABELS.map(|key| labels.get(key).and_then(Value::as_str));
    let (taken, other) = (taken?, other?);
    let problem = format!("names two groups: {taken:?} is taken, not {other:?}");
    (taken != other).then(|| document.error(&format!("{path}[{}]", GROUP_LABELS[0]), problem).to_string())
}

/// What the pods of one gang say of it.
#[derive(Debug, Default)]
pub(crate) struct Members<'a> {
    /// Pods that a controller makes, which the size of a group that says none does not count yet.
    made: u32,
    /// The first pod that asks for one zone, and the first that does not.
    near: Option<&'a PodId>,
    anywhere: Option<&'a PodId>,
}

impl<'a> Members<'a> {
    /// Counts a pod in.
    pub(crate) fn add(&mut self, pod: &'a PodId, scope: GangScope, is_made: bool) {
        self.made = self.made.saturating_add(u32::from(is_made));
        let first = match scope {
            GangScope::Zone => &mut self.near,
            GangScope::Cluster => &mut self.anywhere,
        };
        first.get_or_insert(pod);
    }

    /// What all of them are taken to say: one pod that asks for one zone asks for all, and a group that says no size is as large
    /// as it is. And what is told where they do not agree.
    pub(crate) fn agree(&self, id: &Arc<str>, context: &Context) -> (Gang, Option<String>) {
        let told = self.near.zip(self.anywhere).map(|(near, anywhere)| {
            format!(
                "gang {id}: {near} has annotation {GANG_TOPOLOGY} and {anywhere} has not: all are kept in one zone"
            )
        });
        let of_group = context.pod_groups.get(&**id).and_then(|group| group.min_member);
        let stated = of_group.or_else(|| context.job_gangs.get(&**id).map(|gang| gang.min_member));
        let there = context.group_sizes.get(&**id).copied().unwrap_or(0);
        let min_member = stated.unwrap_or_else(|| there.saturating_add(self.made));
        let scope = if self.near.is_some() { GangScope::Zone } else { GangScope::Cluster };
        (Gang { id: Arc::clone(id), min_member, scope }, told)
    }
}

/// Makes pods of one gang agree on it, and tells where they do not. Pods from number `made` on are those that controllers make.
pub(super) fn settle(pods: &mut [Pod], made: usize, context: &Context) -> Vec<String> {
    let mut gangs: BTreeMap<Arc<str>, Members<'_>> = BTreeMap::new();
    for (index, pod) in pods.iter().enumerate() {
        let Some(gang) = &pod.gang else { continue };
        gangs.entry(Arc::clone(&gang.id)).or_default().add(&pod.id, gang.scope, index >= made);
    }
    let mut told = Vec::new();
    let mut agreed: BTreeMap<Arc<str>, Arc<Gang>> = BTreeMap::new();
    for (id, members) in gangs {
        let (gang, problem) = members.agree(&id, context);
        told.extend(problem);
        agreed.insert(id, Arc::new(gang));
    }
    for pod in pods {
        if let Some(gang) = &mut pod.gang
            && let Some(agreed) = agreed.get(&gang.id)
        {
            *gang = Arc::clone(agreed);
        }
    }
    told
}

/// The gang of a pod with these labels and annotations, before it has met the others.
pub(super) fn of_pod(
    document: &Document,
    context: &Context,
    namespace: &str,
    labels: &Labels,
    annotations: &Labels,
) -> Result<Option<Arc<Gang>>, ManifestError> {
    let Some(id) = group_of(namespace, labels) else { return Ok(None) };
    let group = context.pod_groups.get(&id);
    let min_member = group.and_then(|group| group.min_member).unwrap_or(1);
    let own = scope(document, annotations)?;
    let scope = if own == GangScope::Zone { own } else { group.map_or(own, |group| group.scope) };
    Ok(Some(Arc::new(Gang { id: id.into(), min_member, scope })))
}

/// The gang of a Job's pods, where it asks for one.
pub(super) fn of_job(
    document: &Document,
    meta: &Meta,
    indexed: bool,
    pods: u32,
) -> Result<Option<Arc<Gang>>, ManifestError> {
    let field = format!("metadata.annotations[{GANG}]");
    match meta.annotations.get(GANG).map(String::as_str) {
        None | Some("false") => Ok(None),
        Some("true") if indexed => Ok(Some(Arc::new(Gang {
            id: meta.pod_id().to_string().into(),
            min_member: pods,
            scope: scope(document, &meta.annotations)?,
        }))),
        Some("true") => Err(document.error(&field, "expected completionMode Indexed with it, found another")),
        Some(other) => {
            Err(document.error(&field, format!("expected \"true\" or \"false\", found {other:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_core::model::PodSpec;
    use serde_json::json;

    use super::*;

    const NEAR: &str = "topology.kubernetes.io/zone";

    fn document(kind: &str, value: Value) -> Document {
        Document { file: "-".to_owned(), number: 1, kind: kind.to_owned(), value }
    }

    fn group(spec: Value, annotations: Value) -> Result<PodGroup, String> {
        let value =
            json!({"kind": "PodGroup", "metadata": {"name": "g", "annotations": annotations}, "spec": spec});
        PodGroup::read(&document("PodGroup", value)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_group_says_how_many_and_how_near() {
        let near = group(json!({"minMember": 3}), json!({GANG_TOPOLOGY: NEAR})).unwrap();
        assert_eq!((near.min_member, near.scope), (Some(3), GangScope::Zone));
        let plain = group(json!({}), json!({})).unwrap();
        assert_eq!((plain.min_member, plain.scope), (None, GangScope::Cluster));
        assert!(
            group(json!({"minMember": 0}), json!({}))
                .unwrap_err()
                .contains("spec.minMember: expected a whole number")
        );
        let rack = group(json!({}), json!({GANG_TOPOLOGY: "rack"})).unwrap_err();
        assert!(
            rack.contains(
                "metadata.annotations[assay.dev/gang-topology]: expected topology.kubernetes.io/zone"
            ),
            "{rack}"
        );
    }

    #[test]
    fn the_present_label_is_taken_before_the_older_one() {
        let labels = |list: &[(&str, &str)]| {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Labels>()
        };
        assert_eq!(group_of("ns", &labels(&[(GROUP_LABELS[1], "old")])).as_deref(), Some("ns/old"));
        assert_eq!(
            group_of("ns", &labels(&[(GROUP_LABELS[1], "old"), (GROUP_LABELS[0], "new")])).as_deref(),
            Some("ns/new")
        );
        assert_eq!(group_of("ns", &labels(&[(GROUP_LABELS[0], "")])), None);
        let both = |one: &str, two: &str| {
            let labels = json!({GROUP_LABELS[0]: one, GROUP_LABELS[1]: two});
            two_groups(
                &document("Pod", json!({"metadata": {"name": "p", "labels": labels}})),
                "metadata.labels",
            )
        };
        assert_eq!(both("a", "a"), None);
        assert!(both("a", "b").unwrap().ends_with("names two groups: \"a\" is taken, not \"b\""));
    }

    #[test]
    fn members_of_one_gang_agree_on_it() {
        let member = |name: &str, scope| Pod {
            gang: Some(Arc::new(Gang { id: "default/g".into(), min_member: 1, scope })),
            ..Pod::new(PodId::new("default", name), Arc::new(PodSpec::default()))
        };
        let mut context = Context::default();
        context.group_sizes.insert("default/g".to_owned(), 2);
        let mut pods = [
            member("a", GangScope::Cluster),
            member("b", GangScope::Zone),
            member("made-0", GangScope::Cluster),
        ];
        let told = settle(&mut pods, 2, &context);
        // Two in the input, one that a controller makes.
        let gang = Gang { id: "default/g".into(), min_member: 3, scope: GangScope::Zone };
        assert!(pods.iter().all(|pod| pod.gang.as_deref() == Some(&gang)), "{pods:?}");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("gang default/g: default/b has annotation"), "{}", told[0]);
        assert!(settle(&mut pods, 2, &context).is_empty(), "what agrees is not told");
    }

    #[test]
    fn a_job_is_a_gang_where_it_says_so_and_has_indexes() {
        let read = |annotation: &str, indexed| {
            let value = json!({"kind": "Job", "metadata": {"name": "j", "annotations": {GANG: annotation}}});
            let document = document("Job", value);
            of_job(&document, &Meta::read(&document).unwrap(), indexed, 4).map_err(|error| error.problem)
        };
        assert_eq!(read("true", true).unwrap().unwrap().min_member, 4);
        assert_eq!(read("false", true).unwrap(), None);
        assert!(read("true", false).unwrap_err().starts_with("expected completionMode Indexed"));
        assert!(read("yes", true).unwrap_err().starts_with("expected \"true\" or \"false\""));
    }
}
