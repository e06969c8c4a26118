//! Cost against moves, as a table and a picture.

use std::fmt::Write as _;

/// One cluster.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Percent of the pods that may move, and cost by lower bound.
    pub(super) points: Vec<(f64, f64)>,
    /// Where Karpenter's way ends.
    pub(super) theirs: (f64, f64),
}

impl Line {
    /// Mean of what costs more than the bound over all numbers of moves, in percent: the smaller, the sooner it pays.
    fn area(&self) -> f64 {
        let trapezes =
            self.points.windows(2).map(|two| (two[1].0 - two[0].0) * f64::midpoint(two[0].1, two[1].1));
        trapezes.sum::<f64>() - self.points.last().map_or(0.0, |last| last.0)
    }
}

pub(super) fn table(page: &mut String, parts: &[usize], lines: &[Line]) -> anyhow::Result<()> {
    let heads: Vec<String> = parts.iter().map(|part| format!("{part} %")).collect();
    writeln!(page, "| pods | 0 % | {} | area, % |", heads.join(" | "))?;
    writeln!(page, "|---|--:|{}--:|", "--:|".repeat(parts.len()))?;
    for line in lines {
        let cells: Vec<String> = line.points.iter().map(|(_, cost)| format!("{cost:.4}")).collect();
        writeln!(page, "| {} | {} | {:.1} |", line.name, cells.join(" | "), line.area())?;
    }
    Ok(())
}

/// The curves; a ring is where Karpenter's way ends.
pub(super) fn svg(lines: &[Line]) -> String {
    const WIDTH: f64 = 860.0;
    const HEIGHT: f64 = 480.0;
    const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];
    let top = lines.iter().flat_map(|line| &line.points).map(|(_, cost)| *cost).fold(1.2_f64, f64::max);
    let right = lines.iter().map(|line| line.theirs.0).fold(100.0_f64, f64::max);
    let x = |moves: f64| 60.0 + moves / right * (WIDTH - 320.0);
    let y = |cost: f64| HEIGHT - 50.0 - (cost - 1.0) / (top - 1.0) * (HEIGHT - 80.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut add = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    for step in 0..=10 {
        let (moves, cost) = (right * f64::from(step) / 10.0, 1.0 + (top - 1.0) * f64::from(step) / 10.0);
        add(format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{moves:.0} %</text>",
            x(moves),
            HEIGHT - 32.0
        ));
        add(format!("<path d=\"M60 {0:.1}H{1:.0}\" stroke=\"#ddd\"/>", y(cost), WIDTH - 260.0));
        add(format!("<text x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{cost:.2}</text>", y(cost) + 4.0));
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number / 2 % COLOURS.len()];
        let dash = if number % 2 == 1 { " stroke-dasharray=\"5 3\"" } else { "" };
        let path: Vec<String> =
            line.points.iter().map(|(moves, cost)| format!("{:.1},{:.1}", x(*moves), y(*cost))).collect();
        add(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            path.join(" ")
        ));
        let (moves, cost) = line.theirs;
        add(format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"none\" stroke=\"{colour}\"/>",
            x(moves),
            y(cost)
        ));
        let at = 30 + 16 * number;
        add(format!("<text x=\"{:.0}\" y=\"{at}\" fill=\"{colour}\">{}</text>", WIDTH - 250.0, line.name));
    }
    add(format!(
        "<text x=\"300\" y=\"{:.0}\" text-anchor=\"middle\">pods moved, of those left; rings: Karpenter's way</text>",
        HEIGHT - 12.0
    ));
    svg.push_str("</svg>\n");
    svg
}
