//! What Azure's sizes cost: the built-in list, price files, and estimates where neither knows.
//!
//! Spot prices are no part of the built-in list. Until a price file brings them they are estimated by the discount that is
//! usual for a class of sizes, on the small side, so that spot is rarely cheaper in the plan than on the bill.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use assay_shared::azure::VmSize;
use assay_shared::report::Architecture;
use assay_shared::units::UsdPerHour;
use serde_json::Value;

use super::super::instance_type::PriceSource;
use super::super::{CatalogError, CatalogWarning};

/// Regions of the built-in list, in the order of its columns.
pub const BUILTIN_REGIONS: [&str; 4] = ["eastus", "westeurope", "uksouth", "southcentralus"];

/// A price where none is known: so high that the offering is bought last. The value is Karpenter's.
pub const UNKNOWN_PRICE: UsdPerHour = UsdPerHour(999 * 1_000_000_000);

/// A price and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) usd: UsdPerHour,
    pub(super) source: PriceSource,
}

/// Prices of a file, by size and region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceList {
    /// By name in lower case, and region; an empty region stands for all.
    prices: BTreeMap<(String, String), Listed>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Listed {
    on_demand: Option<UsdPerHour>,
    spot: Option<UsdPerHour>,
}

impl PriceList {
    /// Reads a price file. Either JSON, `[{"name": "Standard_D4s_v5", "region": "eastus", "onDemand": 0.192, "spot": 0.05}]`, or
    /// CSV with a header of the same names. `region` may be left out for all regions, and one of the prices too. An entry that
    /// cannot be read is left out with a warning.
    ///
    /// # Errors
    /// Where the file is neither.
    pub fn parse(text: &str) -> Result<(Self, Vec<CatalogWarning>), CatalogError> {
        let entries = match text.trim_start().chars().next() {
            Some('[' | '{') => json_entries(text)?,
            _ => csv_entries(text)?,
        };
        let mut list = Self::default();
        let mut warnings = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if let Err((field, expected, found)) = list.add(entry) {
                let name = entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                warnings.push(CatalogWarning { index, name, field, expected, found });
            }
        }
        Ok((list, warnings))
    }

    fn add(&mut self, entry: &Value) -> Result<(), (String, String, String)> {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::trim);
        let name = text("name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong("name", "the name of a size", entry.get("name")))?;
        let price = |field: &str| match entry.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(value) => {
                let usd = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
                let usd = usd.and_then(UsdPerHour::from_usd);
                usd.map(Some).ok_or_else(|| wrong(field, "US dollars per hour", Some(value)))
            }
        };
        let listed = Listed { on_demand: price("onDemand")?, spot: price("spot")? };
        let region = text("region").unwrap_or_default();
        self.prices.insert((name.to_ascii_lowercase(), region.to_ascii_lowercase()), listed);
        Ok(())
    }

    fn get(&self, name: &str, region: &str) -> Listed {
        let name = name.to_ascii_lowercase();
        let of = |region: String| self.prices.get(&(name.clone(), region)).copied().unwrap_or_default();
        let (here, anywhere) = (of(region.to_ascii_lowercase()), of(String::new()));
        Listed { on_demand: here.on_demand.or(anywhere.on_demand), spot: here.spot.or(anywhere.spot) }
    }

    /// On-demand price of a size: the file's, the built-in one, or [`UNKNOWN_PRICE`].
    pub(super) fn on_demand(&self, name: &str, region: &str) -> Price {
        let listed = self.get(name, region).on_demand;
        let listed = listed.map(|usd| Price { usd, source: PriceSource::Listed });
        let builtin = || builtin(name, region).unwrap_or(None);
        let unknown = Price { usd: UNKNOWN_PRICE, source: PriceSource::Unknown };
        listed.or_else(builtin).unwrap_or(unknown)
    }

    /// Spot price of a size: the file's, or an estimate from its on-demand price.
    pub(super) fn spot(&self, size: &VmSize, region: &str) -> Price {
        if let Some(usd) = self.get(&size.name, region).spot {
            return Price { usd, source: PriceSource::Listed };
        }
        let on_demand = self.on_demand(&size.name, region);
        if on_demand.source == PriceSource::Unknown {
            return on_demand;
        }
        let usd = UsdPerHour(on_demand.usd.0 / 100 * spot_per_cent(size));
        Price { usd, source: PriceSource::Estimated }
    }
}

/// What spot usually costs, as per cent of the on-demand price. Azure publishes "up to 90 % off" and monthly figures per size;
/// the values here are round and cautious.
fn spot_per_cent(size: &VmSize) -> u64 {
    let name = size.name.strip_prefix("Standard_").unwrap_or(&size.name);
    if size.gpus.is_some() {
        50
    } else if name.starts_with(['H', 'M']) || size.architecture == Architecture::Arm64 {
        40
    } else {
        30
    }
}

type Wrong = (String, String, String);

fn wrong(field: &str, expected: &str, found: Option<&Value>) -> Wrong {
    (field.to_owned(), expected.to_owned(), found.map_or_else(|| "nothing".to_owned(), ToString::to_string))
}

fn json_entries(text: &str) -> Result<Vec<Value>, CatalogError> {
    match serde_json::from_str(text).map_err(CatalogError::Json)? {
        Value::Array(entries) => Ok(entries),
        Value::Object(mut object) => match object.remove("prices") {
            Some(Value::Array(entries)) => Ok(entries),
            _ => Err(CatalogError::Shape {
                expected: "a list of prices, or an object with the list \"prices\"",
            }),
        },
        _ => Err(CatalogError::Shape { expected: "a list of prices" }),
    }
}

/// One object per line, by the names of the header. Values hold no commas, so quotes are only taken off.
fn csv_entries(text: &str) -> Result<Vec<Value>, CatalogError> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().filter(|line| !line.trim().is_empty());
    let cells = |line: &str| -> Vec<String> {
        line.split(',').map(|cell| cell.trim().trim_matches('"').to_owned()).collect()
    };
    let header = lines.next().map(cells).unwrap_or_default();
    if !header.iter().any(|column| column == "name") || !header.iter().any(|column| column == "onDemand") {
        return Err(CatalogError::Shape {
            expected: "CSV with the header name,region,onDemand,spot, or a JSON list of prices",
        });
    }
    let object =
        |line: &str| header.iter().cloned().zip(cells(line).into_iter().map(Value::String)).collect();
    Ok(lines.map(|line| Value::Object(object(line))).collect())
}

/// The built-in list: families (per vCPU) and single sizes, by lower-case name.
static BUILTIN: LazyLock<BTreeMap<String, [Cell; 4]>> =
    LazyLock::new(|| rows(include_str!("prices.txt")).filter_map(Result::ok).collect());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// A price, and whether it is estimated.
    Usd(UsdPerHour, bool),
    NotSold,
    AsFamily,
}

fn rows(text: &str) -> impl Iterator<Item = Result<(String, [Cell; 4]), String>> + '_ {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_ascii_lowercase();
        let mut cells = [Cell::NotSold; 4];
        for cell in &mut cells {
            let word = words.next().ok_or_else(|| format!("{line}: expected four prices"))?;
            let (digits, estimated) = word.strip_prefix('~').map_or((word, false), |digits| (digits, true));
            *cell = match digits {
                "-" => Cell::NotSold,
                "=" => Cell::AsFamily,
                _ => {
                    let usd = digits.parse().ok().and_then(UsdPerHour::from_usd);
                    Cell::Usd(
                        usd.ok_or_else(|| format!("{line}: expected a price, found {word}"))?,
                        estimated,
                    )
                }
            };
        }
        Ok((name, cells))
    })
}

/// The built-in price of a size; `Some(None)` where the size is known and not sold in the region, `None` where the region or
/// the size is not listed.
pub(super) fn builtin(name: &str, region: &str) -> Option<Option<Price>> {
    let column = BUILTIN_REGIONS.iter().position(|known| known.eq_ignore_ascii_case(region))?;
    let price = |usd, estimated| Price {
        usd,
        source: if estimated { PriceSource::Estimated } else { PriceSource::Listed },
    };
    match BUILTIN.get(&name.to_ascii_lowercase()).map(|row| row[column]) {
        Some(Cell::Usd(usd, estimated)) => return Some(Some(price(usd, estimated))),
        Some(Cell::NotSold) => return Some(None),
        Some(Cell::AsFamily) | None => {}
    }
    let size = assay_shared::azure::size(name)?;
    match BUILTIN.get(&size.family.to_ascii_lowercase())?[column] {
        Cell::Usd(per_vcpu, estimated) => Some(Some(price(per_vcpu * u64::from(size.vcpus), estimated))),
        Cell::NotSold | Cell::AsFamily => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_read_and_names_a_size() {
        for row in rows(include_str!("prices.txt")) {
            let (name, _) = row.unwrap_or_else(|error| panic!("{error}"));
            let known = |size: &VmSize| {
                size.family.eq_ignore_ascii_case(&name) || size.name.eq_ignore_ascii_case(&name)
            };
            assert!(assay_shared::azure::sizes().any(known), "{name}");
        }
        for size in assay_shared::azure::sizes() {
            assert!(builtin(&size.name, "eastus").is_some(), "{} has no line", size.name);
        }
    }

    #[test]
    fn built_in_prices_are_the_published_ones() {
        let cases = [
            ("Standard_D4s_v5", "eastus", 0.192, PriceSource::Listed),
            ("Standard_D4s_v5", "uksouth", 0.222, PriceSource::Listed),
            ("Standard_NC24ads_A100_v4", "westeurope", 4.775, PriceSource::Listed),
            ("Standard_NC8as_T4_v3", "eastus", 0.752, PriceSource::Listed),
            ("Standard_D2as_v5", "eastus", 0.086, PriceSource::Estimated),
            ("Standard_HB120rs_v3", "eastus", 3.6, PriceSource::Listed),
        ];
        for (name, region, usd, source) in cases {
            let price = builtin(name, region).flatten().unwrap_or_else(|| panic!("{name}"));
            assert!((price.usd.usd() - usd).abs() < 0.001, "{name}: {}", price.usd);
            assert_eq!(price.source, source, "{name}");
        }
        assert_eq!(builtin("Standard_ND96asr_v4", "uksouth"), Some(None));
        assert_eq!(builtin("Standard_D4s_v5", "moon"), None);
    }

    #[test]
    fn a_price_file_wins_over_the_list_and_knows_spot() {
        let files = [
            "name,region,onDemand,spot\nStandard_D4s_v5,EastUS,0.2,0.05\n\nStandard_D8s_v5,,0.4,\n",
            r#"[{"name":"Standard_D4s_v5","region":"eastus","onDemand":0.2,"spot":"0.05"},
                {"name":"standard_d8s_v5","onDemand":0.4}]"#,
        ];
        for file in files {
            let (list, warnings) = PriceList::parse(file).unwrap();
            assert_eq!(warnings, []);
            let d4 = assay_shared::azure::size("Standard_D4s_v5").unwrap();
            let spot = list.spot(d4, "eastus");
            assert_eq!((spot.usd.to_string(), spot.source), ("$0.0500/h".to_owned(), PriceSource::Listed));
            assert_eq!(list.on_demand("Standard_D4s_v5", "eastus").usd.to_string(), "$0.2000/h");
            assert_eq!(list.on_demand("Standard_D4s_v5", "uksouth").usd.to_string(), "$0.2220/h");
            assert_eq!(list.on_demand("Standard_D8s_v5", "moon").usd.to_string(), "$0.4000/h");
            assert_eq!(list.on_demand("Standard_New9_v9", "eastus").source, PriceSource::Unknown);
        }
    }

    #[test]
    fn a_wrong_price_is_left_out_with_a_warning() {
        let file = r#"[{"name":"a","onDemand":-1},{"onDemand":1},7,{"name":"b","spot":"cheap"},{"name":"c","onDemand":1}]"#;
        let (list, warnings) = PriceList::parse(file).unwrap();
        assert_eq!(list.prices.len(), 1);
        assert_eq!(warnings.len(), 4);
        assert_eq!(warnings[0].to_string(), "entry 0 (a): onDemand: expected US dollars per hour, found -1");
        for file in ["", "{}", "sku;price", "[", "3", "null"] {
            assert!(PriceList::parse(file).is_err(), "{file:?}");
        }
    }
}
