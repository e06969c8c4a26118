//! `assay serve` runs a real cluster: a real kube-apiserver, controllers and scheduler, with a cloud whose machines do not
//! exist. One control plane and one scheduler are shared by the tests that only need a pool of their own; the others start theirs.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

mod buying;
mod classes;
mod consolidating;
mod crashes;
mod disable;
mod draining;
mod faults;
mod finalizers;
mod hardware;
mod manifests;
mod skew;
