//! Default spread constraints of the cluster: a scheduler configuration, and the selectors that Services and controllers imply.

use assay_core::model::{Labels, Namespaces, NodeInclusion, PodSelector, TopologySpread, WhenUnsatisfiable};
use assay_core::requirement::Requirement;
use assay_shared::labels::kubernetes;
use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::error::ManifestError;
use super::objects::Meta;
use super::syntax;

/// Constraints for pods that have none of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct DefaultSpread {
    /// Topology key, largest skew, and whether it binds.
    constraints: Vec<(String, u32, WhenUnsatisfiable)>,
}

/// A Service, as far as it selects pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    namespace: String,
    selector: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceObject {
    spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    selector: Labels,
}

impl Service {
    /// A Service; `None` where it selects nothing.
    pub(super) fn read(document: &Document) -> Result<Option<Self>, ManifestError> {
        let ServiceObject { spec } = document.typed()?;
        syntax::check_labels(document, "spec.selector", &spec.selector)?;
        let namespace = Meta::read(document)?.pod_id().namespace.to_string();
        Ok((!spec.selector.is_empty()).then_some(Self { namespace, selector: spec.selector }))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    profiles: Vec<Profile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Profile {
    scheduler_name: String,
    plugin_config: Vec<PluginConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PluginConfig {
    name: String,
    args: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpreadArgs {
    defaulting_type: String,
    default_constraints: Vec<DefaultConstraint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DefaultConstraint {
    max_skew: i64,
    topology_key: String,
    when_unsatisfiable: String,
}

impl DefaultSpread {
    /// What a `KubeSchedulerConfiguration` says of the default scheduler's `PodTopologySpread` plugin.
    pub(super) fn read(document: &Document) -> Result<Self, ManifestError> {
        let configuration: Configuration = document.typed()?;
        let profiles = configuration.profiles.iter().enumerate();
        let mut ours = profiles
            .filter(|(_, one)| matches!(one.scheduler_name.as_str(), "" | "default-scheduler"))
            .flat_map(|(profile, one)| {
                one.plugin_config.iter().enumerate().map(move |(index, plugin)| (profile, index, plugin))
            });
        let Some((profile, index, plugin)) = ours.find(|(.., plugin)| plugin.name == "PodTopologySpread")
        else {
            return Ok(Self::default());
        };
        let path = format!("profiles[{profile}].pluginConfig[{index}].args");
        let args: SpreadArgs = document.typed_at(&path, &plugin.args)?;
        match args.defaulting_type.as_str() {
            // What the scheduler does where nobody says otherwise.
            "System" => {
                return Ok(Self {
                    constraints: vec![
                        (kubernetes::HOSTNAME.to_owned(), 3, WhenUnsatisfiable::ScheduleAnyway),
                        (kubernetes::ZONE.to_owned(), 5, WhenUnsatisfiable::ScheduleAnyway),
                    ],
                });
            }
            "" | "List" => {}
            other => {
                let problem = format!("expected System or List, found {other:?}");
                return Err(document.error(&format!("{path}.defaultingType"), problem));
            }
        }
        let mut constraints = Vec::new();
        for (index, one) in args.default_constraints.into_iter().enumerate() {
            let path = format!("{path}.defaultConstraints[{index}]");
            let skew = u32::try_from(one.max_skew).ok().filter(|skew| *skew > 0).ok_or_else(|| {
                let problem = format!("expected a whole number of 1 or more, found {}", one.max_skew);
                document.error(&format!("{path}.maxSkew"), problem)
            })?;
            let when = match one.when_unsatisfiable.as_str() {
                "DoNotSchedule" => WhenUnsatisfiable::DoNotSchedule,
                "ScheduleAnyway" => WhenUnsatisfiable::ScheduleAnyway,
                other => {
                    let problem = format!("expected DoNotSchedule or ScheduleAnyway, found {other:?}");
                    return Err(document.error(&format!("{path}.whenUnsatisfiable"), problem));
                }
            };
            if one.topology_key.is_empty() {
                let problem = "expected a node label, found none";
                return Err(document.error(&format!("{path}.topologyKey"), problem));
            }
            constraints.push((one.topology_key, skew, when));
        }
        Ok(Self { constraints })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.constraints.is_empty()
    }

    /// The constraints of a pod that has none: over the pods of the Services that select it and of its controller (`owner` is
    /// the selector of that). None where neither selects it.
    pub(super) fn of_pod<'a>(
        &self,
        services: impl IntoIterator<Item = &'a Service>,
        namespace: &str,
        labels: &Labels,
        owner: Option<&[Requirement]>,
    ) -> Vec<TopologySpread> {
        let selects = |service: &&Service| {
            service.namespace == namespace
                && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let mut selector: Vec<Requirement> = Vec::new();
        for service in services.into_iter().filter(selects) {
            selector.extend(
                service.selector.iter().map(|(key, value)| Requirement::is_in(key, [value.as_str()])),
            );
        }
        selector.extend(owner.into_iter().flatten().cloned());
        selector.sort_unstable();
        selector.dedup();
        if selector.is_empty() {
            return Vec::new();
        }
        let constraint = |(key, skew, when): &(String, u32, WhenUnsatisfiable)| TopologySpread {
            topology_key: key.clone(),
            max_skew: *skew,
            min_domains: 1,
            selector: PodSelector { namespaces: Namespaces::only(namespace), labels: Some(selector.clone()) },
            when_unsatisfiable: *when,
            node_affinity_policy: NodeInclusion::Honor,
            node_taints_policy: NodeInclusion::Ignore,
        };
        self.constraints.iter().map(constraint).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(args: &Value) -> Result<DefaultSpread, String> {
        let value = json!({"kind": "KubeSchedulerConfiguration", "profiles": [
            {"schedulerName": "mine", "pluginConfig": [{"name": "PodTopologySpread", "args": {"defaultingType": "No"}}]},
            {"pluginConfig": [{"name": "Other", "args": 7}, {"name": "PodTopologySpread", "args": args}]},
        ]});
        let kind = "KubeSchedulerConfiguration".to_owned();
        let document = Document { file: "-".to_owned(), number: 1, kind, value };
        DefaultSpread::read(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn constraints_are_those_of_the_default_scheduler() {
        let list = read(&json!({"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]}))
        .unwrap();
        assert_eq!(list.constraints, [("rack".to_owned(), 2, WhenUnsatisfiable::DoNotSchedule)]);
        let system = read(&json!({"defaultingType": "System"})).unwrap();
        let skews: Vec<u32> = system.constraints.iter().map(|(_, skew, _)| *skew).collect();
        assert_eq!(skews, [3, 5]);
        assert!(read(&json!({})).unwrap().is_empty());
        let wrong = [
            (json!({"defaultingType": "All"}), "args.defaultingType: expected System or List"),
            (
                json!({"defaultConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]}),
                "args.defaultConstraints[0].maxSkew: expected a whole number of 1 or more, found 0",
            ),
            (
                json!({"defaultConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]}),
                "args.defaultConstraints[0].topologyKey: expected a node label",
            ),
        ];
        for (args, expected) in wrong {
            let error = read(&args).unwrap_err();
            assert!(error.contains(&format!("profiles[1].pluginConfig[1].{expected}")), "{error}");
        }
    }

    #[test]
    fn a_pod_is_counted_with_those_of_its_services_and_its_owner() {
        let spread =
            DefaultSpread { constraints: vec![("rack".to_owned(), 1, WhenUnsatisfiable::ScheduleAnyway)] };
        let labels = |text: &str| Labels::from([("app".to_owned(), text.to_owned())]);
        let service =
            |namespace: &str, app: &str| Service { namespace: namespace.to_owned(), selector: labels(app) };
        let services = [service("ns", "web"), service("ns", "db"), service("other", "web")];
        let counted = |labels: &Labels, owner: Option<&[Requirement]>| {
            let list = spread.of_pod(&services, "ns", labels, owner);
            let selectors = list.into_iter().flat_map(|one| one.selector.labels.into_iter().flatten());
            selectors.map(|one| one.to_string()).collect::<Vec<_>>()
        };
        let tier = [Requirement::is_in("tier", ["front"])];
        assert_eq!(counted(&labels("web"), None), ["app In [web]"]);
        assert_eq!(counted(&labels("web"), Some(&tier)), ["app In [web]", "tier In [front]"]);
        assert_eq!(counted(&labels("api"), Some(&tier)), ["tier In [front]"]);
        assert!(spread.of_pod(&services, "ns", &labels("api"), None).is_empty(), "nobody selects it");
    }
}
