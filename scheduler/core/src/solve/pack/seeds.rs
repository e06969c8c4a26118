//! Machines for pods that must share one: groups that start somewhere, and followers of pods that are yet to be placed.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::fill::Filled;
use super::{Candidate, FILLED_AT_MOST, Packer};
use crate::solve::axes::real;

impl Packer<'_> {
    /// One machine for each group that may start on one: it holds as many of the group as any does, at the lowest price.
    pub(super) fn start_groups(&mut self, candidates: &[Candidate]) {
        let mut groups: Vec<u32> = Vec::new();
        for demand in self.demands {
            groups.extend(demand.host.needs.iter().filter(|need| need.starts).map(|need| need.group));
        }
        groups.sort_unstable_by_key(|group| self.opened.ranks[*group as usize]);
        groups.dedup();
        for group in groups {
            if self.opened.started.contains(&group) {
                continue;
            }
            let needs =
                |index: &usize| self.demands[*index].host.needs.iter().any(|need| need.group == group);
            let members: Vec<usize> = (0..self.demands.len()).filter(needs).collect();
            // The first must be one that may start.
            let starts = |index: &usize| {
                self.demands[*index].host.needs.iter().any(|need| need.group == group && need.starts)
            };
            let (mut first, rest): (Vec<usize>, Vec<usize>) = members.into_iter().partition(starts);
            first.extend(rest);
            let seeds: Vec<(usize, u64)> = first.iter().map(|demand| (*demand, self.left[*demand])).collect();
            let mut best: Option<(u64, &Candidate, Filled)> = None;
            for candidate in candidates.iter().filter(|one| self.machines(one) > 0) {
                let filled = self.fill_from(candidate, &seeds, Some(group));
                let held: u64 = seeds
                    .iter()
                    .filter_map(|(seed, _)| filled.counts.iter().find(|(demand, _)| demand == seed))
                    .map(|(_, count)| count)
                    .sum();
                if held == 0 || !self.is_varied(candidate, &filled) {
                    continue;
                }
                let better = best.as_ref().is_none_or(|(most, chosen, _)| {
                    held > *most || held == *most && candidate.price < chosen.price
                });
                if better {
                    best = Some((held, candidate, filled));
                }
            }
            if let Some((_, candidate, filled)) = best {
                self.take(candidate, &filled, 1);
                let mut started = FxHashSet::clone(&self.opened.started);
                started.insert(group);
                self.opened.started = Arc::new(started);
            }
        }
    }

    /// Machines for pods that need one of another demand beside them: one leader, as many followers as fit, then anything.
    pub(super) fn lead_followers(&mut self, candidates: &[Candidate]) {
        for follower in 0..self.demands.len() {
            let needs = self.demands[follower].host.needs.clone();
            for need in &needs {
                if need.starts || self.opened.started.contains(&need.group) {
                    continue;
                }
                while self.left[follower] > 0 {
                    let leads = |index: &usize| {
                        let one = &self.demands[*index].host;
                        self.left[*index] > 0
                            && one.counted.binary_search(&need.group).is_ok()
                            && one.needs.is_empty()
                    };
                    let Some(leader) = (0..self.demands.len()).find(leads) else { break };
                    let seeds = [(leader, 1), (follower, self.left[follower])];
                    let usable: Vec<usize> = self.price(candidates);
                    let mut best: Option<(f64, &Candidate, Filled)> = None;
                    for index in usable.iter().take(4 * FILLED_AT_MOST) {
                        let candidate = &candidates[*index];
                        let filled = self.fill_from(candidate, &seeds, None);
                        let follows = filled.counts.iter().any(|(demand, _)| *demand == follower);
                        if !follows || !self.is_varied(candidate, &filled) {
                            continue;
                        }
                        let score = filled.worth / real(candidate.price.0.max(1));
                        if best.as_ref().is_none_or(|(most, ..)| score > *most) {
                            best = Some((score, candidate, filled));
                        }
                    }
                    let Some((_, candidate, filled)) = best else { break };
                    self.take(candidate, &filled, u64::MAX);
                }
            }
        }
    }
}
