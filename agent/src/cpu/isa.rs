//! The x86-64 psABI level of a set of flags.

use assay_shared::Fact;
use assay_shared::report::IsaLevel;

/// What each level adds, in cpuinfo's spelling: `pni` is SSE3, `abm` is LZCNT, and `xsave` is there only if the kernel
/// has switched it on (OSXSAVE). Source: x86-64 psABI, table "Micro-Architecture Levels".
const LEVELS: [(IsaLevel, &[&str]); 4] = [
    (IsaLevel::V1, &["cmov", "cx8", "fpu", "fxsr", "lm", "mmx", "sse", "sse2", "syscall"]),
    (IsaLevel::V2, &["cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"]),
    (IsaLevel::V3, &["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"]),
    (IsaLevel::V4, &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"]),
];

/// Flags that decide the level.
pub fn deciding_flags() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().flat_map(|(_, flags)| flags.iter().copied())
}

/// The highest level whose flags, and those of every level below, are all among `flags`, which are sorted.
pub fn level(flags: &[String]) -> Fact<IsaLevel> {
    let has = |flag: &&str| flags.binary_search_by(|candidate| candidate.as_str().cmp(flag)).is_ok();
    let reached = LEVELS.iter().take_while(|(_, added)| added.iter().all(&has)).last();
    reached.map_or_else(
        || Fact::unavailable("the flags in proc/cpuinfo lack the x86-64 baseline"),
        |(level, _)| Fact::Measured(*level),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of each level alone.
    fn flags(levels: usize, without: &str) -> Vec<String> {
        let all = LEVELS.iter().take(levels).flat_map(|(_, flags)| flags.iter());
        let mut flags: Vec<String> =
            all.filter(|flag| **flag != without).map(|flag| (*flag).to_owned()).collect();
        flags.push("zzz".to_owned());
        flags.sort_unstable();
        flags
    }

    #[test]
    fn each_level_needs_every_flag_of_its_own_and_of_those_below() {
        let levels = [IsaLevel::V1, IsaLevel::V2, IsaLevel::V3, IsaLevel::V4];
        for (index, expected) in levels.into_iter().enumerate() {
            assert_eq!(level(&flags(index + 1, "")), Fact::Measured(expected));
        }
        for (index, (_, added)) in LEVELS.iter().enumerate() {
            for missing in *added {
                let below = index.checked_sub(1).map(|below| levels[below]);
                assert_eq!(level(&flags(4, missing)).get(), below, "without {missing}");
            }
        }
        assert!(matches!(level(&[]), Fact::Unavailable(_)));
    }
}
