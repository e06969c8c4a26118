//! `assay catalog`: what could be bought; and the choice of a catalogue that other commands share.

use std::io::Write;

use anyhow::{Context, bail};
use assay_core::catalog::{CapacityType, Catalog, InstanceType, PriceList, PriceSource};
use assay_core::model::NodeClass;
use assay_shared::labels::azure;
use serde::Serialize;
use serde_json::Value;

use super::Answer;
use super::output::{self, API_VERSION, Format, Table};
use crate::quantities::quantities;

/// Which catalogue to use.
#[derive(Debug, clap::Args)]
pub(super) struct Choice {
    /// Catalogue: `azure:REGION` for the built-in one, or a file: the answer of ARM's Microsoft.Compute/skus, the list that
    /// `az vm list-skus` prints, or the provider-neutral form.
    #[arg(long, value_name = "FILE|azure:REGION", default_value = "azure:eastus")]
    catalog: String,
    /// Prices for a catalogue file, JSON or CSV; without it, built-in prices where the region has them.
    #[arg(long, value_name = "FILE")]
    prices: Option<String>,
    /// Region of a catalogue file; without it, the first location the file names.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

impl Choice {
    /// Reads the chosen catalogue; entries of a file that cannot be read are warned of and left out.
    pub(super) fn load(&self) -> anyhow::Result<Catalog> {
        if let Some(region) = self.catalog.strip_prefix("azure:") {
            if self.prices.is_some() || self.region.is_some() {
                bail!("--prices and --region go with a catalogue file, found --catalog {}", self.catalog);
            }
            return Catalog::builtin(region).with_context(|| format!("--catalog {}", self.catalog));
        }
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let warn =
            |path: &str, warning: &dyn std::fmt::Display| eprintln!("assay: warning: {path}: {warning}");
        let mut prices = PriceList::default();
        if let Some(path) = &self.prices {
            let (list, warnings) = PriceList::parse(&read(path)?).with_context(|| path.clone())?;
            warnings.iter().for_each(|warning| warn(path, warning));
            prices = list;
        }
        let text = read(&self.catalog)?;
        let region =
            self.region.clone().or_else(|| first_location(&text)).unwrap_or_else(|| "eastus".to_owned());
        let (catalog, warnings) =
            Catalog::parse(&text, &region, prices).with_context(|| self.catalog.clone())?;
        warnings.iter().for_each(|warning| warn(&self.catalog, warning));
        Ok(catalog)
    }
}

/// The first location that an ARM answer names.
fn first_location(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let skus = value.get("value").unwrap_or(&value).as_array()?;
    skus.iter().find_map(|sku| sku.pointer("/locations/0")?.as_str().map(str::to_ascii_lowercase))
}

/// Arguments of `assay catalog`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  assay catalog --family N                 GPU sizes in eastus
  assay catalog Standard_D4s_v5 -o yaml    everything about one size
  assay catalog --catalog azure:uksouth --name a100")]
pub(super) struct Arguments {
    /// Show this size only, with everything known of it.
    #[arg(value_name = "INSTANCE-TYPE")]
    instance_type: Option<String>,
    /// Only sizes of this family, such as D, E, F, L, M, N, H.
    #[arg(long, value_name = "LETTER")]
    family: Option<String>,
    /// Only sizes whose name holds this text.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[command(flatten)]
    catalog: Choice,
    /// Output form; a table on a terminal, else JSON.
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Format>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Item>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: String,
    capacity: std::collections::BTreeMap<String, String>,
    allocatable: std::collections::BTreeMap<String, String>,
    requirements: Vec<assay_core::requirement::Requirement>,
    offerings: Vec<OfferingItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfferingItem {
    zone: String,
    capacity_type: CapacityType,
    price_per_hour: f64,
    price_source: PriceSource,
    available: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let catalog = arguments.catalog.load()?;
    let mut types = catalog.instance_types(&NodeClass::with_defaults("default"), |_| None);
    if let Some(name) = &arguments.instance_type {
        types.retain(|candidate| candidate.name.eq_ignore_ascii_case(name));
        if types.is_empty() {
            let sku = catalog.skus().iter().find(|sku| sku.size.name.eq_ignore_ascii_case(name));
            match sku.and_then(|sku| sku.exclusion()) {
                Some(why) => bail!("{name} is never bought: {why}"),
                None => bail!("no instance type {name} in {}", arguments.catalog.catalog),
            }
        }
    }
    if let Some(family) = &arguments.family {
        types.retain(|candidate| {
            let letters = candidate.requirements.get(azure::SKU_FAMILY);
            letters.is_some_and(|set| set.allows(&family.to_ascii_uppercase()))
        });
    }
    if let Some(text) = &arguments.name {
        let text = text.to_ascii_lowercase();
        types.retain(|candidate| candidate.name.to_ascii_lowercase().contains(&text));
    }
    let format = Format::or_default(arguments.output);
    if format == Format::Table {
        table(out, &types)?;
    } else {
        let items = types.iter().map(item).collect();
        output::document(
            out,
            format,
            &Document { api_version: API_VERSION, kind: "InstanceTypeList", items },
        )?;
    }
    Ok(Answer::Yes)
}

fn item(instance_type: &InstanceType) -> Item {
    Item {
        name: instance_type.name.to_string(),
        capacity: quantities(&instance_type.capacity),
        allocatable: quantities(&instance_type.allocatable()),
        requirements: instance_type.requirements.to_list(),
        offerings: instance_type
            .offerings
            .iter()
            .map(|offering| OfferingItem {
                zone: offering.zone.to_string(),
                capacity_type: offering.capacity_type,
                price_per_hour: offering.price.usd(),
                price_source: offering.price_source,
                available: offering.available,
            })
            .collect(),
    }
}

fn table(out: &mut dyn Write, types: &[InstanceType]) -> anyhow::Result<()> {
    let mut rows =
        Table::new(&["INSTANCE TYPE", "CPU", "MEMORY", "FOR PODS", "GPU", "ON-DEMAND", "SPOT", "ZONES"]);
    for candidate in types {
        let cheapest = |kind| {
            let offerings = candidate.offerings.iter().filter(|offering| offering.capacity_type == kind);
            let offering = offerings.min_by_key(|offering| offering.price)?;
            // A tilde marks a price that nobody published.
            let mark = if offering.price_source == PriceSource::Listed { "" } else { "~" };
            Some(format!("{mark}{}", offering.price))
        };
        let price = |kind| cheapest(kind).unwrap_or_else(|| "-".to_owned());
        let gpus = candidate.capacity.extended("nvidia.com/gpu") + candidate.capacity.extended("amd.com/gpu");
        let model =
            candidate.requirements.get(azure::SKU_GPU_NAME).and_then(|set| set.finite()?.first().cloned());
        let gpu = if gpus == 0 { "-".to_owned() } else { format!("{gpus} x {}", model.unwrap_or_default()) };
        let mut zones: Vec<_> = candidate.offerings.iter().map(|offering| offering.zone.as_ref()).collect();
        zones.sort_unstable();
        zones.dedup();
        rows.row([
            candidate.name.to_string(),
            candidate.capacity.cpu.to_string(),
            candidate.capacity.memory.to_string(),
            candidate.allocatable().memory.to_string(),
            gpu,
            price(CapacityType::OnDemand),
            price(CapacityType::Spot),
            zones.len().to_string(),
        ]);
    }
    rows.write(out)?;
    Ok(())
}
