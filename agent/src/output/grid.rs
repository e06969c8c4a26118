//! Text in aligned columns of bounded width, with colour where it is wanted.

use std::fmt::Write;

/// Widest line printed.
pub(super) const WIDTH: usize = 100;
/// Width of the column that names the section.
pub(super) const MARGIN: usize = 10;

/// What a piece of text means, for those who see colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Heading,
    Faint,
    Good,
    Warning,
    Bad,
}

impl Tone {
    /// The parameters of the terminal's "select graphic rendition" sequence.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
        }
    }
}

/// A piece of text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text may come from anywhere, so what would move a terminal's cursor is replaced.
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text: String = text.into();
        let text =
            if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text };
        Self { text, tone }
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// The text cut to `width`, and filled up to it if another cell follows.
    fn render(&self, width: usize, fill: bool, colour: bool) -> String {
        let cut = cut(&self.text, width);
        let code = if colour { self.tone.code() } else { "" };
        let mut out = if code.is_empty() { cut.clone() } else { format!("\u{1b}[{code}m{cut}\u{1b}[0m") };
        if fill {
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cut.chars().count())));
        }
        out
    }
}

/// `text` in at most `width` characters, with `…` for what was cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    out: String,
    colour: bool,
}

impl Page {
    pub(super) const fn new(colour: bool) -> Self {
        Self { out: String::new(), colour }
    }

    /// A line without a section, over the whole width.
    pub(super) fn line(&mut self, cell: &Cell) {
        self.push(&cell.render(WIDTH, false, self.colour));
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.out.push('\n');
    }

    /// A section: its name in the margin, beside its first line.
    pub(super) fn section(&mut self, name: &str, lines: &[Cell]) {
        let mut name = Cell::new(name, Tone::Heading);
        for line in lines {
            let margin = name.render(MARGIN, true, self.colour);
            self.push(&format!("{margin}{}", line.render(WIDTH - MARGIN, false, self.colour)));
            name = Cell::plain("");
        }
    }

    /// Rows of a section, each column as wide as its widest cell. The column at `elastic` gives way where the line
    /// would be too long.
    pub(super) fn grid(&mut self, rows: &[Vec<Cell>], elastic: usize) {
        const BETWEEN: usize = 2;
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| {
                rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or_default()
            })
            .collect();
        let total: usize = widths.iter().sum::<usize>() + BETWEEN * columns.saturating_sub(1);
        if let Some(width) = widths.get_mut(elastic) {
            // Never so narrow that nothing can be read.
            let room = width.saturating_sub(total.saturating_sub(WIDTH - MARGIN));
            *width = (*width).min(room.max(8));
        }
        for row in rows {
            let mut line = " ".repeat(MARGIN);
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let last = index + 1 == row.len();
                let room = WIDTH.saturating_sub(MARGIN);
                line.push_str(&cell.render((*width).min(room), !last, self.colour));
                if !last {
                    line.push_str("  ");
                }
            }
            self.push(&line);
        }
    }

    /// What was written.
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn push(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_elastic_one_gives_way() {
        let mut page = Page::new(false);
        let long = "x".repeat(200);
        page.grid(
            &[
                vec![Cell::plain("NAME"), Cell::plain("MODEL"), Cell::plain("SIZE")],
                vec![Cell::plain("nvme0n1"), Cell::plain(long), Cell::plain("1.7 TiB")],
            ],
            1,
        );
        let text = page.finish();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        let column = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count());
        assert_eq!(column(lines[0], "SIZE"), column(lines[1], "1.7 TiB"));
        assert!(lines[1].contains('…'));
    }

    #[test]
    fn colour_is_only_where_it_is_wanted_and_control_characters_never_are() {
        let cell = Cell::new("lost\u{1b}[2J", Tone::Bad);
        assert_eq!(cell.render(WIDTH, false, false), "lost\u{fffd}[2J");
        assert_eq!(cell.render(WIDTH, false, true), "\u{1b}[31mlost\u{fffd}[2J\u{1b}[0m");
    }
}
