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
use serde_json::Value;

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
        let skus =
            match serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(CatalogError::Json)? {
                Value::Array(skus) => skus,
                Value::Object(mut object) => match (object.remove("instanceTypes"), object.remove("value")) {
                    (Some(types), _) => {
                        let source = Source::Neutral(neutral::instance_types(&types)?);
                        return Ok((Self { source }, Vec::new()));
                    }
                    (None, Some(Value::Array(skus))) => skus,
                    _ => return Err(CatalogError::Shape { expected: EXPECTED }),
                },
                _ => return Err(CatalogError::Shape { expected: EXPECTED }),
            };
        let (skus, warnings) = azure::parse_skus(&skus, region);
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
