//! The corpus of hostile bytes: where `cargo xtask fuzz` starts, and where its findings belong.

#[path = "common/hostile.rs"]
mod hostile;

use std::fs;
use std::path::Path;

/// Runs every file of a folder; says which one did harm.
fn replay(folder: &str, try_out: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        try_out(&fs::read(path).unwrap());
        files += 1;
    }
    assert!(files >= 4, "{files} files");
}

#[test]
fn claims() {
    replay("claims", hostile::claims);
}

#[test]
fn certificates() {
    replay("certificate", hostile::certificate);
}

#[test]
fn policies() {
    replay("policy", hostile::policy);
}

#[test]
fn manifests() {
    replay("manifest", hostile::manifest);
}
