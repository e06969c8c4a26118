//! A report on one screen: what a person would want from `lscpu`, `nvidia-smi`, `ip link` and `lsblk`.
//!
//! `-` means that the machine does not have it, `?` that it is not known; the reasons stand at the end.

mod devices;
mod unavailable;

use std::fmt::Display;

use assay_shared::Fact;
use assay_shared::report::{
    Cloud, Cpu, HardwareReport, Hypervisor, Memory, Platform, Priority, VmGeneration,
};
use assay_shared::units::Bytes;

use super::catalog;
use super::grid::{Cell, Page, Tone};

/// Features beyond the instruction set level that decide where a workload runs, in the order shown.
const NOTABLE_FEATURES: [&str; 9] = [
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "sve",
    "sve2",
];

/// Lays the report out.
#[must_use]
pub fn table(report: &HardwareReport, colour: bool) -> String {
    let mut page = Page::new(colour);
    heading(&mut page, report);
    page.section("CPU", &cpu(&report.cpu));
    page.section("Memory", &memory(&report.memory));
    devices::numa(&mut page, &report.numa);
    devices::gpus(&mut page, &report.gpus);
    devices::network(&mut page, &report.network);
    devices::disks(&mut page, &report.disks);
    devices::events(&mut page, &report.events);
    if let Some(size) = catalog::size_of(report) {
        page.gap();
        page.section("Catalogue", &[Cell::plain(format!("what {} promises, and what is there", size.name))]);
        page.grid(&catalog::rows(size, report), 2);
    }
    if !report.disagreements.is_empty() {
        page.gap();
        page.section("Disagree", &[Cell::plain("two sources differ; the more careful value is shown")]);
        let row = |fact: &str, detail: &str| vec![Cell::plain(fact), Cell::new(detail, Tone::Warning)];
        let rows: Vec<_> = report.disagreements.iter().map(|found| row(&found.fact, &found.detail)).collect();
        page.grid(&rows, 1);
    }
    unavailable::list(&mut page, report);
    page.finish()
}

/// A fact in a sentence.
fn say<T: Display>(fact: &Fact<T>) -> String {
    match fact {
        Fact::Measured(value) => value.to_string(),
        Fact::Absent => "-".to_owned(),
        Fact::Unavailable(_) => "?".to_owned(),
    }
}

/// A fact in a column.
fn cell<T: Display>(fact: &Fact<T>) -> Cell {
    let tone = match fact {
        Fact::Measured(_) => Tone::Plain,
        Fact::Absent => Tone::Faint,
        Fact::Unavailable(_) => Tone::Warning,
    };
    Cell::new(say(fact), tone)
}

/// A fact with words around it; nothing where it is absent.
fn phrase<T: Display>(before: &str, fact: &Fact<T>, after: &str) -> Option<String> {
    (!matches!(fact, Fact::Absent)).then(|| format!("{before}{}{after}", say(fact)))
}

/// "1 socket", "2 sockets".
fn plural(fact: &Fact<u32>, noun: &str) -> Option<String> {
    let s = if fact.get() == Some(1) { "" } else { "s" };
    phrase("", fact, &format!(" {noun}{s}"))
}

fn sentence(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn heading(page: &mut Page, report: &HardwareReport) {
    let Platform {
        cloud,
        vm_size,
        location,
        zone,
        priority,
        hypervisor,
        generation,
        kernel_release,
        os_image,
    } = &report.platform;
    let place = match cloud {
        Fact::Measured(Cloud::Azure) => sentence([
            Some("Azure".to_owned()),
            phrase("", vm_size, ""),
            phrase("", location, ""),
            phrase("zone ", zone, ""),
            phrase("", &priority.clone().map(priority_name), ""),
            phrase("generation ", &generation.clone().map(generation_name), ""),
        ]),
        Fact::Measured(Cloud::None) => sentence([Some("no known cloud".to_owned()), phrase("", vm_size, "")]),
        Fact::Absent | Fact::Unavailable(_) => "cloud ?".to_owned(),
    };
    let name = report.identity.node_name.measured().map(|name| format!("{name} · ")).unwrap_or_default();
    page.line(&Cell::new(format!("{name}{place}"), Tone::Heading));
    let virtualization = match hypervisor {
        Fact::Measured(Hypervisor::None) => Some("bare metal".to_owned()),
        other => phrase("on ", &other.clone().map(hypervisor_name), ""),
    };
    page.line(&Cell::plain(sentence([
        phrase("", os_image, ""),
        phrase("kernel ", kernel_release, ""),
        virtualization,
    ])));
    page.gap();
}

const fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Regular => "regular",
        Priority::Spot => "spot",
    }
}

const fn generation_name(generation: VmGeneration) -> u8 {
    match generation {
        VmGeneration::One => 1,
        VmGeneration::Two => 2,
    }
}

const fn hypervisor_name(hypervisor: Hypervisor) -> &'static str {
    match hypervisor {
        Hypervisor::Hyperv => "Hyper-V",
        Hypervisor::Kvm => "KVM",
        Hypervisor::Vmware => "VMware",
        Hypervisor::Xen => "Xen",
        Hypervisor::Other => "another hypervisor",
        Hypervisor::None => "bare metal",
    }
}

fn cpu(cpu: &Cpu) -> Vec<Cell> {
    let numbers = match cpu.family {
        // Arm's numbers are quoted in hexadecimal.
        Fact::Absent => [
            phrase("part ", &cpu.model_id.clone().map(|part| format!("{part:#x}")), ""),
            phrase("revision ", &cpu.stepping, ""),
            None,
        ],
        _ => [
            phrase("family ", &cpu.family, ""),
            phrase("model ", &cpu.model_id, ""),
            phrase("stepping ", &cpu.stepping, ""),
        ],
    };
    let names = [phrase("", &cpu.model, ""), phrase("", &cpu.vendor, "")];
    let identity = sentence(names.into_iter().chain(numbers));
    let l3 = match (&cpu.l3_domains, &cpu.l3_bytes) {
        (Fact::Absent, _) => None,
        (domains, bytes) => Some(format!("L3 {} × {}", say(domains), say(bytes))),
    };
    let layout = sentence([
        plural(&cpu.logical_cpus, "CPU"),
        plural(&cpu.physical_cores, "core"),
        phrase("", &cpu.threads_per_core, " per core"),
        plural(&cpu.sockets, "socket"),
        l3,
    ]);
    let level = match (&cpu.architecture, &cpu.isa_level) {
        (_, Fact::Measured(level)) => format!("x86-64-{level}"),
        (architecture, Fact::Absent) => say(architecture),
        (architecture, Fact::Unavailable(_)) => format!("{} ?", say(architecture)),
    };
    let features = cpu.features.measured().map(|all| {
        let notable =
            NOTABLE_FEATURES.into_iter().filter(|notable| all.iter().any(|feature| feature == notable));
        notable.collect::<Vec<_>>().join(" ")
    });
    let instructions = sentence([Some(level), features.filter(|features| !features.is_empty())]);
    [identity, layout, instructions].map(Cell::plain).to_vec()
}

fn memory(memory: &Memory) -> Vec<Cell> {
    let kept = match (memory.installed_bytes.get(), memory.total_bytes.get()) {
        (Some(installed), Some(total)) if installed > total => {
            Some(format!("kernel keeps {}", installed - total))
        }
        _ => None,
    };
    let sizes = sentence([
        phrase("", &memory.installed_bytes, " installed"),
        phrase("", &memory.total_bytes, " total"),
        kept,
        phrase("pods up to ", &memory.kubepods_limit_bytes, ""),
    ]);
    let pools = memory.hugepages.measured().into_iter().flatten().filter(|pool| pool.total > 0);
    let pool = |size: Bytes, total: u64, free: u64| format!("huge pages: {total} × {size}, {free} free");
    let pools = pools.map(|pool_of| Cell::plain(pool(pool_of.size_bytes, pool_of.total, pool_of.free)));
    std::iter::once(Cell::plain(sizes)).chain(pools).collect()
}

#[cfg(test)]
mod tests {
    use assay_shared::report::{Disk, GpuDevice, NumaNode};

    use super::super::grid::WIDTH;
    use super::*;

    fn narrow(text: &str) -> bool {
        text.lines().all(|line| line.chars().count() <= WIDTH)
    }

    #[test]
    fn nothing_known_still_makes_a_page() {
        let text = table(&HardwareReport::default(), false);
        assert!(narrow(&text), "{text}");
        assert!(text.contains("Unknown") && text.contains("not surveyed"), "{text}");
    }

    #[test]
    fn a_page_stays_narrow_and_short_whatever_is_in_it() {
        let long = "x".repeat(300);
        let mut report = HardwareReport::default();
        report.identity.node_name = Fact::Measured(long.clone());
        report.cpu.model = Fact::Measured(long.clone());
        let disk = |index: usize| Disk {
            name: format!("sd{index}"),
            model: Fact::Measured(long.clone()),
            ..Disk::default()
        };
        report.disks = Fact::Measured((0..500).map(disk).collect());
        report.gpus.devices =
            Fact::Measured(vec![GpuDevice { reason: Some(long.clone()), ..GpuDevice::default() }; 8]);
        report.numa = Fact::Measured(vec![NumaNode { cpus: Fact::Measured(long), ..NumaNode::default() }; 4]);
        let text = table(&report, false);
        assert!(narrow(&text), "{text}");
        assert!(text.lines().count() < 150, "{}", text.lines().count());
    }

    #[test]
    fn a_vm_of_known_size_is_compared_with_the_catalogue() {
        let mut report = HardwareReport::default();
        report.platform.vm_size = Fact::Measured("Standard_D4s_v5".to_owned());
        assert!(table(&report, false).contains("what Standard_D4s_v5 promises"));
        report.platform.vm_size = Fact::Absent;
        assert!(!table(&report, false).contains("promises"));
    }

    #[test]
    fn only_a_terminal_gets_colour() {
        let report = HardwareReport::default();
        assert!(!table(&report, false).contains('\u{1b}'));
        assert!(table(&report, true).contains('\u{1b}'));
    }
}
