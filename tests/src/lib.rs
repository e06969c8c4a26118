//! What end-to-end tests share: the built programs, the machines of `tests/machines`, plans made in
//! this process, and comparing JSON.

pub mod fleet;
pub mod json;
pub mod machines;
pub mod planned;
pub mod programs;
