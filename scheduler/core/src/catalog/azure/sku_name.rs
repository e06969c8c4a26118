//! What the name of an Azure VM size says, by Azure's naming conventions
//! (<https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions>):
//! family, sub-family, vCPUs, constrained vCPUs, features, accelerator, version.
//!
//! The SKU labels of Karpenter's Azure provider are made of these parts.

/// The parts of a name such as `Standard_NC24ads_A100_v4`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SkuName {
    /// `N`
    pub(super) family: String,
    /// `C`
    pub(super) subfamily: String,
    /// Whether it is a size with some of its vCPUs switched off, such as `M8-2ms`.
    pub(super) constrained: bool,
    /// `ads`
    features: String,
    /// `A100`
    pub(super) accelerator: Option<String>,
    /// `4`; the first version has no number in the name.
    pub(super) version: String,
    has_version: bool,
}

impl SkuName {
    /// The parts of `name`, with or without its tier; `None` where it does not follow the conventions.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix("Standard_").or_else(|| name.strip_prefix("Basic_")).unwrap_or(name);
        let mut parts = name.split('_');
        let size = parts.next()?;
        let (letters, rest) = split(size, |c| c.is_ascii_uppercase());
        let (vcpus, rest) = split(rest, |c| c.is_ascii_digit());
        let (family, subfamily) = letters.split_at_checked(1)?;
        let (constrained, features) = match rest.strip_prefix('-') {
            Some(rest) => {
                let (active, features) = split(rest, |c| c.is_ascii_digit());
                (!active.is_empty(), features)
            }
            None => (false, rest),
        };
        if vcpus.is_empty() || !features.chars().all(|c| c.is_ascii_alphabetic()) {
            return None;
        }
        let mut parsed = Self {
            family: family.to_owned(),
            subfamily: subfamily.to_owned(),
            constrained,
            features: features.to_owned(),
            version: "1".to_owned(),
            ..Self::default()
        };
        for part in parts {
            let number = part.strip_prefix(['v', 'V']).filter(|rest| !rest.is_empty());
            match number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
                Some(number) => (parsed.version, parsed.has_version) = (number.to_owned(), true),
                // `Promo`, `cc`, `xl` and the memory step of M sizes are no accelerators: those have letters, then digits.
                None if part.starts_with(|c: char| c.is_ascii_uppercase())
                    && part.contains(|c: char| c.is_ascii_digit()) =>
                {
                    parsed.accelerator = Some(part.to_owned());
                }
                None => {}
            }
        }
        Some(parsed)
    }

    /// `NCads_v4`: family, features and version, as Karpenter's `sku-series` label has it.
    pub(super) fn series(&self) -> String {
        let Self { family, subfamily, features, version, .. } = self;
        if self.has_version {
            format!("{family}{subfamily}{features}_v{version}")
        } else {
            format!("{family}{subfamily}{features}")
        }
    }

    /// Whether the size is for confidential computing: DC, EC and NCC.
    pub(super) fn is_confidential(&self) -> bool {
        matches!((self.family.as_str(), self.subfamily.as_str()), ("D" | "E", "C") | ("N", "CC"))
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_the_parts_that_the_conventions_say() {
        // name, family, sub-family, series, version, accelerator
        let cases = [
            ("Standard_D4s_v5", "D", "", "Ds_v5", "5", None),
            ("Standard_D2_v2", "D", "", "D_v2", "2", None),
            ("Standard_DS2_v2", "D", "S", "DS_v2", "2", None),
            ("Standard_NC24ads_A100_v4", "N", "C", "NCads_v4", "4", Some("A100")),
            ("Standard_NC4as_T4_v3", "N", "C", "NCas_v3", "3", Some("T4")),
            ("Standard_NV16as_v4", "N", "V", "NVas_v4", "4", None),
            ("Standard_ND96isr_MI300X_v5", "N", "D", "NDisr_v5", "5", Some("MI300X")),
            ("Standard_M8-2ms", "M", "", "Mms", "1", None),
            ("Standard_M96s_1_v3", "M", "", "Ms_v3", "3", None),
            ("Standard_M416s_8_v2", "M", "", "Ms_v2", "2", None),
            ("Standard_HB120rs_v3", "H", "B", "HBrs_v3", "3", None),
            ("Standard_E96-24ads_v5", "E", "", "Eads_v5", "5", None),
            ("Standard_B20ms", "B", "", "Bms", "1", None),
            ("Standard_FX4mds", "F", "X", "FXmds", "1", None),
            ("Standard_L8aos_v4", "L", "", "Laos_v4", "4", None),
            ("Standard_NC288ds_xl_RTXPRO6000BSE_v6", "N", "C", "NCds_v6", "6", Some("RTXPRO6000BSE")),
        ];
        for (name, family, subfamily, series, version, accelerator) in cases {
            let parsed = SkuName::parse(name).unwrap_or_else(|| panic!("{name}"));
            let found = (&*parsed.family, &*parsed.subfamily, parsed.series(), &*parsed.version);
            assert_eq!(found, (family, subfamily, series.to_owned(), version), "{name}");
            assert_eq!(parsed.accelerator.as_deref(), accelerator, "{name}");
            assert_eq!(parsed.constrained, name.contains('-'), "{name}");
        }
    }

    #[test]
    fn other_names_are_not_guessed_at() {
        for name in ["", "Standard_", "Standard_D", "standard_4", "x", "Standard_D4 s", "Standard_Dé4"] {
            assert_eq!(SkuName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn confidential_sizes_are_known_by_name() {
        for name in ["Standard_DC4as_v5", "Standard_EC8ads_v5", "Standard_NCC40ads_H100_v5"] {
            assert!(SkuName::parse(name).unwrap().is_confidential(), "{name}");
        }
        for name in ["Standard_D4as_v5", "Standard_NC40ads_H100_v5", "Standard_HC44rs"] {
            assert!(!SkuName::parse(name).unwrap().is_confidential(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(name in "\\PC{0,40}") {
            let _ = SkuName::parse(&name);
        }
    }
}
