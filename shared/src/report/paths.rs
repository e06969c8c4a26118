//! Addresses of facts inside a report (`gpus.devices[3].memoryBytes`): how the JSON form lists what is unavailable.

use crate::fact::{Fact, Reason};
use crate::units::{Bytes, Gbps, Mbps};

/// Something that holds facts and can find them by path.
pub trait Facts {
    /// Calls `found` with the path and reason of every unavailable fact below `path`.
    fn each_unavailable(&self, path: &str, found: &mut dyn FnMut(&str, &Reason));

    /// Makes the fact at `path` (relative to `self`) unavailable; false where there is no such fact.
    fn mark_unavailable(&mut self, path: &str, reason: &Reason) -> bool;
}

impl<T: Facts> Facts for Fact<T> {
    fn each_unavailable(&self, path: &str, found: &mut dyn FnMut(&str, &Reason)) {
        match self {
            Self::Measured(inner) => inner.each_unavailable(path, found),
            Self::Absent => {}
            Self::Unavailable(reason) => found(path, reason),
        }
    }

    fn mark_unavailable(&mut self, path: &str, reason: &Reason) -> bool {
        if path.is_empty() {
            *self = Self::Unavailable(reason.clone());
            return true;
        }
        self.measured_mut().is_some_and(|inner| inner.mark_unavailable(path, reason))
    }
}

impl<T: Facts> Facts for Vec<T> {
    fn each_unavailable(&self, path: &str, found: &mut dyn FnMut(&str, &Reason)) {
        for (index, item) in self.iter().enumerate() {
            item.each_unavailable(&format!("{path}[{index}]"), found);
        }
    }

    fn mark_unavailable(&mut self, path: &str, reason: &Reason) -> bool {
        let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) else {
            return false;
        };
        let item = index.parse::<usize>().ok().and_then(|index| self.get_mut(index));
        item.is_some_and(|item| item.mark_unavailable(rest.strip_prefix('.').unwrap_or(rest), reason))
    }
}

/// `snake_case` to the `camelCase` that serde gives the same field.
pub(super) fn camel_case(field: &str) -> String {
    let mut parts = field.split('_');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

/// Types with no facts inside: a fact of one is known or not as a whole.
macro_rules! leaf_facts {
    ($($leaf:ty),* $(,)?) => { $(
        impl $crate::report::Facts for $leaf {
            fn each_unavailable(&self, _: &str, _: &mut dyn FnMut(&str, &$crate::fact::Reason)) {}
            fn mark_unavailable(&mut self, _: &str, _: &$crate::fact::Reason) -> bool {
                false
            }
        }
    )* };
}
pub(super) use leaf_facts;

leaf_facts!(bool, u32, u64, f64, String, Bytes, Gbps, Mbps);

/// Defines a section of the report: the struct with its serde form, and the paths of its facts.
macro_rules! facts {
    ($(#[$meta:meta])* pub struct $name:ident { $( $(#[$field_meta:meta])* $field:ident : $type:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::report::Facts for $name {
            fn each_unavailable(&self, path: &str, found: &mut dyn FnMut(&str, &$crate::fact::Reason)) {
                $(
                    let field = $crate::report::paths::camel_case(stringify!($field));
                    let below = if path.is_empty() { field } else { format!("{path}.{field}") };
                    $crate::report::Facts::each_unavailable(&self.$field, &below, found);
                )*
            }

            fn mark_unavailable(&mut self, path: &str, reason: &$crate::fact::Reason) -> bool {
                let end = path.find(['.', '[']).unwrap_or(path.len());
                let (field, rest) = path.split_at(end);
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                $(
                    if field == $crate::report::paths::camel_case(stringify!($field)) {
                        return $crate::report::Facts::mark_unavailable(&mut self.$field, rest, reason);
                    }
                )*
                false
            }
        }
    };
}
pub(super) use facts;
