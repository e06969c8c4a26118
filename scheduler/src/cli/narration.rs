//! Timelines and their sums, for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use assay_core::engine::EventKind;

use crate::sim::{Entry, Summary};

/// One line: `   12.000s   Node/general-x   Joined   Standard_D4s_v5 in eastus-1`; `!` marks warnings.
pub(crate) fn line(entry: &Entry) -> String {
    let mark = if entry.kind == EventKind::Warning { "!" } else { " " };
    let at = entry.at.to_string();
    format!("{at:>10} {mark} {:<28} {:<22} {}", entry.object, entry.reason, entry.message)
}

/// The sums.
pub(crate) fn summary(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let counts = |counts: &BTreeMap<String, u64>| {
        let list: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if list.is_empty() { "none".to_owned() } else { list.join(", ") }
    };
    let Summary { seconds, bought, launch_failures, joined, learned_purchases, labels_refined, .. } = summary;
    writeln!(out)?;
    writeln!(out, "bought      {bought} machines ({launch_failures} refused, {joined} joined)")?;
    writeln!(out, "learned     {learned_purchases} purchases counted on measured memory")?;
    writeln!(out, "refined     {labels_refined} labels")?;
    writeln!(out, "mismatches  {}", counts(&summary.mismatches))?;
    writeln!(out, "given back  {}", counts(&summary.released))?;
    let Summary { pods_running, pods_pending, nodes, cost_usd, price_per_hour, .. } = summary;
    writeln!(out, "now         {pods_running} pods run on {nodes} nodes, {pods_pending} wait")?;
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    writeln!(out, "cost        ${cost_usd:.4} in {minutes}m{seconds:02}s, ${price_per_hour:.4}/h now")
}
