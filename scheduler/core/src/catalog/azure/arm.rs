//! Reads the answer of ARM's `Microsoft.Compute/skus`
//! (<https://learn.microsoft.com/rest/api/compute/resource-skus/list>).
//!
//! Capabilities are strings by name. A name that is not known is ignored; a missing one is what the built-in facts say for the
//! size, or none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use assay_shared::azure::{Gpus, LocalNvme, VmSize};
use assay_shared::labels::LABEL_VALUE_MAX;
use assay_shared::report::{Architecture, GpuVendor};
use assay_shared::units::{Bytes, Gbps};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Sku;
use super::sku_name::SkuName;
use crate::catalog::{CatalogError, CatalogWarning};

/// A field that is wrong: its name, what was expected, what was found.
struct Wrong(String, &'static str, String);

/// The VM sizes that can be bought in `region`, in the order of their names, and what was wrong with the others.
pub(in crate::catalog) fn parse_skus(
    entries: &[&RawValue],
    region: &str,
) -> Result<(Vec<Sku>, Vec<CatalogWarning>), CatalogError> {
    let mut skus = BTreeMap::new();
    let mut warnings = Vec::new();
    for (index, raw) in entries.iter().enumerate() {
        let entry = crate::catalog::entry(raw)?;
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut warn = |Wrong(field, expected, found): Wrong| {
            let (name, expected) = (name.to_owned(), expected.to_owned());
            warnings.push(CatalogWarning { index, name, field, expected, found });
        };
        match sku(&entry, region, &mut warn) {
            Ok(None) => {}
            Ok(Some(sku)) if skus.contains_key(&sku.size.name) => {
                warn(Wrong("name".to_owned(), "each size once per region", "a second entry".to_owned()));
            }
            Ok(Some(sku)) => {
                skus.insert(Arc::clone(&sku.size.name), sku);
            }
            Err(wrong) => warn(wrong),
        }
    }
    Ok((skus.into_values().collect(), warnings))
}

/// One entry; `None` where it is no VM size or cannot be bought in the region. `warn` is told of fields that were passed over.
fn sku(entry: &Value, region: &str, warn: &mut impl FnMut(Wrong)) -> Result<Option<Sku>, Wrong> {
    if !entry.is_object() {
        return Err(Wrong("entry".to_owned(), "an object", kind(entry).to_owned()));
    }
    if entry.get("resourceType").and_then(Value::as_str).is_some_and(|kind| kind != "virtualMachines") {
        return Ok(None);
    }
    let name = entry.get("name").and_then(Value::as_str);
    let name =
        name.ok_or_else(|| Wrong("name".to_owned(), "the name of a size", found(entry.get("name"))))?;
    // The name becomes a label value.
    let fits = !name.is_empty() && name.len() <= LABEL_VALUE_MAX;
    let ends = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if !fits || !ends || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return Err(Wrong("name".to_owned(), "a label value", format!("{name:?}")));
    }
    let Some(zones) = zones(entry, region, warn) else {
        return Ok(None);
    };
    let capabilities = Capabilities::of(entry, warn)?;
    let parts = SkuName::parse(name);
    let constrained = parts.as_ref().is_some_and(|parts| parts.constrained)
        || capabilities.number::<u32>("vCPUsAvailable", warn).is_some_and(|available| {
            available != 0 && capabilities.number::<u32>("vCPUs", warn).is_some_and(|all| available < all)
        });
    let confidential = parts.as_ref().is_some_and(SkuName::is_confidential)
        || capabilities.text("ConfidentialComputingType").is_some_and(|kind| !kind.is_empty());
    let mut size = vm_size(name, parts.as_ref(), &capabilities, warn)?;
    size.zonal = !zones.is_empty();
    let data_disks = capabilities.number("MaxDataDiskCount", warn);
    Ok(Some(Sku { size, zones, constrained, confidential, data_disks }))
}

/// Zones in which the size can be bought, empty where it is not sold by zone; `None` where it cannot be bought in the region.
fn zones(entry: &Value, region: &str, warn: &mut impl FnMut(Wrong)) -> Option<Vec<String>> {
    let is_here = |value: &Value| value.as_str().is_some_and(|found| found.eq_ignore_ascii_case(region));
    let infos = list(entry, "locationInfo", warn);
    let locations = list(entry, "locations", warn);
    let info = infos.iter().find(|info| info.get("location").is_some_and(is_here));
    if info.is_none() && !locations.iter().any(is_here) {
        return None;
    }
    let mut zones = BTreeSet::new();
    for zone in info.map_or(&[][..], |info| list(info, "zones", warn)) {
        match zone.as_str() {
            Some(zone)
                if !zone.is_empty() && zone.len() <= 8 && zone.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                zones.insert(zone.to_owned());
            }
            _ => warn(Wrong("locationInfo.zones".to_owned(), "the number of a zone", found(Some(zone)))),
        }
    }
    let zonal = !zones.is_empty();
    for restriction in list(entry, "restrictions", warn) {
        let nothing = Value::Null;
        let info = restriction.get("restrictionInfo").unwrap_or(&nothing);
        let (named, values) = (list(info, "locations", warn), list(restriction, "values", warn));
        // Older answers name the location only in `values`.
        let applies = if named.is_empty() { values.iter().any(is_here) } else { named.iter().any(is_here) };
        match restriction.get("type").and_then(Value::as_str) {
            _ if !applies => {}
            Some("Location") => return None,
            Some("Zone") => {
                for zone in list(info, "zones", warn).iter().filter_map(Value::as_str) {
                    zones.remove(zone);
                }
            }
            _ => warn(Wrong(
                "restrictions.type".to_owned(),
                "Location or Zone",
                found(restriction.get("type")),
            )),
        }
    }
    // All zones restricted: Azure then refuses the size in each of them, and for the region as a whole it is not offered.
    if zonal && zones.is_empty() {
        return None;
    }
    Some(zones.into_iter().collect())
}

fn list<'v>(value: &'v Value, field: &str, warn: &mut impl FnMut(Wrong)) -> &'v [Value] {
    match value.get(field) {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => &[],
        other => {
            warn(Wrong(field.to_owned(), "a list", found(other)));
            &[]
        }
    }
}

/// The capabilities of one entry, by name.
struct Capabilities<'v>(BTreeMap<&'v str, &'v Value>);

impl<'v> Capabilities<'v> {
    fn of(entry: &'v Value, warn: &mut impl FnMut(Wrong)) -> Result<Self, Wrong> {
        let mut by_name = BTreeMap::new();
        for capability in list(entry, "capabilities", warn) {
            match (capability.get("name").and_then(Value::as_str), capability.get("value")) {
                (Some(name), Some(value)) => {
                    by_name.insert(name, value);
                }
                _ => warn(Wrong("capabilities".to_owned(), "name and value", found(Some(capability)))),
            }
        }
        Ok(Self(by_name))
    }

    fn text(&self, name: &str) -> Option<&'v str> {
        self.0.get(name)?.as_str().map(str::trim)
    }

    fn number<T: FromStr>(&self, name: &str, warn: &mut impl FnMut(Wrong)) -> Option<T> {
        let value = *self.0.get(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
        let number = text.parse().ok();
        if number.is_none() {
            warn(Wrong(name.to_owned(), "a number", found(Some(value))));
        }
        number
    }

    fn flag(&self, name: &str, warn: &mut impl FnMut(Wrong)) -> Option<bool> {
        let value = *self.0.get(name)?;
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        if flag.is_none() {
            warn(Wrong(name.to_owned(), "True or False", found(Some(value))));
        }
        flag
    }
}

fn vm_size(
    name: &str,
    parts: Option<&SkuName>,
    capabilities: &Capabilities<'_>,
    warn: &mut impl FnMut(Wrong),
) -> Result<VmSize, Wrong> {
    let missing = |name: &str| Wrong(name.to_owned(), "a number", "nothing".to_owned());
    let vcpus: u32 = capabilities.number("vCPUs", warn).ok_or_else(|| missing("vCPUs"))?;
    let gib: f64 = capabilities.number("MemoryGB", warn).ok_or_else(|| missing("MemoryGB"))?;
    if !(1..=10_000).contains(&vcpus) {
        return Err(Wrong("vCPUs".to_owned(), "1 to 10000", vcpus.to_string()));
    }
    if !(0.1..1e6).contains(&gib) {
        return Err(Wrong("MemoryGB".to_owned(), "0.1 to 1000000", gib.to_string()));
    }
    // In range by the check above; MemoryGB counts GiB, exact to a MiB.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let memory = Bytes::mib((gib * 1024.0).round() as u64);
    let mut size = assay_shared::azure::size(name).cloned().unwrap_or_else(|| unknown(name));
    (size.name, size.vcpus, size.memory) = (name.into(), vcpus, memory);

    match capabilities.text("CpuArchitectureType") {
        None => {}
        Some(text) if text.eq_ignore_ascii_case("x64") => size.architecture = Architecture::Amd64,
        Some(text) if text.eq_ignore_ascii_case("arm64") => size.architecture = Architecture::Arm64,
        Some(other) => return Err(Wrong("CpuArchitectureType".to_owned(), "x64 or Arm64", other.to_owned())),
    }
    if let Some(per_core) = capabilities.number("vCPUsPerCore", warn) {
        size.vcpus_per_core = per_core;
    }
    let mut set = |field: &mut bool, name: &str| *field = capabilities.flag(name, warn).unwrap_or(*field);
    set(&mut size.accelerated_networking, "AcceleratedNetworkingEnabled");
    set(&mut size.premium_io, "PremiumIO");
    set(&mut size.ultra_ssd, "UltraSSDAvailable");
    set(&mut size.spot, "LowPriorityCapable");
    if let Some(generations) = capabilities.text("HyperVGenerations") {
        let has =
            |wanted: &str| generations.split(',').any(|found| found.trim().eq_ignore_ascii_case(wanted));
        (size.generation1, size.generation2) = (has("V1"), has("V2"));
    }
    disks(&mut size, capabilities, warn);
    if let Some(count) = capabilities.number::<u32>("GPUs", warn) {
        size.gpus = gpus(size.gpus.take(), parts, count);
    }
    Ok(size)
}

/// A size about which nothing is known.
fn unknown(name: &str) -> VmSize {
    VmSize {
        name: name.into(),
        family: name.into(),
        architecture: Architecture::Amd64,
        vcpus: 0,
        vcpus_per_core: 1,
        memory: Bytes::ZERO,
        gpus: None,
        temp_disk: Bytes::ZERO,
        local_nvme: None,
        ephemeral_os_max: Bytes::ZERO,
        ephemeral_os_on_nvme: false,
        accelerated_networking: false,
        rdma: Gbps::ZERO,
        premium_io: false,
        ultra_ssd: false,
        spot: false,
        zonal: false,
        generation1: false,
        generation2: true,
    }
}

fn disks(size: &mut VmSize, capabilities: &Capabilities<'_>, warn: &mut impl FnMut(Wrong)) {
    if let Some(mib) = capabilities.number("MaxResourceVolumeMB", warn) {
        size.temp_disk = Bytes::mib(mib);
    }
    let total = capabilities.number("NvmeDiskSizeInMiB", warn).map(Bytes::mib);
    if let Some(total) = total.filter(|total| !total.is_zero()) {
        let each = capabilities.number("NvmeSizePerDiskInMiB", warn).map_or(total, Bytes::mib);
        let count =
            total.0.checked_div(each.0).and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1);
        size.local_nvme = Some(LocalNvme { count, size: each });
    }
    let supported = capabilities.flag("EphemeralOSDiskSupported", warn);
    let placements = capabilities.text("SupportedEphemeralOSDiskPlacements");
    if supported == Some(false) {
        (size.ephemeral_os_max, size.ephemeral_os_on_nvme) = (Bytes::ZERO, false);
    } else if let Some(placements) = placements {
        // The first placement that exists counts, in the order in which Azure's provider of Karpenter tries them.
        let allows = |wanted| placements.split(',').any(|found| found.trim() == wanted);
        let nvme = total.filter(|total| allows("NvmeDisk") && !total.is_zero());
        let cache = capabilities.number("CachedDiskBytes", warn).map(Bytes).filter(|_| allows("CacheDisk"));
        let cache = cache.filter(|cache| !cache.is_zero());
        let resource = Some(size.temp_disk).filter(|_| allows("ResourceDisk"));
        size.ephemeral_os_max = nvme.or(cache).or(resource).unwrap_or(Bytes::ZERO);
        size.ephemeral_os_on_nvme = nvme.is_some();
    }
}

/// GPUs as counted by ARM; the model, which ARM does not tell, from the built-in facts or else from the name.
fn gpus(known: Option<Gpus>, parts: Option<&SkuName>, count: u32) -> Option<Gpus> {
    if count == 0 {
        return None;
    }
    if let Some(known) = known {
        return Some(Gpus { count, ..known });
    }
    let model = parts.and_then(|parts| parts.accelerator.clone()).unwrap_or_default();
    // AMD's accelerators are Instinct (MI…) and Radeon Pro (V…); NVIDIA's V100 is not in any name.
    let vendor =
        if model.starts_with("MI") || model.starts_with('V') { GpuVendor::Amd } else { GpuVendor::Nvidia };
    Some(Gpus { vendor, model: model.into(), count, memory: Bytes::ZERO, shared_by: 1 })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value for a message: short ones as they are.
fn found(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) if text.chars().count() <= 40 => format!("{text:?}"),
        Some(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar.to_string(),
        Some(other) => kind(other).to_owned(),
    }
}
