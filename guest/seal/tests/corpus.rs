//! The corpus of hostile files: where `cargo xtask fuzz --target sealed` starts, and where its findings belong.

#[path = "common/hostile.rs"]
mod hostile;

use std::fs;
use std::path::Path;

use seal::{Envelope, EnvelopeError, HeaderError, LayoutError};

fn corpus() -> impl Iterator<Item = (String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).unwrap())
    })
}

#[test]
fn no_file_does_harm() {
    let mut files = 0;
    for (name, bytes) in corpus() {
        eprintln!("{name}");
        hostile::sealed(&bytes);
        files += 1;
    }
    assert!(files >= 10, "{files} files");
}

/// Each file of the corpus reaches what it is named after.
#[test]
fn every_file_is_what_its_name_says() {
    use HeaderError::*;
    let header = |error| Err(EnvelopeError::Header(error));
    for (name, bytes) in corpus() {
        let outcome = Envelope::read(&bytes, bytes.len() as u64);
        let outcome = outcome.map(|envelope| envelope.map(|envelope| envelope.layout().chunks()));
        let expected = match name.as_str() {
            "empty.age" | "cut-in-header.age" | "cut-in-mac.age" | "no-mac.age" => {
                header(Incomplete)
            }
            "cut-in-nonce.age" | "cut-in-tag.age" => Err(EnvelopeError::Layout(LayoutError::Cut)),
            "other-version.age" => header(NotAge),
            "two-bodies.age" => header(Line),
            "no-recipient.age" => header(NoStanza),
            "padding.age" | "long-line.age" => header(Body),
            "short-mac.age" => header(Mac),
            "two-blanks.age" | "carriage-return.age" => header(Arguments),
            "many-stanzas.age" | "one-recipient.age" | "scrypt.age" | "empty-plaintext.age" => {
                Ok(Some(1))
            }
            // Findings of the fuzzer have no name of their own.
            _ => continue,
        };
        assert_eq!(outcome, expected, "{name}");
    }
}
