//! Whether prices can be: the built-in list is one that was repaired, and the source it was repaired from lies beside the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use assay_shared::azure::{VmSize, sizes};

use super::super::instance_type::PriceSource;
use super::prices::{BUILTIN_REGIONS, PriceList, UNKNOWN_PRICE};

/// How far the rate of a size may lie off that of its series.
const TOLERANCE: f64 = 0.15;

/// Sizes that the source prices at another rate than their series in some region, and no rate that would be wrong: the smallest
/// burstable sizes cost about half as much per CPU, one GPU with few CPUs more, and half machines of the M series less.
const KNOWN: [&str; 8] = [
    "Standard_B2als_v2",
    "Standard_B2ls_v2",
    "Standard_B2pls_v2",
    "Standard_B8pls_v2",
    "Standard_M64dms_v2",
    "Standard_M64ms",
    "Standard_M64ms_v2",
    "Standard_NC4as_T4_v3",
];

/// How far these may be off.
const KNOWN_TOLERANCE: f64 = 0.5;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What the price of a size is held against: what others of its series cost by CPU, by memory and by GPU.
fn rates(size: &VmSize, usd: f64) -> [f64; 3] {
    #[allow(clippy::cast_precision_loss)] // sizes are small
    let gib = size.memory.as_mib() as f64 / 1024.0;
    let gpus = size.gpus.as_ref().map_or(f64::NAN, |gpus| f64::from(gpus.count));
    [usd / f64::from(size.vcpus), usd / gib, usd / gpus]
}

/// Sizes of each series that are sold in a region, with their prices.
fn series(region: &str) -> BTreeMap<String, Vec<(VmSize, f64)>> {
    let list = PriceList::default();
    let mut series: BTreeMap<String, Vec<(VmSize, f64)>> = BTreeMap::new();
    for size in sizes() {
        let price = list.on_demand(&size.name, region);
        if price.source != PriceSource::Unknown {
            series.entry(size.family.to_string()).or_default().push((size.clone(), price.usd.usd()));
        }
    }
    series
}

/// Sizes whose price no rate of their series explains, and how far it is off.
fn outliers(series: &[(VmSize, f64)]) -> Vec<(&VmSize, f64)> {
    let of = |which: usize| median(series.iter().map(|(size, usd)| rates(size, *usd)[which]).collect());
    let medians = [of(0), of(1), of(2)];
    let off = |(size, usd): &(VmSize, f64)| {
        let ratios = rates(size, *usd).into_iter().zip(medians).map(|(rate, median)| rate / median);
        let ratios = ratios.filter(|ratio| ratio.is_finite());
        ratios.min_by(|one, other| (one - 1.0).abs().total_cmp(&(other - 1.0).abs())).unwrap_or(1.0)
    };
    let off = series.iter().map(|one| (&one.0, off(one)));
    off.filter(|(_, ratio)| (ratio - 1.0).abs() > TOLERANCE).collect()
}

#[test]
fn no_built_in_price_is_off_its_neighbours() {
    let list = PriceList::default();
    let mut found = BTreeSet::new();
    for region in BUILTIN_REGIONS {
        for (name, mut sizes) in series(region) {
            for (size, usd) in &sizes {
                assert!(*usd > 0.0 && *usd < UNKNOWN_PRICE.usd(), "{} in {region}: {usd}", size.name);
                let spot = list.spot(size, region).usd.usd();
                assert!(spot > 0.0 && spot <= *usd, "{} in {region}: spot {spot} of {usd}", size.name);
            }
            for (size, ratio) in outliers(&sizes) {
                eprintln!("{} in {region}: {ratio:.2} times the rate of {name}", size.name);
                assert!((ratio - 1.0).abs() <= KNOWN_TOLERANCE, "{} in {region}: {ratio:.2}", size.name);
                found.insert(size.name.to_string());
            }
            // More of everything never costs less.
            sizes.sort_by_key(|(one, _)| (one.vcpus, one.memory));
            for pair in sizes.windows(2) {
                let [(small, less), (large, more)] = pair else { continue };
                let larger = large.memory >= small.memory && large.vcpus > small.vcpus;
                assert!(
                    !larger || more >= less,
                    "{} in {region}: {more}, {}: {less}",
                    large.name,
                    small.name
                );
            }
        }
    }
    assert_eq!(found, KNOWN.iter().map(|name| (*name).to_owned()).collect());
}

/// A price of the source that the built-in list does not repeat.
struct Suspect {
    size: String,
    region: String,
    stated: f64,
    repaired: f64,
}

/// Rows of a table of the shared data, by the names of its header; `None` where it is not there.
fn table(name: &str, separator: char) -> Option<Vec<BTreeMap<String, String>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    let mut lines = text.lines().map(|line| line.split(separator).map(|cell| cell.trim().to_owned()));
    let header: Vec<String> = lines.next()?.collect();
    Some(lines.map(|cells| header.iter().cloned().zip(cells).collect()).collect())
}

/// Holds the prices of a table against the built-in ones.
fn suspects(rows: &[BTreeMap<String, String>], size: &str, price: impl Fn(&str) -> String) -> Vec<Suspect> {
    let list = PriceList::default();
    let mut found = Vec::new();
    for (row, region) in rows.iter().flat_map(|row| BUILTIN_REGIONS.map(|region| (row, region))) {
        let stated = row.get(&price(region)).and_then(|cell| cell.parse::<f64>().ok());
        let (Some(stated), Some(name)) = (stated, row.get(size)) else { continue };
        let repaired = list.on_demand(name, region);
        if repaired.source == PriceSource::Unknown {
            continue;
        }
        let repaired = repaired.usd.usd();
        if (stated / repaired - 1.0).abs() > 0.01 {
            found.push(Suspect { size: name.clone(), region: region.to_owned(), stated, repaired });
        }
    }
    found
}

#[test]
fn what_was_repaired_was_wrong_and_what_was_wrong_is_repaired() {
    let Some(rows) = table("azure-skus.tsv", '\t') else { return };
    let found = suspects(&rows, "name", |region| format!("usd_per_hour_{region}"));
    for Suspect { size, region, stated, repaired } in &found {
        eprintln!(
            "{size} in {region}: {stated} in the source, {repaired:.4} here, {:.2} times",
            stated / repaired
        );
        // Nothing is changed that could be.
        assert!((stated / repaired - 1.0).abs() > TOLERANCE, "{size} in {region}: {stated}, {repaired}");
    }
    let changed: BTreeSet<&str> = found.iter().map(|suspect| &*suspect.size).collect();
    // The source's own reader marks families as mixed; their sizes are changed or have the lowest rate.
    let marked = rows.iter().filter(|row| row.get("price_suspect").is_some_and(|mark| !mark.is_empty()));
    let marked: BTreeSet<&str> = marked.filter_map(|row| row.get("name")).map(String::as_str).collect();
    assert!(!marked.is_empty() && changed.iter().all(|size| marked.contains(size)), "{changed:?}");
    for region in BUILTIN_REGIONS {
        for (name, sizes) in series(region) {
            let marked: Vec<_> =
                sizes.iter().filter(|(size, _)| marked.contains(&*size.name)).cloned().collect();
            assert!(outliers(&marked).is_empty(), "{name} in {region}");
        }
    }
}

#[test]
fn the_extract_of_the_same_source_is_repaired_to_the_same_prices() {
    let Some(rows) = table("azure_provisioning/azure_sku_price_2026-06-18.csv", ',') else { return };
    let header: Vec<&String> = rows.first().into_iter().flat_map(BTreeMap::keys).collect();
    let column = |region: &str| {
        let column = header.iter().find(|column| column.contains(region));
        column.map_or_else(String::new, |column| (*column).clone())
    };
    let found = suspects(&rows, "sku", column);
    assert!(!found.is_empty(), "{header:?}");
    for Suspect { size, region, stated, repaired } in found {
        assert!((stated / repaired - 1.0).abs() > TOLERANCE, "{size} in {region}: {stated}, {repaired}");
    }
}
