//! Machine trees in memory: what `/proc` and `/sys` of a machine would hold, without the machine.
//!
//! [`Machine`] says in a few words what hardware there is and writes it into a [`MemTree`], the file tree that probes
//! read through [`HostFs`](crate::host::HostFs). Simulated machines and tests survey such trees with the probes that
//! survey real machines, so that nothing is measured two ways.

mod azure;
mod cpu;
mod disks;
mod gpu;
mod machine;
mod mem;
mod memory;
mod network;
mod pci;
mod platform;

pub use azure::processors;
pub use cpu::{Cpu, CpuModel};
pub use disks::{Disk, DiskBus};
pub use gpu::{Gpu, GpuDriver, GpuModel, GpuProduct};
pub use machine::Machine;
pub use mem::{Damage, MemTree, UnknownDamage};
pub use memory::{Memory, kernel_total};
pub use network::{Nic, NicDriver, RdmaPort, Vf, VfFamily, VfState};
pub use platform::{Host, Imds, System};
