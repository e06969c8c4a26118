//! The machine that a VM of an Azure size should be, made of the catalogue's facts.
//!
//! What the catalogue does not tell is taken from Microsoft's size pages by the name of the size: which processors it can
//! come with ([`processors`]), sockets and NUMA nodes, which network card and which disk controller a generation has.
//! The caller then changes what did not arrive as promised.

use assay_shared::azure::{Gpus, VmSize};
use assay_shared::report::{
    AcceleratedNetworking, Architecture, GpuPartition, GpuState, GpuVendor, Priority, RdmaLinkLayer,
    RdmaState,
};
use assay_shared::units::{Bytes, Mbps};

use super::cpu::{Cpu, CpuModel};
use super::disks::{Disk, DiskBus};
use super::gpu::{Gpu, GpuDriver, GpuModel};
use super::machine::Machine;
use super::memory::Memory;
use super::network::{Nic, RdmaPort, Vf, VfFamily, VfState};
use super::platform::{Host, Imds};

/// Size of the operating system disk that AKS gives by default.
const OS_DISK: Bytes = Bytes::gib(128);

/// The parts of a size's name: `Standard_NC24ads_A100_v4` is family `NC`, features `ads`, version 4.
struct Name<'a> {
    family: &'a str,
    features: &'a str,
    version: u32,
}

impl<'a> Name<'a> {
    fn of(size: &'a VmSize) -> Self {
        let name = size.name.strip_prefix("Standard_").unwrap_or(&size.name);
        let (name, version) = match name.rsplit_once("_v") {
            Some((name, version)) => (name, version.parse().unwrap_or(1)),
            None => (name, 1),
        };
        let letters = |c: char| !c.is_ascii_digit();
        let (family, rest) = name.split_at(name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len()));
        let rest = rest.split('_').next().unwrap_or(rest);
        Self { family, features: rest.find(letters).map_or("", |at| &rest[at..]), version }
    }

    fn has(&self, feature: char) -> bool {
        self.features.contains(feature)
    }

    /// Whether all disks are NVMe, and the network card is Microsoft's own: from v6 on, and for storage from v4 on.
    fn is_boost(&self) -> bool {
        self.version >= 6 || self.family == "L" && self.version >= 4
    }
}

/// The processors that VMs of this size come with: one of them, nobody knows which. The likeliest is first.
///
/// From Microsoft's size pages; the sizes with several are those that run on whatever host is free.
#[must_use]
pub fn processors(size: &VmSize) -> &'static [CpuModel] {
    use CpuModel::{
        Broadwell, CascadeLake, Cobalt100, EmeraldRapids, Genoa, Haswell, IceLake, Milan, Naples, NeoverseN1,
        Rome, SapphireRapids, Skylake, Turin,
    };
    let name = Name::of(size);
    if size.architecture == Architecture::Arm64 {
        return if name.version >= 6 { &[Cobalt100] } else { &[NeoverseN1] };
    }
    match (name.family, name.has('a'), name.version) {
        ("NC", true, 3) | ("ND" | "NV", true, 4) | ("HB", _, 2) => &[Rome],
        ("L", true, 4) => &[Genoa],
        ("NC", true, 4) | ("NV", true, _) | ("HB", _, 3) | ("L", true, _) => &[Milan],
        ("NC", true, _) | ("HB" | "HX", _, _) => &[Genoa],
        ("ND", _, 5) | ("M", _, 3) => &[SapphireRapids],
        ("NC" | "NV", _, _) => &[Broadwell],
        ("ND" | "HC", _, _) => &[Skylake],
        ("L", _, 2) => &[Naples],
        ("L", _, 3) => &[IceLake],
        ("M", _, _) => &[CascadeLake],
        (_, true, 7..) => &[Turin],
        (_, true, 6) => &[Genoa],
        (_, true, 5) => &[Milan, Genoa],
        (_, true, 4) => &[Rome, Milan],
        (_, true, _) => &[Milan],
        ("F", _, 2) => &[CascadeLake, Skylake, IceLake],
        ("B", _, 2) | (_, _, 5) => &[IceLake, SapphireRapids, EmeraldRapids],
        ("L", _, _) | (_, _, 6..) => &[EmeraldRapids],
        (_, _, 4) => &[CascadeLake, IceLake, SapphireRapids, EmeraldRapids],
        _ => &[CascadeLake, Skylake, Broadwell, IceLake, Haswell, EmeraldRapids],
    }
}

impl Machine {
    /// A VM of this size that is all that was promised, on the likeliest processor, regional and bought on demand.
    #[must_use]
    pub fn azure(size: &VmSize) -> Self {
        let name = Name::of(size);
        let model = processors(size).first().copied().unwrap_or(CpuModel::IceLake);
        let sockets = if matches!(name.family, "ND" | "HB" | "HC" | "HX") || size.vcpus > 64 { 2 } else { 1 };
        let numa_nodes = match name.family {
            "HB" | "HX" => 4,
            "ND" if model == CpuModel::Rome => 4,
            _ => sockets,
        };
        let cpu =
            Cpu { threads_per_core: size.vcpus_per_core, sockets, numa_nodes, ..Cpu::new(model, size.vcpus) };
        let host = if size.generation2 { Host::AzureGen2 } else { Host::AzureGen1 };
        let mut machine = Self::new(host, cpu, Memory::new(size.memory));

        let vf = size.accelerated_networking.then(|| if name.is_boost() { mana() } else { connectx() });
        machine.nics = vec![Nic::azure("eth0", "00:0d:3a:f5:76:bd", vf)];
        if let Some(gpus) = &size.gpus {
            machine.gpu_driver = Some(driver(gpus));
            machine.gpus = devices(gpus, numa_nodes);
        }
        if !size.rdma.is_zero() {
            // One port for each GPU of a training machine, otherwise one.
            let ports = if name.family == "ND" { machine.gpus.len() } else { 1 };
            machine.rdma = (0..ports).map(|n| port(size, n, ports, numa_nodes)).collect();
        }
        machine.disks = disks(size, &name);
        machine.imds = Some(Imds {
            vm_id: String::new(),
            name: String::new(),
            vm_size: size.name.to_string(),
            location: "eastus".to_owned(),
            zone: String::new(),
            priority: Priority::Regular,
            ephemeral_os: false,
            resource_disk_kib: size.temp_disk.0 / 1024,
            events: Vec::new(),
        });
        machine.with_identity(0)
    }

    /// Gives it ids, hardware addresses and GPU ids of its own: the same for the same seed.
    #[must_use]
    pub fn with_identity(mut self, seed: u64) -> Self {
        let id = |salt: u64| {
            let (high, low) = (mix(seed ^ salt << 32), mix(seed.wrapping_add(salt << 32 | 1)));
            (high, low)
        };
        let uuid = |salt: u64| {
            let (high, low) = id(salt);
            // Version 4, variant 1 (RFC 9562).
            let (third, fourth) = (high & 0xfff | 0x4000, low >> 48 & 0x3fff | 0x8000);
            let (first, second, last) = (high >> 32, high >> 16 & 0xffff, low & 0xffff_ffff_ffff);
            format!("{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{last:012x}")
        };
        self.system.boot_id = uuid(1);
        let (high, low) = id(2);
        self.system.machine_id = format!("{high:016x}{low:016x}");
        if let Some(imds) = &mut self.imds {
            imds.vm_id = uuid(3);
            imds.name = format!("vm-{:08x}", id(3).0 >> 32);
        }
        for (nic, salt) in self.nics.iter_mut().zip(16..) {
            let (_, low) = id(salt);
            // 00:0d:3a is Microsoft's.
            nic.mac = format!("00:0d:3a:{:02x}:{:02x}:{:02x}", low >> 16 & 0xff, low >> 8 & 0xff, low & 0xff);
        }
        for (gpu, salt) in self.gpus.iter_mut().zip(64..) {
            gpu.uuid = Some(match gpu.model.product().vendor {
                GpuVendor::Nvidia => format!("GPU-{}", uuid(salt)),
                GpuVendor::Amd => format!("{:016x}", id(salt).0),
            });
        }
        self
    }

    /// Puts it into a region, a zone (empty for none) and a price class.
    #[must_use]
    pub fn with_placement(mut self, location: &str, zone: &str, priority: Priority) -> Self {
        if let Some(imds) = &mut self.imds {
            location.clone_into(&mut imds.location);
            zone.clone_into(&mut imds.zone);
            imds.priority = priority;
        }
        self
    }

    /// On another processor of the size's lottery.
    #[must_use]
    pub const fn with_processor(mut self, model: CpuModel) -> Self {
        self.cpu.model = model;
        self
    }

    /// With the RAM that the host really gives, and the kernel total that follows from it.
    #[must_use]
    pub const fn with_installed_memory(mut self, installed: Bytes) -> Self {
        self.memory.installed = installed;
        self.memory.total = None;
        self
    }

    /// With accelerated networking in this state; states that a virtual function cannot be in leave only the synthetic
    /// interface.
    #[must_use]
    pub fn with_accelerated_networking(mut self, state: AcceleratedNetworking) -> Self {
        let state = match state {
            AcceleratedNetworking::VfActive => Some(VfState::Active),
            AcceleratedNetworking::VfPairedDown => Some(VfState::Down),
            AcceleratedNetworking::VfUnpaired => Some(VfState::Unpaired),
            AcceleratedNetworking::PciNoDriver => Some(VfState::NoDriver),
            _ => None,
        };
        for nic in &mut self.nics {
            nic.vf = nic.vf.take().and_then(|vf| state.map(|state| Vf { state, ..vf }));
        }
        self
    }

    /// With one GPU in this state.
    #[must_use]
    pub fn with_gpu(mut self, index: usize, state: GpuState) -> Self {
        if let Some(gpu) = self.gpus.get_mut(index) {
            gpu.state = state;
        }
        self
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads a seed over 64 bits.
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn connectx() -> Vf {
    Vf {
        name: "enP53091s1np0".to_owned(),
        pci: "cf63:00:02.0".to_owned(),
        family: VfFamily::Mlx5,
        state: VfState::Active,
        speed: Some(Mbps(50_000)),
    }
}

fn mana() -> Vf {
    Vf {
        name: "enP30832s1".to_owned(),
        pci: "7870:00:00.0".to_owned(),
        family: VfFamily::Mana,
        state: VfState::Active,
        speed: None,
    }
}

fn driver(gpus: &Gpus) -> GpuDriver {
    let partition = if gpus.shared_by > 1 { GpuPartition::Vgpu } else { GpuPartition::None };
    match gpus.vendor {
        GpuVendor::Nvidia => {
            GpuDriver { version: "550.144.03".to_owned(), cuda: Some("12.4".to_owned()), partition }
        }
        GpuVendor::Amd => GpuDriver { version: "6.10.5".to_owned(), cuda: None, partition },
    }
}

/// The product whose name and memory the catalogue means. Its memory figures are rounded up, never below the driver's.
fn product(gpus: &Gpus) -> Option<GpuModel> {
    let models: &[GpuModel] = match &*gpus.model {
        "V100" => &[GpuModel::V100Pcie16, GpuModel::V100Sxm32],
        "M60" => &[GpuModel::M60],
        "T4" => &[GpuModel::T4],
        "A10" => &[GpuModel::A10Sixth, GpuModel::A10Third, GpuModel::A10Half, GpuModel::A10],
        // Only the training machines have the NVLink form of the 80 GB one; the count tells them apart.
        "A100" if gpus.count >= 8 => &[GpuModel::A100Sxm40, GpuModel::A100Sxm80],
        "A100" => &[GpuModel::A100Pcie80],
        "H100" => &[GpuModel::H100Sxm, GpuModel::H100Nvl],
        "H200" => &[GpuModel::H200],
        "MI25" => &[GpuModel::MI25],
        "MI300X" => &[GpuModel::MI300X],
        _ => &[],
    };
    models
        .iter()
        .rev()
        .copied()
        .find(|model| model.product().memory <= gpus.memory)
        .or_else(|| models.first().copied())
}

fn devices(gpus: &Gpus, numa_nodes: u32) -> Vec<Gpu> {
    let Some(model) = product(gpus) else { return Vec::new() };
    let device = |index: u32| Gpu {
        numa_node: (numa_nodes > 1).then(|| index * numa_nodes / gpus.count.max(1)),
        memory: (gpus.memory < model.product().memory).then_some(gpus.memory),
        ..Gpu::new(model, &format!("{:04x}:00:00.0", index + 1))
    };
    (0..gpus.count).map(device).collect()
}

fn port(size: &VmSize, n: usize, ports: usize, numa_nodes: u32) -> RdmaPort {
    let node = u32::try_from(n * numa_nodes as usize / ports.max(1)).ok();
    RdmaPort {
        device: format!("mlx5_ib{n}"),
        pci: format!("{:04x}:00:00.0", 0x101 + n),
        link_layer: RdmaLinkLayer::Infiniband,
        state: RdmaState::Active,
        rate: size.rdma,
        numa_node: node.filter(|_| numa_nodes > 1),
    }
}

fn disks(size: &VmSize, name: &Name<'_>) -> Vec<Disk> {
    let mut disks = Vec::new();
    if name.is_boost() {
        disks.push(Disk::new("nvme0n1", DiskBus::AzureNvmeRemote(1), OS_DISK).mounted(&["/"]));
    } else if size.generation2 {
        disks.push(Disk::new("sda", DiskBus::AzureScsiOs, OS_DISK).mounted(&["/"]));
    } else {
        disks.push(Disk::new("sda", DiskBus::AzureIdeOs, OS_DISK).mounted(&["/"]));
    }
    if !size.temp_disk.is_zero() {
        let bus = if size.generation2 { DiskBus::AzureScsiTemp } else { DiskBus::AzureIdeTemp };
        disks.push(Disk::new("sdb", bus, size.temp_disk).mounted(&["/mnt"]));
    }
    if let Some(local) = size.local_nvme {
        let (bus, first) =
            if name.is_boost() { (DiskBus::AzureNvmeLocalV2, 1) } else { (DiskBus::AzureNvmeLocal, 0) };
        disks.extend((first..first + local.count).map(|n| Disk::new(&format!("nvme{n}n1"), bus, local.size)));
    }
    disks
}

#[cfg(test)]
mod tests {
    use assay_shared::azure;

    use super::*;

    #[test]
    fn every_size_of_the_catalogue_becomes_the_machine_it_promises() {
        for size in azure::sizes() {
            let machine = Machine::azure(size);
            assert_eq!(machine.cpu.logical, size.vcpus, "{}", size.name);
            let gpus = size.gpus.as_ref();
            assert_eq!(machine.gpus.len(), gpus.map_or(0, |gpus| gpus.count as usize), "{}", size.name);
            for gpu in &machine.gpus {
                let promised = gpus.map_or(Bytes::ZERO, |gpus| gpus.memory);
                let real = gpu.memory();
                assert!(real <= promised && real.0 >= promised.0 / 10 * 9, "{}: {real}", size.name);
            }
            let arm = matches!(machine.cpu.model, CpuModel::NeoverseN1 | CpuModel::Cobalt100);
            assert_eq!(arm, size.architecture == Architecture::Arm64, "{}", size.name);
            assert_eq!(machine.rdma.is_empty(), size.rdma.is_zero(), "{}", size.name);
        }
    }

    #[test]
    fn names_lead_to_the_documented_processors() {
        use CpuModel::{
            Cobalt100, EmeraldRapids, Genoa, IceLake, Milan, NeoverseN1, Rome, SapphireRapids, Skylake,
        };
        for (name, model) in [
            ("Standard_D4s_v5", IceLake),
            ("Standard_D4s_v6", EmeraldRapids),
            ("Standard_D4as_v5", Milan),
            ("Standard_D4as_v6", Genoa),
            ("Standard_D4ps_v5", NeoverseN1),
            ("Standard_D4ps_v6", Cobalt100),
            ("Standard_L8s_v3", IceLake),
            ("Standard_L8as_v3", Milan),
            ("Standard_NC24ads_A100_v4", Milan),
            ("Standard_NC4as_T4_v3", Rome),
            ("Standard_ND96asr_v4", Rome),
            ("Standard_ND96isr_H100_v5", SapphireRapids),
            ("Standard_ND40rs_v2", Skylake),
            ("Standard_HB120rs_v3", Milan),
            ("Standard_HX176rs", Genoa),
        ] {
            let size = azure::size(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
            assert_eq!(processors(size)[0], model, "{name}");
        }
    }

    #[test]
    fn a_seed_is_an_identity() {
        let size = azure::size("Standard_ND96asr_v4").unwrap();
        let machine = |seed| Machine::azure(size).with_identity(seed);
        assert_eq!(machine(7), machine(7));
        let (one, two) = (machine(1), machine(2));
        assert_ne!(one.system.boot_id, two.system.boot_id);
        assert_ne!(one.imds.unwrap().vm_id, two.imds.unwrap().vm_id);
        assert_ne!(one.nics[0].mac, two.nics[0].mac);
        let mut uuids: Vec<_> = one.gpus.iter().chain(&two.gpus).map(Gpu::uuid).collect();
        uuids.sort();
        uuids.dedup();
        assert_eq!(uuids.len(), 16);
    }
}
