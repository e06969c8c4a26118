//! `proc/cpuinfo`: the first processor's block. Machines with processors of different kinds are not in any cloud.

use std::collections::BTreeMap;

use assay_shared::Fact;

use crate::host::HostFs;
use crate::host::read::{self, Missing, expected};

/// Where it is.
const PATH: &str = "proc/cpuinfo";
/// Longest value for people, such as the model name; the processor itself gives 48 characters.
const TEXT_LIMIT: usize = 128;
/// Most flags taken over, and the longest. Linux 6.18 knows about 550 for x86, the longest of 19 characters.
const FLAG_LIMIT: usize = 1024;
const FLAG_LENGTH_LIMIT: usize = 32;

/// The fields of the first processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuInfo {
    fields: BTreeMap<String, String>,
}

impl CpuInfo {
    /// Reads the file. It is long on large machines, so one survey reads it once.
    pub fn read(fs: &dyn HostFs) -> Fact<Self> {
        read::text(fs, PATH, Missing::Unavailable).map(|text| Self::parse(&text))
    }

    /// Reads the fields up to the second processor. On Arm a block of the whole machine may stand before or after.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut fields = BTreeMap::new();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let name = name.trim();
            if name == "processor" && fields.contains_key(name) {
                break;
            }
            fields.entry(name.to_owned()).or_insert_with(|| value.trim().to_owned());
        }
        Self { fields }
    }

    /// A field as it stands.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// A field for people.
    pub fn text(&self, name: &str) -> Fact<String> {
        self.field(name).and_then(|value| {
            let printable = !value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
            if value.is_empty() || value.len() > TEXT_LIMIT || !printable {
                return expected(format_args!("a {name}"), value, PATH);
            }
            Fact::Measured(value.to_owned())
        })
    }

    /// A field that is a number, decimal or hexadecimal with `0x`.
    pub fn number(&self, name: &str) -> Fact<u32> {
        self.field(name).and_then(|value| {
            let number = match value.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => value.parse(),
            };
            number.map_or_else(|_| expected(format_args!("{name} as a number"), value, PATH), Fact::Measured)
        })
    }

    /// A field that is a list of flags, sorted.
    pub fn flags(&self, name: &str) -> Fact<Vec<String>> {
        self.field(name).and_then(|value| {
            let mut flags: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
            flags.sort_unstable();
            flags.dedup();
            let is_flag = |flag: &String| {
                flag.len() <= FLAG_LENGTH_LIMIT
                    && flag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            if flags.is_empty() || flags.len() > FLAG_LIMIT || !flags.iter().all(is_flag) {
                return expected(format_args!("{name} as a list of words"), value, PATH);
            }
            Fact::Measured(flags)
        })
    }

    fn field(&self, name: &str) -> Fact<&str> {
        self.get(name)
            .map_or_else(|| Fact::Unavailable(format!("no field \"{name}\": {PATH}")), Fact::Measured)
    }
}
