//! What could be bought: instance types, where and how they are offered, at what price, and how much of them pods get.
//!
//! ```text
//!  built-in facts ----+
//!  ARM skus JSON -----+--> Sku --(node class, region, prices, measured memory)--> InstanceType
//!  provider-neutral JSON ------------------------------------------------------------^
//! ```
//!
//! `docs/catalog.md` describes the file formats and the sources of every figure.

pub mod azure;
mod instance_type;
mod neutral;
pub mod overhead;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use assay_shared::units::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::model::{NodeClass, NodePool};
pub use azure::{BUILTIN_REGIONS, PriceList, Sku, UNKNOWN_PRICE};
pub use instance_type::{
    CapacityType, InstanceType, Lottery, NumaLayout, Offering, OfferingOverrides, PriceSource, Reservation,
};

/// What pools could buy, by [`NodePool::types_key`]: `of_class` gives the types of a class, which a pool may cut the GPUs of.
#[must_use]
pub fn types_of_pools<'p>(
    classes: &[NodeClass],
    pools: impl IntoIterator<Item = &'p NodePool>,
    of_class: impl Fn(&NodeClass) -> Vec<InstanceType>,
) -> BTreeMap<String, Arc<Vec<InstanceType>>> {
    let mut types: BTreeMap<String, Arc<Vec<InstanceType>>> =
        classes.iter().map(|class| (class.name.clone(), Arc::new(of_class(class)))).collect();
    for pool in pools {
        let (Some(config), Some(whole)) = (pool.mig_config(), types.get(&pool.node_class).cloned()) else {
            continue;
        };
        types
            .entry(pool.types_key().into_owned())
            .or_insert_with(|| Arc::new(azure::partitioned(&whole, config)));
    }
    types
}

/// Everything that can be bought in one region.
#[derive(Debug, Clone)]
pub struct Catalog {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Azure { region: String, skus: Vec<Sku>, prices: PriceList },
    Neutral(Vec<InstanceType>),
}

/// An object of either form, its entries unread: a file of ARM is large, and a tree of all of it ten times as large.
#[derive(Deserialize)]
struct File<'t> {
    #[serde(borrow, rename = "instanceTypes")]
    instance_types: Option<&'t RawValue>,
    #[serde(borrow)]
    value: Option<&'t RawValue>,
}

/// The entries of a list, unread.
fn list(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// One entry.
fn entry(raw: &RawValue) -> Result<Value, CatalogError> {
    serde_json::from_str(raw.get()).map_err(CatalogError::Json)
}

impl Catalog {
    /// The built-in Azure catalogue of a region.
    ///
    /// # Errors
    /// [`CatalogError::UnknownRegion`] where no prices are built in for it.
    pub fn builtin(region: &str) -> Result<Self, CatalogError> {
        let known = BUILTIN_REGIONS.iter().find(|known| known.eq_ignore_ascii_case(region));
        let region = known.ok_or_else(|| CatalogError::UnknownRegion { found: region.to_owned() })?;
        let skus = azure::builtin_skus(region);
        Ok(Self {
            source: Source::Azure { region: (*region).to_owned(), skus, prices: PriceList::default() },
        })
    }

    /// Reads a catalogue file: the answer of ARM's `Microsoft.Compute/skus` (`{"value": […]}`, or the list that
    /// `az vm list-skus` prints) or the provider-neutral form (`{"instanceTypes": […]}`). An ARM entry that cannot be read is
    /// left out with a warning.
    ///
    /// # Errors
    /// Where the text is no JSON, has neither form, or an entry of the neutral form is wrong.
    pub fn parse(
        text: &str,
        region: &str,
        prices: PriceList,
    ) -> Result<(Self, Vec<CatalogWarning>), CatalogError> {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let skus = if text.starts_with('[') {
            serde_json::from_str(text).map_err(CatalogError::Json)?
        } else if text.starts_with('{') {
            let file: File<'_> = serde_json::from_str(text).map_err(CatalogError::Json)?;
            if let Some(types) = file.instance_types {
                let list = list(types);
                let list = list.ok_or(CatalogError::Shape { expected: "a list under \"instanceTypes\"" })?;
                return Ok((Self { source: Source::Neutral(neutral::instance_types(&list)?) }, Vec::new()));
            }
            file.value.and_then(list).ok_or(CatalogError::Shape { expected: EXPECTED })?
        } else {
            serde_json::from_str::<Value>(text).map_err(CatalogError::Json)?;
            return Err(CatalogError::Shape { expected: EXPECTED });
        };
        let (skus, warnings) = azure::parse_skus(&skus, region)?;
        let region = region.to_ascii_lowercase();
        Ok((Self { source: Source::Azure { region, skus, prices } }, warnings))
    }

    /// What a pool of this class can buy, by name. `measured` gives the kernel memory that VMs of a size were seen to have; a
    /// size it does not know is predicted by [`overhead::kernel_memory`].
    #[must_use]
    pub fn instance_types(
        &self,
        class: &NodeClass,
        measured: impl Fn(&str) -> Option<Bytes>,
    ) -> Vec<InstanceType> {
        match &self.source {
            Source::Azure { region, skus, prices } => {
                let bought = skus.iter().filter(|sku| sku.exclusion().is_none());
                bought
                    .map(|sku| azure::instance_type(sku, region, prices, class, measured(&sku.size.name)))
                    .collect()
            }
            Source::Neutral(types) => types.clone(),
        }
    }

    /// The sizes and why some are never bought; empty for a provider-neutral catalogue.
    #[must_use]
    pub fn skus(&self) -> &[Sku] {
        match &self.source {
            Source::Azure { skus, .. } => skus,
            Source::Neutral(_) => &[],
        }
    }

    /// The region it is about; `None` for a provider-neutral catalogue.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match &self.source {
            Source::Azure { region, .. } => Some(region),
            Source::Neutral(_) => None,
        }
    }
}

const EXPECTED: &str =
    "{\"instanceTypes\": […]}, {\"value\": […]} as ARM answers, or the list that az vm list-skus prints";

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A region without built-in prices.
    #[error("region: expected one of {}, found {found:?}", BUILTIN_REGIONS.join(", "))]
    UnknownRegion {
        /// The region.
        found: String,
    },
    /// No JSON.
    #[error("expected JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON of another shape.
    #[error("expected {expected}")]
    Shape {
        /// What was expected.
        expected: &'static str,
    },
    /// A wrong entry of the provider-neutral form.
    #[error("{entry}: {field}: expected {expected}, found {found}")]
    Entry {
        /// Which one: `instanceTypes[3] (small)`.
        entry: String,
        /// Path of the field in it.
        field: String,
        /// What was expected.
        expected: String,
        /// What there was.
        found: String,
    },
}

/// An entry that was left out, or read without one of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogWarning {
    /// Position in the list, from 0.
    pub index: usize,
    /// Its name, where it has one.
    pub name: String,
    /// The field.
    pub field: String,
    /// What was expected.
    pub expected: String,
    /// What there was.
    pub found: String,
}

impl fmt::Display for CatalogWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, field, expected, found } = self;
        write!(f, "entry {index}")?;
        if !name.is_empty() {
            write!(f, " ({name})")?;
        }
        write!(f, ": {field}: expected {expected}, found {found}")
    }
}

#[cfg(test)]
mod tests;
