//! What is accepted and what is not, of genuine evidence and of evidence under a test root; what is said about it.

use serde_json::Value;

use crate::common::domain::{CONFIGURATION, Domain, NOW, pki};
use crate::common::genuine_cases;
use crate::support::{DIGEST, Files, directory, json, verify, write};

#[test]
fn genuine_cases_have_the_suggested_verdicts_and_exit_codes() {
    let home = directory("genuine");
    for case in genuine_cases() {
        let quote = write(&home, "quote.bin", &case.quote);
        let collateral = write(&home, "collateral.json", &case.collateral);
        let at = case.time.to_string();
        let arguments = [
            "--platform-only",
            "--quote",
            &quote,
            "--collateral",
            &collateral,
            "--at",
            &at,
        ];
        let (code, report, words) = json(&home, &arguments);
        let (expected, verdict) = match &*case.verdict {
            "accept" => (0, "platform-genuine"),
            "policy_not_satisfied" => (22, "policy-unsatisfied"),
            _ => (20, "platform-untrusted"),
        };
        assert_eq!(report["verdict"], verdict, "{}: {report}", case.name);
        assert_eq!(code, expected, "{}: {words}", case.name);
        assert_eq!(report["findings"].as_array().unwrap().is_empty(), code == 0);
        assert_eq!(report["code"].is_null(), code == 0);
        // Without --platform-only nothing is accepted that was not named.
        if code == 0 {
            let (code, report, _) = json(&home, &arguments[1..]);
            assert_eq!(
                (code, &report["code"]),
                (22, &Value::from("manifest-missing"))
            );
            // A directory in which it is not the only file.
            let choice = directory("genuine-choice");
            write(&choice, "this.json", &case.collateral);
            write(&choice, "broken.json", "{");
            let other = pki().scenario(NOW).unwrap().build().unwrap().collateral;
            write(&choice, "other.json", other.to_json());
            let choice = choice.display().to_string();
            let arguments = [
                "--platform-only",
                "--quote",
                &quote,
                "--collateral",
                &choice,
                "--at",
                &at,
            ];
            assert_eq!(json(&home, &arguments).0, 0, "{}", case.name);
        }
    }
    // None of this is by this computer's clock, so it leaves no mark.
    assert!(!home.join(".local/state/vitrine/clock").exists());
}

#[test]
fn a_certificate_is_accepted_when_everything_was_named() {
    let files = Files::new("certificate");
    let evidence = [
        "--cert",
        &files.certificate,
        "--collateral",
        &files.collateral,
    ];
    let (code, report, words) = files.run(&[&evidence[..], &files.pins()].concat());
    assert_eq!(
        (code, &report["verdict"]),
        (0, &Value::from("accepted")),
        "{report}"
    );
    assert!(words.contains("warning: --test-root"), "{words}");
    assert!(
        report["trust_anchor"]
            .as_str()
            .unwrap()
            .contains("TEST ROOT")
    );
    for field in [
        "findings",
        "advisories",
        "measurements",
        "checks",
        "tcb_status",
    ] {
        assert!(!report[field].is_null(), "{field}");
    }

    let config = write(&files.home, "config.txt", CONFIGURATION);
    let other = write(&files.home, "other.txt", "other");
    for (more, code, finding) in [
        (&["--config", "default"][..], 0, Value::Null),
        (&["--config", &config], 0, Value::Null),
        (&["--config", &other], 22, "config-mismatch".into()),
    ] {
        let (found, report, _) = files.run(&[&evidence[..], &files.pins(), more].concat());
        assert_eq!((found, &report["code"]), (code, &finding), "{more:?}");
    }
    let (code, report, _) = files.run(&[&evidence[..], &["--manifest", &files.manifest]].concat());
    assert_eq!((code, &report["code"]), (22, &"model-not-pinned".into()));
    let unsigned = [
        "--manifest-key",
        "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
    ];
    let (code, report, _) = files.run(&[&evidence[..], &files.pins(), &unsigned].concat());
    assert_eq!((code, &report["code"]), (22, &"manifest-signature".into()));

    // PEM, and the same through a policy file beside the manifest.
    let policy =
        format!("[program]\nmanifests = ['vitrine.json']\n[model]\ndigests = ['{DIGEST}']\n");
    let policy = write(&files.home, "policy.toml", policy);
    let (code, ..) = files.run(&[&evidence[..], &["--policy", &policy]].concat());
    assert_eq!(code, 0);

    // Another domain's certificate, and the same evidence for a client that was not told the root.
    let mut lying = Domain::new();
    lying.claims.fingerprint[0] ^= 1;
    let lying = write(&files.home, "lying.der", lying.certificate());
    let evidence = ["--cert", &lying, "--collateral", &files.collateral];
    let (code, report, _) = files.run(&[&evidence[..], &files.pins()].concat());
    assert_eq!(
        (code, &report["code"]),
        (21, &"fingerprint-mismatch".into())
    );
    let at = NOW.to_string();
    let arguments = [
        "--cert",
        &files.certificate,
        "--collateral",
        &files.collateral,
        "--at",
        &at,
    ];
    let (code, report, _) = json(&files.home, &arguments);
    assert_eq!((code, &report["code"]), (20, &"untrusted-root".into()));
}

#[test]
fn a_table_says_what_was_expected_and_found() {
    let files = Files::new("table");
    let at = NOW.to_string();
    let arguments = [
        "--cert",
        &files.certificate,
        "--collateral",
        &files.collateral,
        "--test-root",
        &files.root,
        "--at",
        &at,
    ];
    let output = verify(&files.home, &arguments);
    assert_eq!(output.status.code(), Some(22));
    let table = String::from_utf8(output.stdout).unwrap();
    for words in [
        "check",
        "expected",
        "found",
        "verdict",
        "TCB status",
        "UpToDate",
        "model-not-pinned",
        "trust anchor",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(
        table
            .lines()
            .take(30)
            .all(|line| line.chars().count() < 160),
        "{table}"
    );
}

#[test]
fn mistakes_are_usage_errors() {
    let files = Files::new("usage");
    let empty = write(&files.home, "empty.toml", "");
    let unknown = write(&files.home, "unknown.toml", "[tcb]\nstatus = []\n");
    let cert = &*files.certificate;
    for (arguments, words) in [
        (&[][..], "--quote"),
        (&["--cert", cert, "--quote", cert], "cannot be used"),
        (&["--cert", "absent.der"], "absent.der"),
        (&["--cert", cert, "--at", "yesterday"], "not a time"),
        (&["--cert", cert, "--model-digest", "12"], "hexadecimal"),
        (
            &["--cert", cert, "--collateral", "absent.json"],
            "absent.json",
        ),
        (&["--cert", cert, "--policy", &empty], "empty"),
        (&["--cert", cert, "--policy", &unknown], "status"),
        (&["--cert", cert, "--manifest-key", "x"], "--manifest"),
        (&["--cert", cert, "--owner-key", DIGEST], "--to"),
        (
            &["--cert", cert, "--manifest", "absent.json"],
            "absent.json",
        ),
        (&["--cert", cert, "--config", "absent.txt"], "absent.txt"),
        (
            &[
                "--cert",
                cert,
                "--test-root",
                cert,
                "--manifest",
                cert,
                "--manifest-key",
                "x",
            ],
            "key",
        ),
    ] {
        let output = verify(&files.home, arguments);
        let found = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {found}");
        assert!(found.contains(words), "{arguments:?}: {found}");
    }
}
