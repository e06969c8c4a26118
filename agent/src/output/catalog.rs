//! What Azure's catalogue promises for the VM size, beside what was measured.

use assay_shared::Fact;
use assay_shared::azure::{self, VmSize};
use assay_shared::report::{DiskRole, HardwareReport, RdmaLinkLayer, RdmaState};
use assay_shared::units::{Bytes, Gbps};

use super::grid::{Cell, Tone};

/// The size that the report names and the catalogue knows.
pub(super) fn size_of(report: &HardwareReport) -> Option<&'static VmSize> {
    azure::size(report.platform.vm_size.measured()?)
}

/// One row for each promise: name, catalogue, measured.
pub(super) fn rows(size: &VmSize, report: &HardwareReport) -> Vec<Vec<Cell>> {
    let mut rows = vec![vec!["".into(), "PROMISED".into(), "MEASURED".into()]];
    rows.push(row("vCPUs", size.vcpus.to_string(), vcpus(size, report)));
    rows.push(row("memory", size.memory.to_string(), memory(size, report)));
    if let Some(gpus) = &size.gpus {
        let promised = format!("{} × {} {}", gpus.count, gpus.model, gpus.memory);
        rows.push(row("GPUs", promised, gpu_count(gpus.count, report)));
    }
    rows.push(row("temp disk", or_none(size.temp_disk), temp_disk(size, report)));
    let nvme =
        size.local_nvme.map_or_else(|| "none".to_owned(), |nvme| format!("{} × {}", nvme.count, nvme.size));
    rows.push(row("local NVMe", nvme, local_nvme(size, report)));
    let accelerated = if size.accelerated_networking { "yes" } else { "no" };
    rows.push(row("accelerated networking", accelerated.to_owned(), accelerated_networking(size, report)));
    if !size.rdma.is_zero() {
        rows.push(row("InfiniBand", size.rdma.to_string(), infiniband(size.rdma, report)));
    }
    rows
}

impl From<&str> for Cell {
    fn from(heading: &str) -> Self {
        Self::new(heading, Tone::Faint)
    }
}

fn row(name: &str, promised: String, measured: Cell) -> Vec<Cell> {
    vec![Cell::plain(name), Cell::plain(promised), measured]
}

fn unknown<T>(fact: &Fact<T>) -> Cell {
    match fact {
        Fact::Absent => Cell::plain("none"),
        Fact::Measured(_) | Fact::Unavailable(_) => Cell::new("?", Tone::Warning),
    }
}

fn as_promised(kept: bool) -> Tone {
    if kept { Tone::Good } else { Tone::Bad }
}

fn or_none(bytes: Bytes) -> String {
    if bytes.is_zero() { "none".to_owned() } else { bytes.to_string() }
}

fn vcpus(size: &VmSize, report: &HardwareReport) -> Cell {
    let cpus = &report.cpu.logical_cpus;
    cpus.get()
        .map_or_else(|| unknown(cpus), |cpus| Cell::new(cpus.to_string(), as_promised(cpus == size.vcpus)))
}

/// Only installed memory can be compared: the total is what the kernel left of it.
fn memory(size: &VmSize, report: &HardwareReport) -> Cell {
    match (report.memory.installed_bytes.get(), report.memory.total_bytes.get()) {
        (Some(installed), _) if installed > size.memory => {
            Cell::new(format!("{installed} (more)"), Tone::Warning)
        }
        (Some(installed), _) if installed < size.memory => {
            Cell::new(format!("{installed} ({} less)", size.memory - installed), Tone::Bad)
        }
        (Some(installed), _) => Cell::new(installed.to_string(), Tone::Good),
        (None, Some(total)) => Cell::plain(format!("{total} after the kernel's share")),
        (None, None) => unknown(&report.memory.installed_bytes),
    }
}

fn gpu_count(promised: u32, report: &HardwareReport) -> Cell {
    let usable = &report.gpus.usable;
    let cell = |usable: u32| Cell::new(format!("{usable} usable"), as_promised(usable >= promised));
    usable.get().map_or_else(|| unknown(usable), cell)
}

/// Number and size of the disks with this role; `None` where a size, or whether there are any, is not known.
fn disks(report: &HardwareReport, role: DiskRole) -> Option<(usize, Bytes)> {
    let disks = report.disks.measured()?.iter().filter(|disk| disk.role == role);
    let sizes: Vec<Bytes> = disks.map(|disk| disk.size_bytes.get()).collect::<Option<_>>()?;
    Some((sizes.len(), sizes.into_iter().sum()))
}

fn temp_disk(size: &VmSize, report: &HardwareReport) -> Cell {
    disks(report, DiskRole::Temp).map_or_else(
        || unknown(&report.disks),
        |(_, bytes)| Cell::new(or_none(bytes), as_promised(bytes.is_zero() == size.temp_disk.is_zero())),
    )
}

/// An operating system disk on local storage takes its place from the local disks.
fn local_nvme(size: &VmSize, report: &HardwareReport) -> Cell {
    let promised = size.local_nvme.map_or(0, |nvme| nvme.count);
    let os_is_local = report.disks.measured().is_some_and(|disks| {
        disks.iter().any(|disk| disk.role == DiskRole::Os && disk.ephemeral_os == Fact::Measured(true))
    });
    let Some((count, bytes)) = disks(report, DiskRole::LocalNvme) else { return unknown(&report.disks) };
    let kept = u32::try_from(count).is_ok_and(|count| count >= promised);
    let tone = if kept || (os_is_local && size.ephemeral_os_on_nvme) { Tone::Good } else { Tone::Bad };
    if count == 0 { Cell::new("none", tone) } else { Cell::new(format!("{count}, {bytes} in all"), tone) }
}

fn accelerated_networking(size: &VmSize, report: &HardwareReport) -> Cell {
    let state = &report.network.accelerated_networking;
    let cell = |tone| state.get().map_or_else(|| unknown(state), |state| Cell::new(state.as_str(), tone));
    match (size.accelerated_networking, state.get().is_some_and(|state| state.is_active())) {
        (true, active) => cell(as_promised(active)),
        (false, _) => cell(Tone::Plain),
    }
}

fn infiniband(promised: Gbps, report: &HardwareReport) -> Cell {
    let Some(devices) = report.network.rdma.measured() else { return unknown(&report.network.rdma) };
    let working = devices.iter().filter(|device| {
        device.link_layer == Fact::Measured(RdmaLinkLayer::Infiniband)
            && device.state == Fact::Measured(RdmaState::Active)
    });
    let rates: Vec<Gbps> = working.filter_map(|device| device.rate_gbps.get()).collect();
    match rates.iter().max() {
        Some(rate) => Cell::new(format!("{} × {rate}", rates.len()), as_promised(*rate >= promised)),
        None => Cell::new("no active port", Tone::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The measured column of the row with this name.
    fn measured(rows: &[Vec<Cell>], name: &str) -> Cell {
        rows.iter().find(|row| row[0] == Cell::plain(name)).map(|row| row[2].clone()).unwrap()
    }

    #[test]
    fn a_broken_promise_stands_out() {
        let mut report = HardwareReport::default();
        report.platform.vm_size = Fact::Measured("standard_d4s_v5".to_owned());
        let size = size_of(&report).unwrap();
        assert_eq!(measured(&rows(size, &report), "memory"), Cell::new("?", Tone::Warning));

        report.cpu.logical_cpus = Fact::Measured(4);
        report.memory.installed_bytes = Fact::Measured(Bytes::gib(15));
        report.disks = Fact::Measured(Vec::new());
        let compared = rows(size, &report);
        assert_eq!(measured(&compared, "vCPUs"), Cell::new("4", Tone::Good));
        assert_eq!(measured(&compared, "memory"), Cell::new("15 GiB (1 GiB less)", Tone::Bad));
        assert_eq!(measured(&compared, "temp disk"), Cell::new("none", Tone::Good));
    }

    #[test]
    fn an_unknown_size_promises_nothing() {
        let mut report = HardwareReport::default();
        assert!(size_of(&report).is_none());
        report.platform.vm_size = Fact::Measured("Standard_Nope".to_owned());
        assert!(size_of(&report).is_none());
    }
}
