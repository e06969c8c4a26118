//! A simulated cloud for a real API server: what `assay serve --cluster kube --cloud sim` buys from.
//!
//! ```text
//!  Cloud port --> ConfigMaps (one a VM) --> for each: a boot, a Node object, a kubelet for its pods, an agent on real QUIC
//! ```
//!
//! Nodes and pods are real objects of the cluster; the kube-scheduler binds, controllers act. What does not exist is
//! containers: a pod that is bound runs at once, and ends when it is deleted. VMs are kept as ConfigMaps, so that they
//! outlive the scheduler that bought them, as those of a real cloud do; whoever leads goes on with them. The annotation
//! `assay.dev/fault` on such a ConfigMap breaks its machine: `lostGpu`, `lessMemory`, `networkingOff`, `preempt`, `vanish`.
//!
//! | file | what |
//! |---|---|
//! | `record` | a VM as it is kept |
//! | `provider` | the cloud port: create, delete, list |
//! | `host` | what runs the VMs: from boot to end |
//! | `kubelet` | the Node and the pods of one |
//! | `agents`, `token_link` | the agent of one, and its link to the scheduler |

mod agents;
mod host;
mod kubelet;
mod provider;
mod record;
mod token_link;

pub use agents::AgentLink;
pub use host::Host;
pub use provider::{SimulatedCloud, SimulationOptions};
pub use token_link::TokenLink;
