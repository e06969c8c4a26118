//! What end-to-end tests share: the built programs, the machines of `tests/machines`, and comparing JSON.

pub mod fleet;
pub mod json;
pub mod machines;
pub mod programs;
