//! The provider-neutral form of a catalogue, for tests and other clouds:
//!
//! ```text
//! {"instanceTypes": [{"name": "small", "capacity": {"cpu": "2", "memory": "2Gi", "pods": "10"},
//!   "overhead": {"cpu": "100m", "memory": "10Mi"},
//!   "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}],
//!   "offerings": [{"zone": "z-1", "capacityType": "spot", "price": 0.02, "available": true}]}]}
//! ```
//!
//! An offering may say `"reservation": {"id", "remaining"}` (with capacity type reserved) and `"overrides": {"capacity": {…},
//! "overhead": {…}}`, which replace the type's amounts; a type may say `"numa": {"nodes", "cpus", "devices": {…}}`, each of its NUMA
//! nodes, and `"lotteries": [{"key", "chances": {value: chance}}]` for labels that differ from machine to machine.
//!
//! A person writes it, so a wrong entry is an error that says where it is, not something to pass over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::quantity::{Quantity, QuantityError};
use assay_shared::units::UsdPerHour;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{
    CapacityType, CatalogError, InstanceType, Lottery, NumaLayout, Offering, OfferingOverrides, PriceSource,
    Reservation,
};
use crate::model::ResourceList;
use crate::requirement::{Requirement, Requirements, ValueSet};

/// A field that is wrong: its path, what was expected, what was found.
struct Wrong(String, String, String);

fn wrong(field: impl Into<String>, expected: impl Into<String>, found: Option<&Value>) -> Wrong {
    let found =
        found.map_or_else(|| "nothing".to_owned(), |value| value.to_string().chars().take(80).collect());
    Wrong(field.into(), expected.into(), found)
}

/// The instance types of the list.
pub(super) fn instance_types(list: &[&RawValue]) -> Result<Vec<InstanceType>, CatalogError> {
    let mut types = Vec::with_capacity(list.len());
    let mut names = BTreeSet::new();
    for (index, raw) in list.iter().enumerate() {
        let entry = super::entry(raw)?;
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let error = |Wrong(field, expected, found): Wrong| {
            let entry = match name {
                "" => format!("instanceTypes[{index}]"),
                name => format!("instanceTypes[{index}] ({name})"),
            };
            CatalogError::Entry { entry, field, expected, found }
        };
        let parsed = instance_type(&entry).map_err(error)?;
        if !names.insert(Arc::clone(&parsed.name)) {
            return Err(error(wrong("name", "each name once", entry.get("name"))));
        }
        types.push(parsed);
    }
    Ok(types)
}

fn instance_type(entry: &Value) -> Result<InstanceType, Wrong> {
    let object = entry.as_object().ok_or_else(|| wrong("entry", "an object", Some(entry)))?;
    only(object, "", &["name", "capacity", "overhead", "requirements", "offerings", "numa", "lotteries"])?;
    let name = object.get("name");
    let name_text = name.and_then(Value::as_str).filter(|name| !name.is_empty());
    let name: Arc<str> = name_text.ok_or_else(|| wrong("name", "a name", name))?.into();
    let capacity = object.get("capacity").ok_or_else(|| wrong("capacity", "quantities by resource", None))?;
    let capacity = resources("capacity", capacity)?;
    let overhead =
        object.get("overhead").map_or_else(|| Ok(ResourceList::default()), |v| resources("overhead", v))?;
    let offerings = items(object, "offerings")?.iter().enumerate();
    let offerings = offerings.map(|(index, offering)| self::offering(index, offering));
    let offerings = offerings.collect::<Result<Vec<_>, _>>()?;

    let mut requirements = Requirements::new();
    for (index, value) in items(object, "requirements")?.iter().enumerate() {
        let field = format!("requirements[{index}]");
        let parsed = serde_json::from_value::<Requirement>(value.clone())
            .map_err(|error| wrong(&field, format!("a requirement ({error})"), Some(value)))?;
        let set = ValueSet::from_requirement(&parsed)
            .map_err(|error| wrong(&field, format!("a requirement ({error})"), Some(value)))?;
        requirements.constrain(&parsed.key, &set);
    }
    // What the rest of the entry says anyway need not be said again.
    let mut defaults: Vec<(&str, Vec<String>)> = vec![(kubernetes::INSTANCE_TYPE, vec![name.to_string()])];
    if !offerings.is_empty() {
        defaults.push((kubernetes::ZONE, offerings.iter().map(|o| o.zone.to_string()).collect()));
        let types = offerings.iter().map(|offering| offering.capacity_type.to_string()).collect();
        defaults.push((karpenter::CAPACITY_TYPE, types));
    }
    for (key, values) in defaults {
        if requirements.get(key).is_none() {
            requirements.constrain(key, &ValueSet::of(values));
        }
    }
    let numa = object.get("numa").map(numa).transpose()?;
    let lotteries = items(object, "lotteries")?.iter().enumerate();
    let lotteries = lotteries.map(|(index, value)| lottery(index, value)).collect::<Result<_, _>>()?;
    Ok(InstanceType { name, requirements, offerings, capacity, overhead, numa, lotteries })
}

/// A misspelt field would otherwise silently be its default.
fn only(object: &Map<String, Value>, path: &str, known: &[&str]) -> Result<(), Wrong> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let expected = format!("one of {}", known.join(", "));
            Err(Wrong(format!("{path}{key}"), expected, "an unknown field".to_owned()))
        }
    }
}

fn items<'v>(object: &'v Map<String, Value>, field: &str) -> Result<&'v [Value], Wrong> {
    match object.get(field) {
        Some(Value::Array(items)) => Ok(items),
        None | Some(Value::Null) => Ok(&[]),
        other => Err(wrong(field, "a list", other)),
    }
}

fn resources(field: &str, value: &Value) -> Result<ResourceList, Wrong> {
    let object = value.as_object().ok_or_else(|| wrong(field, "quantities by resource", Some(value)))?;
    let mut list = ResourceList::default();
    for (name, value) in object {
        let path = || format!("{field}.{name}");
        let quantity: Quantity = serde_json::from_value(value.clone())
            .map_err(|_| wrong(path(), "a quantity such as \"500m\", 2 or \"16Gi\"", Some(value)))?;
        let negative = |_: QuantityError| wrong(path(), "zero or more", Some(value));
        match name.as_str() {
            "cpu" => list.cpu = quantity.to_milli_cpu().map_err(negative)?,
            "memory" => list.memory = quantity.to_bytes().map_err(negative)?,
            "ephemeral-storage" => list.ephemeral_storage = quantity.to_bytes().map_err(negative)?,
            "pods" => list.pods = quantity.to_count().map_err(negative)?,
            other => list.set_extended(other, quantity.to_count().map_err(negative)?),
        }
    }
    Ok(list)
}

fn offering(index: usize, value: &Value) -> Result<Offering, Wrong> {
    let path = |field: &str| format!("offerings[{index}].{field}");
    let object =
        value.as_object().ok_or_else(|| wrong(format!("offerings[{index}]"), "an object", Some(value)))?;
    only(object, &path(""), &["zone", "capacityType", "price", "available", "reservation", "overrides"])?;
    let zone = object.get("zone");
    let zone_text = zone.and_then(Value::as_str).filter(|zone| !zone.is_empty());
    let zone = zone_text.ok_or_else(|| wrong(path("zone"), "the name of a zone", zone))?.into();
    let found = object.get("capacityType");
    let capacity_type = found.and_then(Value::as_str).and_then(|text| text.parse::<CapacityType>().ok());
    let capacity_type =
        capacity_type.ok_or_else(|| wrong(path("capacityType"), "reserved, spot or on-demand", found))?;
    let price = object.get("price");
    let usd = price.and_then(Value::as_f64).and_then(UsdPerHour::from_usd);
    let usd = usd.ok_or_else(|| wrong(path("price"), "US dollars per hour", price))?;
    let available = match object.get("available") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(available)) => *available,
        other => return Err(wrong(path("available"), "true or false", other)),
    };
    let reservation = object.get("reservation").map(|value| reservation(&path("reservation"), value));
    let reservation = reservation.transpose()?;
    if capacity_type != CapacityType::Reserved && reservation.is_some() {
        return Err(wrong(
            path("reservation"),
            "none unless capacityType is reserved",
            object.get("reservation"),
        ));
    }
    let overrides = object.get("overrides").map(|value| overrides(&path("overrides"), value)).transpose()?;
    Ok(Offering {
        zone,
        capacity_type,
        price: usd,
        price_source: PriceSource::Listed,
        available,
        reservation,
        overrides: overrides.map(Box::new),
    })
}

fn reservation(path: &str, value: &Value) -> Result<Reservation, Wrong> {
    let object = value.as_object().ok_or_else(|| wrong(path, "an object", Some(value)))?;
    only(object, &format!("{path}."), &["id", "remaining"])?;
    let id = object.get("id");
    let text = id.and_then(Value::as_str).filter(|id| !id.is_empty());
    let text = text.ok_or_else(|| wrong(format!("{path}.id"), "the name of a reservation", id))?;
    let remaining = object.get("remaining");
    let count = remaining.and_then(Value::as_u64);
    let count = count.ok_or_else(|| wrong(format!("{path}.remaining"), "a number of machines", remaining))?;
    Ok(Reservation { id: text.into(), remaining: count })
}

fn overrides(path: &str, value: &Value) -> Result<OfferingOverrides, Wrong> {
    let object = value.as_object().ok_or_else(|| wrong(path, "an object", Some(value)))?;
    only(object, &format!("{path}."), &["capacity", "overhead"])?;
    let amounts = |field: &str| -> Result<BTreeMap<String, u64>, Wrong> {
        let Some(value) = object.get(field) else { return Ok(BTreeMap::new()) };
        let path = format!("{path}.{field}");
        let list = resources(&path, value)?;
        // What is named replaces, a zero too.
        let names = value.as_object().into_iter().flat_map(Map::keys);
        Ok(names.map(|name| (name.clone(), list.amount(name))).collect())
    };
    Ok(OfferingOverrides { capacity: amounts("capacity")?, overhead: amounts("overhead")? })
}

fn numa(value: &Value) -> Result<NumaLayout, Wrong> {
    let object = value.as_object().ok_or_else(|| wrong("numa", "an object", Some(value)))?;
    only(object, "numa.", &["nodes", "cpus", "devices"])?;
    let count = |field: &str| {
        let found = object.get(field);
        let count = found.and_then(Value::as_u64).filter(|count| *count > 0);
        count.ok_or_else(|| wrong(format!("numa.{field}"), "a whole number of 1 or more", found))
    };
    let devices = match object.get("devices") {
        None => BTreeMap::new(),
        Some(value) => resources("numa.devices", value)?.extended,
    };
    let nodes = u32::try_from(count("nodes")?);
    let nodes = nodes.map_err(|_| wrong("numa.nodes", "a number of NUMA nodes", object.get("nodes")))?;
    Ok(NumaLayout { nodes, cpus: count("cpus")?, devices })
}

fn lottery(index: usize, value: &Value) -> Result<Lottery, Wrong> {
    let path = format!("lotteries[{index}]");
    let object = value.as_object().ok_or_else(|| wrong(&path, "an object", Some(value)))?;
    only(object, &format!("{path}."), &["key", "chances"])?;
    let key = object.get("key");
    let text = key.and_then(Value::as_str).filter(|key| !key.is_empty());
    let text = text.ok_or_else(|| wrong(format!("{path}.key"), "a label key", key))?;
    let found = object.get("chances");
    let field = format!("{path}.chances");
    let listed = found.and_then(Value::as_object);
    let listed = listed.ok_or_else(|| wrong(&field, "chances by value", found))?;
    let mut chances = Vec::new();
    for (value, chance) in listed {
        let number = chance.as_f64().filter(|number| *number > 0.0 && *number <= 1.0);
        let number = number.ok_or_else(|| {
            wrong(format!("{field}.{value}"), "a chance above 0 and at most 1", Some(chance))
        })?;
        chances.push((value.clone(), number));
    }
    if chances.iter().map(|(_, chance)| chance).sum::<f64>() > 1.0 + 1e-9 {
        return Err(wrong(&field, "chances that add up to 1 at most", found));
    }
    Ok(Lottery { key: text.to_owned(), chances })
}
