//! Evidence for the tests: genuine, from the vectors beside the checkout.
#![allow(dead_code)] // Each test program uses a part.

pub mod domain;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use verifier::Class;

pub const NOT_A_POLICY_MATTER: [Class; 3] = [Class::NoEvidence, Class::Platform, Class::Binding];

/// A genuine quote, judged with one bundle of collateral at one time.
pub struct GenuineCase {
    pub name: String,
    pub quote: Vec<u8>,
    pub collateral: Vec<u8>,
    pub time: u64,
    /// `accept`, `policy_not_satisfied` or `platform_chain_failure`.
    pub verdict: String,
    /// The TCB status another program found.
    pub tcb_status: Option<String>,
    /// The fields another program found.
    pub fields: Value,
}

/// Where the genuine quotes are. Says so if they are not here; fails if they must be.
pub fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("VITRINE_VECTORS").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/vectors"
            ))
        },
        PathBuf::from,
    );
    let quotes = root.join("quotes");
    if quotes.is_dir() {
        return Some(quotes);
    }
    let required = std::env::var_os("VITRINE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
    assert!(
        !required,
        "the genuine quotes are not in {}",
        quotes.display()
    );
    eprintln!(
        "SKIPPED: the genuine quotes are not in {}; set VITRINE_VECTORS",
        quotes.display()
    );
    None
}

/// A file of the vectors.
pub fn vector(name: &str) -> Option<Vec<u8>> {
    Some(fs::read(vectors()?.join(name)).unwrap())
}

/// Every case of the vectors; none if they are not here.
pub fn genuine_cases() -> Vec<GenuineCase> {
    let Some(root) = vectors() else {
        return Vec::new();
    };
    let mut descriptions: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    descriptions.sort();
    let mut cases = Vec::new();
    for path in descriptions {
        let description: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for case in description["cases"].as_array().unwrap() {
            let collateral = text(&case["collateral"]);
            cases.push(GenuineCase {
                name: format!(
                    "{} {} {}",
                    text(&description["name"]),
                    collateral,
                    text(&case["label"])
                ),
                quote: fs::read(root.join(text(&description["quote"]))).unwrap(),
                collateral: fs::read(root.join(collateral)).unwrap(),
                time: case["verification_time"].as_u64().unwrap(),
                verdict: text(&case["suggested_verdict"]),
                tcb_status: case["independent_tcb_status"].as_str().map(str::to_owned),
                fields: description["fields"].clone(),
            });
        }
    }
    cases
}
