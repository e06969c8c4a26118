//! What could be bought: instance types, where and how they are offered, at what price, and how much of them pods get.

mod instance_type;

pub use instance_type::{CapacityType, InstanceType, Offering, PriceSource};
