//! Any bytes as a release's manifest.
//!
//! What they are put through is what the verifier's own tests do with `tools/verifier/tests/corpus/manifest`, where findings belong.

#![no_main]

use libfuzzer_sys::fuzz_target;

// Each target uses a part.
#[allow(dead_code)]
#[path = "../../../tools/verifier/tests/common/hostile.rs"]
mod hostile;

fuzz_target!(|bytes: &[u8]| hostile::manifest(bytes));
