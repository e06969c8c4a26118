//! Work by object: one thing at a time and in order for each object, many objects at once.
//!
//! What waits for an object when its lane comes free is handed over together, so that ten labels set one after the other are
//! one API call. What need not be done at once waits a moment for what comes with it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::error;

/// What is done in lanes.
pub(super) trait Work: Send + Sync + 'static {
    /// What has a lane.
    type Key: Clone + Eq + Hash + Debug + Send + 'static;
    /// What is asked for.
    type Job: Send + 'static;
    /// What a lane remembers from one time to the next.
    type Memory: Default + Send + 'static;

    /// How long a job may wait for others of its object.
    fn patience(&self, job: &Self::Job) -> Duration;

    /// Does all `jobs` of one object.
    fn run(
        &self,
        key: &Self::Key,
        memory: &mut Self::Memory,
        jobs: Vec<Self::Job>,
    ) -> impl Future<Output = ()> + Send;

    /// Whether what is remembered may be forgotten when nothing is left to do.
    fn is_over(&self, key: &Self::Key, memory: &Self::Memory) -> bool;
}

/// Where jobs are handed in. Work ends when all of these are dropped.
#[derive(Debug)]
pub(super) struct Lanes<W: Work> {
    // Not bounded: jobs are our own decisions, a handful for each object there is.
    jobs: mpsc::UnboundedSender<(W::Key, W::Job)>,
}

struct Lane<W: Work> {
    waiting: Vec<W::Job>,
    /// Whether it is about to be looked at.
    ripens: bool,
    /// Away while the lane works.
    memory: Option<W::Memory>,
}

/// What happens to a lane.
enum Turn<W: Work> {
    /// What waits has waited for long enough.
    Ripe(W::Key),
    /// It has done what it was given.
    Done(W::Key, W::Memory),
}

impl<W: Work> Lanes<W> {
    /// Starts working, for at most `at_once` objects at a time.
    pub(super) fn start(work: Arc<W>, at_once: usize) -> Self {
        let (jobs, inbox) = mpsc::unbounded_channel();
        tokio::spawn(dispatch(work, inbox, Arc::new(Semaphore::new(at_once))));
        Self { jobs }
    }

    /// Hands a job in.
    pub(super) fn push(&self, key: W::Key, job: W::Job) {
        // Fails only when the runtime goes down, and then there is nobody to do it.
        let _ = self.jobs.send((key, job));
    }
}

async fn dispatch<W: Work>(
    work: Arc<W>,
    mut inbox: mpsc::UnboundedReceiver<(W::Key, W::Job)>,
    slots: Arc<Semaphore>,
) {
    let mut lanes: HashMap<W::Key, Lane<W>> = HashMap::new();
    let mut running: JoinSet<Turn<W>> = JoinSet::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            job = inbox.recv(), if open => {
                let Some((key, job)) = job else {
                    open = false;
                    continue;
                };
                let fresh = || Lane { waiting: Vec::new(), ripens: false, memory: Some(W::Memory::default()) };
                let lane = lanes.entry(key.clone()).or_insert_with(fresh);
                let patience = work.patience(&job);
                lane.waiting.push(job);
                if patience.is_zero() {
                    start(&work, &slots, &key, lane, &mut running);
                } else if !lane.ripens {
                    lane.ripens = true;
                    running.spawn(async move {
                        tokio::time::sleep(patience).await;
                        Turn::Ripe(key)
                    });
                }
            }
            Some(done) = running.join_next() => match done {
                Ok(Turn::Ripe(key)) => {
                    let Some(lane) = lanes.get_mut(&key) else { continue };
                    lane.ripens = false;
                    if !lane.waiting.is_empty() {
                        start(&work, &slots, &key, lane, &mut running);
                    }
                }
                Ok(Turn::Done(key, memory)) => {
                    let Some(lane) = lanes.get_mut(&key) else { continue };
                    let over = work.is_over(&key, &memory);
                    lane.memory = Some(memory);
                    if lane.waiting.iter().any(|job| !lane.ripens || work.patience(job).is_zero()) {
                        start(&work, &slots, &key, lane, &mut running);
                    } else if over && !lane.ripens {
                        lanes.remove(&key);
                    }
                }
                // A lane that panicked stays shut: a bug, and its object is what it concerns.
                Err(failed) => error!(%failed, "a write ended by a bug"),
            },
        }
    }
}

fn start<W: Work>(
    work: &Arc<W>,
    slots: &Arc<Semaphore>,
    key: &W::Key,
    lane: &mut Lane<W>,
    running: &mut JoinSet<Turn<W>>,
) {
    let Some(mut memory) = lane.memory.take() else { return };
    let jobs = std::mem::take(&mut lane.waiting);
    let (work, slots, key) = (Arc::clone(work), Arc::clone(slots), key.clone());
    running.spawn(async move {
        // The semaphore is never closed.
        let _slot = slots.acquire_owned().await;
        work.run(&key, &mut memory, jobs).await;
        Turn::Done(key, memory)
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Notes what it was given together, and takes a while.
    #[derive(Default)]
    struct Noted {
        runs: Mutex<Vec<(u8, u32, Vec<u32>)>>,
        busy: Mutex<(usize, usize)>,
    }

    impl Work for Noted {
        type Key = u8;
        type Job = u32;
        type Memory = u32;

        /// Large numbers can wait.
        fn patience(&self, job: &u32) -> Duration {
            Duration::from_millis(if *job >= 100 { 300 } else { 0 })
        }

        async fn run(&self, key: &u8, memory: &mut u32, jobs: Vec<u32>) {
            {
                let mut busy = self.busy.lock().unwrap();
                busy.0 += 1;
                busy.1 = busy.1.max(busy.0);
            }
            self.runs.lock().unwrap().push((*key, *memory, jobs));
            *memory += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.busy.lock().unwrap().0 -= 1;
        }

        fn is_over(&self, _: &u8, memory: &u32) -> bool {
            *memory >= 2
        }
    }

    #[tokio::test]
    async fn one_at_a_time_and_in_order_for_each_object() {
        let work = Arc::new(Noted::default());
        let lanes = Lanes::start(Arc::clone(&work), 2);
        for job in 0..4 {
            lanes.push(1, job);
            tokio::task::yield_now().await;
        }
        for key in 2..6 {
            lanes.push(key, 9);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let runs = work.runs.lock().unwrap().clone();
        let of_one: Vec<_> = runs.iter().filter(|(key, ..)| *key == 1).collect();
        assert_eq!(of_one.len(), 2, "what waited was done together: {of_one:?}");
        let jobs: Vec<u32> = of_one.iter().flat_map(|(.., jobs)| jobs.clone()).collect();
        assert_eq!(jobs, [0, 1, 2, 3]);
        assert_eq!(of_one[1].1, 1, "the lane remembers");
        assert_eq!(work.busy.lock().unwrap().1, 2, "no more at once than allowed");
        // It was over after two times, so that a third begins anew.
        lanes.push(1, 7);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(work.runs.lock().unwrap().last(), Some(&(1, 0, vec![7])));
    }

    #[tokio::test]
    async fn what_can_wait_is_done_with_what_comes_after_it() {
        let work = Arc::new(Noted::default());
        let lanes = Lanes::start(Arc::clone(&work), 2);
        for (pause, job) in [(0, 100), (0, 101), (1_000, 102), (0, 1), (1_000, 103), (1_000, 104)] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            lanes.push(1, job);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let runs: Vec<Vec<u32>> = work.runs.lock().unwrap().iter().map(|(.., jobs)| jobs.clone()).collect();
        assert_eq!(runs, [vec![100, 101], vec![102, 1], vec![103], vec![104]], "in order, and none is lost");
    }
}
