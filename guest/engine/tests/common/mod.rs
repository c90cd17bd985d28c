//! What the tests of this crate share: oracle vectors, a GGUF writer, threads.
#![allow(dead_code, unused_imports)] // Every test is a crate of its own and uses a part of this.

pub mod gguf_writer;
pub mod hostile;
pub mod model;
pub mod threads;
pub mod vectors;

use std::path::PathBuf;

pub use gguf_writer::{Aligned, GgufWriter};

/// The path of an oracle file, or `None`, said on stderr, if the vectors are not here.
///
/// # Panics
/// If they are not here and `VITRINE_REQUIRE_ORACLES` is 1.
pub fn oracle(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("VITRINE_VECTORS").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/vectors"
            ))
        },
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var_os("VITRINE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
    assert!(!required, "oracle {name} is missing");
    eprintln!("SKIPPED: oracle {name} is missing");
    None
}

/// The contents of an oracle file at an aligned address.
pub fn oracle_bytes(name: &str) -> Option<Aligned> {
    oracle(name).map(|path| Aligned::new(&std::fs::read(path).unwrap()))
}
