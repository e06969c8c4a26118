//! A `libnvidia-ml` that answers from a script, so that the code that loads the real one is tested without a GPU.
//!
//! ```text
//!   ASSAY_FAKE_NVML=script.toml --> Script --> nvml* functions --> whoever opened this library
//! ```
//!
//! The script (`src/script.rs`) says which devices there are and how each call behaves: a return code, a delay, or no answer
//! at all. It is read anew by every `nvmlInit_v2`. A script that cannot be read is told on standard error, and
//! initialization fails with `NVML_ERROR_UNKNOWN`.
//!
//! Functions, structures and codes are those of NVIDIA's `nvml.h`, at the versions that drivers from R510 on export.

// A C library is what this crate is: its functions take raw pointers from C callers.
#![allow(unsafe_code)]
// NVIDIA's names.
#![allow(non_snake_case)]

mod abi;
mod device;
mod script;
mod state;
mod system;
