//! A plan for people.

use std::collections::HashMap;
use std::io::Write;

use assay_core::model::{Plan, PlannedClaim, PodId, PoolReason, Unschedulable};

use crate::cli::output::Table;

/// Columns of text that says why.
const WIDTH: usize = 110;

/// Writes what is bought, what exists, what is left out, and the bill.
pub(super) fn write(out: &mut dyn Write, plan: &Plan, explain: bool) -> anyhow::Result<()> {
    if !plan.claims.is_empty() {
        let mut headings =
            vec!["NODECLAIM", "INSTANCE TYPE", "ZONE", "CAPACITY", "PRICE", "CPU", "MEMORY", "PODS"];
        headings.extend(explain.then_some("NEXT BEST"));
        let mut claims = Table::new(&headings);
        for claim in &plan.claims {
            let others = claim.explanation.iter().flat_map(|why| &why.next);
            let others: Vec<_> = others.map(|option| format!("{} {}", option.name, option.price)).collect();
            let cells = [
                claim.name.clone(),
                claim.instance_type.to_string(),
                claim.zone.to_string(),
                claim.capacity_type.to_string(),
                claim.price.to_string(),
                claim.requests.cpu.to_string(),
                claim.requests.memory.to_string(),
                claim.pods.len().to_string(),
            ];
            claims.row(cells.into_iter().chain(explain.then(|| others.join(", "))));
        }
        claims.write(out)?;
        writeln!(out)?;
        ruled_out(out, &plan.claims)?;
    }
    if !plan.existing.is_empty() {
        let mut existing = Table::new(&["EXISTING NODE", "PODS"]);
        for assignment in &plan.existing {
            existing.row([assignment.name.to_string(), assignment.pods.len().to_string()]);
        }
        existing.write(out)?;
        writeln!(out)?;
    }
    if !plan.unschedulable.is_empty() {
        left_out(out, &plan.unschedulable)?;
    }
    let totals = plan.totals;
    let (existing, left_out) = (plan.existing.len(), plan.unschedulable.len());
    writeln!(
        out,
        "{} pods on {} new and {existing} existing nodes, {left_out} left out; {} (no plan can cost less than {})",
        totals.pods, totals.nodes, totals.price, totals.lower_bound,
    )?;
    Ok(())
}

/// Cheaper machines that would not do, once for claims next to each other that say the same.
fn ruled_out(out: &mut dyn Write, claims: &[PlannedClaim]) -> anyhow::Result<()> {
    let explained: Vec<_> = claims
        .iter()
        .filter_map(|claim| Some((claim, claim.explanation.as_ref()?)))
        .filter(|(_, why)| !why.ruled_out.is_empty())
        .collect();
    if explained.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["NODECLAIM", "CHEAPER", "PRICE", "RULED OUT BECAUSE"]);
    for run in explained.chunk_by(|(_, one), (_, two)| one.ruled_out == two.ruled_out) {
        let (first, last) = (&run[0].0.name, &run[run.len() - 1].0.name);
        let mut names = if run.len() == 1 { first.clone() } else { format!("{first} … {last}") };
        for one in &run[0].1.ruled_out {
            let cells =
                [std::mem::take(&mut names), one.name.to_string(), one.price.to_string(), one.why.clone()];
            table.row(cells);
        }
    }
    table.write(out)?;
    writeln!(out)?;
    Ok(())
}

/// Pods that were left out, those with the same reasons together, in the order of the first of each.
fn left_out(out: &mut dyn Write, unschedulable: &[Unschedulable]) -> anyhow::Result<()> {
    let mut numbers: HashMap<&[PoolReason], usize> = HashMap::new();
    let mut groups: Vec<(&[PoolReason], Vec<&PodId>)> = Vec::new();
    for one in unschedulable {
        let number = *numbers.entry(&one.reasons).or_insert_with(|| {
            groups.push((&one.reasons, Vec::new()));
            groups.len() - 1
        });
        groups[number].1.push(&one.pod);
    }
    writeln!(out, "LEFT OUT")?;
    for (reasons, pods) in groups {
        let names = match pods.as_slice() {
            [one] => one.to_string(),
            [first, .., last] => format!("{first} … {last} ({} pods)", pods.len()),
            [] => continue,
        };
        writeln!(out, "{names}:")?;
        for reason in reasons {
            let pool = reason.pool.as_ref().map_or_else(String::new, |pool| format!("pool {pool}: "));
            wrapped(out, &format!("{pool}{}: {}", reason.reason.as_str(), reason.detail), 2)?;
            if let Some(fix) = &reason.fix {
                wrapped(out, &format!("fix: {fix}"), 4)?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

/// Writes words on lines of at most [`WIDTH`] columns; lines after the first are indented further.
fn wrapped(out: &mut dyn Write, text: &str, indent: usize) -> std::io::Result<()> {
    let mut line = " ".repeat(indent);
    let mut is_fresh = true;
    for word in text.split_whitespace() {
        if !is_fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(out, "{line}")?;
            line = " ".repeat(indent + 4);
            is_fresh = true;
        }
        if !is_fresh {
            line.push(' ');
        }
        line.push_str(word);
        is_fresh = false;
    }
    writeln!(out, "{line}")
}
