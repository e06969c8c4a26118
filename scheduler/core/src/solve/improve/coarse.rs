//! Items by the hundred instead of by the thousand: those of about one size become a group.

use super::generate::Scope;
use super::model::{Model, real};

/// Items of about one size.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) members: Vec<u32>,
    /// How many there are of all members together.
    pub(super) count: f64,
    /// Their mean amounts by axis, as shares of a typical room.
    pub(super) share: Vec<f64>,
}

/// Some members, the axis along which they differ most, and how much that weighs.
struct Part {
    weight: f64,
    axis: usize,
    members: Vec<u32>,
}

/// At most `most` groups of what is in scope; `prices` weigh axes.
pub(super) fn groups(model: &Model, scope: &Scope, prices: &[f64], most: usize) -> Vec<Group> {
    let size = |item: u32, axis: usize| model.share(item as usize)[axis] * prices[axis];
    let count = |members: &[u32]| real(members.iter().map(|item| scope.left[*item as usize]).sum());
    let part = |members: Vec<u32>| {
        let wide = |axis: usize| {
            let sizes = || members.iter().map(|item| size(*item, axis));
            sizes().fold(0.0, f64::max) - sizes().fold(f64::INFINITY, f64::min)
        };
        let wide = (0..model.axes).map(|axis| (wide(axis), axis));
        let (wide, axis) = wide.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).unwrap_or((0.0, 0));
        Part { weight: wide * count(&members), axis, members }
    };
    let mut parts = vec![part(scope.items.clone())];
    while parts.len() < most {
        let widest =
            (0..parts.len()).max_by(|a, b| parts[*a].weight.total_cmp(&parts[*b].weight).then(b.cmp(a)));
        let Some(widest) = widest.filter(|widest| parts[*widest].weight > 0.0) else { break };
        let Part { axis, mut members, .. } = parts.swap_remove(widest);
        members.sort_by(|a, b| size(*a, axis).total_cmp(&size(*b, axis)).then(a.cmp(b)));
        let middle = f64::midpoint(size(members[0], axis), size(members[members.len() - 1], axis));
        // Both halves have some: sizes differ.
        let at = members.partition_point(|item| size(*item, axis) <= middle).clamp(1, members.len() - 1);
        let upper = members.split_off(at);
        parts.push(part(members));
        parts.push(part(upper));
    }
    let group = |Part { members, .. }: Part| {
        let count = count(&members);
        let mut share = vec![0.0; model.axes];
        for item in &members {
            let part = real(scope.left[*item as usize]) / count;
            share.iter_mut().zip(model.share(*item as usize)).for_each(|(sum, one)| *sum += one * part);
        }
        Group { members, count, share }
    };
    parts.into_iter().map(group).collect()
}
