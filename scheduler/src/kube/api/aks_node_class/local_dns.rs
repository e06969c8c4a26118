//! The DNS cache on each node of a class.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::period::Period;
use super::super::rule::Rule;
use super::super::texts::texts;

/// A DNS cache on each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalDns {
    /// Whether nodes have it: where the version of Kubernetes allows it (Preferred), always (Required) or never (Disabled).
    pub mode: LocalDnsMode,
    /// Zones as the nodes ask for them, and pods with the DNS policy Default.
    #[serde(rename = "vnetDNSOverrides")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["zone"]))]
    #[schemars(extend("x-kubernetes-validations" = vnet_rules()))]
    pub vnet_dns_overrides: Vec<LocalDnsZoneOverride>,
    /// Zones as pods with the DNS policy ClusterFirst ask for them.
    #[serde(rename = "kubeDNSOverrides")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["zone"]))]
    #[schemars(extend("x-kubernetes-validations" = kube_rules()))]
    pub kube_dns_overrides: Vec<LocalDnsZoneOverride>,
}

fn kube_rules() -> Vec<Rule> {
    vec![Rule::new(
        "self.exists(x, x.zone == '.') && self.exists(x, x.zone == 'cluster.local')",
        "zones . and cluster.local must both be listed",
    )]
}

fn vnet_rules() -> Vec<Rule> {
    let mut rules = kube_rules();
    rules.push(Rule::new(
        "!self.exists(x, x.zone == '.' && x.forwardDestination == 'ClusterCoreDNS')",
        "zone . of vnetDNSOverrides cannot be forwarded to ClusterCoreDNS",
    ));
    rules.push(Rule::new(
        "!self.exists(x, x.zone != '.' && !x.zone.endsWith('cluster.local') && x.forwardDestination == 'ClusterCoreDNS')",
        "of vnetDNSOverrides only zones of cluster.local can be forwarded to ClusterCoreDNS",
    ));
    rules
}

/// How one zone is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = zone_rules()))]
pub struct LocalDnsZoneOverride {
    /// The zone: `.`, `cluster.local`, or a domain.
    #[schemars(length(min = 1, max = 254), regex(pattern = ZONE))]
    pub zone: String,
    /// Which queries are logged: those that fail (Error), or all (Log).
    pub query_logging: QueryLogging,
    /// How the server is asked.
    pub protocol: Protocol,
    /// Who is asked: the cluster's DNS, or the virtual network's.
    pub forward_destination: ForwardDestination,
    /// Which of several servers is asked.
    pub forward_policy: ForwardPolicy,
    /// Queries that may be open at once.
    #[schemars(range(min = 0))]
    pub max_concurrent: i32,
    /// How long answers are kept at most.
    pub cache_duration: Period,
    /// How long an answer may be used after its time, where no server answers.
    pub serve_stale_duration: Period,
    /// When an answer is used after its time: once no server answered (Verify), at once (Immediate), or never (Disable).
    pub serve_stale: ServeStale,
}

/// A domain, with or without a dot at its end, or the root.
const ZONE: &str = r"^(\.|[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*\.?)$";

fn zone_rules() -> Vec<Rule> {
    vec![
        Rule::new(
            "!(self.zone.endsWith('cluster.local') && self.forwardDestination == 'VnetDNS')",
            "zones of cluster.local cannot be forwarded to VnetDNS, which does not know them",
        )
        .naming("self.zone"),
        Rule::new(
            "!(self.serveStale == 'Verify' && self.protocol == 'ForceTCP')",
            "serveStale Verify does not go with protocol ForceTCP",
        )
        .naming("self.zone"),
    ]
}

texts! {
    /// Whether nodes have a DNS cache.
    LocalDnsMode { Preferred = "Preferred", Required = "Required", Disabled = "Disabled" }
    /// Which queries are logged.
    QueryLogging { Error = "Error", Log = "Log" }
    /// How a server is asked.
    Protocol { PreferUdp = "PreferUDP", ForceTcp = "ForceTCP" }
    /// Who is asked.
    ForwardDestination { ClusterCoreDns = "ClusterCoreDNS", VnetDns = "VnetDNS" }
    /// Which of several servers is asked.
    ForwardPolicy { Sequential = "Sequential", RoundRobin = "RoundRobin", Random = "Random" }
    /// When an answer is used after its time.
    ServeStale { Verify = "Verify", Immediate = "Immediate", Disable = "Disable" }
}
