//! How the time of a solve grows with pods, instance types and nodes: a table and a plot in `bench/results/`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use assay_core::model::Snapshot;
use assay_core::solve::{SolveOptions, solve};

use crate::recipe;
use crate::report::machine;
use crate::{karpenter, warm};

/// One line of the plot: sizes and milliseconds.
struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// Runs everything; prints the table and writes `growth.md` and `growth.svg`.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut pods = Series { name: "pods (recipe, 400 types)", points: Vec::new() };
    for count in [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000] {
        let snapshot = karpenter::snapshot(&recipe::diverse(count))?;
        pods.points.push(point(count, &snapshot)?);
    }
    let mut types = Series { name: "instance types (2,000 pods of the recipe)", points: Vec::new() };
    let mut input = recipe::diverse(2_000);
    for count in [10, 30, 100, 300, 1_000, 3_000] {
        input.types = recipe::fake_types(count);
        types.points.push(point(count as usize, &karpenter::snapshot(&input)?)?);
    }
    let mut nodes = Series { name: "nodes (20 pods on each; 100 pods arrive)", points: Vec::new() };
    for count in [10, 30, 100, 300, 1_000, 3_000, 10_000] {
        let mut snapshot = warm::cluster(count, 20);
        snapshot.pods.extend(warm::arrivals(100));
        nodes.points.push(point(count, &snapshot)?);
    }
    let all = [pods, types, nodes];
    let mut page = format!(
        "# How the time of a solve grows\n\nMachine: {}. `make bench-growth` makes this page and the plot; the fastest of three.\n\n![plot](growth.svg)\n",
        machine()
    );
    for series in &all {
        writeln!(page, "\n| {} | milliseconds |\n|---|---|", series.name)?;
        for (size, time) in &series.points {
            writeln!(page, "| {size:.0} | {time:.2} |")?;
        }
    }
    print!("{page}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    std::fs::write(results.join("growth.md"), page)?;
    std::fs::write(results.join("growth.svg"), plot(&all))?;
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // sizes of a plot
fn point(size: usize, snapshot: &Snapshot) -> anyhow::Result<(f64, f64)> {
    let mut fastest = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        let plan = solve(snapshot, &SolveOptions::default());
        fastest = fastest.min(started.elapsed().as_secs_f64() * 1e3);
        ensure!(plan.unschedulable.is_empty(), "{} pods left out", plan.unschedulable.len());
    }
    eprintln!("{size}: {fastest:.2} ms");
    Ok((size as f64, fastest))
}

/// Lines over two logarithmic axes, as SVG.
fn plot(all: &[Series]) -> String {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 460.0;
    const LEFT: f64 = 70.0;
    const BOTTOM: f64 = 60.0;
    let points = || all.iter().flat_map(|series| &series.points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) =
            values.fold((f64::INFINITY, 0.0_f64), |(low, high), one| (low.min(one), high.max(one)));
        (low.log10().floor(), high.log10().ceil())
    };
    let (x_low, x_high) = range(&mut points().map(|(size, _)| *size));
    let (y_low, y_high) = range(&mut points().map(|(_, time)| *time));
    let x = |size: f64| LEFT + (size.log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - 20.0);
    let y =
        |time: f64| HEIGHT - BOTTOM - (time.log10() - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut line = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    let mut decade = x_low;
    while decade <= x_high {
        let (at, label) = (x(10_f64.powf(decade)), 10_f64.powf(decade));
        line(format!("<path d=\"M{at:.1} 20V{:.1}\" stroke=\"#ddd\"/>", HEIGHT - BOTTOM));
        line(format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - BOTTOM + 18.0
        ));
        decade += 1.0;
    }
    let mut decade = y_low;
    while decade <= y_high {
        let (at, label) = (y(10_f64.powf(decade)), 10_f64.powf(decade));
        line(format!("<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - 20.0));
        line(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label} ms</text>",
            LEFT - 6.0,
            at + 4.0
        ));
        decade += 1.0;
    }
    for (series, colour) in all.iter().zip(["#0072b2", "#d55e00", "#009e73"]) {
        let path: Vec<String> =
            series.points.iter().map(|(size, time)| format!("{:.1},{:.1}", x(*size), y(*time))).collect();
        line(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        for point in &path {
            let (left, top) = point.split_once(',').unwrap_or_default();
            line(format!("<circle cx=\"{left}\" cy=\"{top}\" r=\"3\" fill=\"{colour}\"/>"));
        }
    }
    for (number, (series, colour)) in all.iter().zip(["#0072b2", "#d55e00", "#009e73"]).enumerate() {
        let top = [34.0, 52.0, 70.0].get(number).copied().unwrap_or(88.0);
        line(format!("<text x=\"{:.1}\" y=\"{top}\" fill=\"{colour}\">{}</text>", LEFT + 12.0, series.name));
    }
    line(format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">how many</text>",
        WIDTH / 2.0,
        HEIGHT - 16.0
    ));
    svg.push_str("</svg>\n");
    svg
}
