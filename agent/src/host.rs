//! The machine's files, below a root: the only way probes read anything.
//!
//! [`RootDir`] reads a directory (`/`, a `/host` mount, a test tree). `crate::tree` has the same in memory. Paths are
//! relative to the root and never start with a slash: `sys/class/net`. [`read`] turns files into facts.

pub mod read;
mod root;

use std::fmt::Debug;
use std::io;

pub use root::RootDir;

/// Longest file a probe reads. `/proc/cpuinfo` of a 416-CPU machine is about 600 KiB.
pub const READ_LIMIT: usize = 4 << 20;

/// Most names a probe takes from one directory. `sys/devices/system/memory` of a 12 TiB machine has about 100,000
/// (blocks of 128 MiB).
pub const LIST_LIMIT: usize = 1 << 18;

/// Read-only access to a machine's files. Errors are the operating system's kinds, so that `NotFound` can mean absent
/// while everything else means unavailable.
pub trait HostFs: Debug + Send + Sync {
    /// The whole file, at most [`READ_LIMIT`] bytes; a longer one, or one that is not a regular file, is an error.
    /// Symbolic links are followed, but never out of the root.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Names in a directory, sorted.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// What the symbolic link at `path` says, as it is written; links above it are followed. An error where there is
    /// something else than a link.
    fn read_link(&self, path: &str) -> io::Result<String>;

    /// Where a path leads once every symbolic link is followed, relative to the root.
    fn resolve(&self, path: &str) -> io::Result<String>;

    /// Whether there is a file, directory or other node at `path`, links followed.
    fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_ok()
    }
}
