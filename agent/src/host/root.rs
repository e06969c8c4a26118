//! A machine's files below a directory, read so that the directory's content cannot harm the reader.
//!
//! A tree may come from anywhere (a container's mount, a bug report), so symbolic links are resolved inside the root
//! as if after `chroot`, nothing but regular files is read, and no open or read can block.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::{HostFs, LIST_LIMIT, READ_LIMIT};

/// Symbolic links followed on one path before it counts as a loop: the kernel's own limit (`path_resolution(7)`).
const LINK_LIMIT: usize = 40;
/// Tries of `openat2` while someone renames directories below the root.
const RENAME_RETRIES: usize = 8;

/// A directory as the root of a machine.
#[derive(Debug)]
pub struct RootDir {
    root: OwnedFd,
}

impl RootDir {
    /// Opens `root`.
    ///
    /// # Errors
    /// The operating system's: it does not exist, it is not a directory, it may not be entered.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: openat(CWD, root, flags, Mode::empty())? })
    }

    /// Opens what `path` leads to, links followed inside the root.
    fn open_inside(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        for _ in 0..RENAME_RETRIES {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
                Ok(opened) => return Ok(opened),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Kernels before 5.6 and gVisor do not have it; some seccomp profiles forbid it.
                Err(Errno::NOSYS | Errno::PERM) => return self.open_by_walking(path, flags),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// The same without `openat2`.
    fn open_by_walking(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let walked = self.walk(path)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(match walked.names.last() {
            Some(name) => openat(walked.parent(self), name.as_str(), flags, Mode::empty())?,
            None => openat(&self.root, ".", flags, Mode::empty())?,
        })
    }

    /// Follows `path` name by name, so that a link can lead nowhere but below the root.
    fn walk(&self, path: &str) -> io::Result<Walked> {
        let mut walked = Walked { names: Vec::new(), opened: Vec::new() };
        // Names still to follow, the next one last.
        let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    walked.names.pop();
                    walked.opened.pop();
                    continue;
                }
                _ => {}
            }
            let here = walked.opened.last().map_or_else(|| self.root.as_fd(), AsFd::as_fd);
            let node = openat(
                here,
                name.as_str(),
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            if FileType::from_raw_mode(fstat(&node)?.st_mode) != FileType::Symlink {
                walked.names.push(name);
                walked.opened.push(node);
                continue;
            }
            links += 1;
            if links > LINK_LIMIT {
                return Err(Errno::LOOP.into());
            }
            let target = readlinkat(&node, "", Vec::new())?;
            let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
            if target.starts_with('/') {
                walked.names.clear();
                walked.opened.clear();
            }
            ahead.extend(target.split('/').rev().map(str::to_owned));
        }
        Ok(walked)
    }
}

/// Where a walk ended: the names from the root, and the open node of each.
struct Walked {
    names: Vec<String>,
    opened: Vec<OwnedFd>,
}

impl Walked {
    /// The directory that holds the last name.
    fn parent<'a>(&'a self, root: &'a RootDir) -> BorrowedFd<'a> {
        let above = self.opened.len().checked_sub(2).and_then(|index| self.opened.get(index));
        above.map_or_else(|| root.root.as_fd(), AsFd::as_fd)
    }
}

impl HostFs for RootDir {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        // Opening a device can have effects of its own (a watchdog, a tape), so look before opening. Should the node
        // be swapped in between, O_NONBLOCK still keeps a FIFO from blocking.
        let node = self.open_inside(path, OFlags::PATH)?;
        match FileType::from_raw_mode(fstat(&node)?.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR.into()),
            _ => return Err(io::Error::other("not a regular file")),
        }
        let file = File::from(self.open_inside(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        let mut content = Vec::with_capacity(512);
        let limit = u64::try_from(READ_LIMIT).unwrap_or(u64::MAX);
        file.take(limit + 1).read_to_end(&mut content)?;
        if content.len() > READ_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {READ_LIMIT} bytes"),
            ));
        }
        Ok(content)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let directory = self.open_inside(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)?;
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let entry = entry?;
            // The kernel's names are ASCII; a name that is not text cannot be one that a probe looks for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == LIST_LIMIT {
                return Err(io::Error::other(format!("more than {LIST_LIMIT} names")));
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
        let directory = self.open_inside(above, OFlags::PATH | OFlags::DIRECTORY)?;
        let target = readlinkat(&directory, name, Vec::new())?;
        Ok(target.into_string().map_err(|_| Errno::ILSEQ)?)
    }

    fn resolve(&self, path: &str) -> io::Result<String> {
        Ok(self.walk(path)?.names.join("/"))
    }

    fn exists(&self, path: &str) -> bool {
        self.open_inside(path, OFlags::PATH).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with a secret beside it.
    fn tree() -> (tempfile::TempDir, RootDir) {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("sys/devices/eth")).unwrap();
        fs::create_dir_all(root.join("sys/class/net")).unwrap();
        fs::write(root.join("sys/devices/eth/address"), "00:0d:3a:f5:76:bd\n").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        let dir = RootDir::open(&root).unwrap();
        (outer, dir)
    }

    /// Reads both ways: by `openat2` and by the walk that stands in for it.
    fn read_both(dir: &RootDir, path: &str) -> [Result<String, io::ErrorKind>; 2] {
        let walked = dir.open_by_walking(path, OFlags::RDONLY | OFlags::NONBLOCK).and_then(|file| {
            let mut text = String::new();
            File::from(file).read_to_string(&mut text).map(|_| text)
        });
        let read = dir.read(path).map(|bytes| String::from_utf8(bytes).unwrap());
        [read.map_err(|error| error.kind()), walked.map_err(|error| error.kind())]
    }

    #[test]
    fn links_are_followed_but_never_out_of_the_root() {
        let (outer, dir) = tree();
        let root = outer.path().join("root");
        symlink("../../devices/eth", root.join("sys/class/net/eth0")).unwrap();
        symlink("/sys/devices/eth", root.join("sys/class/net/absolute")).unwrap();
        symlink("../../../../../../../secret", root.join("sys/class/net/dots")).unwrap();
        symlink(outer.path().join("secret"), root.join("sys/class/net/host")).unwrap();
        symlink("nowhere", root.join("sys/class/net/dangling")).unwrap();
        let cases = [
            ("sys/class/net/eth0/address", Ok("00:0d:3a:f5:76:bd\n")),
            ("sys/class/net/absolute/address", Ok("00:0d:3a:f5:76:bd\n")),
            ("sys/class/net/dots", Ok("inside")),
            ("../../secret", Ok("inside")),
            ("/secret", Ok("inside")),
            ("sys/class/net/host", Err(io::ErrorKind::NotFound)),
            ("sys/class/net/dangling", Err(io::ErrorKind::NotFound)),
            ("secret/below", Err(io::ErrorKind::NotADirectory)),
        ];
        for (path, expected) in cases {
            for found in read_both(&dir, path) {
                assert_eq!(found.as_deref().map_err(|kind| *kind), expected, "{path}");
            }
        }
        assert_eq!(dir.resolve("sys/class/net/eth0/address").unwrap(), "sys/devices/eth/address");
        assert_eq!(dir.resolve("sys/class/net/absolute").unwrap(), "sys/devices/eth");
        assert_eq!(dir.resolve("..").unwrap(), "");
        assert_eq!(dir.read_link("sys/class/net/absolute").unwrap(), "/sys/devices/eth");
        let not_a_link = dir.read_link("sys/class/net").unwrap_err();
        assert_eq!(not_a_link.kind(), io::ErrorKind::InvalidInput);
        assert!(dir.exists("sys/class/net/eth0") && !dir.exists("sys/class/net/dangling"));
    }

    #[test]
    fn a_link_loop_is_an_error_on_either_way() {
        let (outer, dir) = tree();
        symlink("b", outer.path().join("root/a")).unwrap();
        symlink("a", outer.path().join("root/b")).unwrap();
        let is_loop = |error: io::Error| error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        assert!(is_loop(dir.read("a").unwrap_err()));
        assert!(is_loop(dir.list("a/b").unwrap_err()));
        assert!(is_loop(dir.resolve("a").unwrap_err()));
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read_and_nothing_blocks() {
        let (outer, dir) = tree();
        let root = outer.path().join("root");
        rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(dir.read("fifo").unwrap_err().to_string(), "not a regular file");
        assert_eq!(dir.read("sys").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let huge = fs::File::create(root.join("huge")).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert_eq!(dir.read("huge").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        huge.set_len(u64::try_from(READ_LIMIT).unwrap()).unwrap();
        assert_eq!(dir.read("huge").unwrap().len(), READ_LIMIT);
    }

    #[test]
    fn directories_list_their_names_in_order() {
        let (_outer, dir) = tree();
        assert_eq!(dir.list("").unwrap(), ["secret", "sys"]);
        assert_eq!(dir.list("sys").unwrap(), ["class", "devices"]);
        assert_eq!(dir.list("secret").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(dir.list("none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_root_that_is_no_directory_is_refused() {
        let (outer, _dir) = tree();
        assert_eq!(
            RootDir::open(&outer.path().join("secret")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        assert_eq!(RootDir::open(&outer.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
