//! What agent and scheduler share, and nothing else: the hardware report, units, quantities, label names, the messages of
//! the fleet link and their codec.
//!
//! ```text
//!  assay-agent  --- HardwareReport in protocol messages, framed by wire --->  assay-scheduler --> assay-core
//! ```
//!
//! No I/O, no clock. Depends on nothing of ours.

pub mod azure;
pub mod fact;
pub mod labels;
pub mod node_name;
pub mod protocol;
pub mod quantity;
pub mod report;
pub mod units;
pub mod wire;

pub use fact::Fact;
pub use node_name::NodeName;
pub use quantity::Quantity;
pub use report::HardwareReport;
