//! An assignment that knows what it costs and what a move would cost, in time that does not grow with the instance.

use super::model::Instance;

/// Processes and where they would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// One process to another machine.
    Shift(usize, usize),
    /// Two processes of different machines change places.
    Swap(usize, usize),
}

/// What a move changes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) cost: i64,
    pub(super) unmet: i64,
    /// What is held where processes were, by what its load would cost.
    pub(super) held: i64,
}

impl std::ops::AddAssign for Delta {
    fn add_assign(&mut self, other: Self) {
        self.cost += other.cost;
        self.unmet += other.unmet;
        self.held += other.held;
    }
}

impl std::ops::Neg for Delta {
    type Output = Self;

    fn neg(self) -> Self {
        Self { cost: -self.cost, unmet: -self.unmet, held: -self.held }
    }
}

/// The state of a search.
#[derive(Debug, Clone)]
pub(super) struct State<'i> {
    instance: &'i Instance,
    pub(super) at: Vec<usize>,
    pub(super) cost: i64,
    /// Services in a neighbourhood without one that they need, which a search passes through.
    pub(super) unmet: i64,
    /// By machine, then resource.
    used: Vec<i64>,
    /// What processes hold that left, by machine, then resource.
    held: Vec<i64>,
    /// What load and balance cost, by machine.
    machine_cost: Vec<i64>,
    /// Processes of a service by machine, location and neighbourhood.
    on: Vec<u16>,
    locations: Vec<u16>,
    neighbourhoods: Vec<u16>,
    /// Locations that a service is at.
    spread: Vec<usize>,
    by_service: Vec<Vec<usize>>,
    held_cost: Vec<i64>,
    /// Services that need one.
    needed_by: Vec<Vec<usize>>,
    /// Moved processes of each service, and how many services have so many.
    moved: Vec<usize>,
    with_moved: Vec<usize>,
    most_moved: usize,
}

impl<'i> State<'i> {
    /// Nothing moved.
    pub(super) fn new(instance: &'i Instance) -> Self {
        let (machines, resources) = (instance.machines.len(), instance.transient.len());
        let services = instance.services.len();
        let mut needed_by = vec![Vec::new(); services];
        for (number, service) in instance.services.iter().enumerate() {
            for needed in &service.needs {
                needed_by[*needed].push(number);
            }
        }
        let mut by_service = vec![Vec::new(); services];
        for (number, process) in instance.processes.iter().enumerate() {
            by_service[process.service].push(number);
        }
        let holds = |resource: &usize| instance.transient[*resource];
        let held_cost = instance.processes.iter().map(|process| {
            (0..resources).filter(holds).map(|one| process.requests[one] * instance.load_weight[one]).sum()
        });
        let held_cost = held_cost.collect();
        let mut state = Self {
            instance,
            at: instance.start.clone(),
            cost: 0,
            unmet: 0,
            used: vec![0; machines * resources],
            held: vec![0; machines * resources],
            machine_cost: vec![0; machines],
            on: vec![0; services * machines],
            locations: vec![0; services * machines],
            neighbourhoods: vec![0; services * machines],
            spread: vec![0; services],
            by_service,
            held_cost,
            needed_by,
            moved: vec![0; services],
            with_moved: vec![0; instance.processes.len() + 1],
            most_moved: 0,
        };
        state.with_moved[0] = services;
        for process in 0..state.at.len() {
            state.count(process, state.at[process], true);
            state.load(process, state.at[process], 1);
        }
        for machine in 0..machines {
            state.machine_cost[machine] = state.cost_of(machine, None, None);
            state.cost += state.machine_cost[machine];
        }
        let stays = |from: &usize| instance.machines[*from].move_cost[*from];
        state.cost += instance.machine_move_weight * instance.start.iter().map(stays).sum::<i64>();
        state
    }

    /// The same with every process where an assignment says, which breaks no rule.
    pub(super) fn with(mut self, assignment: &[usize]) -> Self {
        let instance = self.instance;
        let away = |state: &Self| -> i64 {
            let processes = 0..state.at.len();
            let each: i64 = processes.map(|process| state.away(process, state.at[process])).sum();
            each + instance.service_move_weight * i64::try_from(state.most_moved).unwrap_or(i64::MAX)
        };
        self.cost -= away(&self);
        for (process, to) in
            assignment.iter().enumerate().filter(|(process, to)| **to != instance.start[*process])
        {
            self.put(process, *to);
        }
        self.cost += away(&self);
        for machine in 0..instance.machines.len() {
            let cost = self.cost_of(machine, None, None);
            self.cost += cost - std::mem::replace(&mut self.machine_cost[machine], cost);
        }
        self
    }

    /// Processes that have to go along with one that went from a machine to where it is now: one of each service that it needs and
    /// that is missing there, and those that needed it where it was.
    pub(super) fn companions(
        &self,
        process: usize,
        from: usize,
        pick: &mut impl FnMut(usize) -> usize,
        into: &mut Vec<usize>,
    ) {
        let instance = self.instance;
        let service = instance.processes[process].service;
        let (old, new) =
            (instance.machines[from].neighbourhood, instance.machines[self.at[process]].neighbourhood);
        for needed in &instance.services[service].needs {
            let all = &self.by_service[*needed];
            if self.neighbourhoods[self.slot(*needed, new)] == 0 && !all.is_empty() {
                let beside =
                    all.iter().find(|other| instance.machines[self.at[**other]].neighbourhood == old);
                into.push(beside.copied().unwrap_or_else(|| all[pick(all.len())]));
            }
        }
        if self.neighbourhoods[self.slot(service, old)] == 0 {
            for other in &self.needed_by[service] {
                let left = self.by_service[*other].iter();
                into.extend(left.filter(|one| instance.machines[self.at[**one]].neighbourhood == old));
            }
        }
    }

    /// Processes of the same service, itself included.
    pub(super) fn of_its_service(&self, process: usize) -> &[usize] {
        &self.by_service[self.instance.processes[process].service]
    }

    fn slot(&self, service: usize, of: usize) -> usize {
        service * self.instance.machines.len() + of
    }

    fn load(&mut self, process: usize, machine: usize, sign: i64) {
        let resources = self.instance.transient.len();
        let used = &mut self.used[machine * resources..][..resources];
        for (used, request) in used.iter_mut().zip(&self.instance.processes[process].requests) {
            *used += sign * request;
        }
    }

    /// Counts a process of a service in or out of a machine.
    fn count(&mut self, process: usize, machine: usize, more: bool) {
        let service = self.instance.processes[process].service;
        let (location, neighbourhood) =
            (self.instance.machines[machine].location, self.instance.machines[machine].neighbourhood);
        let slots =
            [self.slot(service, machine), self.slot(service, location), self.slot(service, neighbourhood)];
        let step = |count: &mut u16| *count = if more { *count + 1 } else { *count - 1 };
        step(&mut self.on[slots[0]]);
        step(&mut self.neighbourhoods[slots[2]]);
        let before = self.locations[slots[1]];
        step(&mut self.locations[slots[1]]);
        match (before, self.locations[slots[1]]) {
            (0, _) => self.spread[service] += 1,
            (_, 0) => self.spread[service] -= 1,
            _ => {}
        }
    }

    /// What a machine costs with a process more and a process less.
    fn cost_of(&self, machine: usize, more: Option<usize>, less: Option<usize>) -> i64 {
        let instance = self.instance;
        let resources = instance.transient.len();
        let (own, used) = (&instance.machines[machine], &self.used[machine * resources..][..resources]);
        let requests = |process: Option<usize>, resource: usize| {
            process.map_or(0, |process| instance.processes[process].requests[resource])
        };
        let after = |resource: usize| used[resource] + requests(more, resource) - requests(less, resource);
        let mut cost = 0;
        for resource in 0..resources {
            cost += instance.load_weight[resource] * (after(resource) - own.safety[resource]).max(0);
        }
        for balance in &instance.balances {
            let free = |resource: usize| own.capacity[resource] - after(resource);
            cost += balance.weight * (balance.target * free(balance.of) - free(balance.to)).max(0);
        }
        cost
    }

    /// Whether a machine has room for a process once another is gone.
    fn has_room(&self, machine: usize, process: usize, less: Option<usize>) -> bool {
        let instance = self.instance;
        let resources = instance.transient.len();
        (0..resources).all(|resource| {
            let at = machine * resources + resource;
            let home = |process: usize| instance.transient[resource] && instance.start[process] == machine;
            // What is transient is held at home in any case: to come back takes nothing more, to leave frees nothing.
            let more = if home(process) { 0 } else { instance.processes[process].requests[resource] };
            let gone = less.filter(|less| !home(*less));
            let gone = gone.map_or(0, |less| instance.processes[less].requests[resource]);
            self.used[at] + self.held[at] + more - gone <= instance.machines[machine].capacity[resource]
        })
    }

    /// Whether the rules of its service let a process go to a machine; not so where another of it stays there.
    fn may_go(&self, process: usize, to: usize) -> bool {
        let instance = self.instance;
        let service = instance.processes[process].service;
        let (old, new) = (&instance.machines[self.at[process]], &instance.machines[to]);
        if self.on[self.slot(service, to)] > 0 {
            return false;
        }
        if old.location != new.location {
            let leaves = usize::from(self.locations[self.slot(service, old.location)] == 1);
            let comes = usize::from(self.locations[self.slot(service, new.location)] == 0);
            if self.spread[service] + comes < instance.services[service].spread + leaves {
                return false;
            }
        }
        true
    }

    /// By how much the unmet needs grow with a process that goes to a machine.
    fn more_unmet(&self, process: usize, to: usize) -> i64 {
        let instance = self.instance;
        let service = instance.processes[process].service;
        let (from, to) =
            (instance.machines[self.at[process]].neighbourhood, instance.machines[to].neighbourhood);
        if from == to {
            return 0;
        }
        let count =
            |service: usize, neighbourhood: usize| self.neighbourhoods[self.slot(service, neighbourhood)];
        // Needs that a first process of a service brings along to a neighbourhood, and that a last one takes with it.
        let brings = |neighbourhood: usize| {
            let needs = &instance.services[service].needs;
            let own =
                needs.iter().filter(|other| **other != service && count(**other, neighbourhood) == 0).count();
            let of_others = self.needed_by[service]
                .iter()
                .filter(|other| **other != service && count(**other, neighbourhood) > 0)
                .count();
            i64::try_from(own).unwrap_or(i64::MAX) - i64::try_from(of_others).unwrap_or(i64::MAX)
        };
        let comes = if count(service, to) == 0 { brings(to) } else { 0 };
        let leaves = if count(service, from) == 1 { brings(from) } else { 0 };
        comes - leaves
    }

    /// What it costs that a process is where it is, or would be, without what all of its service cost together.
    fn away(&self, process: usize, to: usize) -> i64 {
        let (instance, from) = (self.instance, self.instance.start[process]);
        let own = if from == to { 0 } else { instance.processes[process].move_cost };
        instance.process_move_weight * own
            + instance.machine_move_weight * instance.machines[from].move_cost[to]
    }

    /// By how much the most moved processes of a service grow.
    fn more_moved(&self, changes: &[(usize, i64)]) -> i64 {
        // Services are few in a move: one or two.
        let mut most = self.most_moved;
        for (service, change) in changes {
            let now = self.moved[*service];
            let then = now.saturating_add_signed(isize::try_from(*change).unwrap_or(0));
            most = most.max(then);
        }
        let falls = changes.iter().any(|(service, change)| {
            *change < 0 && self.moved[*service] == self.most_moved && self.with_moved[self.most_moved] == 1
        });
        if falls
            && most == self.most_moved
            && !changes.iter().any(|(service, change)| {
                self.moved[*service].saturating_add_signed(isize::try_from(*change).unwrap_or(0)) == most
            })
        {
            most -= 1;
        }
        i64::try_from(most).unwrap_or(i64::MAX) - i64::try_from(self.most_moved).unwrap_or(i64::MAX)
    }

    /// By how much a move changes what is held where processes were, by what its load would cost.
    fn more_held(&self, one: Move) -> i64 {
        let of = |process: usize, to: usize| self.change(process, to).1 * self.held_cost[process];
        match one {
            Move::Shift(process, to) => of(process, to),
            Move::Swap(first, second) => of(first, self.at[second]) + of(second, self.at[first]),
        }
    }

    /// Change of the number of moved processes.
    fn change(&self, process: usize, to: usize) -> (usize, i64) {
        let from = self.instance.start[process];
        let change = i64::from(to != from) - i64::from(self.at[process] != from);
        (self.instance.processes[process].service, change)
    }

    /// By how much a move changes the cost and unmet needs; `None` where it breaks another rule.
    pub(super) fn delta(&self, one: Move) -> Option<Delta> {
        match one {
            Move::Shift(process, to) => {
                let from = self.at[process];
                if from == to || !self.may_go(process, to) || !self.has_room(to, process, None) {
                    return None;
                }
                let machines = self.cost_of(from, None, Some(process)) - self.machine_cost[from]
                    + self.cost_of(to, Some(process), None)
                    - self.machine_cost[to];
                let moved = self.more_moved(&[self.change(process, to)]);
                let away = self.away(process, to) - self.away(process, from);
                let cost = machines + away + self.instance.service_move_weight * moved;
                Some(Delta { cost, unmet: self.more_unmet(process, to), held: self.more_held(one) })
            }
            Move::Swap(first, second) => {
                let (from, to) = (self.at[first], self.at[second]);
                let (own, other) =
                    (self.instance.processes[first].service, self.instance.processes[second].service);
                // Two of one service change nothing for its rules. Where one needs the other, shifts do as well.
                let same = own == other;
                let related = self.instance.services[own].needs.contains(&other)
                    || self.instance.services[other].needs.contains(&own);
                if from == to || !same && (related || !self.may_go(first, to) || !self.may_go(second, from)) {
                    return None;
                }
                if !self.has_room(to, first, Some(second)) || !self.has_room(from, second, Some(first)) {
                    return None;
                }
                let machines = self.cost_of(from, Some(second), Some(first)) - self.machine_cost[from]
                    + self.cost_of(to, Some(first), Some(second))
                    - self.machine_cost[to];
                let changes = [self.change(first, to), self.change(second, from)];
                let both = [(own, changes[0].1 + changes[1].1)];
                let moved = self.more_moved(if same { &both } else { &changes });
                let away = self.away(first, to) - self.away(first, from) + self.away(second, from)
                    - self.away(second, to);
                let unmet = if same { 0 } else { self.more_unmet(first, to) + self.more_unmet(second, from) };
                let cost = machines + away + self.instance.service_move_weight * moved;
                Some(Delta { cost, unmet, held: self.more_held(one) })
            }
        }
    }

    fn put(&mut self, process: usize, to: usize) {
        let (from, home) = (self.at[process], self.instance.start[process]);
        self.count(process, from, false);
        self.count(process, to, true);
        self.load(process, from, -1);
        self.load(process, to, 1);
        let (service, change) = self.change(process, to);
        if change != 0 {
            let resources = self.instance.transient.len();
            for resource in (0..resources).filter(|resource| self.instance.transient[*resource]) {
                let request = self.instance.processes[process].requests[resource];
                self.held[home * resources + resource] += change * request;
            }
            self.with_moved[self.moved[service]] -= 1;
            self.moved[service] = if change > 0 { self.moved[service] + 1 } else { self.moved[service] - 1 };
            self.with_moved[self.moved[service]] += 1;
            self.most_moved = self.most_moved.max(self.moved[service]);
            while self.most_moved > 0 && self.with_moved[self.most_moved] == 0 {
                self.most_moved -= 1;
            }
        }
        self.at[process] = to;
    }

    /// Makes a move of which [`Self::delta`] told the change.
    pub(super) fn make(&mut self, one: Move, delta: Delta) {
        let (from, to) = match one {
            Move::Shift(process, to) => {
                let from = self.at[process];
                self.put(process, to);
                (from, to)
            }
            Move::Swap(first, second) => {
                let (from, to) = (self.at[first], self.at[second]);
                self.put(first, to);
                self.put(second, from);
                (from, to)
            }
        };
        self.cost += delta.cost;
        self.unmet += delta.unmet;
        for machine in [from, to] {
            self.machine_cost[machine] = self.cost_of(machine, None, None);
        }
    }
}
