//! The machines of `tests/machines`: one file each, written for people, read into [`Machine`].
//!
//! A file may name another one as its `base`: what it says then replaces what is there under the same name, a table key
//! by key, anything else as a whole. `NAME.expect.json` holds what a survey of the machine must find, as far as it matters.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use assay_agent::tree::Machine;
use assay_shared::report::{GpuPartition, GpuState, GpuVendor};
use serde::Deserialize;
use serde_json::Value;

/// Bases of bases that are followed; more are a circle.
const MAX_BASES: u32 = 8;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("machines")
}

/// Names of all machines, sorted.
///
/// # Errors
/// The directory cannot be read.
pub fn names() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// One machine.
///
/// # Errors
/// There is none of this name, or its file is wrong: file and field are named.
pub fn machine(name: &str) -> anyhow::Result<Machine> {
    let table = table(name, MAX_BASES)?;
    Machine::deserialize(table).with_context(|| format!("tests/machines/{name}.toml"))
}

/// The machine that this one's file names as its base.
///
/// # Errors
/// There is none of this name, or its file is not TOML.
pub fn base(name: &str) -> anyhow::Result<Option<String>> {
    let path = directory().join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let table: toml::Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(table.get("base").and_then(toml::Value::as_str).map(str::to_owned))
}

fn table(name: &str, bases: u32) -> anyhow::Result<toml::Table> {
    let path = directory().join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    parse(name, &text, bases)
}

fn parse(name: &str, text: &str, bases: u32) -> anyhow::Result<toml::Table> {
    let mut own: toml::Table = toml::from_str(text).with_context(|| format!("tests/machines/{name}.toml"))?;
    let Some(base) = own.remove("base") else { return Ok(own) };
    let toml::Value::String(base) = base else {
        bail!("tests/machines/{name}.toml: base: expected the name of a machine, found {}", base.type_str());
    };
    if bases == 0 {
        bail!("tests/machines/{name}.toml: base: the machines name each other in a circle");
    }
    let mut table = table(&base, bases - 1)?;
    for (key, value) in own {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => below.extend(above),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
    Ok(table)
}

/// What a survey of the machine must find.
///
/// # Errors
/// The file is missing or not JSON.
pub fn expected(name: &str) -> anyhow::Result<Value> {
    let path = directory().join(format!("{name}.expect.json"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Writes the machine into an empty directory, with `imds.json` where it has IMDS.
///
/// # Errors
/// Those of the file system.
pub fn write(machine: &Machine, root: &Path) -> anyhow::Result<()> {
    machine.tree().write_to(root)?;
    if let Some(imds) = machine.imds_json() {
        fs::write(root.join("imds.json"), imds.to_string())?;
    }
    Ok(())
}

/// The script by which the fake NVIDIA library shows this machine's GPUs; `None` without an NVIDIA driver.
#[must_use]
pub fn nvml_script(machine: &Machine) -> Option<String> {
    let driver = machine.gpu_driver.as_ref()?;
    let cuda = driver.cuda.as_ref()?;
    // "12.4" is 12040.
    let (major, minor) = cuda.split_once('.')?;
    let cuda: u32 = major.parse::<u32>().ok()? * 1000 + minor.parse::<u32>().ok()? * 10;
    let mut script = format!("driver-version = {:?}\ncuda-version = {cuda}\n", driver.version);
    for gpu in &machine.gpus {
        let product = gpu.model.product();
        if product.vendor != GpuVendor::Nvidia
            || matches!(gpu.state, GpuState::NoDriver | GpuState::NotListed)
        {
            continue;
        }
        let capability = product.compute_capability.unwrap_or("0.0").replace('.', ", ");
        let virtualization = if driver.partition == GpuPartition::Vgpu { 2 } else { 1 };
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "\n[[devices]]\nname = {:?}\nuuid = {:?}\npci = {:?}\npci-device-id = {}\nmemory-mib = {}\n\
             compute-capability = [{capability}]\nvirtualization-mode = {virtualization}\nlost = {}\n",
            product.name,
            gpu.uuid(),
            format!("0000{}", gpu.pci),
            u32::from(product.device) << 16 | 0x10de,
            gpu.memory().as_mib(),
            gpu.state == GpuState::Lost,
        );
        if virtualization == 1 {
            let mig = driver.partition == GpuPartition::Mig;
            let unhealthy = gpu.state == GpuState::Unhealthy;
            let _ = write!(
                script,
                "mig = {{ enabled = {mig}, instances = {} }}\necc = {{ enabled = true }}\n\
                 remapped-rows = {{ failure = {unhealthy} }}\ntemperature = 34\npower = 52000\n",
                if mig { 7 } else { 0 },
            );
        }
    }
    Some(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_file_is_read_and_has_expectations() {
        for name in names().unwrap() {
            machine(&name).unwrap_or_else(|error| panic!("{error:#}"));
            expected(&name).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    #[test]
    fn a_wrong_machine_file_is_told_by_file_and_field() {
        let minimal =
            "host = \"kvm\"\ncpu = { model = \"rome\", logical = 2 }\nmemory = { installed = \"1 GiB\" }\n";
        let read = |text: &str| {
            let table = parse("x", text, MAX_BASES)?;
            Machine::deserialize(table).map_err(anyhow::Error::from)
        };
        read(minimal).unwrap();
        for (more, told) in [
            ("colour = \"red\"\n", "unknown field `colour`"),
            ("errors = { \"sys/x\" = \"EBROKEN\" }\n", "\"sys/x\": expected missing, garbage"),
            ("[[nics]]\nname = \"eth0\"\n", "missing field `mac`"),
            (
                "[[disks]]\nname = \"sda\"\nbus = \"virtio\"\nsize = \"1 parsec\"\n",
                "expected a size such as \"16 GiB\"",
            ),
        ] {
            let error = format!("{:#}", read(&format!("{minimal}{more}")).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
    }
}
