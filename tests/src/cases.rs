//! Cases of table tests: one file of YAML each, by topic in folders.

use std::io;
use std::path::{Path, PathBuf};

/// All cases below a folder, in order; with `ASSAY_CASE=spread/` those whose path holds that.
///
/// # Errors
/// A folder that cannot be read.
pub fn cases(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let filter = std::env::var("ASSAY_CASE").unwrap_or_default();
    let mut found = Vec::new();
    collect(directory, &mut found)?;
    found.retain(|case| case.to_string_lossy().contains(&filter));
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    Ok(())
}
