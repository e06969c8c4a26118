//! Settings of the operating system of a class's nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::rule::Rule;
use super::super::texts::texts;
use super::kubelet::SIZE;

/// Settings of the operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinuxOsConfiguration {
    /// Size of a swap file on each node. Needs kubelet.failSwapOn: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SIZE))]
    pub swap_file_size: Option<String>,
    /// Settings of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = sysctl_rules()))]
    pub sysctls: Option<Sysctls>,
    /// How hard the kernel works for a huge page: /sys/kernel/mm/transparent_hugepage/defrag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparent_huge_page_defrag: Option<TransparentHugePageDefrag>,
    /// Who gets huge pages without asking for them: /sys/kernel/mm/transparent_hugepage/enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparent_huge_page_enabled: Option<TransparentHugePageEnabled>,
}

texts! {
    /// How hard the kernel works for a huge page.
    TransparentHugePageDefrag {
        Always = "always",
        Defer = "defer",
        DeferMadvise = "defer+madvise",
        Madvise = "madvise",
        Never = "never",
    }
    /// Who gets huge pages without asking for them.
    TransparentHugePageEnabled { Always = "always", Madvise = "madvise", Never = "never" }
}

/// The value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Setting<'s> {
    /// A number.
    Number(i32),
    /// On or off.
    Flag(bool),
    /// A text.
    Text(&'s str),
}

/// Makes the struct of all sysctls, and a visit of those that are set, by the name that hashes know them by.
macro_rules! sysctls {
    ($($field:ident $json:literal $name:literal $type:ident $($min:literal..=$max:literal)?, $doc:literal;)+) => {
        /// Settings of the kernel.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct Sysctls {
            $(
                #[doc = $doc]
                #[serde(default, rename = $json, skip_serializing_if = "Option::is_none")]
                $(#[schemars(range(min = $min, max = $max))])?
                pub $field: Option<sysctls!(@type $type)>,
            )+
        }

        impl Sysctls {
            /// Tells `visit` every setting, in an order that does not change.
            pub(in super::super) fn each(&self, visit: &mut dyn FnMut(&'static str, Option<Setting<'_>>)) {
                $(visit($name, self.$field.as_ref().map(|value| sysctls!(@setting $type value)));)+
            }
        }
    };
    (@type Number) => { i32 };
    (@type Flag) => { bool };
    (@type Range) => { PortRange };
    (@setting Number $value:ident) => { Setting::Number(*$value) };
    (@setting Flag $value:ident) => { Setting::Flag(*$value) };
    (@setting Range $value:ident) => { Setting::Text(&$value.0) };
}

/// The first and the last of a range of ports, such as `32768 60999`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PortRange(#[schemars(regex(pattern = r"^\d{1,5} \d{1,5}$"))] pub String);

// The order is part of the class's hash.
sysctls! {
    fs_aio_max_nr "fsAioMaxNr" "FsAioMaxNr" Number 65536..=6_553_500,
        "fs.aio-max-nr: asynchronous reads and writes that may be open.";
    fs_file_max "fsFileMax" "FsFileMax" Number 8192..=12_000_500,
        "fs.file-max: files that may be open.";
    fs_inotify_max_user_watches "fsInotifyMaxUserWatches" "FsInotifyMaxUserWatches" Number 781_250..=2_097_152,
        "fs.inotify.max_user_watches: files that one user may watch.";
    fs_nr_open "fsNrOpen" "FsNrOpen" Number 8192..=20_000_500,
        "fs.nr_open: files that one process may have open.";
    kernel_threads_max "kernelThreadsMax" "KernelThreadsMax" Number 20..=513_785,
        "kernel.threads-max: threads that may be there.";
    net_core_netdev_max_backlog "netCoreNetdevMaxBacklog" "NetCoreNetdevMaxBacklog" Number 1000..=3_240_000,
        "net.core.netdev_max_backlog: packets that wait for the kernel.";
    net_core_optmem_max "netCoreOptmemMax" "NetCoreOptmemMax" Number 20480..=4_194_304,
        "net.core.optmem_max: bytes of a socket's ancillary buffer.";
    net_core_rmem_default "netCoreRmemDefault" "NetCoreRmemDefault" Number 212_992..=134_217_728,
        "net.core.rmem_default: bytes of a receive buffer. At most netCoreRmemMax.";
    net_core_rmem_max "netCoreRmemMax" "NetCoreRmemMax" Number 212_992..=134_217_728,
        "net.core.rmem_max: bytes that a receive buffer may have.";
    net_core_somaxconn "netCoreSomaxconn" "NetCoreSomaxconn" Number 4096..=3_240_000,
        "net.core.somaxconn: connections that wait for a listening socket.";
    net_core_wmem_default "netCoreWmemDefault" "NetCoreWmemDefault" Number 212_992..=134_217_728,
        "net.core.wmem_default: bytes of a send buffer. At most netCoreWmemMax.";
    net_core_wmem_max "netCoreWmemMax" "NetCoreWmemMax" Number 212_992..=134_217_728,
        "net.core.wmem_max: bytes that a send buffer may have.";
    net_ipv4_ip_local_port_range "netIPv4IPLocalPortRange" "NetIPv4IPLocalPortRange" Range,
        "net.ipv4.ip_local_port_range: the first port that programs get, from 1024 to 60999, and the last, from 32768 to 65535.";
    net_ipv4_neigh_default_gc_thresh1 "netIPv4NeighDefaultGcThresh1" "NetIPv4NeighDefaultGcThresh1" Number 128..=80_000,
        "net.ipv4.neigh.default.gc_thresh1: neighbours below which none is forgotten. At most netIPv4NeighDefaultGcThresh2.";
    net_ipv4_neigh_default_gc_thresh2 "netIPv4NeighDefaultGcThresh2" "NetIPv4NeighDefaultGcThresh2" Number 512..=90_000,
        "net.ipv4.neigh.default.gc_thresh2: neighbours above which old ones are forgotten soon. At most netIPv4NeighDefaultGcThresh3.";
    net_ipv4_neigh_default_gc_thresh3 "netIPv4NeighDefaultGcThresh3" "NetIPv4NeighDefaultGcThresh3" Number 1024..=100_000,
        "net.ipv4.neigh.default.gc_thresh3: neighbours that may be known.";
    net_ipv4_tcp_fin_timeout "netIPv4TCPFinTimeout" "NetIPv4TCPFinTimeout" Number 5..=120,
        "net.ipv4.tcp_fin_timeout: seconds that a closed connection waits for its other end.";
    net_ipv4_tcp_keepalive_probes "netIPv4TCPKeepaliveProbes" "NetIPv4TCPKeepaliveProbes" Number 1..=15,
        "net.ipv4.tcp_keepalive_probes: probes without an answer before a connection counts as broken.";
    net_ipv4_tcp_keepalive_time "netIPv4TCPKeepaliveTime" "NetIPv4TCPKeepaliveTime" Number 30..=432_000,
        "net.ipv4.tcp_keepalive_time: seconds of silence before a probe is sent.";
    net_ipv4_tcp_max_syn_backlog "netIPv4TCPMaxSynBacklog" "NetIPv4TCPMaxSynBacklog" Number 128..=3_240_000,
        "net.ipv4.tcp_max_syn_backlog: connections that are being opened.";
    net_ipv4_tcp_max_tw_buckets "netIPv4TCPMaxTwBuckets" "NetIPv4TCPMaxTwBuckets" Number 8000..=1_440_000,
        "net.ipv4.tcp_max_tw_buckets: closed connections that are remembered.";
    net_ipv4_tcp_tw_reuse "netIPv4TCPTwReuse" "NetIPv4TCPTwReuse" Flag,
        "net.ipv4.tcp_tw_reuse: whether ports of closed connections are used again at once.";
    net_ipv4_tcp_keepalive_intvl "netIPv4TCPKeepaliveIntvl" "NetIPv4TCPKeepaliveIntvl" Number 10..=90,
        "net.ipv4.tcp_keepalive_intvl: seconds between probes.";
    net_netfilter_nf_conntrack_buckets "netNetfilterNfConntrackBuckets" "NetNetfilterNfConntrackBuckets" Number 65536..=524_288,
        "net.netfilter.nf_conntrack_buckets: size of the table of connections.";
    net_netfilter_nf_conntrack_max "netNetfilterNfConntrackMax" "NetNetfilterNfConntrackMax" Number 131_072..=2_097_152,
        "net.netfilter.nf_conntrack_max: connections that may be tracked.";
    vm_max_map_count "vmMaxMapCount" "VMMaxMapCount" Number 65530..=262_144,
        "vm.max_map_count: memory maps that one process may have.";
    vm_swappiness "vmSwappiness" "VMSwappiness" Number 0..=100,
        "vm.swappiness: how willingly the kernel swaps.";
    vm_vfs_cache_pressure "vmVfsCachePressure" "VMVfsCachePressure" Number 0..=100,
        "vm.vfs_cache_pressure: how willingly the kernel gives up what it knows of files.";
}

fn sysctl_rules() -> Vec<Rule> {
    let at_most = |less: &str, more: &str| {
        let rule = format!("!has(self.{less}) || !has(self.{more}) || self.{less} <= self.{more}");
        Rule::new(rule, format!("{less} must be at most {more}"))
    };
    let ports = |condition: &str, message: &str| {
        Rule::new(format!("!has(self.netIPv4IPLocalPortRange) || {condition}"), message)
            .naming("self.netIPv4IPLocalPortRange")
    };
    let port = |index: u8| format!("int(self.netIPv4IPLocalPortRange.split(' ')[{index}])");
    let (first, last) = (port(0), port(1));
    vec![
        at_most("netCoreRmemDefault", "netCoreRmemMax"),
        at_most("netCoreWmemDefault", "netCoreWmemMax"),
        at_most("netIPv4NeighDefaultGcThresh1", "netIPv4NeighDefaultGcThresh2"),
        at_most("netIPv4NeighDefaultGcThresh2", "netIPv4NeighDefaultGcThresh3"),
        ports(
            &format!("({first} >= 1024 && {first} <= 60999)"),
            "the first port of netIPv4IPLocalPortRange must be from 1024 to 60999",
        ),
        ports(
            &format!("({last} >= 32768 && {last} <= 65535)"),
            "the last port of netIPv4IPLocalPortRange must be from 32768 to 65535",
        ),
        ports(
            &format!("{first} <= {last}"),
            "the first port of netIPv4IPLocalPortRange must not be above the last",
        ),
    ]
}
