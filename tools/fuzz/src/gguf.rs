//! Any bytes as a model file: parsed, loaded and, if it is a model, used a little.
//!
//! What a file is put through is what the engine's own tests do with `guest/engine/tests/corpus`, where findings belong.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../guest/engine/tests/common/hostile.rs"]
mod hostile;

/// What the engine asks of a file's address.
const ALIGNMENT: usize = 32;

fuzz_target!(|file: &[u8]| {
    let mut buffer = vec![0; file.len() + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let place = &mut buffer[start..start + file.len()];
    place.copy_from_slice(file);
    hostile::try_out(place);
});
