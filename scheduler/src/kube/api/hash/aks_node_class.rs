//! Hash of a class: of its spec, but for the tags, which are changed where they are.

use std::time::Duration;

use super::node_pool::nillable;
use super::{Struct, flag, int32, int64, set, text};
use crate::kube::api::aks_node_class::{
    AKSNodeClassSpec, ArtifactStreaming, Gpu, KubeletConfiguration, LinuxOsConfiguration, LocalDns,
    LocalDnsZoneOverride, Security, Setting, Sysctls, TrustedLaunch,
};
use crate::kube::api::period::NillablePeriod;

/// Hash of a class whose spec this is, for the annotation `karpenter.azure.com/aksnodeclass-hash`.
#[must_use]
pub fn aks_node_class(spec: &AKSNodeClassSpec) -> String {
    let hash = Struct::new("AKSNodeClassSpec")
        .field("VNETSubnetID", spec.vnet_subnet_id.as_deref().map(text))
        .field("OSDiskSizeGB", spec.os_disk_size_gb.map(int32))
        .field("ImageFamily", spec.image_family.map(|family| text(family.as_str())))
        .field("FIPSMode", spec.fips_mode.map(|mode| text(mode.as_str())))
        .field("Kubelet", spec.kubelet.as_ref().map(kubelet))
        .field("MaxPods", spec.max_pods.map(int32))
        .field("Security", spec.security.as_ref().map(security))
        .field("LocalDNS", spec.local_dns.as_ref().map(local_dns))
        .field("GPU", spec.gpu.as_ref().map(gpu))
        .field("ArtifactStreaming", spec.artifact_streaming.as_ref().map(artifact_streaming))
        .field("LinuxOSConfig", spec.linux_os_config.as_ref().map(linux_os));
    hash.0.to_string()
}

fn kubelet(kubelet: &KubeletConfiguration) -> u64 {
    let sysctls = kubelet.allowed_unsafe_sysctls.as_ref();
    Struct::new("KubeletConfiguration")
        .field("CPUManagerPolicy", kubelet.cpu_manager_policy.map(|policy| text(policy.as_str())))
        .field("CPUCFSQuota", kubelet.cpu_cfs_quota.map(flag))
        .field("CPUCFSQuotaPeriod", kubelet.cpu_cfs_quota_period.as_deref().and_then(go_duration))
        .field("ImageGCHighThresholdPercent", kubelet.image_gc_high_threshold_percent.map(int32))
        .field("ImageGCLowThresholdPercent", kubelet.image_gc_low_threshold_percent.map(int32))
        .field("TopologyManagerPolicy", kubelet.topology_manager_policy.map(|policy| text(policy.as_str())))
        .field("AllowedUnsafeSysctls", sysctls.map(|list| set(list.iter().map(|name| text(name)))))
        .field("ContainerLogMaxSize", kubelet.container_log_max_size.as_deref().map(text))
        .field("ContainerLogMaxFiles", kubelet.container_log_max_files.map(int32))
        .field("PodPidsLimit", kubelet.pod_pids_limit.map(int64))
        .field("FailSwapOn", kubelet.fail_swap_on.map(flag))
        .0
}

/// A duration with Go's units, down to nanoseconds; none where it is zero, or none at all.
fn go_duration(duration: &str) -> Option<u64> {
    let duration: kube::core::Duration = duration.parse().ok()?;
    let time = i64::try_from(Duration::from(duration).as_nanos()).unwrap_or(i64::MAX);
    let time = if duration.is_negative() { -time } else { time };
    (time != 0).then(|| Struct::new("Duration").field("Duration", Some(int64(time))).0)
}

fn security(security: &Security) -> u64 {
    Struct::new("Security")
        .field("EncryptionAtHost", security.encryption_at_host.map(flag))
        .field("TrustedLaunch", security.trusted_launch.as_ref().map(trusted_launch))
        .0
}

fn trusted_launch(launch: &TrustedLaunch) -> u64 {
    Struct::new("TrustedLaunch")
        .field("VTPM", launch.vtpm.map(flag))
        .field("SecureBoot", launch.secure_boot.map(flag))
        .0
}

fn local_dns(dns: &LocalDns) -> u64 {
    let zones = |zones: &[LocalDnsZoneOverride]| set(zones.iter().map(zone));
    Struct::new("LocalDNS")
        .field("Mode", Some(text(dns.mode.as_str())))
        .field("VnetDNSOverrides", Some(zones(&dns.vnet_dns_overrides)))
        .field("KubeDNSOverrides", Some(zones(&dns.kube_dns_overrides)))
        .0
}

fn zone(zone: &LocalDnsZoneOverride) -> u64 {
    let time = |period: super::super::period::Period| {
        nillable(NillablePeriod(assay_core::model::Wait::After(period.0)))
    };
    Struct::new("LocalDNSZoneOverride")
        .field("Zone", Some(text(&zone.zone)))
        .field("QueryLogging", Some(text(zone.query_logging.as_str())))
        .field("Protocol", Some(text(zone.protocol.as_str())))
        .field("ForwardDestination", Some(text(zone.forward_destination.as_str())))
        .field("ForwardPolicy", Some(text(zone.forward_policy.as_str())))
        .field("MaxConcurrent", Some(int32(zone.max_concurrent)))
        .field("CacheDuration", time(zone.cache_duration))
        .field("ServeStaleDuration", time(zone.serve_stale_duration))
        .field("ServeStale", Some(text(zone.serve_stale.as_str())))
        .0
}

fn gpu(gpu: &Gpu) -> u64 {
    Struct::new("GPU").field("Mode", gpu.mode.map(|mode| text(mode.as_str()))).0
}

fn artifact_streaming(streaming: &ArtifactStreaming) -> u64 {
    Struct::new("ArtifactStreaming").field("Enabled", streaming.enabled.map(flag)).0
}

fn linux_os(config: &LinuxOsConfiguration) -> u64 {
    Struct::new("LinuxOSConfiguration")
        .field("SwapFileSize", config.swap_file_size.as_deref().map(text))
        .field("Sysctls", config.sysctls.as_ref().map(sysctls))
        .field(
            "TransparentHugePageDefrag",
            config.transparent_huge_page_defrag.map(|mode| text(mode.as_str())),
        )
        .field(
            "TransparentHugePageEnabled",
            config.transparent_huge_page_enabled.map(|mode| text(mode.as_str())),
        )
        .0
}

fn sysctls(sysctls: &Sysctls) -> u64 {
    let mut hash = Struct::new("SysctlConfiguration");
    sysctls.each(&mut |name, setting| {
        let value = setting.map(|setting| match setting {
            Setting::Number(number) => int32(number),
            Setting::Flag(on) => flag(on),
            Setting::Text(value) => text(value),
        });
        hash = hash.field(name, value);
    });
    hash.0
}
