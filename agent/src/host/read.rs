//! From a file to a fact: what every probe reads with.
//!
//! A file that is not there is absent or unavailable, as the probe says; one that cannot be read, or holds something
//! else than it should, is unavailable with a reason that names the file. What was found is shown shortened and with
//! control characters escaped, because a tree may hold anything.

use std::fmt;
use std::io;
use std::str::FromStr;

use assay_shared::Fact;

use super::HostFs;

/// What it means that a file or directory is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The machine does not have such a thing.
    Absent,
    /// It should be there: the fact is not known.
    Unavailable,
}

/// Longest single-line value: `sysfs` gives at most a page.
const LINE_LIMIT: usize = 4096;
/// Characters of an unexpected content shown in a reason.
const SHOWN: usize = 40;
/// CPU numbers a list may hold. The largest kernels are built for 8,192 CPUs.
const CPU_LIMIT: u32 = 1 << 16;

/// The reason why `path` could not be read.
#[must_use]
pub fn reason(error: &io::Error, path: &str) -> String {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "not found".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => {
            let text = error.to_string();
            // The number adds nothing for people.
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    };
    format!("{what}: {path}")
}

/// Unavailable because `path` holds something else than `what`.
pub fn expected<T>(what: impl fmt::Display, found: &str, path: &str) -> Fact<T> {
    Fact::Unavailable(format!("expected {what}, found {}: {path}", shown(found)))
}

/// Text of unknown origin for a reason: quoted, shortened, control characters escaped.
#[must_use]
pub fn shown(text: &str) -> String {
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let start: String = text.chars().take(SHOWN).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

/// Bytes of a whole file.
pub fn bytes(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<Vec<u8>> {
    known(fs.read(path), path, missing)
}

/// A whole file as text; bytes that are not UTF-8 become U+FFFD, so that one bad line does not lose the others.
pub fn text(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<String> {
    bytes(fs, path, missing).map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// A file of one line of printable text, surrounding white space and NULs removed. An empty one counts as missing.
pub fn line(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<String> {
    text(fs, path, missing).and_then(|text| {
        let line = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        match (line, missing) {
            ("", Missing::Absent) => Fact::Absent,
            ("", Missing::Unavailable) => expected("a line of text", "", path),
            _ if line.len() > LINE_LIMIT
                || line.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) =>
            {
                expected("a line of text", line, path)
            }
            _ => Fact::Measured(line.to_owned()),
        }
    })
}

/// A file that holds one decimal number.
pub fn number<T: FromStr>(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<T> {
    parsed(fs, path, missing, "a number", |text| text.parse().ok())
}

/// A file that holds one hexadecimal number, with or without `0x`.
pub fn hex(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<u64> {
    parsed(fs, path, missing, "a hexadecimal number", |text| {
        // from_str_radix would take a sign.
        let digits = text.strip_prefix("0x").unwrap_or(text);
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
    })
}

/// A file that holds a list of CPUs, such as `0-3,8`.
pub fn cpu_list(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<CpuSet> {
    parsed(fs, path, missing, "a list of CPUs", CpuSet::parse)
}

/// A file whose whole trimmed content `parse` understands.
pub fn parsed<T>(
    fs: &dyn HostFs,
    path: &str,
    missing: Missing,
    what: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Fact<T> {
    text(fs, path, missing).and_then(|text| {
        // The kernel ends even an empty list with a newline: no byte at all means that the file is broken.
        let value = if text.is_empty() { None } else { parse(text.trim()) };
        value.map_or_else(|| expected(what, text.trim(), path), Fact::Measured)
    })
}

/// Names in a directory, sorted.
pub fn directory(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<Vec<String>> {
    known(fs.list(path), path, missing)
}

/// The last name of what a link says: the driver behind `…/driver`, the interface behind `…/master`. What it leads to
/// need not be there, as in a tree that was captured in parts; anything but a link is unavailable.
pub fn link_name(fs: &dyn HostFs, path: &str, missing: Missing) -> Fact<String> {
    let name = |target: String| target.rsplit('/').next().unwrap_or_default().to_owned();
    known(fs.read_link(path), path, missing).and_then(|target| match name(target) {
        name if name.is_empty() || name == "." || name == ".." || path.ends_with(&format!("/{name}")) => {
            expected("a link to something named", &name, path)
        }
        name => Fact::Measured(name),
    })
}

fn known<T>(result: io::Result<T>, path: &str, missing: Missing) -> Fact<T> {
    match result {
        Ok(value) => Fact::Measured(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::Absent => Fact::Absent,
        Err(error) => Fact::Unavailable(reason(&error, path)),
    }
}

/// A set of CPU numbers, kept as the ranges the kernel prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet {
    /// First and last of each range, ascending, none touching the next.
    ranges: Vec<(u32, u32)>,
}

impl CpuSet {
    /// Reads the kernel's list format; empty is the empty set. `None` for anything else, and for CPU numbers of 65,536
    /// and more, which no kernel has.
    #[must_use]
    pub fn parse(list: &str) -> Option<Self> {
        if list.is_empty() {
            return Some(Self::default());
        }
        let mut ranges = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu_number(first)?, cpu_number(last)?);
            if first > last {
                return None;
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Some(Self { ranges: merged })
    }

    /// How many CPUs.
    #[must_use]
    pub fn len(&self) -> u32 {
        // At most CPU_LIMIT, because the ranges do not overlap.
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest CPU number.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// Whether this CPU is among them.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&cpu))
    }

    /// The CPU numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl fmt::Display for CpuSet {
    /// As the kernel prints it: `0-3,8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

fn cpu_number(text: &str) -> Option<u32> {
    let digits = text.trim();
    // parse() would take a sign.
    let number = if digits.starts_with('+') { None } else { digits.parse().ok() };
    number.filter(|number| *number < CPU_LIMIT)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::host::RootDir;

    /// What `probe` makes of a file with this content; no content, no file.
    fn fact<T>(content: Option<&[u8]>, probe: impl FnOnce(&dyn HostFs) -> Fact<T>) -> Fact<T> {
        let root = tempfile::tempdir().unwrap();
        if let Some(content) = content {
            fs::write(root.path().join("f"), content).unwrap();
        }
        probe(&RootDir::open(root.path()).unwrap())
    }

    #[test]
    fn a_line_is_trimmed_and_must_be_printable() {
        let long = vec![b'x'; LINE_LIMIT + 1];
        let cases: [(&[u8], Fact<&str>); 8] = [
            (b"MSFT NVMe Accelerator v1.0              \n", Fact::Measured("MSFT NVMe Accelerator v1.0")),
            (b"6.8.0-1010-azure\r\n", Fact::Measured("6.8.0-1010-azure")),
            (b"Virtual Machine\0\0", Fact::Measured("Virtual Machine")),
            ("Größe".as_bytes(), Fact::Measured("Größe")),
            (b"", Fact::Absent),
            (b"two\nlines\n", Fact::unavailable(r#"expected a line of text, found "two\nlines": f"#)),
            (b"\x1b[31mred", Fact::unavailable(r#"expected a line of text, found "\u{1b}[31mred": f"#)),
            (b"\xff\xfe", Fact::unavailable("expected a line of text, found \"\u{fffd}\u{fffd}\": f")),
        ];
        for (content, expected) in cases {
            assert_eq!(fact(Some(content), |fs| line(fs, "f", Missing::Absent)), expected.map(str::to_owned));
        }
        let Fact::Unavailable(reason) = fact(Some(&long), |fs| line(fs, "f", Missing::Absent)) else {
            panic!()
        };
        assert!(reason.len() < 100, "a reason is short: {reason}");
    }

    #[test]
    fn a_missing_file_is_what_the_probe_says() {
        assert_eq!(fact(None, |fs| line(fs, "f", Missing::Absent)), Fact::Absent);
        assert_eq!(fact(None, |fs| line(fs, "f", Missing::Unavailable)), Fact::unavailable("not found: f"));
        assert_eq!(
            fact(Some(b""), |fs| line(fs, "f", Missing::Unavailable)),
            Fact::unavailable("expected a line of text, found nothing: f")
        );
    }

    #[test]
    fn numbers_are_whole_or_unavailable() {
        let cases: [(&str, Fact<u32>); 6] = [
            ("16403296\n", Fact::Measured(16_403_296)),
            (" 8 \r\n", Fact::Measured(8)),
            ("", Fact::unavailable("expected a number, found nothing: f")),
            ("-1\n", Fact::unavailable("expected a number, found \"-1\": f")),
            ("12abc", Fact::unavailable("expected a number, found \"12abc\": f")),
            ("4294967296", Fact::unavailable("expected a number, found \"4294967296\": f")),
        ];
        for (content, expected) in cases {
            assert_eq!(
                fact(Some(content.as_bytes()), |fs| number(fs, "f", Missing::Absent)),
                expected,
                "{content}"
            );
        }
        for (content, expected) in
            [("8000000\n", Some(0x800_0000)), ("0x1002", Some(0x1002)), ("+8", None), ("", None)]
        {
            let found = fact(Some(content.as_bytes()), |fs| hex(fs, "f", Missing::Absent));
            assert_eq!(found.get(), expected, "{content}");
        }
    }

    #[test]
    fn cpu_lists_are_sets_of_bounded_size() {
        let cases = [
            ("0-3,8", Some(("0-3,8", 5))),
            ("0", Some(("0", 1))),
            ("", Some(("", 0))),
            ("8,0-3,2-4,5", Some(("0-5,8", 7))),
            ("0-65535", Some(("0-65535", 65_536))),
            ("0-4294967295", None),
            ("0-99999999999999999999", None),
            ("3-0", None),
            ("0-", None),
            (",", None),
            ("-1", None),
            ("a-b", None),
        ];
        for (list, expected) in cases {
            let set = CpuSet::parse(list);
            assert_eq!(
                set.as_ref().map(|set| (set.to_string(), set.len())),
                expected.map(|(s, n)| (s.to_owned(), n))
            );
        }
    }

    proptest! {
        #[test]
        fn a_printed_cpu_set_reads_as_itself(cpus in proptest::collection::btree_set(0_u32..200, 0..60)) {
            let list: Vec<String> = cpus.iter().map(u32::to_string).collect();
            let set = CpuSet::parse(&list.join(",")).unwrap();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), cpus.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(CpuSet::parse(&set.to_string()).unwrap(), set);
        }
    }
}
