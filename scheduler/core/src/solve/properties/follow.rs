//! A solver that followed a cluster decides as one that has just read it, and a ledger that did refuses the same plans.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use proptest::prelude::*;

use super::after::{after, summary};
use super::cluster::{Kind, clusters, kind, of_kind, options};
use super::taint;
use super::together::config;
use crate::check::{Ledger, check};
use crate::model::{
    Change, ClaimState, DaemonSet, Market, Node, NodeClaim, Plan, Pod, PodPhase, Snapshot, Timestamp,
};
use crate::solve::testing::*;
use crate::solve::{SolveOptions, Warm, solve};

/// Something that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    PodsCome(Box<Kind>),
    PodBound {
        pod: usize,
        node: usize,
    },
    PodEnds {
        pod: usize,
    },
    PodGoes {
        pod: usize,
    },
    PodGone {
        pod: usize,
    },
    NodeJoins {
        cores: u64,
        zone: usize,
        started: bool,
    },
    NodeChanges {
        node: usize,
        how: usize,
    },
    NodeLeaves {
        node: usize,
    },
    ClaimJoins {
        claim: usize,
        started: bool,
    },
    ClaimEnds {
        claim: usize,
    },
    ClaimGone {
        claim: usize,
    },
    /// Somebody asks where the pods of a node would go without it, and nothing comes of it.
    LookedAtWithout {
        node: usize,
    },
    /// The pods that wait are placed, and the plan is carried out.
    Planned,
    DaemonSetComes {
        cpu: u64,
        port: bool,
    },
    OfferGoes {
        offer: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let some = || 0_usize..1_000;
    prop_oneof![
        2 => kind().prop_map(|kind| Step::PodsCome(Box::new(Kind { gang: None, ..kind }))),
        1 => kind().prop_map(|kind| Step::PodsCome(Box::new(kind))),
        3 => (some(), some()).prop_map(|(pod, node)| Step::PodBound { pod, node }),
        1 => some().prop_map(|pod| Step::PodEnds { pod }),
        1 => some().prop_map(|pod| Step::PodGoes { pod }),
        2 => some().prop_map(|pod| Step::PodGone { pod }),
        2 => (2_u64..17, 0_usize..5, any::<bool>())
            .prop_map(|(cores, zone, started)| Step::NodeJoins { cores, zone, started }),
        2 => (some(), some()).prop_map(|(node, how)| Step::NodeChanges { node, how }),
        1 => some().prop_map(|node| Step::NodeLeaves { node }),
        2 => (some(), any::<bool>()).prop_map(|(claim, started)| Step::ClaimJoins { claim, started }),
        1 => some().prop_map(|claim| Step::ClaimEnds { claim }),
        1 => some().prop_map(|claim| Step::ClaimGone { claim }),
        2 => some().prop_map(|node| Step::LookedAtWithout { node }),
        4 => Just(Step::Planned),
        1 => (1_u64..300, any::<bool>()).prop_map(|(cpu, port)| Step::DaemonSetComes { cpu, port }),
        1 => some().prop_map(|offer| Step::OfferGoes { offer }),
    ]
}

/// A snapshot, and a solver that is told of its changes.
struct Followed {
    snapshot: Snapshot,
    warm: Warm,
    ledger: Ledger,
    made: usize,
    options: SolveOptions,
}

/// What of `list` a number chooses.
fn chosen<T>(list: &[T], number: usize) -> Option<usize> {
    number.checked_rem(list.len())
}

impl Followed {
    fn tell(&mut self, change: Change) {
        // Twice is the same as once.
        for _ in 0..2 {
            self.ledger.apply(&change);
            self.warm.apply(change.clone());
        }
    }

    fn set_market(&mut self) {
        self.ledger.set_market(Market::of(&self.snapshot));
        self.warm.set_market(Market::of(&self.snapshot));
    }

    fn tell_pod(&mut self, index: usize) {
        self.tell(Change::Pod(Arc::new(self.snapshot.pods[index].clone())));
    }

    fn tell_node(&mut self, index: usize) {
        self.tell(Change::Node(Arc::new(self.snapshot.nodes[index].clone())));
    }

    fn tell_claim(&mut self, index: usize) {
        self.tell(Change::Claim(Arc::new(self.snapshot.node_claims[index].clone())));
    }

    fn add_node(&mut self, node: Node) {
        self.snapshot.nodes.push(node);
        self.tell_node(self.snapshot.nodes.len() - 1);
    }

    fn pending(&self) -> Vec<&Pod> {
        self.snapshot.pods.iter().filter(|pod| pod.is_pending()).collect()
    }

    /// Does what a step says; the plan of both where it is to plan.
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.made += 1;
        let snapshot = &mut self.snapshot;
        match step {
            Step::PodsCome(kind) => {
                let pods = of_kind(self.made, kind, "came");
                for pod in pods {
                    snapshot.pods.push(pod.clone());
                    let change = Change::Pod(Arc::new(pod));
                    self.ledger.apply(&change);
                    self.warm.apply(change);
                }
            }
            Step::PodBound { pod, node } => {
                let (Some(pod), Some(node)) = (chosen(&snapshot.pods, *pod), chosen(&snapshot.nodes, *node))
                else {
                    return Ok(());
                };
                snapshot.pods[pod].node = Some(Arc::clone(&snapshot.nodes[node].name));
                snapshot.pods[pod].phase = PodPhase::Running;
                self.tell_pod(pod);
            }
            Step::PodEnds { pod } | Step::PodGoes { pod } => {
                let Some(pod) = chosen(&snapshot.pods, *pod) else { return Ok(()) };
                match step {
                    Step::PodEnds { .. } => snapshot.pods[pod].phase = PodPhase::Finished,
                    _ => snapshot.pods[pod].terminating = Some(Timestamp(1)),
                }
                self.tell_pod(pod);
            }
            Step::PodGone { pod } => {
                let Some(pod) = chosen(&snapshot.pods, *pod) else { return Ok(()) };
                let pod = snapshot.pods.swap_remove(pod);
                self.tell(Change::PodGone(pod.id));
            }
            Step::NodeJoins { cores, zone, started } => {
                let name = format!("late-{}", self.made);
                let zone = ["z-1", "z-2", "z-3", "z-9", "0"][*zone];
                let mut own = vec![(kubernetes::ZONE, zone), (kubernetes::HOSTNAME, name.as_str())];
                if !started {
                    own.push((karpenter::NODEPOOL, "pool-0"));
                }
                self.add_node(node(&name, *cores, cores * 4, &own));
            }
            Step::NodeChanges { node, how } => {
                let Some(index) = chosen(&snapshot.nodes, *node) else { return Ok(()) };
                let node = &mut snapshot.nodes[index];
                match how % 8 {
                    0 => node.unschedulable = !node.unschedulable,
                    1 => node.ready = !node.ready,
                    2 => node.taints.push(taint()),
                    3 => node.taints.clear(),
                    4 => drop(node.labels.insert(kubernetes::ZONE.to_owned(), format!("z-{}", how % 3 + 1))),
                    5 => drop(node.labels.insert("team".to_owned(), "b".to_owned())),
                    6 => drop(node.labels.insert(karpenter::INITIALIZED.to_owned(), "true".to_owned())),
                    _ => node.allocatable.pods = 3,
                }
                self.tell_node(index);
            }
            Step::NodeLeaves { node } => {
                let Some(index) = chosen(&snapshot.nodes, *node) else { return Ok(()) };
                let node = snapshot.nodes.swap_remove(index);
                self.tell(Change::NodeGone(node.name));
            }
            Step::ClaimJoins { claim, started } => {
                let Some(index) = chosen(&snapshot.node_claims, *claim) else { return Ok(()) };
                let claim = &mut snapshot.node_claims[index];
                if claim.node.is_some() {
                    return Ok(());
                }
                let joined = joined(claim, *started);
                claim.node = Some(Arc::clone(&joined.name));
                self.tell_claim(index);
                self.add_node(joined);
            }
            Step::ClaimEnds { claim } => {
                let Some(index) = chosen(&snapshot.node_claims, *claim) else { return Ok(()) };
                snapshot.node_claims[index].state = ClaimState::Terminating;
                self.tell_claim(index);
            }
            Step::ClaimGone { claim } => {
                let Some(index) = chosen(&snapshot.node_claims, *claim) else { return Ok(()) };
                let claim = snapshot.node_claims.swap_remove(index);
                self.tell(Change::ClaimGone(claim.name));
            }
            Step::LookedAtWithout { node } => return self.look_without(*node),
            Step::Planned => return self.plan(),
            Step::DaemonSetComes { cpu, port } => {
                let mut spec = spec(*cpu, 50);
                if *port {
                    let port =
                        crate::model::HostPort { ip: None, port: 80, protocol: crate::model::Protocol::Tcp };
                    spec.host_ports.push(port);
                }
                let set: DaemonSet = daemon_set(&format!("daemon-{}", self.made), &spec);
                snapshot.daemon_sets.push(set);
                self.set_market();
            }
            Step::OfferGoes { offer } => {
                for types in snapshot.instance_types.values_mut() {
                    let types = Arc::make_mut(types);
                    let Some(one) = chosen(types, *offer) else { continue };
                    let offerings = &mut types[one].offerings;
                    let Some(offering) = chosen(offerings, *offer) else { continue };
                    offerings[offering].available = !offerings[offering].available;
                }
                self.set_market();
            }
        }
        Ok(())
    }

    /// Compares what both decide where a node is set aside: the other has none of it.
    fn look_without(&mut self, node: usize) -> Result<(), TestCaseError> {
        let Some(index) = chosen(&self.snapshot.nodes, node) else { return Ok(()) };
        let name = Arc::clone(&self.snapshot.nodes[index].name);
        let mut without = self.snapshot.clone();
        without.pods.retain(|pod| !pod.is_pending());
        let here = |pod: &Pod| pod.node.as_ref() == Some(&name);
        without.pods.retain(|pod| !here(pod) || pod.is_reschedulable());
        for pod in without.pods.iter_mut().filter(|pod| here(pod)) {
            (pod.node, pod.phase) = (None, PodPhase::Pending);
        }
        without.nodes.remove(index);
        let pods: Vec<&Pod> = without.pods.iter().filter(|pod| pod.is_pending()).collect();
        let options = SolveOptions { steps: 2_000_000, ..SolveOptions::default() };
        self.warm.set_aside(&name);
        let plan = self.warm.decide(&pods, &options);
        self.warm.put_back(&name);
        // A node of a pool still counts against limits, and pods of gangs and with volumes still are among those that run.
        let node = &self.snapshot.nodes[index];
        let pooled = node.label(karpenter::NODEPOOL).is_some()
            || self
                .snapshot
                .node_claims
                .iter()
                .any(|claim| claim.node.as_ref() == Some(&name) || claim.name == name);
        let plain = pods.iter().all(|pod| pod.gang.is_none() && pod.volumes.is_empty());
        if !pooled && plain {
            let fresh = solve(&without, &options);
            prop_assert_eq!(summary(&without, &plan), summary(&without, &fresh));
            prop_assert_eq!(plan, fresh);
        }
        Ok(())
    }

    /// Compares what both decide, and carries it out.
    fn plan(&mut self) -> Result<(), TestCaseError> {
        // Names of claims are unique within a plan only.
        let options = SolveOptions { first_claim: 100 * self.made, ..self.options.clone() };
        let fresh = solve(&self.snapshot, &options);
        let pending = self.snapshot.pods.iter().filter(|pod| pod.is_pending()).collect::<Vec<_>>();
        let plan = self.warm.decide(&pending, &options);
        if plan != fresh {
            let (warm, cold) = (summary(&self.snapshot, &plan), summary(&self.snapshot, &fresh));
            prop_assert_eq!(warm, cold);
            prop_assert_eq!(plan, fresh);
            return Ok(());
        }
        for plan in spoilt(&plan, &self.snapshot).iter().chain([&plan]) {
            let broken = |result: Result<(), Vec<_>>| {
                let rules = result.err().unwrap_or_default();
                let mut rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                rules.sort();
                rules
            };
            prop_assert_eq!(broken(self.ledger.check(plan)), broken(check(&self.snapshot, plan)));
        }
        let before: Vec<_> = self.pending().iter().map(|pod| pod.id.clone()).collect();
        let claims = self.snapshot.node_claims.len();
        self.snapshot = after(&self.snapshot, &plan, 0);
        if plan.claims.iter().any(|claim| claim.reservation.is_some()) {
            self.set_market();
        }
        for index in claims..self.snapshot.node_claims.len() {
            self.tell_claim(index);
        }
        for index in 0..self.snapshot.pods.len() {
            if before.contains(&self.snapshot.pods[index].id) {
                self.tell_pod(index);
            }
        }
        Ok(())
    }
}

/// Plans that are likely to break rules: pods moved to other machines.
fn spoilt(plan: &Plan, snapshot: &Snapshot) -> Vec<Plan> {
    let mut moved = plan.clone();
    for (assignment, node) in moved.existing.iter_mut().zip(snapshot.nodes.iter().rev()) {
        assignment.name = Arc::clone(&node.name);
    }
    let mut crowded = plan.clone();
    let pods: Vec<_> = crowded.claims.iter_mut().flat_map(|claim| std::mem::take(&mut claim.pods)).collect();
    if let Some(first) = crowded.claims.first_mut() {
        first.pods = pods;
    }
    vec![moved, crowded]
}

/// The node of a claim. Every other one has another name than its claim.
fn joined(claim: &NodeClaim, started: bool) -> Node {
    let name = if started { format!("{}-vm", claim.name) } else { claim.name.to_string() };
    let mut labels = claim.labels.clone();
    if started {
        labels.insert(karpenter::INITIALIZED.to_owned(), "true".to_owned());
    }
    let mut joined = node(&name, 1, 1, &[]);
    joined.labels = labels;
    joined.capacity = claim.capacity.clone();
    joined.allocatable = claim.allocatable.clone();
    if !started {
        // Its device plugins have not reported yet.
        joined.allocatable.extended.clear();
        joined.ready = false;
    }
    joined
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn following_is_reading_again(
        input in clusters(),
        options in options(),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let (warm, ledger) = (Warm::of(&input), Ledger::of(&input));
        let mut followed = Followed { snapshot: input, warm, ledger, made: 0, options };
        for step in &steps {
            followed.step(step)?;
        }
        followed.plan()?;
    }
}
