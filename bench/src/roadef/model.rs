//! An instance of the challenge, in its own words: services of processes on machines with resources.

use anyhow::{Context, ensure};

/// A machine.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) neighbourhood: usize,
    pub(super) location: usize,
    /// By resource.
    pub(super) capacity: Vec<i64>,
    /// What may be used without cost, by resource.
    pub(super) safety: Vec<i64>,
    /// What a process costs that goes from here to each machine.
    pub(super) move_cost: Vec<i64>,
}

/// Processes that must run on different machines.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// Locations that it must be spread over, at least.
    pub(super) spread: usize,
    /// Services of which a process must run in every neighbourhood where this one does.
    pub(super) needs: Vec<usize>,
}

/// What is moved.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) service: usize,
    /// By resource.
    pub(super) requests: Vec<i64>,
    pub(super) move_cost: i64,
}

/// How much of one resource is to be free for each free unit of another.
#[derive(Debug, Clone)]
pub(super) struct Balance {
    pub(super) of: usize,
    pub(super) to: usize,
    pub(super) target: i64,
    pub(super) weight: i64,
}

/// What is given.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// Whether a process that moves holds a resource on both machines, by resource.
    pub(super) transient: Vec<bool>,
    /// What each unit above the safety capacity costs, by resource.
    pub(super) load_weight: Vec<i64>,
    pub(super) machines: Vec<Machine>,
    pub(super) services: Vec<Service>,
    pub(super) processes: Vec<Process>,
    pub(super) balances: Vec<Balance>,
    pub(super) process_move_weight: i64,
    pub(super) service_move_weight: i64,
    pub(super) machine_move_weight: i64,
    /// Where each process runs.
    pub(super) start: Vec<usize>,
}

/// Numbers one after another.
struct Numbers<'t>(std::str::SplitAsciiWhitespace<'t>);

impl Numbers<'_> {
    fn number(&mut self, what: &str) -> anyhow::Result<i64> {
        let text = self.0.next().with_context(|| format!("expected {what}, found the end"))?;
        text.parse().with_context(|| format!("expected {what}, found {text}"))
    }

    fn count(&mut self, what: &str) -> anyhow::Result<usize> {
        usize::try_from(self.number(what)?).with_context(|| format!("{what} below zero"))
    }

    fn below(&mut self, what: &str, end: usize) -> anyhow::Result<usize> {
        let number = self.count(what)?;
        ensure!(number < end, "{what} {number}: there are {end}");
        Ok(number)
    }

    fn list(&mut self, what: &str, count: usize) -> anyhow::Result<Vec<i64>> {
        (0..count).map(|_| self.number(what)).collect()
    }
}

impl Instance {
    /// Reads the two files of an instance.
    pub(super) fn parse(model: &str, assignment: &str) -> anyhow::Result<Self> {
        let mut numbers = Numbers(model.split_ascii_whitespace());
        let resources = numbers.count("the number of resources")?;
        let (mut transient, mut load_weight) = (Vec::new(), Vec::new());
        for _ in 0..resources {
            transient.push(numbers.number("whether a resource is transient")? != 0);
            load_weight.push(numbers.number("a weight of load")?);
        }
        let count = numbers.count("the number of machines")?;
        let mut machines = Vec::new();
        for _ in 0..count {
            machines.push(Machine {
                neighbourhood: numbers.below("a neighbourhood", count)?,
                location: numbers.below("a location", count)?,
                capacity: numbers.list("a capacity", resources)?,
                safety: numbers.list("a safety capacity", resources)?,
                move_cost: numbers.list("a cost between machines", count)?,
            });
        }
        let count = numbers.count("the number of services")?;
        let mut services = Vec::new();
        for _ in 0..count {
            let (spread, needs) = (numbers.count("a spread")?, numbers.count("how many services it needs")?);
            let needs = (0..needs).map(|_| numbers.below("a service", count)).collect::<Result<_, _>>()?;
            services.push(Service { spread, needs });
        }
        let count = numbers.count("the number of processes")?;
        let mut processes = Vec::new();
        for _ in 0..count {
            processes.push(Process {
                service: numbers.below("a service", services.len())?,
                requests: numbers.list("a request", resources)?,
                move_cost: numbers.number("what a process costs that moves")?,
            });
        }
        let count = numbers.count("the number of balances")?;
        let mut balances = Vec::new();
        for _ in 0..count {
            balances.push(Balance {
                of: numbers.below("a resource", resources)?,
                to: numbers.below("a resource", resources)?,
                target: numbers.number("a target")?,
                weight: numbers.number("a weight of balance")?,
            });
        }
        let mut own = Self {
            transient,
            load_weight,
            machines,
            services,
            processes,
            balances,
            process_move_weight: numbers.number("the weight of moved processes")?,
            service_move_weight: numbers.number("the weight of moved services")?,
            machine_move_weight: numbers.number("the weight between machines")?,
            start: Vec::new(),
        };
        let mut numbers = Numbers(assignment.split_ascii_whitespace());
        for _ in 0..own.processes.len() {
            own.start.push(numbers.below("a machine", own.machines.len())?);
        }
        Ok(own)
    }
}
