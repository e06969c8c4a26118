//! The best that so many evictions can do (`--max-moves`).
//!
//! Several plans compete: what was found without the limit, as far as it fits (a knapsack); what is found with it; and that with
//! nodes that save much for each pod taken together first, as many as the limit lets. Of a few nodes every set is looked at, so
//! that there the answer is the best there is.

use super::base::Trial;
use super::consolidate::{STEPS_TOGETHER, steps_for, too_many_moves};
use super::knapsack::best_within;
use super::planner::{Decided, Planner};

/// Nodes of which every set is looked at, at most.
const EVERY_SET_OF: usize = 6;

/// What commands are worth, and what they are.
type Contender = (i128, Vec<Trial>);

impl Planner<'_, '_> {
    /// Keeps what is worth most within so many moves, of all that consolidation decided from `first` on and of other plans.
    pub(super) fn within_moves(&mut self, first: usize, most: usize, candidates: &[usize]) {
        let values: Vec<(usize, i128)> =
            self.decided[first..].iter().map(|one| (one.moves(), self.net_of(one))).collect();
        let kept = best_within(&values, most);
        let found = self.take_back_from(first);
        let in_plan: Vec<usize> = found.iter().flat_map(|one| one.trial.nodes.clone()).collect();
        let net: i128 = kept.iter().map(|index| values[*index].1).sum();
        let mut best: Contender = (net, kept.into_iter().map(|index| found[index].trial.clone()).collect());
        self.moves_left = Some(most);
        let order = self.best_ratio_first(candidates);
        for quarters in [0, 2, 3, 4] {
            let prefix = self.prefix_within(&order, most * quarters / 4);
            if quarters > 0 {
                match self.consider(&prefix, STEPS_TOGETHER) {
                    Ok(proposal) if prefix.len() > 1 => self.decide(proposal.decided),
                    _ => continue,
                }
            }
            self.search(candidates);
            let contender = self.taken_back(first);
            if contender.0 > best.0 {
                best = contender;
            }
        }
        if let Some(contender) = self.best_set(first, candidates)
            && contender.0 > best.0
        {
            best = contender;
        }
        self.once_more_in_turn(&best.1);
        let moves: usize = values.iter().map(|(moves, _)| moves).sum();
        let now: i128 = self.decided[first..].iter().map(|one| self.net_of(one)).sum();
        if moves <= most && now <= net {
            // What was found without the limit is no worse: it stays as it was.
            self.take_back_from(first);
            for decided in found {
                self.decide(decided);
            }
        }
        for node in in_plan.into_iter().filter(|node| !self.gone[*node]).collect::<Vec<_>>() {
            self.refuse(node, too_many_moves(most));
        }
    }

    /// The longest beginning of an order with so many pods.
    fn prefix_within(&self, order: &[usize], most: usize) -> Vec<usize> {
        let mut moves = 0;
        let within = |node: &&usize| {
            moves += self.fleet.candidates[**node].movable.len();
            moves <= most
        };
        order.iter().take_while(within).copied().collect()
    }

    /// The set of nodes that is worth most, of all sets; `None` where there are too many nodes for that. In commands of one node
    /// each where that is worth as much.
    fn best_set(&mut self, first: usize, candidates: &[usize]) -> Option<Contender> {
        if candidates.len() > EVERY_SET_OF {
            return None;
        }
        let mut best: Contender = (0, Vec::new());
        for set in 1_usize..1 << candidates.len() {
            let nodes: Vec<usize> = candidates
                .iter()
                .enumerate()
                .filter(|(at, _)| set >> at & 1 == 1)
                .map(|(_, node)| *node)
                .collect();
            let each: Vec<&[usize]> = nodes.chunks(1).collect();
            let mut contender = self.in_parts(first, &nodes, &[&nodes]);
            let apart = self.in_parts(first, &nodes, &each);
            if apart.0 >= contender.0 {
                contender = apart;
            }
            // What may not go together may still go in two parts: one node that is in the way of the others.
            let alone = if nodes.len() > 2 && contender.0 == 0 { nodes.as_slice() } else { &[] };
            for node in alone {
                let others: Vec<usize> = nodes.iter().copied().filter(|other| other != node).collect();
                let split = self.in_parts(first, &nodes, &[&others, &[*node]]);
                if split.0 > contender.0 {
                    contender = split;
                }
            }
            if contender.0 > best.0 {
                best = contender;
            }
        }
        Some(best)
    }

    /// What it is worth that a set goes in these parts, one after another; nothing where one of them may not go.
    fn in_parts(&mut self, first: usize, set: &[usize], parts: &[&[usize]]) -> Contender {
        self.base.shut(&self.fleet, set);
        let mut whole = true;
        for part in parts {
            self.base.reopen(&self.fleet, part);
            match whole.then(|| self.consider(part, steps_for(part.len()))) {
                Some(Ok(proposal)) => self.decide(proposal.decided),
                _ => whole = false,
            }
        }
        let contender = self.taken_back(first);
        if whole { contender } else { (0, Vec::new()) }
    }

    /// Takes back what was decided from `first` on.
    fn taken_back(&mut self, first: usize) -> Contender {
        let net = self.decided[first..].iter().map(|one| self.net_of(one)).sum();
        (net, self.take_back_from(first).into_iter().map(|decided: Decided| decided.trial).collect())
    }
}
