//! The CPUID instruction of the running machine: second witness for cpuinfo, and the hypervisor's name.

use assay_shared::Fact;
use assay_shared::report::{Cpu, Disagreement, Hypervisor};

/// What CPUID says. Only for a survey of the machine this program runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpuid {
    /// The vendor's twelve letters.
    pub vendor: Option<String>,
    /// Family, model and stepping.
    pub signature: Option<[u32; 3]>,
    /// Whether the processor has each of these features, in cpuinfo's spelling.
    pub features: Vec<(&'static str, bool)>,
    /// Who virtualizes the machine.
    pub hypervisor: Option<Hypervisor>,
}

impl Cpuid {
    /// Executes the instruction; `None` on processors that do not have it.
    #[must_use]
    pub fn of_running_machine() -> Option<Self> {
        running_machine()
    }

    /// Compares features, and takes those out of `flags` that the processor denies.
    pub(super) fn check_features(&self, flags: &mut Vec<String>) -> Vec<Disagreement> {
        let known = |flag: &&str| flags.iter().any(|known| known == flag);
        let of =
            |has: bool| self.features.iter().filter(move |(_, here)| *here == has).map(|(flag, _)| *flag);
        let hidden: Vec<&str> = of(true).filter(|flag| !known(flag)).collect();
        let denied: Vec<&str> = of(false).filter(known).collect();
        let disagreement = |detail: String| Disagreement { fact: "cpu.features".to_owned(), detail };
        let mut found = Vec::new();
        if !hidden.is_empty() {
            found.push(disagreement(format!("CPUID has {}, the kernel does not offer it", hidden.join(" "))));
        }
        if !denied.is_empty() {
            found.push(disagreement(format!("proc/cpuinfo has {}, CPUID does not", denied.join(" "))));
            flags.retain(|flag| !denied.contains(&flag.as_str()));
        }
        found
    }

    /// Compares vendor, family, model and stepping. The report keeps what the kernel says.
    pub(super) fn check_identity(&self, cpu: &Cpu) -> Vec<Disagreement> {
        let [family, model, stepping] = self.signature.map_or([None; 3], |numbers| numbers.map(Some));
        let numbers = [
            ("cpu.family", &cpu.family, family),
            ("cpu.modelId", &cpu.model_id, model),
            ("cpu.stepping", &cpu.stepping, stepping),
        ];
        let mut pairs: Vec<(&str, Option<String>, Option<String>)> = numbers
            .into_iter()
            .map(|(fact, kernel, cpuid)| {
                (fact, kernel.get().map(|n| n.to_string()), cpuid.map(|n| n.to_string()))
            })
            .collect();
        pairs.push(("cpu.vendor", cpu.vendor.measured().cloned(), self.vendor.clone()));
        pairs
            .into_iter()
            .filter_map(|(fact, kernel, cpuid)| {
                let (kernel, cpuid) = (kernel?, cpuid?);
                let detail = format!("proc/cpuinfo has {kernel}, CPUID has {cpuid}");
                (kernel != cpuid).then(|| Disagreement { fact: fact.to_owned(), detail })
            })
            .collect()
    }

    /// Who virtualizes the machine, as a fact.
    pub(crate) fn hypervisor(&self) -> Fact<Hypervisor> {
        self.hypervisor
            .map_or_else(|| Fact::unavailable("CPUID does not name the hypervisor"), Fact::Measured)
    }
}

#[cfg(target_arch = "x86_64")]
fn running_machine() -> Option<Cpuid> {
    use raw_cpuid::{CpuId, Hypervisor as Named};

    let cpuid = CpuId::new();
    let basic = cpuid.get_feature_info()?;
    let extended = cpuid.get_extended_feature_info();
    let amd = cpuid.get_extended_processor_and_feature_identifiers();
    let mut features = vec![
        ("aes", basic.has_aesni()),
        ("avx", basic.has_avx()),
        ("cx16", basic.has_cmpxchg16b()),
        ("f16c", basic.has_f16c()),
        ("fma", basic.has_fma()),
        ("movbe", basic.has_movbe()),
        ("pni", basic.has_sse3()),
        ("popcnt", basic.has_popcnt()),
        ("sse4_1", basic.has_sse41()),
        ("sse4_2", basic.has_sse42()),
        ("ssse3", basic.has_ssse3()),
        ("xsave", basic.has_xsave()),
    ];
    if let Some(extended) = &extended {
        features.extend([
            ("amx_bf16", extended.has_amx_bf16()),
            ("amx_int8", extended.has_amx_int8()),
            ("amx_tile", extended.has_amx_tile()),
            ("avx2", extended.has_avx2()),
            ("avx512_fp16", extended.has_avx512_fp16()),
            ("avx512_vnni", extended.has_avx512vnni()),
            ("avx512bw", extended.has_avx512bw()),
            ("avx512cd", extended.has_avx512cd()),
            ("avx512dq", extended.has_avx512dq()),
            ("avx512f", extended.has_avx512f()),
            ("avx512vl", extended.has_avx512vl()),
            ("bmi1", extended.has_bmi1()),
            ("bmi2", extended.has_bmi2()),
        ]);
    }
    if let Some(amd) = &amd {
        features.extend([("abm", amd.has_lzcnt()), ("lahf_lm", amd.has_lahf_sahf())]);
    }
    let hypervisor = if basic.has_hypervisor() {
        // Without the leaf the hypervisor hides its name.
        cpuid.get_hypervisor_info().map(|info| match info.identify() {
            Named::HyperV => Hypervisor::Hyperv,
            Named::KVM => Hypervisor::Kvm,
            Named::VMware => Hypervisor::Vmware,
            Named::Xen => Hypervisor::Xen,
            _ => Hypervisor::Other,
        })
    } else {
        Some(Hypervisor::None)
    };
    Some(Cpuid {
        vendor: cpuid.get_vendor_info().map(|vendor| vendor.as_str().to_owned()),
        signature: Some([basic.family_id(), basic.model_id(), basic.stepping_id()].map(u32::from)),
        features,
        hypervisor,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn running_machine() -> Option<Cpuid> {
    None
}
