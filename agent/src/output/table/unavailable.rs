//! The list of what is not known, one line for each reason.

use assay_shared::report::{Facts, HardwareReport};

use super::super::grid::{Cell, Page, Tone, cut};

/// Reasons shown; the JSON form has all.
const LINES: usize = 24;
/// Width of the column of facts.
const FACTS_WIDTH: usize = 40;

/// Lists the facts that are unavailable.
pub(super) fn list(page: &mut Page, report: &HardwareReport) {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    report.each_unavailable("", &mut |path, reason| match reasons
        .iter_mut()
        .find(|(known, _)| known == reason)
    {
        Some((_, facts)) => facts.push(path.to_owned()),
        None => reasons.push((reason.clone(), vec![path.to_owned()])),
    });
    if reasons.is_empty() {
        return;
    }
    page.gap();
    let count: usize = reasons.iter().map(|(_, facts)| facts.len()).sum();
    page.section(
        "Unknown",
        &[Cell::plain(format!("{count} fact{}, and why", if count == 1 { "" } else { "s" }))],
    );
    let row = |(reason, facts): &(String, Vec<String>)| {
        vec![Cell::new(together(facts), Tone::Warning), Cell::new(reason, Tone::Faint)]
    };
    let rows: Vec<Vec<Cell>> = reasons.iter().take(LINES).map(row).collect();
    page.grid(&rows, 1);
    if let Some(more) = reasons.len().checked_sub(LINES).filter(|more| *more > 0) {
        page.section("", &[Cell::new(format!("… and {more} more reasons: see -o json"), Tone::Faint)]);
    }
}

/// Facts of one reason in few words: `cpu.sockets, cpu.l3Bytes +4`.
fn together(facts: &[String]) -> String {
    let mut text = String::new();
    for (index, fact) in facts.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        if index > 0 && text.len() + comma.len() + fact.len() > FACTS_WIDTH - 4 {
            return format!("{text} +{}", facts.len() - index);
        }
        text.push_str(comma);
        text.push_str(&cut(fact, FACTS_WIDTH));
    }
    text
}
