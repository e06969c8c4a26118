//! The format of `sizes.txt`, which the head of that file explains.

use std::str::FromStr;
use std::sync::Arc;

use super::{Gpus, LocalNvme, VmSize};
use crate::report::{Architecture, GpuVendor};
use crate::units::{Bytes, Gbps};

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {field}: expected {expected}, found {found:?}")]
pub(super) struct LineError {
    line: usize,
    field: String,
    expected: &'static str,
    found: String,
}

/// The sizes of each line.
pub(super) fn families(text: &str) -> impl Iterator<Item = Result<Vec<VmSize>, LineError>> + '_ {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let wrong = |(field, expected, found): Wrong| LineError { line: number, field, expected, found };
        family(line).map_err(wrong)
    })
}

/// Field, what was expected, what was found.
type Wrong = (String, &'static str, String);

fn wrong(field: &str, expected: &'static str, found: &str) -> Wrong {
    (field.to_owned(), expected, found.to_owned())
}

fn number<T: FromStr>(field: &str, text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|_| wrong(field, "a number", text))
}

/// The size without anything optional.
fn plain(name: &str) -> VmSize {
    VmSize {
        name: name.into(),
        family: name.into(),
        architecture: Architecture::Amd64,
        vcpus: 0,
        vcpus_per_core: 2,
        memory: Bytes::ZERO,
        gpus: None,
        temp_disk: Bytes::ZERO,
        local_nvme: None,
        ephemeral_os_max: Bytes::ZERO,
        ephemeral_os_on_nvme: false,
        accelerated_networking: true,
        rdma: Gbps::ZERO,
        premium_io: true,
        ultra_ssd: true,
        spot: true,
        zonal: true,
        generation1: false,
        generation2: true,
    }
}

fn family(line: &str) -> Result<Vec<VmSize>, Wrong> {
    let (pattern, rest) = line.split_once(' ').ok_or_else(|| wrong("name", "fields behind it", line))?;
    let mut fields = Vec::new();
    let mut model = plain(pattern);
    for word in rest.split_whitespace() {
        match word.split_once('=') {
            Some(field) => fields.push(field),
            None => set_flag(&mut model, word)?,
        }
    }
    let vcpus = fields.iter().find(|(key, _)| *key == "vcpus").map(|(_, value)| *value);
    let vcpus = vcpus.ok_or_else(|| wrong("vcpus", "a list", ""))?.split(',');
    let mut sizes = Vec::new();
    for text in vcpus {
        let vcpus = number("vcpus", text)?;
        let mut size = VmSize { name: pattern.replace("{n}", text).into(), vcpus, ..model.clone() };
        for (key, value) in &fields {
            set_field(&mut size, key, value, &fields)?;
        }
        sizes.push(size);
    }
    Ok(sizes)
}

fn set_flag(size: &mut VmSize, word: &str) -> Result<(), Wrong> {
    let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
        (Some(name), _) => (true, name),
        (_, Some(name)) => (false, name),
        _ => return Err(wrong("flag", "+flag, -flag or key=value", word)),
    };
    let flag = match name {
        "net" => &mut size.accelerated_networking,
        "premium" => &mut size.premium_io,
        "ultra" => &mut size.ultra_ssd,
        "spot" => &mut size.spot,
        "zones" => &mut size.zonal,
        "gen1" => &mut size.generation1,
        "gen2" => &mut size.generation2,
        _ => return Err(wrong("flag", "net, premium, ultra, spot, zones, gen1 or gen2", name)),
    };
    *flag = on;
    Ok(())
}

fn set_field(size: &mut VmSize, key: &str, value: &str, fields: &[(&str, &str)]) -> Result<(), Wrong> {
    let vcpus = size.vcpus;
    match key {
        "vcpus" => {}
        "gib" => size.memory = gib(key, value, vcpus)?,
        "cores" => size.vcpus_per_core = number(key, value)?,
        "arch" if value == "arm64" => size.architecture = Architecture::Arm64,
        "temp" => size.temp_disk = gib(key, value, vcpus)?,
        "nvme" => size.local_nvme = Some(nvme(value, vcpus)?),
        "eos" if value == "nvme" => {
            let disks = fields.iter().find(|(key, _)| *key == "nvme").map_or("", |(_, disks)| *disks);
            size.ephemeral_os_max = nvme(disks, vcpus)?.total();
            size.ephemeral_os_on_nvme = true;
        }
        "eos" => size.ephemeral_os_max = gib(key, value, vcpus)?,
        "rdma" => size.rdma = Gbps(number(key, value)?),
        "gpu" => {
            let count = fields.iter().find(|(key, _)| *key == "gpus").map_or("1", |(_, count)| *count);
            let count = entry("gpus", count, vcpus)?;
            size.gpus = Some(gpus(value, number("gpus", count)?)?);
        }
        "gpus" => {}
        _ => return Err(wrong(key, "a known key", value)),
    }
    Ok(())
}

/// The entry for a size in `default,64:other`.
fn entry<'t>(key: &str, list: &'t str, vcpus: u32) -> Result<&'t str, Wrong> {
    let mut default = None;
    for item in list.split(',') {
        match item.split_once(':') {
            Some((for_vcpus, value)) if number::<u32>(key, for_vcpus)? == vcpus => return Ok(value),
            Some(_) => {}
            None => default = Some(item),
        }
    }
    default.ok_or_else(|| wrong(key, "an entry for each of the vCPUs", list))
}

/// `8x` (per vCPU) or `56`, in GiB; exact to a MiB.
fn gib(key: &str, list: &str, vcpus: u32) -> Result<Bytes, Wrong> {
    let text = entry(key, list, vcpus)?;
    let (digits, times) = text.strip_suffix('x').map_or((text, 1), |digits| (digits, vcpus));
    let gib: f64 = number(key, digits)?;
    let mib = (gib * f64::from(times) * 1024.0).round();
    if !(0.0..1e9).contains(&mib) {
        return Err(wrong(key, "an amount in GiB", text));
    }
    // In range by the check above.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Bytes::mib(mib as u64))
}

fn nvme(list: &str, vcpus: u32) -> Result<LocalNvme, Wrong> {
    let text = entry("nvme", list, vcpus)?;
    let (count, size) = text.split_once('*').ok_or_else(|| wrong("nvme", "disks*GiB", text))?;
    Ok(LocalNvme { count: number("nvme", count)?, size: Bytes::gib(number("nvme", size)?) })
}

fn gpus(text: &str, count: u32) -> Result<Gpus, Wrong> {
    let mut parts = text.split('/');
    let (Some(vendor), Some(model), Some(mib)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong("gpu", "maker/model/MiB", text));
    };
    let vendor = match vendor {
        "nvidia" => GpuVendor::Nvidia,
        "amd" => GpuVendor::Amd,
        other => return Err(wrong("gpu", "nvidia or amd", other)),
    };
    let shared_by = parts.next().map_or(Ok(1), |part| number("gpu", part))?;
    Ok(Gpus { vendor, model: Arc::from(model), count, memory: Bytes::mib(number("gpu", mib)?), shared_by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_line_is_named_with_what_was_expected() {
        let cases = [
            ("Standard_X", "line 1: name: expected fields behind it, found \"Standard_X\""),
            ("X gib=4", "line 1: vcpus: expected a list, found \"\""),
            ("X vcpus=2 gib=many", "line 1: gib: expected a number, found \"many\""),
            ("X vcpus=2 gib=4:8", "line 1: gib: expected an entry for each of the vCPUs, found \"4:8\""),
            (
                "X vcpus=2 +fast",
                "line 1: flag: expected net, premium, ultra, spot, zones, gen1 or gen2, found \"fast\"",
            ),
            ("X vcpus=2 gpu=intel/1/1", "line 1: gpu: expected nvidia or amd, found \"intel\""),
            ("X vcpus=2 colour=red", "line 1: colour: expected a known key, found \"red\""),
            ("X vcpus=2 eos=nvme", "line 1: nvme: expected disks*GiB, found \"\""),
        ];
        for (line, message) in cases {
            let error = families(line).next().and_then(Result::err).map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(message), "{line}");
        }
    }
}
