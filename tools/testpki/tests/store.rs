//! A PKI kept in a directory is the same PKI for all who open it, and its keys are nobody else's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use testpki::{Error, Platform, QuoteFormat, TestPki, authenticate};

/// 2026-03-01.
const NOW: u64 = 1_772_323_200;

/// An empty place of this test's own.
fn place(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

#[test]
fn opening_twice_gives_the_same_root_and_the_same_report_key() {
    let directory = place("twice");
    let first = TestPki::open(&directory, NOW).unwrap();
    let second = TestPki::open(&directory, NOW + 1).unwrap();
    assert_eq!(first.root_pem(), second.root_pem());
    assert_eq!(
        fs::read_to_string(TestPki::root_path(&directory)).unwrap(),
        first.root_pem()
    );
    let mut report = first.platform().report();
    authenticate(&mut report, first.report_key());
    second
        .quoting_enclave()
        .quote(report.as_bytes(), QuoteFormat::V4)
        .unwrap();
}

#[test]
fn collateral_is_issued_anew() {
    let directory = place("anew");
    let issue_date = |now| {
        TestPki::open(&directory, now).unwrap();
        let text = fs::read_to_string(TestPki::collateral_path(&directory)).unwrap();
        let collateral: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tcb_info: serde_json::Value =
            serde_json::from_str(collateral["tcb_info"].as_str().unwrap()).unwrap();
        tcb_info["issueDate"].as_str().unwrap().to_owned()
    };
    assert_eq!(issue_date(NOW), "2026-02-28T23:00:00Z");
    assert_eq!(issue_date(NOW + 40 * 86_400), "2026-04-09T23:00:00Z");
}

#[test]
fn private_keys_are_readable_by_their_owner_only() {
    let directory = place("modes");
    TestPki::open(&directory, NOW).unwrap();
    let keys = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "key"))
        .inspect(|path| {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        })
        .count();
    assert_eq!(keys, 6);
}

#[test]
fn a_damaged_directory_is_named_not_replaced() {
    let directory = place("damaged");
    TestPki::generate(Platform::default())
        .unwrap()
        .save(&directory)
        .unwrap();
    for name in ["pck.key", "report.key", "platform.json", "pck.pem"] {
        let path = directory.join(name);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(
            matches!(TestPki::open(&directory, NOW), Err(Error::Content(p)) if p == path),
            "{name}"
        );
        fs::write(&path, kept).unwrap();
    }
    TestPki::open(&directory, NOW).unwrap();
}
