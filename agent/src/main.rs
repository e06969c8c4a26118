//! `assay-agent`: surveys the hardware of this machine.
fn main() {}
