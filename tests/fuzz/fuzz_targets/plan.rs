//! Any text as a manifest: `assay plan` refuses it with words or makes a plan that breaks no rule.

#![no_main]

use std::sync::LazyLock;

use assay_tests::planned::{Catalog, general_catalog, plan};
use libfuzzer_sys::fuzz_target;

static CATALOG: LazyLock<Catalog> = LazyLock::new(general_catalog);

fuzz_target!(|text: &str| {
    let _left_out = plan(text.to_owned(), &CATALOG);
});
