//! The scheduler dies at a random effect, over and over, and a new one goes on with what the cluster and the cloud have.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_core::engine::LeaveReason;
use assay_core::model::{PodOwner, Timestamp};
use assay_core::profile::ProfileStore;

use super::{DirectAgents, Entry, Scenario, World};

/// Seeds of each scenario; `ASSAY_SEEDS` looks further.
fn seeds(usual: u64) -> u64 {
    std::env::var("ASSAY_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The first of them; `ASSAY_FIRST_SEED` looks elsewhere.
fn first_seed() -> u64 {
    std::env::var("ASSAY_FIRST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

const POOLS: &str = "
  resources:
  - apiVersion: karpenter.sh/v1
    kind: NodePool
    metadata: {name: general}
    spec:
      template:
        spec:
          requirements:
          - {key: karpenter.sh/capacity-type, operator: In, values: [CAPACITY]}
          - {key: karpenter.azure.com/sku-family, operator: In, values: [D]}
          - {key: karpenter.azure.com/sku-cpu, operator: In, values: [\"4\", \"8\"]}
      disruption: {consolidateAfter: 30s, budgets: [{nodes: 50%}]}
  workloads:
  - name: web
    minAvailable: 4
    spec: {terminationGracePeriodSeconds: 5, containers: [{name: web, resources: {requests: {cpu: 900m, memory: 1Gi}}}]}
  - name: data
    volumes: 1
    spec: {terminationGracePeriodSeconds: 10, containers: [{name: data, resources: {requests: {cpu: \"2\", memory: 4Gi}}}]}
";

/// A world that is watched at every moment.
struct Watched {
    world: World,
    seed: u64,
    end: Timestamp,
    entries: Vec<Entry>,
    /// VMs that ever ran a pod of a workload.
    used: BTreeSet<Arc<str>>,
}

impl Watched {
    fn new(capacity: &str, spec: &str, seed: u64) -> Self {
        let head = "apiVersion: assay.dev/v1alpha1\nkind: Scenario\nmetadata: {name: faults}\nspec:\n";
        let text = format!("{head}{spec}{}", POOLS.replace("CAPACITY", capacity));
        let scenario = Scenario::parse("faults.yaml", &text).unwrap();
        let end = Timestamp(0) + scenario.duration;
        let world = World::new(scenario, seed, ProfileStore::new()).unwrap();
        Self { world, seed, end, entries: Vec::new(), used: BTreeSet::new() }
    }

    /// Plays until `minute`.
    fn until(&mut self, minute: u64) {
        let until = Timestamp(minute * 60_000).min(self.end);
        while let Some(due) = self.world.next_due().filter(|due| *due <= until) {
            self.world.advance(due, &mut DirectAgents);
            let pods = self.world.cluster().pods();
            let running = pods.filter(|pod| pod.owner == PodOwner::Controller);
            self.used.extend(running.filter_map(|pod| pod.node.clone()));
            for entry in self.world.take_entries() {
                assert!(!entry.is_failure(), "seed {}: {entry:?}\n{}", self.seed, self.story());
                self.entries.push(entry);
            }
        }
    }

    fn story(&self) -> String {
        let lines = self.entries.iter().map(|one| {
            format!("{:>10} {:<28} {:<24} {}\n", one.at.to_string(), one.object, one.reason, one.message)
        });
        lines.collect()
    }

    fn counted(&self, reason: &str) -> usize {
        self.entries.iter().filter(|entry| entry.reason == reason).count()
    }

    /// Nothing is left of anything: no VM, no claim, no node, and no machine that the engine still thinks of.
    fn assert_nothing_left(&self) {
        let story = self.story();
        let vms: Vec<_> = self.world.vms().collect();
        assert!(vms.is_empty(), "seed {}: VMs {vms:?}\n{story}", self.seed);
        let claims: Vec<_> = self.world.cluster().claims().map(|claim| &claim.name).collect();
        assert!(claims.is_empty(), "seed {}: claims {claims:?}\n{story}", self.seed);
        let nodes: Vec<_> = self.world.cluster().nodes().map(|node| &node.name).collect();
        assert!(nodes.is_empty(), "seed {}: nodes {nodes:?}\n{story}", self.seed);
        assert!(self.world.engine().machines().is_empty(), "seed {}\n{story}", self.seed);
    }
}

#[test]
fn whenever_the_scheduler_dies_nothing_is_bought_twice_and_no_pod_is_disturbed() {
    let spec = "
  duration: 60m
  restartRate: 0.03
  steps:
  - {at: 0s, scale: {web: 14, data: 3}}
  - {at: 12m, scale: {web: 26}}
  - {at: 30m, scale: {web: 0, data: 0}}
";
    let mut restarts = 0;
    for seed in 0..seeds(24) {
        let mut watched = Watched::new("on-demand", spec, seed);
        watched.until(29);
        let story = watched.story();
        let cluster = watched.world.cluster();
        assert_eq!((cluster.running(), cluster.pending()), (29, 0), "seed {seed}\n{story}");
        let idle: Vec<_> = watched.world.vms().filter(|vm| !watched.used.contains(*vm)).collect();
        assert!(idle.is_empty(), "seed {seed}: bought for nobody: {idle:?}\n{story}");
        assert_eq!(watched.counted("Gone"), 0, "seed {seed}: a machine went while all were needed\n{story}");
        assert_eq!(watched.world.stats().evicted, 0, "seed {seed}\n{story}");
        watched.until(60);
        watched.assert_nothing_left();
        restarts += watched.world.summary(watched.end).restarts;
    }
    assert!(restarts > seeds(24), "the scheduler died {restarts} times only");
}

#[test]
fn whatever_else_goes_wrong_meanwhile_every_pod_runs_in_the_end_and_nothing_leaks() {
    let spec = "
  duration: 90m
  restartRate: 0.02
  steps:
  - {at: 0s, scale: {web: 14, data: 3}}
  - {at: 8m, preempt: 1}
  - {at: 14m, deleteNodes: 1}
  - {at: 20m, deleteClaims: 1}
  - {at: 21m, scale: {web: 8}}
  - {at: 26m, restart: true, scale: {web: 20}}
  - {at: 60m, scale: {web: 0, data: 0}}
  cloud: {failureRate: 0.1, defectRates: {lessMemory: 0.1, networkingOff: 0.05}}
";
    for seed in 0..seeds(16) {
        let mut watched = Watched::new("spot", spec, seed);
        watched.until(59);
        let story = watched.story();
        let cluster = watched.world.cluster();
        assert_eq!((cluster.running(), cluster.pending()), (23, 0), "seed {seed}\n{story}");
        watched.until(90);
        watched.assert_nothing_left();
    }
}

#[test]
fn whatever_a_seed_brings_no_promise_is_broken() {
    let (first, count) = (first_seed(), seeds(50));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let played: Vec<(u64, Option<Entry>, u64)> = std::thread::scope(|scope| {
        let share = |worker| (first..first + count).skip(worker).step_by(workers);
        let work = |worker| scope.spawn(move || share(worker).map(play_random).collect::<Vec<_>>());
        let handles: Vec<_> = (0..workers).map(work).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    let failed = played.iter().filter_map(|(seed, failure, _)| {
        let Entry { at, object, reason, message, .. } = failure.as_ref()?;
        Some(format!("assay simulate random --seed {seed}   # at {at}: {object} {reason}: {message}"))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{} seeds failed; to see one again:\n{}", failed.len(), failed.join("\n"));
    assert!(played.iter().any(|(.., consolidated)| *consolidated > 0), "nothing was ever consolidated");
}

/// Plays the scenario of a seed: the first thing that must not happen, and how many machines went to save money.
fn play_random(seed: u64) -> (u64, Option<Entry>, u64) {
    let scenario = Scenario::random(seed).unwrap();
    let end = Timestamp(0) + scenario.duration;
    let mut world = World::new(scenario, seed, ProfileStore::new()).unwrap();
    while let Some(due) = world.next_due().filter(|due| *due <= end) {
        world.advance(due, &mut DirectAgents);
    }
    world.conclude(end);
    let consolidated = world.stats().released.get(&LeaveReason::Underutilized).copied().unwrap_or_default();
    (seed, world.take_entries().into_iter().find(Entry::is_failure), consolidated)
}
