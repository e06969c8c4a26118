//! Reads the traces and instances under `../shared/data`: gzip, tar and comma-separated values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;

/// The data folder next to the repository; `None` where it is not there.
pub(super) fn folder() -> Option<PathBuf> {
    let folder = Path::new("../shared/data");
    folder.is_dir().then(|| folder.to_path_buf())
}

fn unzipped(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
    Ok(bytes)
}

/// Rows of a table by the names of its header.
pub(super) struct Table {
    header: BTreeMap<String, usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// From text with a separator; fields hold no quotes.
    pub(super) fn parse(text: &str, separator: char) -> Self {
        let split = |line: &str| line.split(separator).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let header = lines.next().map(split).unwrap_or_default();
        Self { header: header.into_iter().zip(0..).collect(), rows: lines.map(split).collect() }
    }

    /// A gzipped file.
    pub(super) fn gzip(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::parse(&String::from_utf8(unzipped(path)?)?, ','))
    }

    /// Its rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|cells| Row { header: &self.header, cells })
    }
}

/// A row of a table.
pub(super) struct Row<'t> {
    header: &'t BTreeMap<String, usize>,
    cells: &'t [String],
}

impl<'t> Row<'t> {
    /// The cell of a column; empty where there is none.
    pub(super) fn cell(&self, column: &str) -> &'t str {
        self.header.get(column).and_then(|at| self.cells.get(*at)).map_or("", String::as_str)
    }
}

/// Files of a gzipped tar archive by the last part of their name. Reads what `tar` writes for short names, no more.
pub(crate) fn archive(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    const BLOCK: usize = 512;
    let bytes = unzipped(path)?;
    let mut files = BTreeMap::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + BLOCK).filter(|header| header[0] != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let size = usize::from_str_radix(&text(124..136), 8).context("size in a tar header")?;
        let content = bytes.get(at + BLOCK..at + BLOCK + size).context("a tar archive ends early")?;
        if matches!(header[156], b'0' | 0) {
            let name = text(0..100).rsplit('/').next().unwrap_or_default().to_owned();
            files.insert(name, String::from_utf8(content.to_vec())?);
        }
        at += BLOCK + size.div_ceil(BLOCK) * BLOCK;
    }
    ensure!(!files.is_empty(), "{} is an empty archive", path.display());
    Ok(files)
}
