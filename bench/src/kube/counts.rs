//! How many objects of a kind there were, and when.

use std::collections::HashMap;
use std::pin::pin;

use futures_util::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Follows a kind until it is dropped.
#[derive(Debug)]
pub(crate) struct Counts {
    history: watch::Receiver<Vec<(Instant, usize)>>,
    task: JoinHandle<()>,
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Counts {
    /// Counts the objects of which `counts` is true.
    pub(crate) fn watch<K>(api: Api<PartialObjectMeta<K>>, counts: fn(&ObjectMeta) -> bool) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let (sender, history) = watch::channel(vec![(Instant::now(), 0)]);
        let task = tokio::spawn(async move {
            let mut known: HashMap<String, bool> = HashMap::new();
            let mut count = 0;
            let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let (object, is) = match event {
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        let is = counts(&object.metadata);
                        (object, is)
                    }
                    Ok(watcher::Event::Delete(object)) => (object, false),
                    _ => continue,
                };
                let name = object.metadata.name.unwrap_or_default();
                let was = if is { known.insert(name, true) } else { known.remove(&name) };
                match (was.is_some(), is) {
                    (false, true) => count += 1,
                    (true, false) => count -= 1,
                    _ => continue,
                }
                sender.send_modify(|history| history.push((Instant::now(), count)));
            }
        });
        Self { history, task }
    }

    /// How many there are.
    pub(crate) fn now(&self) -> usize {
        self.history.borrow().last().map_or(0, |(_, count)| *count)
    }

    /// Waits until so many are there; when that was.
    pub(crate) async fn reach(&mut self, enough: impl Fn(usize) -> bool) -> Instant {
        let history =
            self.history.wait_for(|history| history.last().is_some_and(|(_, count)| enough(*count)));
        // The task ends with this only.
        history.await.ok().and_then(|history| history.last().map(|(at, _)| *at)).unwrap_or_else(Instant::now)
    }

    /// When first so many were there, at `from` or later.
    pub(crate) fn first(&self, from: Instant, enough: impl Fn(usize) -> bool) -> Option<Instant> {
        let history = self.history.borrow();
        history.iter().find(|(at, count)| *at >= from && enough(*count)).map(|(at, _)| *at)
    }
}
