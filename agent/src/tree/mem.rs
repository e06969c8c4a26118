//! A file tree in memory, with symbolic links and with files that fail.
//!
//! Paths are relative to the root, as in [`HostFs`]. Links are followed inside the root: an absolute target starts at the
//! root, and `..` does not leave it, as in a `chroot`. The same tree can be written to a directory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use rustix::io::Errno;

use crate::host::{HostFs, READ_LIMIT};

/// Links followed in one path before the answer is `ELOOP`, as in Linux.
const MAX_LINKS: u32 = 40;

/// What [`Damage::Garbage`] puts into a file: no number, no list, no text in UTF-8.
const GARBAGE: &[u8] = b"\xff\xfe\x00 %$# garbage \x80\n\x01\n= : , - \xf0\x28\n";

/// Length of a [`Damage::Huge`] file: one that nobody should try to read.
const HUGE: u64 = 1 << 40;

/// A file tree in memory.
#[derive(Debug, Clone, Default)]
pub struct MemTree {
    root: Directory,
}

type Directory = BTreeMap<String, Node>;

#[derive(Debug, Clone)]
enum Node {
    Directory(Directory),
    File(Vec<u8>),
    /// A regular file of so many zero bytes, which are never allocated.
    Zeros(u64),
    /// Relative to the directory that the link is in, or to the root if it starts with a slash.
    Link(String),
    Fifo,
    /// Every access to what is inside fails with this.
    Fails(Errno),
}

/// What can be wrong with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// Reading it fails with this error of the operating system.
    Fails(Errno),
    /// It holds bytes that mean nothing.
    Garbage,
    /// It has no bytes.
    Empty,
    /// It is longer than any memory.
    Huge,
    /// It is a symbolic link to itself.
    Loop,
    /// There is an empty directory in its place.
    Directory,
    /// There is a named pipe in its place: whoever opens it without care waits for ever.
    Fifo,
}

impl Damage {
    /// `EACCES`.
    pub const DENIED: Self = Self::Fails(Errno::ACCESS);

    /// One of each kind.
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::DENIED,
        Self::Garbage,
        Self::Empty,
        Self::Huge,
        Self::Loop,
        Self::Directory,
        Self::Fifo,
    ];

    /// Errors that can be asked for by name.
    const ERRORS: [(&str, Errno); 4] =
        [("EACCES", Errno::ACCESS), ("EINVAL", Errno::INVAL), ("EIO", Errno::IO), ("ENODEV", Errno::NODEV)];
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Garbage => "garbage",
            Self::Empty => "empty",
            Self::Huge => "huge",
            Self::Loop => "loop",
            Self::Directory => "directory",
            Self::Fifo => "fifo",
            Self::Fails(errno) => {
                let known = Self::ERRORS.iter().find(|(_, error)| error == errno);
                return match known {
                    Some((name, _)) => f.write_str(name),
                    None => write!(f, "{errno}"),
                };
            }
        })
    }
}

/// A word that names no damage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected missing, garbage, empty, huge, loop, directory, fifo, EACCES, EINVAL, EIO or ENODEV, found {0:?}"
)]
pub struct UnknownDamage(String);

impl FromStr for Damage {
    type Err = UnknownDamage;

    fn from_str(word: &str) -> Result<Self, UnknownDamage> {
        let plain = Self::ALL.into_iter().find(|damage| damage.to_string() == word);
        let error =
            || Self::ERRORS.iter().find(|(name, _)| *name == word).map(|(_, errno)| Self::Fails(*errno));
        plain.or_else(error).ok_or_else(|| UnknownDamage(word.to_owned()))
    }
}

/// Where a path leads: its names with every link followed, and the node there.
type Found<'a> = (Vec<String>, Place<'a>);

#[derive(Clone, Copy)]
enum Place<'a> {
    Directory(&'a Directory),
    Other(&'a Node),
}

impl MemTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file, and the directories above it. Links above it are followed; what was in its place is replaced.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.put(path, Node::File(content.into()))
    }

    /// Puts a directory, unless there is one.
    pub fn directory(&mut self, path: &str) -> &mut Self {
        if !matches!(self.find(path, true), Ok((_, Place::Directory(_)))) {
            self.put(path, Node::Directory(Directory::new()));
        }
        self
    }

    /// Puts a symbolic link. `target` is relative to the link's directory, or to the root if it starts with a slash.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.put(path, Node::Link(target.to_owned()))
    }

    /// Puts a symbolic link from one path of the tree to another, made relative as the kernel's are.
    pub fn link_to(&mut self, path: &str, to: &str) -> &mut Self {
        let (from, to): (Vec<&str>, Vec<&str>) = (names(path).collect(), names(to).collect());
        let common =
            from.iter().zip(&to).take_while(|(a, b)| a == b).count().min(from.len().saturating_sub(1));
        let mut target = vec![".."; from.len().saturating_sub(common + 1)];
        target.extend(&to[common..]);
        self.link(path, &target.join("/"))
    }

    /// Damages what is at `path`; links above it are followed, one in its place is replaced.
    pub fn damage(&mut self, path: &str, damage: Damage) -> &mut Self {
        let node = match damage {
            Damage::Missing => return self.remove(path),
            Damage::Fails(errno) => Node::Fails(errno),
            Damage::Garbage => Node::File(GARBAGE.to_vec()),
            Damage::Empty => Node::File(Vec::new()),
            Damage::Huge => Node::Zeros(HUGE),
            Damage::Loop => Node::Link(names(path).next_back().unwrap_or(".").to_owned()),
            Damage::Directory => Node::Directory(Directory::new()),
            Damage::Fifo => Node::Fifo,
        };
        self.put(path, node)
    }

    /// Takes away what is at `path`, with everything below it.
    pub fn remove(&mut self, path: &str) -> &mut Self {
        if let Some((directory, name)) = self.parent(path) {
            directory.remove(&name);
        }
        self
    }

    /// Every node that is not a directory, by its own path (no link followed), in order.
    #[must_use]
    pub fn leaves(&self) -> Vec<String> {
        fn collect(directory: &Directory, above: &str, leaves: &mut Vec<String>) {
            for (name, node) in directory {
                let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
                match node {
                    Node::Directory(inner) => collect(inner, &path, leaves),
                    _ => leaves.push(path),
                }
            }
        }
        let mut leaves = Vec::new();
        collect(&self.root, "", &mut leaves);
        leaves
    }

    /// Writes the tree into an existing directory; directories that it finds there it fills.
    ///
    /// A disk cannot hold a file that fails to be read (and root may read everything), so such a file becomes the
    /// nearest thing, an empty directory: reading it fails too, with another error. A huge file becomes a sparse one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_to(&self, root: &Path) -> io::Result<()> {
        fn write(directory: &Directory, to: &Path) -> io::Result<()> {
            for (name, node) in directory {
                let path = to.join(name);
                match node {
                    Node::Directory(inner) => {
                        fs::create_dir_all(&path)?;
                        write(inner, &path)?;
                    }
                    Node::File(content) => fs::write(&path, content)?,
                    Node::Zeros(length) => fs::File::create(&path)?.set_len(*length)?,
                    Node::Link(target) => std::os::unix::fs::symlink(target, &path)?,
                    Node::Fails(_) => fs::create_dir(&path)?,
                    Node::Fifo => rustix::fs::mknodat(
                        rustix::fs::CWD,
                        &path,
                        rustix::fs::FileType::Fifo,
                        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
                        0,
                    )?,
                }
            }
            Ok(())
        }
        write(&self.root, root)
    }

    fn put(&mut self, path: &str, node: Node) -> &mut Self {
        if let Some((directory, name)) = self.parent(path) {
            directory.insert(name, node);
        }
        self
    }

    /// The directory that holds `path`, made where it is missing, and the last name of the path. What is not a
    /// directory on the way is replaced by one. `None` for the root itself.
    fn parent(&mut self, path: &str) -> Option<(&mut Directory, String)> {
        let mut above: Vec<&str> = names(path).collect();
        let last = above.pop()?.to_owned();
        // The longest part that exists is resolved through its links, the rest is new.
        let (real, rest) = (0..=above.len())
            .rev()
            .find_map(|n| self.find(&above[..n].join("/"), true).ok().map(|(real, _)| (real, &above[n..])))?;
        let mut directory = &mut self.root;
        for name in real.iter().map(String::as_str).chain(rest.iter().copied()) {
            let node = directory.entry(name.to_owned()).or_insert_with(|| Node::Directory(Directory::new()));
            if !matches!(node, Node::Directory(_)) {
                *node = Node::Directory(Directory::new());
            }
            let Node::Directory(inner) = node else { return None };
            directory = inner;
        }
        Some((directory, last))
    }

    /// Follows `path`. `through` says whether a link in the last place is followed too.
    fn find(&self, path: &str, through: bool) -> Result<Found<'_>, Errno> {
        let mut ahead: Vec<String> = names(path).rev().map(str::to_owned).collect();
        let mut real: Vec<String> = Vec::new();
        let mut trail: Vec<&Directory> = vec![&self.root];
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                real.pop();
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let here = trail.last().copied().unwrap_or(&self.root);
            match here.get(&name).ok_or(Errno::NOENT)? {
                Node::Directory(inner) => {
                    real.push(name);
                    trail.push(inner);
                }
                Node::Link(target) if through || !ahead.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.starts_with('/') {
                        real.clear();
                        trail.truncate(1);
                    }
                    ahead.extend(names(target).rev().map(str::to_owned));
                }
                Node::Fails(errno) if !ahead.is_empty() => return Err(*errno),
                node if ahead.is_empty() => {
                    real.push(name);
                    return Ok((real, Place::Other(node)));
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        let here = trail.last().copied().unwrap_or(&self.root);
        Ok((real, Place::Directory(here)))
    }
}

/// The names of a path; empty ones and `.` mean nothing.
fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

impl HostFs for MemTree {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match self.find(path, true)?.1 {
            Place::Other(Node::File(content)) if content.len() <= READ_LIMIT => Ok(content.clone()),
            Place::Other(Node::File(_) | Node::Zeros(_)) => Err(Errno::FBIG.into()),
            Place::Other(Node::Fails(errno)) => Err((*errno).into()),
            Place::Other(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
            Place::Directory(_) => Err(Errno::ISDIR.into()),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        match self.find(path, true)?.1 {
            Place::Directory(directory) => Ok(directory.keys().cloned().collect()),
            Place::Other(Node::Fails(errno)) => Err((*errno).into()),
            Place::Other(_) => Err(Errno::NOTDIR.into()),
        }
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        match self.find(path, false)?.1 {
            Place::Other(Node::Link(target)) => Ok(target.clone()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn resolve(&self, path: &str) -> io::Result<String> {
        Ok(self.find(path, true)?.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> MemTree {
        let mut tree = MemTree::new();
        tree.file("sys/devices/vmbus/net/eth0/speed", "50000\n")
            .link_to("sys/class/net/eth0", "sys/devices/vmbus/net/eth0")
            .link("sys/absolute", "/sys/class/net")
            .link("sys/out", "../../../../etc")
            .file("etc/os-release", "NAME=x\n");
        tree
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let tree = tree();
        for (path, real) in [
            ("sys/class/net/eth0", "sys/devices/vmbus/net/eth0"),
            ("sys/absolute/eth0/speed", "sys/devices/vmbus/net/eth0/speed"),
            ("sys/out/os-release", "etc/os-release"),
            ("sys/class/net/eth0/../../net/eth0/speed", "sys/devices/vmbus/net/eth0/speed"),
            ("", ""),
        ] {
            assert_eq!(tree.resolve(path).unwrap(), real, "{path}");
        }
        assert_eq!(tree.read("sys/class/net/eth0/speed").unwrap(), b"50000\n");
        assert_eq!(tree.list("sys/class/net").unwrap(), ["eth0"]);
        assert_eq!(tree.read("nowhere").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(tree.list("etc/os-release").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(tree.read("etc").unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_file_is_put_where_links_lead() {
        let mut tree = tree();
        tree.file("sys/class/net/eth0/mtu", "1500\n");
        assert_eq!(tree.read("sys/devices/vmbus/net/eth0/mtu").unwrap(), b"1500\n");
    }

    #[test]
    fn a_damaged_file_fails_in_its_own_way() {
        let path = "sys/class/net/eth0/speed";
        for damage in Damage::ALL {
            let mut tree = tree();
            tree.damage(path, damage);
            let found = tree.read(path).map_err(|error| error.raw_os_error());
            let expected = match damage {
                Damage::Missing => Err(Some(Errno::NOENT.raw_os_error())),
                Damage::Fails(errno) => Err(Some(errno.raw_os_error())),
                Damage::Garbage => Ok(GARBAGE.to_vec()),
                Damage::Empty => Ok(Vec::new()),
                Damage::Huge => Err(Some(Errno::FBIG.raw_os_error())),
                Damage::Loop => Err(Some(Errno::LOOP.raw_os_error())),
                Damage::Directory => Err(Some(Errno::ISDIR.raw_os_error())),
                Damage::Fifo => Err(None),
            };
            assert_eq!(found, expected, "{damage}");
            assert_eq!(damage.to_string().parse(), Ok(damage));
        }
        assert!("EWHAT".parse::<Damage>().unwrap_err().to_string().ends_with("found \"EWHAT\""));
    }

    #[test]
    fn on_disk_it_reads_the_same() {
        let mut tree = tree();
        tree.damage("a/huge", Damage::Huge).damage("a/loop", Damage::Loop).damage("a/pipe", Damage::Fifo);
        tree.damage("a/denied", Damage::DENIED);
        let root = tempfile::tempdir().unwrap();
        tree.write_to(root.path()).unwrap();
        let path = |path: &str| root.path().join(path);
        assert_eq!(fs::read(path("sys/class/net/eth0/speed")).unwrap(), b"50000\n");
        assert_eq!(fs::metadata(path("a/huge")).unwrap().len(), HUGE);
        assert_eq!(fs::read(path("a/loop")).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert!(fs::metadata(path("a/denied")).unwrap().is_dir());
        assert!(!fs::metadata(path("a/pipe")).unwrap().is_file());
    }
}
