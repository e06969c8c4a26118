//! The operating system's own name: `PRETTY_NAME` of `os-release(5)`.

use assay_shared::Fact;

use crate::host::HostFs;
use crate::host::read::{self, Missing, expected};

/// Where the file is, and where it is looked for when it is not there.
const PATHS: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// Longest name taken over.
const NAME_LIMIT: usize = 128;

pub(super) fn pretty_name(fs: &dyn HostFs) -> Fact<String> {
    let [path, fallback] = PATHS;
    match read::text(fs, path, Missing::Absent) {
        Fact::Measured(text) => parse(&text, path),
        Fact::Absent => {
            read::text(fs, fallback, Missing::Unavailable).and_then(|text| parse(&text, fallback))
        }
        Fact::Unavailable(reason) => Fact::Unavailable(reason),
    }
}

fn parse(text: &str, path: &str) -> Fact<String> {
    let Some(value) = text.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME=")) else {
        return Fact::Unavailable(format!("no line \"PRETTY_NAME=\": {path}"));
    };
    let name = unquoted(value.trim());
    let printable = !name.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    if name.is_empty() || name.len() > NAME_LIMIT || !printable {
        return expected("a name", value, path);
    }
    Fact::Measured(name)
}

/// Without the shell's quotes: nothing is special in single ones, a backslash escapes one character elsewhere.
fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let mut name = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        name.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_read_without_the_quotes_of_the_shell() {
        let cases = [
            ("NAME=x\nPRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\n", Some("Ubuntu 24.04.1 LTS")),
            ("PRETTY_NAME=\"Ubuntu\"\r\n", Some("Ubuntu")),
            ("PRETTY_NAME='Azure Linux 3'", Some("Azure Linux 3")),
            ("PRETTY_NAME=Plain", Some("Plain")),
            (r#"PRETTY_NAME="The \"Best\" OS""#, Some("The \"Best\" OS")),
            ("PRETTY_NAME=\"\"", None),
            ("PRETTY_NAME=\"a\u{1b}[2J\"", None),
            ("NAME=Ubuntu\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, "etc/os-release").measured().map(String::as_str), expected, "{text:?}");
        }
    }
}
