//! What was learned before, from a file.

use std::path::Path;

use anyhow::Context;
use assay_core::profile::ProfileStore;

/// The profiles in a file that a scheduler or `assay simulate --profiles-out` wrote; none where there is no file.
pub(super) fn read(path: Option<&Path>) -> anyhow::Result<ProfileStore> {
    let Some(path) = path else { return Ok(ProfileStore::new()) };
    let file = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(file)?;
    ProfileStore::import(&text).with_context(file)
}
