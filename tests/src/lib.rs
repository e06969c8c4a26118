//! What end-to-end tests share: a real Kubernetes control plane, the built programs, the machines of `tests/machines`, plans made in
//! this process, and comparing JSON.

pub mod control_plane;
pub mod fleet;
pub mod json;
pub mod machines;
pub mod planned;
pub mod programs;
