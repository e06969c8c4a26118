//! Which machine this is and what it runs on: DMI, the kernel's files, and what IMDS said.
//!
//! The cloud is told from DMI, because the files that Azure's agent leaves behind also survive in images copied elsewhere.
//! What only IMDS knows is absent on other platforms, and unavailable on Azure when IMDS was not asked.

mod hypervisor;
mod os_release;

use assay_shared::Fact;
use assay_shared::report::{Cloud, Disagreement, Hypervisor, Identity, Platform, VmGeneration};

use crate::cpu::cpuid::Cpuid;
use crate::cpu::cpuinfo::CpuInfo;
use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::imds::{Answer, Instance};

const DMI: &str = "sys/class/dmi/id";
/// The asset tag that every Azure VM has and no other machine.
const AZURE_ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// The strings of DMI that tell where a machine runs. All absent where the firmware has no DMI.
#[derive(Debug, Clone)]
pub struct Dmi {
    pub(crate) sys_vendor: Fact<String>,
    pub(crate) product_name: Fact<String>,
    pub(crate) chassis_asset_tag: Fact<String>,
    /// Whether the kernel uses devices or clocks of Hyper-V.
    pub(crate) hyperv_drivers: bool,
}

impl Dmi {
    /// Reads them.
    pub fn read(fs: &dyn HostFs) -> Self {
        let line = |name: &str| read::line(fs, &format!("{DMI}/{name}"), Missing::Absent);
        Self {
            sys_vendor: line("sys_vendor"),
            product_name: line("product_name"),
            chassis_asset_tag: line("chassis_asset_tag"),
            hyperv_drivers: hypervisor::named_by_drivers(fs) == Some(Hypervisor::Hyperv),
        }
    }

    /// Whether this is Azure. Hyper-V elsewhere has the same vendor and product, so only the asset tag decides.
    #[must_use]
    pub fn cloud(&self) -> Fact<Cloud> {
        match &self.chassis_asset_tag {
            Fact::Measured(tag) if tag == AZURE_ASSET_TAG => Fact::Measured(Cloud::Azure),
            Fact::Measured(_) => Fact::Measured(Cloud::None),
            Fact::Unavailable(reason) => Fact::Unavailable(reason.clone()),
            // On Hyper-V without the tag nothing tells Azure from a machine on someone's own servers.
            Fact::Absent if self.on_hyperv() => {
                Fact::Unavailable(format!("not found: {DMI}/chassis_asset_tag"))
            }
            Fact::Absent => Fact::Measured(Cloud::None),
        }
    }

    fn on_hyperv(&self) -> bool {
        self.hyperv_drivers
            || self.sys_vendor.measured().is_some_and(|vendor| vendor == hypervisor::MICROSOFT)
    }
}

/// What IMDS says of this VM, where it was asked; absent off Azure, unavailable on Azure when nobody asked.
#[must_use]
pub fn instance(cloud: &Fact<Cloud>, imds: Option<&Answer>) -> Fact<Instance> {
    match (imds, cloud) {
        (Some(answer), _) => answer.instance.clone(),
        (None, cloud) => not_asked(cloud),
    }
}

/// Why a fact of IMDS is missing when it was not asked.
pub(crate) fn not_asked<T>(cloud: &Fact<Cloud>) -> Fact<T> {
    match cloud {
        Fact::Measured(Cloud::None) | Fact::Absent => Fact::Absent,
        Fact::Measured(Cloud::Azure) => Fact::unavailable("IMDS was not asked"),
        Fact::Unavailable(reason) => Fact::Unavailable(reason.clone()),
    }
}

/// Surveys the platform.
pub fn probe(
    fs: &dyn HostFs,
    dmi: &Dmi,
    instance: &Fact<Instance>,
    cpuinfo: &Fact<CpuInfo>,
    cpuid: Option<&Cpuid>,
) -> (Platform, Vec<Disagreement>) {
    let cloud = dmi.cloud();
    let mut disagreements = Vec::new();
    if instance.is_measured() && cloud == Fact::Measured(Cloud::None) {
        let detail = "IMDS answers, and DMI is not Azure's".to_owned();
        disagreements.push(Disagreement { fact: "platform.cloud".to_owned(), detail });
    }
    let from_files = hypervisor::from_files(fs, dmi, cpuinfo);
    let hypervisor = match cpuid.map(Cpuid::hypervisor) {
        Some(named @ Fact::Measured(Hypervisor::Other)) => from_files.clone().or_else(|| named),
        Some(named @ Fact::Measured(_)) => named,
        Some(Fact::Absent | Fact::Unavailable(_)) | None => from_files.clone(),
    };
    if let (Fact::Measured(named), Fact::Measured(found)) = (&hypervisor, &from_files)
        && named != found
    {
        let detail = format!("CPUID names {named:?}, DMI and drivers name {found:?}");
        disagreements.push(Disagreement { fact: "platform.hypervisor".to_owned(), detail });
    }
    let platform = Platform {
        generation: generation(fs, &cloud),
        vm_size: of_instance(instance, |instance| &instance.vm_size),
        location: of_instance(instance, |instance| &instance.location),
        zone: of_instance(instance, |instance| &instance.zone),
        priority: of_instance(instance, |instance| &instance.priority),
        hypervisor,
        kernel_release: read::line(fs, "proc/sys/kernel/osrelease", Missing::Unavailable),
        os_image: os_release::pretty_name(fs),
        cloud,
    };
    (platform, disagreements)
}

/// Surveys the identity of the machine.
///
/// The VM id comes from IMDS only: DMI's `product_uuid` needs root, and holds the same id with the bytes of its first
/// three fields swapped or not, depending on the firmware's age.
pub fn identity(fs: &dyn HostFs, node_name: Option<&str>, instance: &Fact<Instance>) -> Identity {
    let boot_id = |text: &str| is_uuid(text).then(|| text.to_ascii_lowercase());
    let machine_id = |text: &str| is_hex(text, 32).then(|| text.to_ascii_lowercase());
    Identity {
        node_name: node_name.map_or(Fact::Absent, |name| Fact::Measured(name.to_owned())),
        boot_id: read::parsed(fs, "proc/sys/kernel/random/boot_id", Missing::Unavailable, "a UUID", boot_id),
        machine_id: read::parsed(fs, "etc/machine-id", Missing::Absent, "32 hexadecimal digits", machine_id),
        vm_id: of_instance(instance, |instance| &instance.vm_id),
    }
}

fn of_instance<T: Clone>(instance: &Fact<Instance>, field: impl Fn(&Instance) -> &Fact<T>) -> Fact<T> {
    instance.as_ref().and_then(|instance| field(instance).clone())
}

/// UEFI boot is what generation 2 means. Only Azure's VMs have generations.
fn generation(fs: &dyn HostFs, cloud: &Fact<Cloud>) -> Fact<VmGeneration> {
    const EFI: &str = "sys/firmware/efi";
    match cloud {
        Fact::Measured(Cloud::Azure) => match fs.resolve(EFI) {
            Ok(_) => Fact::Measured(VmGeneration::Two),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Fact::Measured(VmGeneration::One),
            Err(error) => Fact::Unavailable(read::reason(&error, EFI)),
        },
        Fact::Measured(Cloud::None) | Fact::Absent => Fact::Absent,
        Fact::Unavailable(reason) => Fact::Unavailable(reason.clone()),
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5 && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, length)| is_hex(group, length))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imds::parse;
    use crate::tree::{Damage, MemTree};

    fn azure() -> MemTree {
        let mut tree = MemTree::new();
        tree.file("sys/devices/virtual/dmi/id/sys_vendor", "Microsoft Corporation\n");
        tree.file("sys/devices/virtual/dmi/id/product_name", "Virtual Machine\n");
        tree.file("sys/devices/virtual/dmi/id/chassis_asset_tag", format!("{AZURE_ASSET_TAG}\n"));
        tree.link_to("sys/class/dmi/id", "sys/devices/virtual/dmi/id");
        tree.file("proc/cpuinfo", "vendor_id : GenuineIntel\nflags : fpu hypervisor lm\n");
        tree
    }

    fn surveyed(
        tree: &MemTree,
        imds: Option<&Answer>,
        cpuid: Option<&Cpuid>,
    ) -> (Platform, Vec<Disagreement>) {
        let dmi = Dmi::read(tree);
        probe(tree, &dmi, &instance(&dmi.cloud(), imds), &CpuInfo::read(tree), cpuid)
    }

    #[test]
    fn azure_is_told_by_its_asset_tag_alone() {
        let tag = "sys/devices/virtual/dmi/id/chassis_asset_tag";
        assert_eq!(Dmi::read(&azure()).cloud(), Fact::Measured(Cloud::Azure));
        assert_eq!(Dmi::read(&MemTree::new()).cloud(), Fact::Measured(Cloud::None), "no DMI, no cloud");
        let mut on_premises = azure();
        on_premises.file(tag, "1234-5678\n");
        assert_eq!(Dmi::read(&on_premises).cloud(), Fact::Measured(Cloud::None));
        let (platform, _) = surveyed(&on_premises, None, None);
        assert_eq!((platform.vm_size, platform.generation), (Fact::Absent, Fact::Absent));
        assert_eq!(platform.hypervisor, Fact::Measured(Hypervisor::Hyperv));
        for damage in [Damage::DENIED, Damage::Missing, Damage::Garbage, Damage::Loop] {
            let mut tree = azure();
            tree.damage(tag, damage);
            assert!(matches!(Dmi::read(&tree).cloud(), Fact::Unavailable(_)), "{damage}");
            let (platform, _) = surveyed(&tree, None, None);
            assert!(matches!(platform.vm_size, Fact::Unavailable(_)), "{damage}: maybe Azure, so not absent");
        }
    }

    #[test]
    fn what_only_imds_knows_is_unavailable_on_azure_and_absent_elsewhere() {
        let (platform, _) = surveyed(&azure(), None, None);
        assert_eq!(platform.vm_size, Fact::unavailable("IMDS was not asked"));
        let answer = parse::file(br#"{"compute":{"vmSize":"Standard_D4s_v5","vmId":"A-B","zone":""}}"#);
        let (platform, disagreements) = surveyed(&azure(), Some(&answer), None);
        assert_eq!(platform.vm_size, Fact::Measured("Standard_D4s_v5".to_owned()));
        assert_eq!(platform.zone, Fact::Absent, "a regional VM");
        assert!(disagreements.is_empty());
        let (_, disagreements) = surveyed(&MemTree::new(), Some(&answer), None);
        assert_eq!(disagreements[0].fact, "platform.cloud");
    }

    #[test]
    fn generation_two_boots_by_uefi() {
        let mut tree = azure();
        assert_eq!(surveyed(&tree, None, None).0.generation, Fact::Measured(VmGeneration::One));
        tree.directory("sys/firmware/efi");
        assert_eq!(surveyed(&tree, None, None).0.generation, Fact::Measured(VmGeneration::Two));
    }

    #[test]
    fn a_hypervisor_is_named_only_by_evidence() {
        let virt = "vendor_id : GenuineIntel\nflags : fpu hypervisor lm\n";
        let clock = "sys/devices/system/clocksource/clocksource0/available_clocksource";
        let vendor = "sys/class/dmi/id/sys_vendor";
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Files<'_>, Option<Hypervisor>); 8] = [
            (&[("proc/cpuinfo", virt)], None),
            (&[("proc/cpuinfo", "vendor_id : GenuineIntel\nflags : fpu lm\n")], Some(Hypervisor::None)),
            (&[("proc/cpuinfo", virt), (clock, "tsc kvm-clock \n")], Some(Hypervisor::Kvm)),
            (&[("proc/cpuinfo", virt), (vendor, "QEMU\n")], Some(Hypervisor::Kvm)),
            (&[("proc/cpuinfo", virt), (vendor, "VMware, Inc.\n")], Some(Hypervisor::Vmware)),
            (&[("proc/cpuinfo", virt), ("sys/hypervisor/type", "xen\n")], Some(Hypervisor::Xen)),
            (&[("proc/cpuinfo", virt), ("sys/bus/vmbus/devices/x/class_id", "")], Some(Hypervisor::Hyperv)),
            (&[("proc/cpuinfo", "CPU implementer : 0x41\n")], None),
        ];
        for (files, expected) in cases {
            let mut tree = MemTree::new();
            for (path, content) in files {
                tree.file(path, *content);
            }
            assert_eq!(surveyed(&tree, None, None).0.hypervisor.get(), expected, "{files:?}");
        }
        let cpuid = Cpuid { hypervisor: Some(Hypervisor::Kvm), ..Cpuid::default() };
        let (platform, disagreements) = surveyed(&azure(), None, Some(&cpuid));
        assert_eq!(platform.hypervisor, Fact::Measured(Hypervisor::Kvm));
        assert_eq!(disagreements[0].fact, "platform.hypervisor");
    }

    #[test]
    fn ids_are_whole_or_unavailable() {
        let mut tree = MemTree::new();
        tree.file("proc/sys/kernel/random/boot_id", "C0FFEE00-1234-5678-9abc-def012345678\n");
        tree.file("etc/machine-id", "uninitialized\n");
        let found = identity(&tree, Some("aks-1"), &Fact::Absent);
        assert_eq!(found.node_name, Fact::Measured("aks-1".to_owned()));
        assert_eq!(found.boot_id, Fact::Measured("c0ffee00-1234-5678-9abc-def012345678".to_owned()));
        assert!(matches!(found.machine_id, Fact::Unavailable(_)));
        tree.file("proc/sys/kernel/random/boot_id", "c0ffee00-1234-5678");
        let found = identity(&tree, None, &Fact::Absent);
        assert!(matches!(found.boot_id, Fact::Unavailable(_)));
        assert_eq!(found.node_name, Fact::Absent);
    }
}
