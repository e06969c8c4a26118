//! What end-to-end tests share: cases in files, a real Kubernetes control plane and `assay serve` in it, the built programs, the
//! machines of `tests/machines`, plans made in this process, an API server for tokens, schemas, and comparing JSON.

pub mod cases;
pub mod control_plane;
pub mod fleet;
mod go;
pub mod helm;
pub mod json;
pub mod karpenter;
pub mod machines;
pub mod objects;
pub mod planned;
pub mod programs;
pub mod schema;
pub mod serving;
pub mod token_reviews;
