//! Pods that run, as far as constraints count them: alike ones are one kind, which is asked once whom it is counted by and what
//! it demands of newcomers.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::host::HostRules;
use super::topology::{Constraint, GroupId};
use crate::model::{Gang, Labels, Pod, PodSpec};

/// Number of a kind.
pub(super) type KindId = usize;

/// Pods of which constraints know no difference.
#[derive(Debug)]
pub(super) struct Kind {
    key: KindKey,
    /// One of them.
    pub(super) example: Arc<Pod>,
    /// Groups that count them, ascending.
    pub(super) counted: Vec<GroupId>,
    /// Groups that they make by what they demand of others, and those demands: over labels, and within a machine.
    pub(super) holds: Vec<GroupId>,
    pub(super) apart: Vec<Constraint>,
    pub(super) host: HostRules,
    /// How many there are at each place, by slot.
    pub(super) at: FxHashMap<usize, u32>,
}

impl Kind {
    /// Whether they are company: pods that go are none any more, yet they hold their ports until they are gone.
    pub(super) fn is_company(&self) -> bool {
        !self.key.going
    }

    /// Whether they keep others away.
    pub(super) fn binds(&self) -> bool {
        self.key.binding.is_some()
    }
}

/// What constraints see of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KindKey {
    namespace: Arc<str>,
    labels: Arc<Labels>,
    gang: Option<Arc<Gang>>,
    /// The spec of those that keep others away; nothing else of it matters.
    binding: Option<Arc<PodSpec>>,
    going: bool,
}

impl KindKey {
    fn of(pod: &Pod) -> Self {
        Self {
            namespace: Arc::clone(&pod.id.namespace),
            labels: Arc::clone(&pod.labels),
            gang: pod.gang.clone(),
            binding: binds_others(&pod.spec).then(|| Arc::clone(&pod.spec)),
            going: pod.terminating.is_some(),
        }
    }

    fn address(&self) -> Address {
        let binding = self.binding.as_ref().map_or(0, |spec| Arc::as_ptr(spec).addr());
        (Arc::as_ptr(&self.labels).addr(), binding, self.going)
    }
}

/// Where the labels and the spec of a pod are kept, and whether it goes.
type Address = (usize, usize, bool);

/// All kinds.
#[derive(Debug, Default)]
pub(super) struct Residents {
    kinds: Vec<Option<Kind>>,
    free: Vec<KindId>,
    numbers: FxHashMap<KindKey, KindId>,
    /// Kinds by where the labels and the spec are that they keep themselves: siblings which share them are found at once.
    by_address: FxHashMap<Address, KindId>,
}

impl Residents {
    /// A kind by its number.
    pub(super) fn get(&self, kind: KindId) -> Option<&Kind> {
        self.kinds.get(kind)?.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, kind: KindId) -> Option<&mut Kind> {
        self.kinds.get_mut(kind)?.as_mut()
    }

    /// All kinds by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (KindId, &Kind)> {
        self.kinds.iter().enumerate().filter_map(|(number, kind)| Some((number, kind.as_ref()?)))
    }

    /// The kind of a pod, and whether it is new: then nothing is known of its groups.
    pub(super) fn kind_of(&mut self, pod: &Arc<Pod>) -> (KindId, bool) {
        let key = KindKey::of(pod);
        let near = self.by_address.get(&key.address()).copied();
        let is_it = |number: &KindId| {
            self.get(*number)
                .is_some_and(|kind| kind.key.namespace == key.namespace && kind.key.gang == key.gang)
        };
        if let Some(number) = near.filter(is_it).or_else(|| self.numbers.get(&key).copied()) {
            return (number, false);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.kinds.push(None);
            self.kinds.len() - 1
        });
        self.by_address.insert(key.address(), number);
        self.numbers.insert(key.clone(), number);
        self.kinds[number] = Some(Kind {
            key,
            example: Arc::clone(pod),
            counted: Vec::new(),
            holds: Vec::new(),
            apart: Vec::new(),
            host: HostRules::default(),
            at: FxHashMap::default(),
        });
        (number, true)
    }

    /// Forgets a kind of which there is none any more.
    pub(super) fn remove(&mut self, kind: KindId) -> Option<Kind> {
        let gone = self.kinds.get_mut(kind)?.take()?;
        let address = gone.key.address();
        if self.by_address.get(&address) == Some(&kind) {
            self.by_address.remove(&address);
        }
        self.numbers.remove(&gone.key);
        self.free.push(kind);
        Some(gone)
    }
}

/// Whether running pods of this spec keep others away.
fn binds_others(spec: &PodSpec) -> bool {
    !spec.pod_anti_affinity.is_empty() || !spec.host_ports.is_empty()
}
