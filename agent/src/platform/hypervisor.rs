//! The hypervisor by what it leaves in a tree: DMI strings, its bus, its clock. Only evidence that names one counts.

use assay_shared::Fact;
use assay_shared::report::Hypervisor;

use super::Dmi;
use crate::cpu::cpuinfo::CpuInfo;
use crate::host::HostFs;
use crate::host::read::{self, Missing};

/// DMI vendor of Hyper-V, and of Microsoft's own hardware.
pub(super) const MICROSOFT: &str = "Microsoft Corporation";
/// Clocks that a guest of each hypervisor is offered.
const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0/available_clocksource";
/// Devices of Hyper-V's own bus.
const VMBUS: &str = "sys/bus/vmbus/devices";

/// Who virtualizes the machine, without CPUID.
pub(super) fn from_files(fs: &dyn HostFs, dmi: &Dmi, cpuinfo: &Fact<CpuInfo>) -> Fact<Hypervisor> {
    let named = named_by_kernel(fs).or_else(|| named_by_dmi(dmi));
    if let Some(hypervisor) = named.or_else(|| named_by_drivers(fs)) {
        return Fact::Measured(hypervisor);
    }
    // x86 hypervisors set a bit in CPUID that the kernel shows as a flag; Arm has no such thing.
    match cpuinfo {
        Fact::Measured(info) if info.get("flags").is_some() => info.flags("flags").and_then(|flags| {
            if flags.iter().any(|flag| flag == "hypervisor") {
                Fact::unavailable("the machine is virtual, but no file names the hypervisor")
            } else {
                Fact::Measured(Hypervisor::None)
            }
        }),
        Fact::Unavailable(reason) => Fact::Unavailable(reason.clone()),
        _ => Fact::unavailable("no file tells whether the machine is virtual"),
    }
}

/// Xen puts its name into sysfs.
fn named_by_kernel(fs: &dyn HostFs) -> Option<Hypervisor> {
    let kind = read::line(fs, "sys/hypervisor/type", Missing::Absent);
    kind.measured().is_some_and(|kind| kind == "xen").then_some(Hypervisor::Xen)
}

/// Vendors and products that are a hypervisor's, as `systemd-detect-virt` knows them.
fn named_by_dmi(dmi: &Dmi) -> Option<Hypervisor> {
    let vendor = dmi.sys_vendor.measured().map_or("", String::as_str);
    let product = dmi.product_name.measured().map_or("", String::as_str);
    match vendor {
        // Surface and Azure's own servers carry the vendor as well.
        MICROSOFT if product == "Virtual Machine" => Some(Hypervisor::Hyperv),
        "QEMU" | "Google" | "OpenStack Foundation" => Some(Hypervisor::Kvm),
        "Amazon EC2" if !product.contains("metal") => Some(Hypervisor::Kvm),
        "Xen" => Some(Hypervisor::Xen),
        "innotek GmbH" | "Parallels Software International Inc." | "Apple Inc."
            if product.contains("Virtual") =>
        {
            Some(Hypervisor::Other)
        }
        _ if vendor.starts_with("VMware") => Some(Hypervisor::Vmware),
        _ if product.starts_with("KVM") => Some(Hypervisor::Kvm),
        _ => None,
    }
}

/// Devices and clocks that a hypervisor offers to its guests only.
pub(super) fn named_by_drivers(fs: &dyn HostFs) -> Option<Hypervisor> {
    if fs.list(VMBUS).is_ok_and(|devices| !devices.is_empty()) {
        return Some(Hypervisor::Hyperv);
    }
    let clocks = read::line(fs, CLOCKS, Missing::Absent);
    let has = |prefix: &str| {
        clocks
            .measured()
            .is_some_and(|clocks| clocks.split_whitespace().any(|clock| clock.starts_with(prefix)))
    };
    [("hyperv_clocksource", Hypervisor::Hyperv), ("kvm-clock", Hypervisor::Kvm), ("xen", Hypervisor::Xen)]
        .into_iter()
        .find_map(|(prefix, hypervisor)| has(prefix).then_some(hypervisor))
}
