//! What could be bought, compiled: shapes, each with its offerings as bits of one word.
//!
//! A shape is an instance type in a pool with the DaemonSets that will run on it. Where DaemonSets select a zone or a capacity
//! type, one instance type makes several shapes, so that a shape always has one amount of room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_shared::labels::{azure, hardware, karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::axes::{Amounts, Axes};
use super::host::Occupancy;
use super::numa::NumaRoom;
use crate::catalog::{InstanceType, Offering, OfferingOverrides};
use crate::model::{
    AlignedRequest, DaemonSet, HostPort, Market, NodeClass, NodePool, Pod, PodSpec, ResourceList, untolerated,
};
use crate::requirement::{Requirements, ValueSet};

/// Offerings per shape: bits of a `u64`. More make another shape of the same type.
const OFFERINGS_PER_SHAPE: usize = u64::BITS as usize;

#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) axes: Axes,
    /// By weight, heaviest first, then by name.
    pub(super) pools: Vec<Pool>,
    pub(super) shapes: Vec<Shape>,
    /// For each pool, its shapes that can be paid for with their lowest price, cheapest first, then by name.
    pub(super) by_price: Vec<Vec<(UsdPerHour, usize)>>,
    /// Shapes of one instance type in one pool, at most.
    pub(super) siblings: usize,
    /// Whether the kubelet of some machine insists on NUMA nodes.
    pub(super) aligns: bool,
    /// Whether some pool asks for a choice of values (`minValues`).
    pub(super) varied: bool,
    pub(super) market: Market,
    /// What the present pods ask for that some type leaves to chance.
    pub(super) drawn: Drawn,
}

/// Labels and sets of their values.
pub(super) type Drawn = Vec<(String, ValueSet)>;

/// One instance type of a list that is shared.
#[derive(Debug, Clone)]
pub(super) struct TypeRef {
    list: Arc<Vec<InstanceType>>,
    index: usize,
}

impl std::ops::Deref for TypeRef {
    type Target = InstanceType;

    fn deref(&self) -> &InstanceType {
        &self.list[self.index]
    }
}

impl TypeRef {
    /// What a pool could buy.
    fn of_pool(market: &Market, pool: &NodePool) -> impl Iterator<Item = Self> {
        let list = market.instance_types.get(&*pool.types_key()).map(Arc::clone).unwrap_or_default();
        (0..list.len()).map(move |index| Self { list: Arc::clone(&list), index })
    }

    /// Whether both are the same type of the same list.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.index == other.index && Arc::ptr_eq(&self.list, &other.list)
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) pool: Arc<NodePool>,
    /// Pools of equal weight are one tier: price decides between them.
    pub(super) tier: usize,
    /// Requirements and labels of its nodes, or what is wrong with them.
    pub(super) requirements: Result<Requirements, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) pool: usize,
    pub(super) tier: usize,
    pub(super) instance_type: TypeRef,
    /// Labels its nodes can have, zone and capacity type aside.
    pub(super) offered: Requirements,
    /// What the DaemonSets will take.
    pub(super) daemons: ResourceList,
    /// What is left for pods.
    pub(super) room: Amounts,
    /// The same with names.
    pub(super) room_list: ResourceList,
    /// Allowed by the pool; bit `i` of a mask is `offerings[i]`.
    pub(super) offerings: Vec<Sold>,
    /// Offerings that can be had now.
    pub(super) available: u64,
    /// Offerings that draw on no reservation.
    pub(super) paid: u64,
    /// NUMA nodes of a new machine, where its kubelet insists on them.
    pub(super) numa: Option<NumaRoom>,
    /// Ports that its DaemonSets take.
    pub(super) daemon_ports: Vec<HostPort>,
    /// Who is on a new machine before any pod is: its DaemonSets.
    pub(super) occupancy: Occupancy,
    /// The label that machines of the type have by chance and those of the shape for certain: others are returned.
    pub(super) drawn: Option<String>,
}

/// An offering, and what a machine of the shape costs by it: for a lottery, with the machines that are returned.
#[derive(Debug, Clone)]
pub(super) struct Sold {
    pub(super) offering: Offering,
    /// Expected price: the list price by the chance that a machine is one of the shape.
    pub(super) price: UsdPerHour,
}

impl std::ops::Deref for Sold {
    type Target = Offering;

    fn deref(&self) -> &Offering {
        &self.offering
    }
}

impl Shape {
    /// List price of the cheapest offering of `mask`, whatever the chances.
    pub(super) fn list_price(&self, mask: u64) -> Option<UsdPerHour> {
        self.cheapest(mask).map(|offering| offering.price)
    }

    /// Cheapest offering of `mask`: by price, then capacity type and zone.
    pub(super) fn cheapest(&self, mask: u64) -> Option<&Offering> {
        let allowed = self.offerings.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
        allowed.map(|(_, sold)| &sold.offering).min_by_key(|o| (o.price, o.capacity_type, &o.zone))
    }

    /// Price of the cheapest offering of `mask`.
    pub(super) fn price(&self, mask: u64) -> Option<UsdPerHour> {
        // Bit by bit: this is asked more often than anything else.
        let mut left = mask;
        let mut least: Option<UsdPerHour> = None;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let price = self.offerings.get(bit)?.price;
            least = Some(least.map_or(price, |least| least.min(price)));
        }
        least
    }

    /// Offerings for which `allowed` holds.
    pub(super) fn mask_where(&self, allowed: impl Fn(&Offering) -> bool) -> u64 {
        let bits = self.offerings.iter().enumerate();
        bits.filter(|(_, sold)| allowed(&sold.offering)).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }

    /// Offerings that can satisfy one requirement.
    pub(super) fn mask_of(&self, key: &str, set: &ValueSet) -> u64 {
        match key {
            kubernetes::ZONE => self.mask_where(|offering| set.allows(&offering.zone)),
            karpenter::CAPACITY_TYPE => {
                self.mask_where(|offering| set.allows(offering.capacity_type.as_str()))
            }
            // What was drawn may be any of the values that were wanted.
            _ if self.drawn.as_deref() == Some(key)
                && self.offered.get(key).is_none_or(|drawn| drawn.intersect(set) != *drawn) =>
            {
                0
            }
            _ if self.offered.could_satisfy(key, set) => self.mask_where(|_| true),
            _ => 0,
        }
    }

    /// Offerings that can satisfy all of `requirements`.
    pub(super) fn mask_of_all(&self, requirements: &Requirements) -> u64 {
        let all = self.mask_where(|_| true);
        requirements
            .iter()
            .fold(all, |mask, (key, set)| if mask == 0 { 0 } else { mask & self.mask_of(key, set) })
    }
}

impl Shape {
    /// Whether the kubelet of an empty machine would take a pod with these containers.
    pub(super) fn aligns(&self, containers: &[AlignedRequest]) -> bool {
        containers.is_empty() || self.numa.clone().is_none_or(|mut room| room.take(containers))
    }
}

impl Catalog {
    pub(super) fn compile(market: Market, axes: Axes, drawn: Drawn) -> Self {
        let mut order: Vec<&NodePool> = market.pools.iter().collect();
        order.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.name.cmp(&b.name)));
        let mut pools: Vec<Pool> = Vec::with_capacity(order.len());
        for pool in order {
            let tier = match pools.last() {
                Some(last) if last.pool.weight == pool.weight => last.tier,
                Some(last) => last.tier + 1,
                None => 0,
            };
            pools.push(Pool { pool: Arc::new(pool.clone()), tier, requirements: pool_requirements(pool) });
        }
        let mut shapes: Vec<Shape> = Vec::new();
        for (index, pool) in pools.iter().enumerate() {
            let Ok(requirements) = &pool.requirements else { continue };
            let daemon_sets = daemon_sets_of(&market.daemon_sets, &pool.pool);
            for instance_type in TypeRef::of_pool(&market, &pool.pool) {
                let place = (index, pool.tier, market.class_of(&pool.pool));
                let mut add = |drawn| {
                    add_shapes(&mut shapes, &axes, place, requirements, &daemon_sets, &instance_type, drawn);
                };
                add(None);
                if !instance_type.lotteries.is_empty() {
                    drawn.iter().for_each(|(key, set)| add(Some((key.as_str(), set))));
                }
            }
        }
        let mut by_price = vec![Vec::new(); pools.len()];
        let mut siblings = 1;
        let mut run: (usize, Option<&TypeRef>, usize) = (0, None, 0);
        for (index, shape) in shapes.iter().enumerate() {
            if let Some(price) = shape.price(shape.available & shape.paid) {
                by_price[shape.pool].push((price, index));
            }
            // Shapes of one type stand together.
            run = match run {
                (pool, Some(one), count) if pool == shape.pool && one.is(&shape.instance_type) => {
                    (pool, Some(one), count + 1)
                }
                _ => (shape.pool, Some(&shape.instance_type), 1),
            };
            siblings = siblings.max(run.2);
        }
        for list in &mut by_price {
            list.sort_by(|a, b| {
                let name = |index: usize| &shapes[index].instance_type.name;
                a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1))).then(a.1.cmp(&b.1))
            });
        }
        let aligns = shapes.iter().any(|shape| shape.numa.is_some());
        let varied = |pool: &Pool| pool.pool.requirements.iter().any(|one| one.min_values.is_some());
        let varied = pools.iter().any(varied);
        Self { axes, pools, shapes, by_price, siblings, aligns, varied, market, drawn }
    }

    /// Shapes that a pool could buy if its requirements were these.
    pub(super) fn shapes_if(&self, index: usize, requirements: &Requirements) -> Vec<Shape> {
        let pool = &self.pools[index];
        let daemon_sets = daemon_sets_of(&self.market.daemon_sets, &pool.pool);
        let mut shapes = Vec::new();
        for instance_type in TypeRef::of_pool(&self.market, &pool.pool) {
            let place = (index, pool.tier, self.market.class_of(&pool.pool));
            add_shapes(&mut shapes, &self.axes, place, requirements, &daemon_sets, &instance_type, None);
        }
        shapes
    }
}

/// Chances below this are none: more machines would be returned than anybody wants to draw.
const LEAST_CHANCE: f64 = 0.05;

/// What a machine costs that has to be drawn until it comes: by the expected number of draws.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a price by at most twenty
fn at_chance(price: UsdPerHour, chance: f64) -> UsdPerHour {
    if chance >= 1.0 { price } else { UsdPerHour((super::axes::real(price.0) / chance).ceil() as u64) }
}

/// Labels that some type leaves to chance.
pub(super) fn left_to_chance(market: &Market) -> BTreeSet<String> {
    let types = market.instance_types.values().flat_map(|types| types.iter());
    types.flat_map(|one| &one.lotteries).map(|lottery| lottery.key.clone()).collect()
}

/// Of the labels that are left to chance, those that pods ask for, with each set of values asked for.
pub(super) fn drawn_for(left_to_chance: &BTreeSet<String>, pending: &[&Pod]) -> Drawn {
    let mut found: BTreeSet<(String, ValueSet)> = BTreeSet::new();
    if left_to_chance.is_empty() {
        return Vec::new();
    }
    for pod in pending {
        for term in required_terms(&pod.spec).unwrap_or_default() {
            let asked =
                term.iter().filter(|(key, set)| left_to_chance.contains(*key) && !set.allows_absence());
            found.extend(asked.map(|(key, set)| (key.to_owned(), set.clone())));
        }
    }
    found.into_iter().collect()
}

/// What nodes of a pool are labelled with, as far as the pool says.
fn pool_requirements(pool: &NodePool) -> Result<Requirements, String> {
    let stated = Requirements::from_list(&pool.requirements).map_err(|error| error.to_string())?;
    let mut all = stated.intersect(&Requirements::from_labels(&pool.labels));
    all.constrain(karpenter::NODEPOOL, &ValueSet::of([pool.name.as_str()]));
    all.constrain(azure::AKS_NODE_CLASS, &ValueSet::of([pool.node_class.as_str()]));
    for key in [karpenter::REGISTERED, karpenter::INITIALIZED] {
        all.constrain(key, &ValueSet::of(["true"]));
    }
    Ok(all)
}

/// How many types a pool could buy by its requirements alone, and whether an offering of one of them is to be had now. `None`
/// where the requirements cannot be read.
pub(crate) fn compatible_types(market: &Market, pool: &NodePool) -> Option<(usize, bool)> {
    let requirements = pool_requirements(pool).ok()?;
    let (mut compatible, mut available) = (0, false);
    for instance_type in market.instance_types_of(pool) {
        let mut own = instance_type.requirements.clone();
        own.constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of([&*instance_type.name]));
        if !type_allowed(&requirements, &own) {
            continue;
        }
        let allowed = |key: &str, value: &str| {
            [&requirements, &own].iter().all(|side| side.get(key).is_none_or(|set| set.allows(value)))
        };
        let mut offerings = instance_type.offerings.iter().filter(|offering| {
            allowed(kubernetes::ZONE, &offering.zone)
                && allowed(karpenter::CAPACITY_TYPE, offering.capacity_type.as_str())
        });
        let Some(first) = offerings.next() else { continue };
        compatible += 1;
        available |= first.available || offerings.any(|offering| offering.available);
    }
    Some((compatible, available))
}

/// A DaemonSet that may run in a pool, with its alternatives: one of the terms must hold.
type DaemonTerms<'s> = (&'s DaemonSet, Vec<Requirements>);

/// DaemonSets whose pods tolerate the pool's taints. One that cannot be read never runs.
fn daemon_sets_of<'s>(daemon_sets: &'s [DaemonSet], pool: &NodePool) -> Vec<DaemonTerms<'s>> {
    let tolerating =
        daemon_sets.iter().filter(|set| untolerated(&pool.taints, &set.spec.tolerations).is_none());
    let mut terms: Vec<DaemonTerms<'_>> =
        tolerating.filter_map(|set| Some((set, required_terms(&set.spec).ok()?))).collect();
    // Shapes are told apart by which of them run there: their order decides among equals.
    terms.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    terms
}

/// The alternatives of a pod's required node constraints, in order; never empty.
pub(super) fn required_terms(spec: &PodSpec) -> Result<Vec<Requirements>, String> {
    let selector = Requirements::from_list(&spec.node_selector).map_err(|error| error.to_string())?;
    if spec.required_affinity.is_empty() {
        return Ok(vec![selector]);
    }
    let terms = spec.required_affinity.iter();
    terms
        .map(|term| {
            Requirements::from_list(term)
                .map(|term| selector.intersect(&term))
                .map_err(|error| error.to_string())
        })
        .collect()
}

fn add_shapes(
    shapes: &mut Vec<Shape>,
    axes: &Axes,
    (pool, tier, class): (usize, usize, Option<&NodeClass>),
    requirements: &Requirements,
    daemon_sets: &[DaemonTerms<'_>],
    instance_type: &TypeRef,
    drawn: Option<(&str, &ValueSet)>,
) {
    let mut own = instance_type.requirements.clone();
    let mut chance = 1.0;
    if let Some((key, wanted)) = drawn {
        let Some(lottery) = instance_type.lotteries.iter().find(|lottery| lottery.key == key) else { return };
        chance = lottery.chance(|value| wanted.allows(value)).min(1.0);
        if chance <= LEAST_CHANCE {
            return;
        }
        let won = lottery.chances.iter().filter(|(value, _)| wanted.allows(value));
        own.constrain(key, &ValueSet::of(won.map(|(value, _)| value.as_str())));
    }
    own.constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of([&*instance_type.name]));
    if !type_allowed(requirements, &own) {
        return;
    }
    let mut template = Shape {
        pool,
        tier,
        instance_type: instance_type.clone(),
        offered: own.intersect(requirements),
        daemons: ResourceList::default(),
        room: Amounts::new(),
        room_list: ResourceList::default(),
        offerings: Vec::new(),
        available: 0,
        paid: 0,
        numa: class.and_then(|class| NumaRoom::of(class, instance_type.numa.as_ref())),
        daemon_ports: Vec::new(),
        occupancy: Occupancy::default(),
        drawn: drawn
            .and_then(|(key, _)| instance_type.lotteries.iter().find(|lottery| lottery.key == key))
            .map(|one| one.key.clone()),
    };
    let allowed = |key: &str, value: &str| {
        [requirements, &own].iter().all(|side| side.get(key).is_none_or(|set| set.allows(value)))
    };
    let offerings: Vec<&Offering> = instance_type
        .offerings
        .iter()
        .filter(|offering| {
            allowed(kubernetes::ZONE, &offering.zone)
                && allowed(karpenter::CAPACITY_TYPE, offering.capacity_type.as_str())
        })
        .collect();
    for chunk in offerings.chunks(OFFERINGS_PER_SHAPE) {
        template.offerings =
            chunk.iter().map(|one| Sold { offering: Offering::clone(one), price: one.price }).collect();
        // Which DaemonSets run where: one bit per set that differs would do, a list of them is rarely more than one entry.
        let running: Vec<u64> = daemon_sets
            .iter()
            .map(|(_, terms)| terms.iter().fold(0, |mask, term| mask | template.mask_of_all(term)))
            .collect();
        let mut groups: BTreeMap<(Vec<bool>, usize), Vec<&Offering>> = BTreeMap::new();
        let mut overrides: Vec<Option<&OfferingOverrides>> = vec![None];
        for (bit, offering) in chunk.iter().enumerate() {
            let runs = running.iter().map(|mask| mask & (1 << bit) != 0).collect();
            let own = offering.overrides.as_deref();
            let number = overrides.iter().position(|one| *one == own).unwrap_or_else(|| {
                overrides.push(own);
                overrides.len() - 1
            });
            groups.entry((runs, number)).or_default().push(*offering);
        }
        for ((runs, number), offerings) in groups {
            let allocatable = instance_type.allocatable_with(overrides[number]);
            let mut daemons = ResourceList::default();
            let mut daemon_ports = Vec::new();
            for ((set, _), _) in daemon_sets.iter().zip(runs).filter(|(_, runs)| *runs) {
                daemons += &set.spec.requests;
                daemon_ports.extend(set.spec.host_ports.iter().cloned());
            }
            let room_list = allocatable.clone() - &daemons;
            let sold = offerings
                .into_iter()
                .map(|one| Sold { offering: one.clone(), price: at_chance(one.price, chance) });
            let mut shape = Shape { offerings: sold.collect(), daemons, daemon_ports, ..template.clone() };
            // A type too small for its DaemonSets has no room for pods either.
            shape.room = if shape.daemons.fits(&allocatable) {
                axes.room(&allocatable, &shape.daemons, |_| 0)
            } else {
                Amounts::from_elem(0, axes.len())
            };
            shape.room_list = room_list;
            shape.available = shape.mask_where(|offering| offering.available);
            shape.paid = shape.mask_where(|offering| offering.reservation.is_none());
            shapes.push(shape);
        }
    }
}

/// Whether the pool allows a type. A key the type does not have is the pool's to define, unless only hardware can.
fn type_allowed(pool: &Requirements, own: &Requirements) -> bool {
    pool.iter().all(|(key, set)| match own.get(key) {
        Some(other) => set.intersects(other),
        None => set.allows_absence() || (!set.is_empty() && !key.starts_with(hardware::PREFIX)),
    })
}
