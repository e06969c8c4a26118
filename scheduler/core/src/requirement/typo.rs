//! What was probably meant by a name that nobody knows.

use super::WELL_KNOWN;

/// Letters by which a name may be off and still be taken for another.
const LETTERS_OFF: usize = 2;

/// The well-known label that a key nearly is: one or two letters away, and more of its name right than wrong.
#[must_use]
pub fn nearly_well_known(key: &str) -> Option<&'static str> {
    let close = |known: &&&str| known.len().abs_diff(key.len()) <= LETTERS_OFF;
    let (letters, near) =
        WELL_KNOWN.iter().filter(close).map(|known| (distance(known, key), *known)).min()?;
    let name = key.rsplit('/').next().unwrap_or(key);
    ((1..=LETTERS_OFF).contains(&letters) && letters * 2 < name.len()).then_some(near)
}

/// Levenshtein distance: letters to add, take away or replace.
pub(crate) fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in two.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        for (one, two, letters) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "ac", 1),
            ("abc", "adc", 1),
            ("", "abc", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!((distance(one, two), distance(two, one)), (letters, letters), "{one} {two}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_told_from_a_name_of_its_own() {
        let cases = [
            ("topology.kubernetes.io/zones", Some("topology.kubernetes.io/zone")),
            ("karpenter.sh/capacity-typ", Some("karpenter.sh/capacity-type")),
            ("topology.kubernetes.io/zone", None),
            ("example.com/zone", None),
            ("kubernetes.azure.com/role", None),
            ("", None),
        ];
        for (key, expected) in cases {
            assert_eq!(nearly_well_known(key), expected, "{key}");
        }
    }
}
