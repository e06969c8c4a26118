//! A plan for people.

use std::io::Write;

use assay_core::model::Plan;

use crate::cli::output::Table;

/// Writes what is bought, what exists, what is left out, and the bill.
pub(super) fn write(out: &mut dyn Write, plan: &Plan, explain: bool) -> anyhow::Result<()> {
    if !plan.claims.is_empty() {
        let mut headings =
            vec!["NODECLAIM", "INSTANCE TYPE", "ZONE", "CAPACITY", "PRICE", "CPU", "MEMORY", "PODS"];
        headings.extend(explain.then_some("NEXT BEST"));
        let mut claims = Table::new(&headings);
        for claim in &plan.claims {
            let others = claim.options.iter().filter(|option| option.name != claim.instance_type).take(3);
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
        let mut left_out = Table::new(&["LEFT OUT", "NODEPOOL", "REASON", "DETAIL"]);
        for pod in &plan.unschedulable {
            for reason in &pod.reasons {
                let pool = reason.pool.clone().unwrap_or_else(|| "-".to_owned());
                left_out.row([
                    pod.pod.to_string(),
                    pool,
                    reason.reason.as_str().to_owned(),
                    reason.detail.clone(),
                ]);
            }
        }
        left_out.write(out)?;
        writeln!(out)?;
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
