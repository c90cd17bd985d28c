//! Any bytes as a sealed model.
//!
//! What they are put through is what the crate's own tests do with `guest/seal/tests/corpus`, where findings belong.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../guest/seal/tests/common/hostile.rs"]
mod hostile;

fuzz_target!(|bytes: &[u8]| hostile::sealed(bytes));
