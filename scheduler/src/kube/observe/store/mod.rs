//! What there is in the cluster, in the core's words.
//!
//! ```text
//!  Change --apply--> context (what others mean) --touches--+
//!                \-> pods, nodes, pools, claims ... <------+ --tell--> Event
//! ```
//!
//! No clock and no I/O: the same changes, in whatever order the kinds come, give the same objects. Nothing is told before every kind
//! has been listed, since half a cluster looks like one that needs machines.
//!
//! | what cannot be read | is |
//! |---|---|
//! | a pod without a node | left out, and listed as a problem |
//! | a pod on a node | told as one that takes room and keeps its node from disruption |
//! | anything else | kept as it was last read; left out where it never was |

mod attachments;
mod intern;
mod pods;
mod problems;
#[cfg(test)]
mod properties;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use assay_core::catalog::InstanceType;
use assay_core::engine::Event;
use assay_core::model::{
    ClassFacts, DaemonSet, DisruptionBudget, Node, NodeClass, NodeFacts, NodePool, Pod, PodId,
    VOLUME_LIMIT_PREFIX,
};

use super::kind::Kind;
use super::object::{Body, Found, Object, Unreadable};
use crate::manifest::live::{self, Around, ClaimObject, Context, Document, ManifestError, Meta, Touched};
use attachments::Attachments;
use pods::Pods;
pub use problems::Problem;
use problems::Problems;
use shelf::{News, Shelf};

/// Something that a stream of one kind has to say.
#[derive(Debug)]
pub(super) enum Change {
    /// All its objects follow.
    Listing(Kind),
    /// An object as it is.
    Applied(Found),
    /// An object is gone.
    Deleted(Kind, PodId),
    /// That were all.
    Listed(Kind),
}

/// What machines of a class could be bought, to tell what a claim that does not say so itself is most likely to become.
pub type TypesOf = Box<dyn Fn(&NodeClass) -> Vec<InstanceType> + Send>;

/// The objects of a cluster.
pub struct Store {
    types: TypesOf,
    listings: BTreeMap<Kind, Listing>,
    is_synced: bool,
    context: Context,
    pods: Pods,
    nodes: Shelf<Node>,
    pools: Shelf<NodePool>,
    classes: Shelf<NodeClass>,
    /// Their objects as JSON: read, a claim is five times as large, and it is read once more only when it is told.
    claims: Shelf<Box<str>>,
    /// What nodes, claims and classes say that decides who may stay.
    node_facts: Shelf<NodeFacts>,
    claim_facts: Shelf<NodeFacts>,
    class_facts: Shelf<ClassFacts>,
    budgets: Shelf<DisruptionBudget>,
    attachments: Attachments,
    daemon_sets: Shelf<DaemonSet>,
    /// Their objects, to be read again.
    templates: BTreeMap<PodId, Document>,
    /// Whether something changed that they depend on.
    templates_touched: bool,
    problems: Problems,
}

/// Which objects of a kind there are.
#[derive(Debug, Default)]
struct Listing {
    round: u32,
    is_complete: bool,
    /// By name: the listing that last had it, and its uid. Pods keep this themselves.
    seen: BTreeMap<PodId, (u32, Box<str>)>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("is_synced", &self.is_synced)
            .field("pods", &self.pods.len())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store that waits for these kinds. `scheduler_configuration` is the kube-scheduler's, where pods are spread by default.
    pub(super) fn new(
        kinds: &[Kind],
        scheduler_configuration: Option<&Document>,
        types: TypesOf,
    ) -> Result<Self, ManifestError> {
        let mut context = Context::default();
        if let Some(document) = scheduler_configuration {
            context.apply(document)?;
        }
        Ok(Self {
            types,
            listings: kinds.iter().map(|kind| (*kind, Listing::default())).collect(),
            is_synced: false,
            context,
            pods: Pods::default(),
            nodes: Shelf::default(),
            pools: Shelf::default(),
            classes: Shelf::default(),
            claims: Shelf::default(),
            node_facts: Shelf::default(),
            claim_facts: Shelf::default(),
            class_facts: Shelf::default(),
            budgets: Shelf::default(),
            attachments: Attachments::default(),
            daemon_sets: Shelf::default(),
            templates: BTreeMap::new(),
            templates_touched: false,
            problems: Problems::default(),
        })
    }

    /// Whether every kind has been listed once.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Kinds that have not been listed yet.
    pub fn awaited(&self) -> impl Iterator<Item = Kind> {
        self.listings.iter().filter(|(_, listing)| !listing.is_complete).map(|(kind, _)| *kind)
    }

    /// What cannot be read, or not as it was meant.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Whether [`Store::problems`] are other than when this was asked last.
    pub fn take_problems_changed(&mut self) -> bool {
        self.problems.take_changed()
    }

    /// A node as it is.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&PodId::new("", name))
    }

    /// All pods, as they were last told.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.told()
    }

    /// Names of all objects of a kind but pods, those among them that cannot be read.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &PodId> {
        self.listings.get(&kind).into_iter().flat_map(|listing| listing.seen.keys())
    }

    /// The uid of an object; what owner references and preconditions name.
    #[must_use]
    pub fn uid(&self, kind: Kind, id: &PodId) -> Option<String> {
        if kind == Kind::Pod {
            let uid = format!("{:032x}", self.pods.uid(id).filter(|uid| *uid > 0)?);
            let parts = [uid.get(..8)?, uid.get(8..12)?, uid.get(12..16)?, uid.get(16..20)?, uid.get(20..)?];
            return Some(parts.join("-"));
        }
        let (_, uid) = self.listings.get(&kind)?.seen.get(id)?;
        Some(uid.to_string()).filter(|uid| !uid.is_empty())
    }

    /// Takes in what a stream says.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Listing(kind) => {
                let listing = self.listings.entry(kind).or_default();
                listing.round = listing.round.wrapping_add(1);
                self.problems.set(kind, &nameless(), Vec::new());
            }
            Change::Applied(Ok(object)) => self.apply_object(*object),
            Change::Applied(Err(unreadable)) => self.put_aside(unreadable),
            Change::Deleted(kind, id) => self.delete(kind, &id),
            Change::Listed(kind) => self.listed(kind),
        }
    }

    fn listed(&mut self, kind: Kind) {
        let Some(listing) = self.listings.get_mut(&kind) else { return };
        listing.is_complete = true;
        let round = listing.round;
        let missing = listing.seen.iter().filter(|(_, (seen, _))| *seen != round);
        let mut missing: Vec<PodId> = missing.map(|(id, _)| id.clone()).collect();
        if kind == Kind::Pod {
            missing.extend(self.pods.missing(round));
        }
        missing.iter().for_each(|id| self.delete(kind, id));
        if !self.is_synced && self.awaited().next().is_none() {
            self.is_synced = true;
            self.forget_told();
        }
    }

    fn apply_object(&mut self, object: Object) {
        let Object { kind, id, uid, body } = object;
        let round = self.listings.get(&kind).map_or(0, |listing| listing.round);
        if !id.namespace.is_empty() {
            let touched = self.context.mention(&id.namespace);
            self.touch(touched);
        }
        let document = match body {
            Body::Pod(pod) => {
                self.problems.set(kind, &id, Vec::new());
                self.listings.entry(kind).or_default().seen.remove(&id);
                return self.pods.apply(id, &uid, round, *pod, &mut self.context);
            }
            Body::Other(document) => document,
        };
        self.see(kind, &id, round, &uid);
        let mut warnings = Vec::new();
        let read = self.read(kind, &id, document, &mut warnings);
        let wrong = |error: ManifestError, is_error: bool| {
            let (field, message) = (error.field, error.problem);
            Problem { kind, id: id.clone(), field, message, is_error }
        };
        let mut problems: Vec<Problem> = warnings.into_iter().map(|warning| wrong(warning, false)).collect();
        problems.extend(read.err().map(|error| wrong(error, true)));
        self.problems.set(kind, &id, problems);
    }

    /// Notes that an object is there. Another of the same name is another object.
    fn see(&mut self, kind: Kind, id: &PodId, round: u32, uid: &str) {
        let before = self.listings.entry(kind).or_default().seen.insert(id.clone(), (round, uid.into()));
        if before.is_some_and(|(_, before)| &*before != uid) {
            self.forget(kind, id);
        }
    }

    /// Reads an object into its place.
    fn read(
        &mut self,
        kind: Kind,
        id: &PodId,
        document: Document,
        warnings: &mut Vec<ManifestError>,
    ) -> Result<(), ManifestError> {
        match kind {
            Kind::Node => {
                let meta = Meta::read(&document)?;
                let mut node = live::read_node(&document, &meta, warnings)?;
                self.context.limit_volumes(&mut node);
                self.nodes.put(id.clone(), node);
                let mut facts = live::of_node(&document)?;
                // That all is well is no news.
                facts.conditions.retain(|one| one.name != "Ready" || one.status != "True");
                note(&mut self.node_facts, id, facts);
            }
            Kind::NodePool => {
                let meta = Meta::read(&document)?;
                match live::read_pool(&document, meta, warnings)? {
                    Some(pool) => drop(self.pools.put(id.clone(), pool)),
                    None => drop(self.pools.remove(id)),
                }
            }
            Kind::AksNodeClass => {
                let meta = Meta::read(&document)?;
                self.classes.put(id.clone(), live::read_class(&document, &meta)?);
                note(&mut self.class_facts, id, live::of_class(&document)?);
            }
            Kind::NodeClaim => {
                live::read_claim(&document, Meta::read(&document)?)?;
                note(&mut self.claim_facts, id, live::of_claim(&document)?);
                self.claims.put(id.clone(), document.value.to_string().into());
            }
            Kind::PodDisruptionBudget => {
                let meta = Meta::read(&document)?;
                self.budgets.put(id.clone(), live::read_disruption_budget(&document, &meta)?);
            }
            Kind::VolumeAttachment => self.attachments.apply(id, &document)?,
            Kind::DaemonSet => {
                let meta = Meta::read(&document)?;
                let read = live::read_daemon_set(&document, &meta, &self.context, warnings);
                self.templates.insert(id.clone(), document);
                self.daemon_sets.put(id.clone(), read?);
            }
            _ => {
                let touched = self.context.apply(&document)?;
                self.touch(touched);
            }
        }
        Ok(())
    }

    /// Notes an object that cannot even be taken apart.
    fn put_aside(&mut self, unreadable: Unreadable) {
        let Unreadable { kind, id, field, problem } = unreadable;
        let round = self.listings.get(&kind).map_or(0, |listing| listing.round);
        let id = id.unwrap_or_else(nameless);
        if !id.name.is_empty() {
            if kind == Kind::Pod {
                self.pods.seen(&id, round);
            }
            self.listings.entry(kind).or_default().seen.entry(id.clone()).or_default().0 = round;
        }
        let problem = Problem { kind, id: id.clone(), field, message: problem, is_error: true };
        self.problems.set(kind, &id, vec![problem]);
    }

    fn delete(&mut self, kind: Kind, id: &PodId) {
        if let Some(listing) = self.listings.get_mut(&kind) {
            listing.seen.remove(id);
        }
        self.problems.set(kind, id, Vec::new());
        self.forget(kind, id);
    }

    fn forget(&mut self, kind: Kind, id: &PodId) {
        match kind {
            Kind::Pod => self.pods.remove(id, &mut self.context),
            Kind::Node => {
                self.node_facts.remove(id);
                self.nodes.remove(id);
            }
            Kind::NodePool => drop(self.pools.remove(id)),
            Kind::AksNodeClass => {
                self.class_facts.remove(id);
                self.classes.remove(id);
            }
            Kind::NodeClaim => {
                self.claim_facts.remove(id);
                self.claims.remove(id);
            }
            Kind::PodDisruptionBudget => drop(self.budgets.remove(id)),
            Kind::VolumeAttachment => self.attachments.remove(id),
            Kind::DaemonSet => {
                self.templates.remove(id);
                self.daemon_sets.remove(id);
            }
            _ => {
                let touched = self.context.remove(kind.name(), &id.namespace, &id.name);
                self.touch(touched);
            }
        }
    }

    /// Has those read again that a change can mean something for.
    fn touch(&mut self, touched: Option<Touched>) {
        // Before everything is there, nothing has been read.
        let Some(touched) = touched.filter(|_| self.is_synced) else { return };
        self.pods.touch(&touched, &self.context);
        match touched {
            Touched::VolumeLimits(name) => {
                let context = &self.context;
                self.nodes.update(|id, node| *id.name == *name && limit_volumes(context, node));
            }
            Touched::Namespaces | Touched::Runtimes | Touched::Spread => self.templates_touched = true,
            _ => {}
        }
    }

    /// The next events are for one who knows nothing yet.
    fn forget_told(&mut self) {
        let context = &self.context;
        self.nodes.update(|_, node| limit_volumes(context, node));
        self.templates_touched = true;
        self.nodes.tell_all();
        self.pools.tell_all();
        self.classes.tell_all();
        self.claims.tell_all();
        self.node_facts.tell_all();
        self.claim_facts.tell_all();
        self.class_facts.tell_all();
        self.budgets.tell_all();
        self.attachments.tell_all();
        self.daemon_sets.tell_all();
        self.pods.tell_all();
    }

    /// Whether there may be something to tell.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.is_synced
            && (self.pods.has_news()
                || self.nodes.has_news()
                || self.claims.has_news()
                || self.pools.has_news()
                || self.classes.has_news()
                || self.node_facts.has_news()
                || self.claim_facts.has_news()
                || self.class_facts.has_news()
                || self.budgets.has_news()
                || self.daemon_sets.has_news()
                || self.templates_touched
                || self.attachments.has_news())
    }

    /// Tells what is new since the last time, in an order that an engine can be told it. Nothing before everything is known.
    pub fn tell(&mut self, tell: &mut dyn FnMut(Event)) {
        if !self.is_synced {
            return;
        }
        self.classes.tell(|news| {
            tell(match news {
                News::Gone(id) => Event::ClassDeleted(id.name.to_string()),
                News::Is(_, class) => Event::ClassApplied(Box::new(class.clone())),
            });
        });
        self.pools.tell(|news| {
            tell(match news {
                News::Gone(id) => Event::PoolDeleted(id.name.to_string()),
                News::Is(_, pool) => Event::PoolApplied(Box::new(pool.clone())),
            });
        });
        self.tell_claims(tell);
        self.nodes.tell(|news| {
            tell(match news {
                News::Gone(id) => Event::NodeDeleted(Arc::clone(&id.name)),
                News::Is(_, node) => Event::NodeApplied(Box::new(node.clone())),
            });
        });
        self.tell_facts(tell);
        self.read_templates();
        self.daemon_sets.tell(|news| {
            tell(match news {
                News::Gone(id) => Event::DaemonSetDeleted(id.clone()),
                News::Is(_, daemon_set) => Event::DaemonSetApplied(Box::new(daemon_set.clone())),
            });
        });
        self.budgets.tell(|news| {
            tell(match news {
                News::Gone(id) => Event::DisruptionBudgetDeleted(id.clone()),
                News::Is(_, budget) => Event::DisruptionBudgetApplied(Box::new(budget.clone())),
            });
        });
        self.pods.tell(&self.context, &mut self.problems, tell);
        self.attachments.tell(tell);
    }

    /// Tells everything, to an engine that knows nothing yet. What was new is in it.
    pub fn replay(&mut self, tell: &mut dyn FnMut(Event)) {
        self.forget_told();
        self.tell(tell);
    }

    /// What decides who may stay; of objects that are gone nothing is told, for the engine forgets it with them.
    fn tell_facts(&mut self, tell: &mut dyn FnMut(Event)) {
        self.class_facts.tell(|news| {
            if let News::Is(id, facts) = news {
                tell(Event::ClassFacts { class: id.name.to_string(), facts: facts.clone() });
            }
        });
        self.claim_facts.tell(|news| {
            if let News::Is(id, facts) = news {
                let (image, expire_after) = (facts.image.clone(), facts.expire_after);
                tell(Event::ClaimFacts { claim: Arc::clone(&id.name), image, expire_after });
            }
        });
        self.node_facts.tell(|news| {
            if let News::Is(id, facts) = news {
                tell(Event::NodeFacts { node: Arc::clone(&id.name), facts: Box::new(facts.clone()) });
            }
        });
    }

    fn tell_claims(&mut self, tell: &mut dyn FnMut(Event)) {
        let Self { claims, pools, classes, nodes, types, .. } = self;
        let mut known: BTreeMap<String, Vec<InstanceType>> = BTreeMap::new();
        let mut by_provider: Option<BTreeMap<&str, &Arc<str>>> = None;
        claims.tell(|news| {
            let (id, text) = match news {
                News::Is(id, text) => (id, text),
                News::Gone(id) => return tell(Event::ClaimDeleted { claim: Arc::clone(&id.name) }),
            };
            let Some(claim) = read_claim(id, text) else { return };
            let pool = claim.pool().and_then(|name| pools.get(&PodId::new("", name)));
            let class = claim.node_class(pool);
            let types = known.entry(class.clone()).or_insert_with(|| {
                let given = classes.get(&PodId::new("", class)).cloned();
                types(&given.unwrap_or_else(|| NodeClass::with_defaults(class)))
            });
            let by_provider = by_provider.get_or_insert_with(|| {
                nodes.iter().map(|(_, node)| (node.provider_id.as_str(), &node.name)).collect()
            });
            let named = nodes.get(&PodId::new("", claim.node_name())).map(|node| &node.name);
            let node = named.or_else(|| by_provider.get(claim.provider_id()?).copied());
            tell(Event::ClaimApplied(Box::new(claim.resolve(Around { pool, types, node }))));
        });
    }

    /// Reads DaemonSets again, where something changed that they depend on.
    fn read_templates(&mut self) {
        if !std::mem::take(&mut self.templates_touched) {
            return;
        }
        let ids: BTreeSet<PodId> = self.templates.keys().cloned().collect();
        for id in ids {
            let Some(document) = self.templates.remove(&id) else { continue };
            self.reread(Kind::DaemonSet, &id, document);
        }
    }

    fn reread(&mut self, kind: Kind, id: &PodId, document: Document) {
        let uid =
            self.listings.get(&kind).and_then(|listing| listing.seen.get(id)).map(|(_, uid)| uid.to_string());
        let object =
            Object { kind, id: id.clone(), uid: uid.unwrap_or_default(), body: Body::Other(document) };
        self.apply_object(object);
    }
}

/// A claim from its text, which was read before it was kept.
fn read_claim(id: &PodId, text: &str) -> Option<ClaimObject> {
    let document = Document::of_object(Kind::NodeClaim.name(), serde_json::from_str(text).ok()?);
    let read = Meta::read(&document).and_then(|meta| live::read_claim(&document, meta));
    read.inspect_err(
        |error| tracing::error!(claim = %id, %error, "a claim that could be read cannot be read"),
    )
    .ok()
}

/// Keeps facts, where there are or were any.
fn note<V: Default + PartialEq>(shelf: &mut Shelf<V>, id: &PodId, facts: V) {
    if shelf.get(id).is_some() || facts != V::default() {
        shelf.put(id.clone(), facts);
    }
}

/// The name under which objects are listed that show none.
fn nameless() -> PodId {
    PodId::new("", "")
}

/// Sets how many volumes a node can attach; whether that is news.
fn limit_volumes(context: &Context, node: &mut Node) -> bool {
    let before = node.allocatable.clone();
    node.allocatable.extended.retain(|name, _| !name.starts_with(VOLUME_LIMIT_PREFIX));
    context.limit_volumes(node);
    node.allocatable != before
}
