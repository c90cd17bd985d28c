//! What was seen before: a clock or a release that is behind it does not count, until the user says so by hand.

use std::fs;
use std::io::Cursor;

use minisign::KeyPair;
use serde_json::Value;

use crate::common::domain::manifest;
use crate::common::genuine_cases;
use crate::support::{Files, directory, json, verify, write};

#[test]
fn a_clock_that_went_back_is_noticed_and_forgiven_by_hand() {
    let Some(case) = genuine_cases()
        .into_iter()
        .find(|case| case.verdict == "accept")
    else {
        return;
    };
    let home = directory("clock");
    let quote = write(&home, "quote.bin", &case.quote);
    let collateral = write(&home, "collateral.json", &case.collateral);
    let arguments = [
        "--platform-only",
        "--quote",
        &quote,
        "--collateral",
        &collateral,
    ];
    let mark = home.join(".local/state/vitrine/clock");
    fs::create_dir_all(mark.parent().unwrap()).unwrap();
    fs::write(&mark, "99999999999\n").unwrap();
    let (code, report, words) = json(&home, &arguments);
    assert_eq!((code, &report["code"]), (20, &"clock-rolled-back".into()));
    assert!(words.contains(&mark.display().to_string()), "{words}");
    fs::remove_file(&mark).unwrap();
    let (_, report, _) = json(&home, &arguments);
    assert_ne!(report["code"], "clock-rolled-back");
    // Another time than now neither minds the mark nor moves it.
    fs::write(&mark, "99999999999\n").unwrap();
    let at = case.time.to_string();
    let (code, ..) = json(&home, &[&arguments[..], &["--at", &at]].concat());
    assert_eq!(code, 0);
    assert_eq!(fs::read_to_string(&mark).unwrap(), "99999999999\n");
    fs::write(&mark, "soon\n").unwrap();
    let output = verify(&home, &arguments);
    assert_eq!(output.status.code(), Some(2));
}

/// A release's maker.
struct Maker(KeyPair);

impl Maker {
    fn new() -> Self {
        Self(KeyPair::generate_unencrypted_keypair().unwrap())
    }

    fn key(&self) -> String {
        self.0.pk.to_base64()
    }

    /// Signs a manifest, with this comment.
    fn sign(&self, manifest: &str, comment: &str) -> String {
        let (pk, sk) = (&self.0.pk, &self.0.sk);
        let manifest = Cursor::new(manifest.as_bytes());
        let signature = minisign::sign(Some(pk), sk, manifest, Some(comment), None);
        signature.unwrap().to_string()
    }

    /// Leaves a signed manifest of this version; its name.
    fn release(&self, files: &Files, version: &str, comment: &str) -> String {
        let mut release = manifest();
        release.version = version.into();
        let release = release.encode();
        let name = format!("vitrine-{version}.json");
        write(
            &files.home,
            &format!("{name}.minisig"),
            self.sign(&release, comment),
        );
        write(&files.home, &name, release)
    }
}

/// Judges the sound certificate under these manifests of this key.
fn judge(files: &Files, key: &str, manifests: &[&str]) -> (i32, Value, String) {
    let mut arguments = vec![
        "--cert",
        &files.certificate,
        "--collateral",
        &files.collateral,
        "--manifest-key",
        key,
        "--model-digest",
        crate::support::DIGEST,
    ];
    for manifest in manifests {
        arguments.extend(["--manifest", manifest]);
    }
    files.run(&arguments)
}

#[test]
fn signed_manifests_count_and_no_others() {
    let files = Files::new("signed");
    let (maker, other) = (Maker::new(), Maker::new());
    let (key, others_key) = (maker.key(), other.key());
    let signed = maker.release(&files, "1.0.0", "the first release\texpires:2026-06-01");
    let key_file = write(
        &files.home,
        "maker.pub",
        maker.0.pk.to_box().unwrap().to_string(),
    );
    for key in [&key, &key_file] {
        let (code, report, words) = judge(&files, key, &[&signed]);
        assert_eq!(
            (code, &report["verdict"]),
            (0, &"accepted".into()),
            "{report} {words}"
        );
    }

    let expired = maker.release(&files, "1.0.1", "expires:2026-02-28");
    let unclear = maker.release(&files, "1.0.2", "expires:soon");
    let altered = maker.release(&files, "1.0.3", "release");
    let text = fs::read_to_string(&altered).unwrap();
    write(
        &files.home,
        "vitrine-1.0.3.json",
        text.replace("1.0.3", "1.0.4"),
    );
    let comment = maker.release(&files, "1.0.5", "expires:2026-02-28");
    let signature = fs::read_to_string(format!("{comment}.minisig")).unwrap();
    let later = signature.replace("2026-02-28", "2036-02-28");
    write(&files.home, "vitrine-1.0.5.json.minisig", later);
    let unsigned = &files.manifest;
    for (key, manifests, finding) in [
        (&others_key, &[&*signed][..], "manifest-signature"),
        (&key, &[unsigned], "manifest-signature"),
        (&key, &[&altered], "manifest-signature"),
        (&key, &[&comment], "manifest-signature"),
        (&key, &[&expired], "manifest-expired"),
        (&key, &[&unclear], "manifest-invalid"),
        // A good one beside it does not heal any of them.
        (&key, &[&signed, unsigned], "manifest-signature"),
        (&key, &[&expired, &signed], "manifest-expired"),
    ] {
        let (code, report, _) = judge(&files, key, manifests);
        assert_eq!(
            (code, &report["code"]),
            (22, &finding.into()),
            "{manifests:?}"
        );
    }
}

#[test]
fn an_older_release_is_refused_after_a_newer_one() {
    let files = Files::new("rollback");
    let (maker, other) = (Maker::new(), Maker::new());
    let [old, new] = ["1.9.0", "1.10.0"].map(|version| maker.release(&files, version, "release"));
    let key = maker.key();
    let marks = files.home.join(".local/state/vitrine/releases");
    assert_eq!(judge(&files, &key, &[&old]).0, 0);
    assert_eq!(judge(&files, &key, &[&new]).0, 0);
    assert_eq!(
        fs::read_to_string(&marks).unwrap(),
        format!("{key} 1.10.0\n")
    );

    let (code, report, words) = judge(&files, &key, &[&old]);
    assert_eq!((code, &report["code"]), (22, &"manifest-rollback".into()));
    assert!(words.contains(&marks.display().to_string()), "{words}");
    // Whoever names both knows of the newer one. Other makers have marks of their own, and who asks for no signature has none.
    assert_eq!(judge(&files, &key, &[&old, &new]).0, 0);
    let others = other.release(&files, "0.1.0", "release");
    assert_eq!(judge(&files, &other.key(), &[&others]).0, 0);
    let evidence = [
        "--cert",
        &*files.certificate,
        "--collateral",
        &files.collateral,
    ];
    assert_eq!(files.run(&[&evidence[..], &files.pins()].concat()).0, 0);
    // The same through a policy, whose key also counts for manifests of the command line.
    let policy = format!(
        "[program]\nmanifests = ['vitrine-1.9.0.json']\nmanifest_key = '{key}'\n[model]\ndigests = ['{}']\n",
        crate::support::DIGEST
    );
    let policy = write(&files.home, "policy.toml", policy);
    let (code, report, _) = files.run(&[&evidence[..], &["--policy", &policy]].concat());
    assert_eq!((code, &report["code"]), (22, &"manifest-rollback".into()));
    let with = ["--policy", &*policy, "--manifest", &files.manifest];
    let (code, report, _) = files.run(&[&evidence[..], &with].concat());
    assert_eq!((code, &report["code"]), (22, &"manifest-signature".into()));

    let left = fs::read_to_string(&marks).unwrap();
    let left: String = left
        .lines()
        .filter(|line| !line.starts_with(&key))
        .collect();
    fs::write(&marks, left + "\n").unwrap();
    assert_eq!(judge(&files, &key, &[&old]).0, 0);
    fs::write(&marks, "nonsense\n").unwrap();
    let output = verify(&files.home, &["--cert", &files.certificate]);
    assert_eq!(output.status.code(), Some(2));
}
