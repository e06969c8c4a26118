//! A disruption plan for people.

use std::io::Write;

use assay_core::disrupt::{Command, DisruptionPlan};

use super::document::difference;
use crate::cli::output::Table;

/// Nodes of a command that are named.
const NAMED: usize = 3;

/// Writes what goes, what stays and why, and the bill.
pub(super) fn write(out: &mut dyn Write, plan: &DisruptionPlan) -> anyhow::Result<()> {
    if !plan.commands.is_empty() {
        let mut table =
            Table::new(&["#", "REASON", "NODES", "REPLACED BY", "SAVES PER HOUR", "EVICTIONS", "WHY"]);
        for (index, command) in plan.commands.iter().enumerate() {
            let saving = difference(command.price, command.replacement_price);
            table.row([
                index.to_string(),
                command.reason.as_str().to_owned(),
                some(command.nodes.iter().map(|node| &**node)),
                replacements(command),
                format!("${saving:.4}"),
                command.evictions().to_string(),
                command.detail.clone(),
            ]);
        }
        table.write(out)?;
        writeln!(out)?;
    }
    if !plan.blocked.is_empty() {
        let mut table = Table::new(&["STAYS", "BECAUSE", "DETAIL", "WOULD TAKE"]);
        for one in &plan.blocked {
            let fix = one.fix.clone().unwrap_or_default();
            table.row([one.node.to_string(), one.reason.as_str().to_owned(), one.detail.clone(), fix]);
        }
        table.write(out)?;
        writeln!(out)?;
    }
    let totals = plan.totals;
    writeln!(
        out,
        "{} nodes go, {} are bought, {} pods move: {} instead of {}",
        totals.nodes, totals.replacements, totals.evictions, totals.price_after, totals.price
    )?;
    Ok(())
}

fn some<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    let shown = names[..names.len().min(NAMED)].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn replacements(command: &Command) -> String {
    if command.replacements.is_empty() {
        return "-".to_owned();
    }
    let text = |claim: &assay_core::model::PlannedClaim| {
        format!("{} in {} ({})", claim.instance_type, claim.zone, claim.capacity_type)
    };
    let texts: Vec<String> = command.replacements.iter().map(text).collect();
    some(texts.iter().map(String::as_str))
}
