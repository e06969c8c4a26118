//! Karpenter's way of consolidating, on the same nodes, pods and prices, without rules between pods.
//!
//! Candidates by savings ratio; first the longest prefix of the first hundred, by binary search, that fits the others or those and
//! one cheaper machine; then single nodes; again from the start after each command, until none is left. Pods go by CPU then
//! memory, largest first, to the first node with room.

use assay_shared::units::UsdPerHour;

/// CPU, memory and pod slots.
pub(super) type Amounts = [u64; 3];

/// A type that can be bought.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) room: Amounts,
    pub(super) price: UsdPerHour,
}

/// A pod: what it needs, and which it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resident {
    pub(super) need: Amounts,
    pub(super) number: usize,
}

/// Nodes with what runs on them.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub(super) kinds: Vec<Kind>,
    /// By kind, with the pods.
    pub(super) nodes: Vec<(usize, Vec<Resident>)>,
}

/// What it came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) cost: UsdPerHour,
    pub(super) moves: usize,
    pub(super) commands: usize,
}

const CANDIDATES: usize = 100;

/// Where the pods of nodes that go would run.
#[derive(Debug)]
pub(super) struct Simulation {
    /// Nodes that stay, each with a pod that comes.
    pub(super) placed: Vec<(usize, Resident)>,
    /// A kind, and the pods that go there.
    pub(super) bought: Option<(usize, Vec<Resident>)>,
}

fn less(room: &mut Amounts, pod: &Amounts) {
    room.iter_mut().zip(pod).for_each(|(room, need)| *room -= need);
}

fn fits(pod: &Amounts, room: &Amounts) -> bool {
    pod.iter().zip(room).all(|(need, room)| need <= room)
}

impl Cluster {
    fn cost(&self) -> UsdPerHour {
        self.nodes.iter().map(|(kind, _)| self.kinds[*kind].price).sum()
    }

    fn room(&self, node: usize) -> Amounts {
        let (kind, pods) = &self.nodes[node];
        let mut room = self.kinds[*kind].room;
        pods.iter().for_each(|pod| less(&mut room, &pod.need));
        room
    }

    fn order(&self) -> Vec<usize> {
        let ratio = |node: &usize| {
            let (kind, pods) = &self.nodes[*node];
            #[allow(clippy::cast_precision_loss)] // pods of a node
            let pods = pods.len() as f64;
            self.kinds[*kind].price.usd() / (1.0 + pods)
        };
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by(|one, two| ratio(two).total_cmp(&ratio(one)).then(one.cmp(two)));
        order
    }

    fn simulate(&self, gone: &[usize]) -> Option<Simulation> {
        let mut pods: Vec<Resident> = gone.iter().flat_map(|node| self.nodes[*node].1.clone()).collect();
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.need));
        let stays: Vec<usize> = (0..self.nodes.len()).filter(|node| !gone.contains(node)).collect();
        let mut rooms: Vec<Amounts> = stays.iter().map(|node| self.room(*node)).collect();
        let mut simulation = Simulation { placed: Vec::new(), bought: None };
        let (mut sum, mut rest): (Amounts, Vec<Resident>) = ([0; 3], Vec::new());
        for pod in pods {
            if let Some(at) = rooms.iter().position(|room| fits(&pod.need, room)) {
                less(&mut rooms[at], &pod.need);
                simulation.placed.push((stays[at], pod));
                continue;
            }
            sum.iter_mut().zip(&pod.need).for_each(|(sum, need)| *sum += need);
            rest.push(pod);
            if !self.kinds.iter().any(|kind| fits(&sum, &kind.room)) {
                return None;
            }
        }
        if !rest.is_empty() {
            let price: UsdPerHour = gone.iter().map(|node| self.kinds[self.nodes[*node].0].price).sum();
            let holds = |kind: &usize| fits(&sum, &self.kinds[*kind].room) && self.kinds[*kind].price < price;
            let mut options: Vec<usize> = (0..self.kinds.len()).filter(holds).collect();
            if gone.len() > 1 {
                let there = gone.iter().map(|node| self.nodes[*node].0).filter(|kind| options.contains(kind));
                if let Some(least) = there.map(|kind| self.kinds[kind].price).min() {
                    options.retain(|kind| self.kinds[*kind].price < least);
                }
            }
            let cheapest = options.into_iter().min_by_key(|kind| (self.kinds[*kind].price, *kind))?;
            simulation.bought = Some((cheapest, rest));
        }
        Some(simulation)
    }

    /// The next command of so many nodes at most: nodes that go, by number, and what becomes of their pods.
    pub(super) fn command(&self, most: usize) -> Option<(Vec<usize>, Simulation)> {
        if most == 0 {
            return None;
        }
        let order = self.order();
        let first = &order[..order.len().min(CANDIDATES).min(most)];
        let (mut low, mut high) = (1_usize, first.len().saturating_sub(1));
        let mut best = None;
        while low <= high {
            let middle = usize::midpoint(low, high);
            match self.simulate(&first[..=middle]) {
                Some(found) => {
                    best = Some((first[..=middle].to_vec(), found));
                    low = middle + 1;
                }
                None => high = middle - 1,
            }
        }
        best.or_else(|| order.iter().find_map(|node| Some((vec![*node], self.simulate(&[*node])?))))
    }

    /// Consolidates until nothing more is found.
    pub(super) fn consolidate(mut self) -> Outcome {
        let (mut moves, mut commands) = (0, 0);
        while let Some((mut gone, simulation)) = self.command(usize::MAX) {
            moves += gone.iter().map(|node| self.nodes[*node].1.len()).sum::<usize>();
            commands += 1;
            for (node, pod) in simulation.placed {
                self.nodes[node].1.push(pod);
            }
            gone.sort_unstable();
            for node in gone.into_iter().rev() {
                self.nodes.remove(node);
            }
            self.nodes.extend(simulation.bought);
        }
        Outcome { cost: self.cost(), moves, commands }
    }
}
