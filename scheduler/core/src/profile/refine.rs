//! Labels from what was measured: `hardware.assay.dev/*`, and the `karpenter.azure.com/sku-*` labels corrected.

use assay_shared::HardwareReport;
use assay_shared::labels::{azure, hardware, label_value};
use assay_shared::report::{DiskRole, GpuPartition, InterfaceRole, RdmaLinkLayer};
use assay_shared::units::Bytes;

use crate::model::Labels;

/// The `hardware.assay.dev/*` labels of a machine. A fact that was not measured has no label; one that is known to be
/// absent counts zero where the label is a count.
#[must_use]
pub fn hardware_labels(report: &HardwareReport) -> Labels {
    let mut labels = Labels::new();
    let mut set = |key: &str, value: Option<String>| {
        let value = value.map(|value| label_value(&value)).filter(|value| !value.is_empty());
        labels.extend(value.map(|value| (key.to_owned(), value)));
    };
    let mib = |bytes: Bytes| bytes.as_mib().to_string();

    let cpu = &report.cpu;
    set(hardware::CPU_VENDOR, cpu.vendor.measured().map(|vendor| cpu_vendor(vendor).to_owned()));
    set(hardware::CPU_MODEL, cpu.model.measured().map(|model| cpu_model(model)));
    set(hardware::CPU_ISA, cpu.isa_level.get().map(|level| level.to_string()));
    let amx = |features: &Vec<String>| features.iter().any(|flag| flag == "amx_tile");
    set(hardware::CPU_AMX, cpu.features.measured().map(|features| amx(features).to_string()));

    set(hardware::MEMORY_INSTALLED_MIB, report.memory.installed_bytes.get().map(mib));
    set(hardware::MEMORY_TOTAL_MIB, report.memory.total_bytes.get().map(mib));
    set(hardware::NUMA_NODES, report.numa.measured().map(|nodes| nodes.len().to_string()));

    set(hardware::GPU_COUNT, report.gpus.usable.get().map(|count| count.to_string()));
    let first = report.gpus.devices.measured().and_then(|devices| devices.first());
    set(hardware::GPU_VENDOR, first.map(|gpu| gpu.vendor.as_str().to_owned()));
    set(hardware::GPU_MODEL, first.and_then(|gpu| gpu.model.measured().cloned()));
    set(hardware::GPU_MEMORY_MIB, first.and_then(|gpu| gpu.memory_bytes.get().map(mib)));
    let partition = report.gpus.partition.get().filter(|_| first.is_some());
    set(hardware::GPU_PARTITION, partition.map(GpuPartition::as_str).map(str::to_owned));

    let network = &report.network;
    set(
        hardware::NETWORK_ACCELERATED,
        network.accelerated_networking.get().map(|state| state.as_str().to_owned()),
    );
    let driver = |role| {
        let interface = network.interfaces.measured()?.iter().find(|interface| interface.role == role)?;
        interface.driver.measured().cloned()
    };
    set(hardware::NETWORK_DRIVER, driver(InterfaceRole::Vf).or_else(|| driver(InterfaceRole::Synthetic)));
    let ports = network.rdma.measured().into_iter().flatten();
    let fabric = ports.filter(|port| port.link_layer.get() == Some(RdmaLinkLayer::Infiniband));
    let slowest = fabric.filter_map(|port| port.rate_gbps.get()).min();
    set(hardware::RDMA_GBPS, slowest.map(|rate| rate.0.to_string()));

    if let Some(disks) = report.disks.measured() {
        let of = |role| disks.iter().filter(move |disk| disk.role == role);
        let size =
            |role| of(role).filter_map(|disk| disk.size_bytes.get()).sum::<Bytes>().as_gib().to_string();
        set(hardware::LOCAL_NVME_COUNT, Some(of(DiskRole::LocalNvme).count().to_string()));
        set(hardware::LOCAL_NVME_GIB, Some(size(DiskRole::LocalNvme)));
        set(hardware::TEMP_DISK_GIB, Some(size(DiskRole::Temp)));
        let ephemeral = of(DiskRole::Os).find_map(|disk| disk.ephemeral_os.get());
        set(hardware::OS_DISK, ephemeral.map(|local| if local { "ephemeral" } else { "managed" }.to_owned()));
    }
    labels
}

/// The SKU labels of a node that the machine contradicts, with their true values. Memory stays what the size is sold as, as
/// Karpenter defines it; what is there has its own label.
#[must_use]
pub fn sku_label_corrections(report: &HardwareReport, labels: &Labels) -> Labels {
    let mut corrections = Labels::new();
    let mut correct = |key: &str, truth: Option<String>| {
        if let (Some(promised), Some(truth)) = (labels.get(key), truth)
            && *promised != truth
        {
            corrections.insert(key.to_owned(), truth);
        }
    };
    correct(azure::SKU_GPU_COUNT, report.gpus.usable.get().map(|count| count.to_string()));
    let accelerated = report.network.accelerated_networking.get().map(|state| state.is_active().to_string());
    correct(azure::SKU_NETWORKING_ACCELERATED, accelerated);
    let cpus = report.cpu.logical_cpus.get().map(|count| count.to_string());
    correct(azure::SKU_CPU, cpus.clone());
    correct(azure::AKS_SKU_CPU, cpus);
    corrections
}

fn cpu_vendor(vendor: &str) -> &str {
    match vendor {
        "GenuineIntel" => "intel",
        "AuthenticAMD" => "amd",
        "ARM" | "Arm" => "arm",
        other => other,
    }
}

/// A short name of a CPU model: `Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz` becomes `xeon-platinum-8370c`.
fn cpu_model(model: &str) -> String {
    const NOISE: &[&str] = &["intel(r)", "intel", "amd", "cpu", "processor", "core"];
    let model = model.split('@').next().unwrap_or(model).to_ascii_lowercase();
    let words = model.split_whitespace().map(|word| word.replace("(r)", "").replace("(tm)", ""));
    let words = words.filter(|word| !NOISE.contains(&word.as_str()) && !word.ends_with("-core"));
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use assay_shared::Fact;
    use assay_shared::report::{AcceleratedNetworking, GpuDevice};

    use super::*;

    #[test]
    fn cpu_models_get_short_names() {
        let cases = [
            ("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", "xeon-platinum-8370c"),
            ("AMD EPYC 7763 64-Core Processor", "epyc-7763"),
            ("Neoverse-N1", "neoverse-n1"),
        ];
        for (model, name) in cases {
            assert_eq!(cpu_model(model), name);
        }
    }

    #[test]
    fn only_measured_facts_become_labels() {
        let mut report = HardwareReport::default();
        report.memory.total_bytes = Fact::Measured(Bytes::mib(16_018));
        report.gpus.usable = Fact::Measured(1);
        let a100 = Fact::Measured("NVIDIA A100 80GB PCIe".to_owned());
        report.gpus.devices = Fact::Measured(vec![GpuDevice { model: a100, ..GpuDevice::default() }]);
        let labels = hardware_labels(&report);
        assert_eq!(labels[hardware::MEMORY_TOTAL_MIB], "16018");
        assert_eq!(labels[hardware::GPU_MODEL], "NVIDIA-A100-80GB-PCIe");
        assert!(!labels.contains_key(hardware::MEMORY_INSTALLED_MIB), "unavailable is not a value");
    }

    #[test]
    fn sku_labels_are_corrected_only_where_the_machine_contradicts_them() {
        let sold = Labels::from([
            (azure::SKU_GPU_COUNT.to_owned(), "8".to_owned()),
            (azure::SKU_NETWORKING_ACCELERATED.to_owned(), "true".to_owned()),
        ]);
        let mut report = HardwareReport::default();
        report.gpus.usable = Fact::Measured(7);
        report.network.accelerated_networking = Fact::Measured(AcceleratedNetworking::VfActive);
        let corrections = sku_label_corrections(&report, &sold);
        assert_eq!(corrections, Labels::from([(azure::SKU_GPU_COUNT.to_owned(), "7".to_owned())]));
    }
}
