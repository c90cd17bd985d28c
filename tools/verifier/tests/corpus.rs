//! The corpus of hostile bytes: where `cargo xtask fuzz` starts, and where its findings belong.

#[path = "common/hostile.rs"]
mod hostile;

use std::fs;
use std::path::Path;

use verifier::{Code, UntrustedCertificate};

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

/// Each certificate of the corpus reaches what it is named after.
#[test]
fn certificates_are_what_their_names_say() {
    for (name, code) in [
        ("sound", None),
        // The form is right; what does not fit together is judged later.
        ("claims-altered", None),
        ("critical", Some(Code::EvidenceCritical)),
        ("empty-extension", Some(Code::EvidenceMalformed)),
        ("foreign", Some(Code::EvidenceForeign)),
        ("indefinite", Some(Code::CertificateMalformed)),
        ("indefinite-extension", Some(Code::EvidenceMalformed)),
        ("nested", Some(Code::CertificateMalformed)),
        ("no-extension", Some(Code::EvidenceMissing)),
        ("two-extensions", Some(Code::EvidenceDuplicate)),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/certificate");
        let bytes = fs::read(folder.join(name).with_extension("der")).unwrap();
        assert_eq!(UntrustedCertificate::parse(&bytes).err(), code, "{name}");
    }
}

#[test]
fn policies() {
    replay("policy", hostile::policy);
}

#[test]
fn manifests() {
    replay("manifest", hostile::manifest);
}
