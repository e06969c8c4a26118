//! The frame and codec of the fleet link.
//!
//! Frame = version `u16`, kind `u8`, length `u32` (all little-endian), then the body: bincode 2.0.1 in its fixed-width
//! integer layout with a 64 KiB limit. The only module that names bincode.
