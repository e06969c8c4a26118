//! What PodDisruptionBudgets let go, and how much of it a plan has used.

use std::collections::BTreeMap;

use super::candidate::Candidate;
use crate::engine::disrupted_taint;
use crate::model::{DisruptionBudget, Pod, PodId, PodOwner, PodPhase, Snapshot};

/// The disruption budgets of a snapshot.
#[derive(Debug)]
pub(super) struct Evictions<'s> {
    by_namespace: BTreeMap<&'s str, Vec<usize>>,
    budgets: &'s [DisruptionBudget],
    unready: &'s std::collections::BTreeSet<PodId>,
    /// Evictions that the plan asks of each budget so far.
    used: Vec<u64>,
}

impl<'s> Evictions<'s> {
    pub(super) fn of(snapshot: &'s Snapshot) -> Self {
        let facts = &snapshot.disruption;
        let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, budget) in facts.budgets.iter().enumerate() {
            by_namespace.entry(&budget.id.namespace).or_default().push(index);
        }
        Self {
            by_namespace,
            budgets: &facts.budgets,
            unready: &facts.unready,
            used: vec![0; facts.budgets.len()],
        }
    }

    /// Budgets about a pod, as far as it is evicted at all: pods that tolerate the taint of disruption and those of the kubelet
    /// stay to the end.
    fn covering(&self, pod: &Pod) -> Vec<usize> {
        let Some(near) = self.by_namespace.get(&*pod.id.namespace) else { return Vec::new() };
        let stays = pod.owner == PodOwner::Node
            || pod.phase == PodPhase::Finished
            || pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&disrupted_taint()));
        if stays {
            return Vec::new();
        }
        near.iter().copied().filter(|index| self.budgets[*index].covers(pod)).collect()
    }

    /// The budget that counts the eviction of a pod.
    fn counting(&self, pod: &Pod) -> Option<usize> {
        let covering = self.covering(pod);
        let first = *covering.first()?;
        let broken = self.budgets[first].evicts_unhealthy && self.unready.contains(&pod.id);
        (!broken).then_some(first)
    }

    /// Why the Eviction API would refuse a pod now.
    pub(super) fn refuses(&self, pod: &Pod) -> Option<String> {
        let covering = self.covering(pod);
        if covering.len() > 1 {
            let names: Vec<String> =
                covering.iter().map(|index| self.budgets[*index].id.to_string()).collect();
            let names = names.join(", ");
            return Some(format!("pod {} is under several PodDisruptionBudgets: {names}", pod.id));
        }
        let budget = &self.budgets[self.counting(pod)?];
        (budget.allowed == 0)
            .then(|| format!("PodDisruptionBudget {} lets no pod go, such as {}", budget.id, pod.id))
    }

    /// Evictions that candidates ask of each budget, and whether one of them asks for all.
    fn asked(&self, candidates: &[&Candidate<'_>]) -> BTreeMap<usize, (u64, bool)> {
        let mut asked: BTreeMap<usize, (u64, bool)> = BTreeMap::new();
        if self.budgets.is_empty() {
            return asked;
        }
        let mut first: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, candidate) in candidates.iter().enumerate() {
            for budget in candidate.movable.iter().filter_map(|pod| self.counting(pod)) {
                let (count, alone) = asked.entry(budget).or_insert((0, true));
                *count += 1;
                *alone &= *first.entry(budget).or_insert(number) == number;
            }
        }
        asked
    }

    /// Why these may not go beside what the plan evicts already. Pods of one node take turns, however many they are.
    pub(super) fn refuses_beside(&self, candidates: &[&Candidate<'_>]) -> Option<String> {
        let over = self.asked(candidates).into_iter().find(|(budget, (count, alone))| {
            let used = self.used[*budget];
            used + count > u64::from(self.budgets[*budget].allowed) && !(used == 0 && *alone)
        });
        let (budget, (count, _)) = over?;
        let DisruptionBudget { id, allowed, .. } = &self.budgets[budget];
        let used = self.used[budget];
        Some(format!(
            "PodDisruptionBudget {id} allows {allowed}: the plan uses {used}, this would use {count} more"
        ))
    }

    /// Counts the evictions of candidates, or takes them off again.
    pub(super) fn count(&mut self, candidates: &[&Candidate<'_>], more: bool) {
        for (budget, (count, _)) in self.asked(candidates) {
            let used = &mut self.used[budget];
            *used = if more { *used + count } else { used.saturating_sub(count) };
        }
    }
}
