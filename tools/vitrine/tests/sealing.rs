//! `vitrine seal` and `vitrine model inspect` as their users see them, with the program `age` at the other end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn vitrine(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
    command.args(arguments).output().unwrap()
}

/// What a command that must succeed prints as JSON.
fn json(arguments: &[&str]) -> Value {
    let output = vitrine(&[arguments, &["--json"]].concat());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The words of a command that must fail for what it was given.
fn refusal(arguments: &[&str]) -> String {
    let output = vitrine(arguments);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
    words
}

/// A folder with a model in it, for one test; both names.
fn place(name: &str) -> (PathBuf, String) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let model = directory.join("model.gguf").display().to_string();
    let made = vitrine(&["synthesize", "--out", &model, "--layers", "1"]);
    assert!(made.status.success());
    (directory, model)
}

/// SHA-256 by another program.
fn sha256(file: &str) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

/// Whether `age` is here. Says so if it is not; fails if it must be.
fn age_is_here() -> bool {
    let version = Command::new("age").arg("--version").output();
    let here = version.is_ok_and(|output| output.status.success());
    let required = std::env::var_os("VITRINE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
    assert!(here || !required, "the program age is not here");
    if !here {
        eprintln!("SKIPPED: the program age is not here");
    }
    here
}

#[test]
fn a_model_is_sealed_for_a_fresh_identity() {
    let (directory, model) = place("seal-fresh");
    let made = json(&["seal", &model]);
    let (sealed, identity) = (format!("{model}.age"), format!("{model}.key"));
    assert_eq!(made["sealed"], sealed.as_str());
    assert_eq!(made["identity"], identity.as_str());
    assert_eq!(made["sealed_sha256"], sha256(&sealed));
    assert_eq!(made["plaintext_sha256"], sha256(&model));
    let permissions = fs::metadata(&identity).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);

    // Nothing is overwritten, and nothing half-made stays.
    assert!(refusal(&["seal", &model]).contains("model.gguf.age"));
    let other = directory.join("other.age").display().to_string();
    assert!(refusal(&["seal", &model, "--out", &other]).contains("model.gguf.key"));
    assert!(!Path::new(&other).exists());
    let third = directory.join("third.key").display().to_string();
    refusal(&["seal", &model, "--identity", &third]);
    assert!(!Path::new(&third).exists());

    if age_is_here() {
        let opened = Command::new("age")
            .args(["-d", "-i", &identity, &sealed])
            .output()
            .unwrap();
        assert!(opened.stdout == fs::read(&model).unwrap());
    }
}

#[test]
fn files_say_what_they_are() {
    let (directory, model) = place("inspect");
    let made = json(&["seal", &model]);
    let (sealed, identity) = (format!("{model}.age"), format!("{model}.key"));
    let plain = json(&["model", "inspect", &model]);
    assert_eq!(plain["plaintext_sha256"], sha256(&model));
    assert!(plain["sealed"].is_null() && plain["sealed_sha256"].is_null());
    assert_eq!(plain["bytes"], fs::metadata(&model).unwrap().len());
    let description = &plain["model"];
    assert_eq!(description["architecture"], "qwen3");
    assert_eq!(description["layers"], 1);
    assert!(description["unsupported"].is_null(), "{description}");
    let formats = description["formats"].as_array().unwrap();
    assert_eq!(formats[0]["format"], description["quantization"]);
    let bytes: u64 = formats
        .iter()
        .map(|share| share["bytes"].as_u64().unwrap())
        .sum();
    assert!(bytes > 0 && bytes < plain["bytes"].as_u64().unwrap());

    // Closed, a sealed file says little; opened, everything that the plain one says.
    let closed = json(&["model", "inspect", &sealed]);
    assert_eq!(closed["sealed_sha256"], sha256(&sealed));
    assert!(closed["plaintext_sha256"].is_null() && closed["model"].is_null());
    let recipients = closed["sealed"]["recipients"].as_array().unwrap();
    assert_eq!(
        (recipients.len(), &recipients[0]["type"]),
        (1, &"X25519".into())
    );
    assert_eq!(closed["sealed"]["plaintext_bytes"], plain["bytes"]);
    let opened = json(&["model", "inspect", &sealed, "--identity", &identity]);
    assert_eq!(opened["sealed"], closed["sealed"]);
    assert_eq!(opened["sealed_sha256"], made["sealed_sha256"]);
    assert_eq!(opened["plaintext_sha256"], plain["plaintext_sha256"]);
    assert_eq!(opened["model"], plain["model"]);
    let text = String::from_utf8(vitrine(&["model", "inspect", &model]).stdout).unwrap();
    assert!(
        text.contains("qwen3") && text.contains("serves it"),
        "{text}"
    );

    let inspect = |file: &str| refusal(&["model", "inspect", file, "--identity", &identity]);
    let whole = fs::read(&sealed).unwrap();
    let damaged = |name: &str, bytes: &[u8]| {
        let path = directory.join(name).display().to_string();
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(inspect(&damaged("flipped", &flipped)).contains("not authentic"));
    assert!(inspect(&damaged("cut", &whole[..whole.len() - 70_000])).contains("sealed file"));
    assert!(inspect(&damaged("header", &whole[..40])).contains("age header"));
    assert!(inspect(&model).contains("not sealed"));
    assert!(inspect("absent.age").contains("absent.age"));
    assert!(refusal(&["model", "inspect", &damaged("text", b"no model")]).contains("not a model"));
    let (sealed_other, other) = (format!("{model}.other.age"), format!("{model}.other.key"));
    json(&["seal", &model, "--out", &sealed_other, "--identity", &other]);
    let wrong = ["model", "inspect", &sealed, "--identity", &other];
    assert!(refusal(&wrong).contains("no identity in it opens"));
}

#[test]
fn what_age_seals_for_several_is_opened() {
    if !age_is_here() {
        return;
    }
    let (_, model) = place("seal-age");
    let other = json(&["seal", &model]);
    let (sealed, identity) = (format!("{model}.2.age"), format!("{model}.key"));
    let recipient = other["recipients"][0].as_str().unwrap();
    let (third, thirds_identity) = (format!("{model}.3.age"), format!("{model}.3.key"));
    let somebody = json(&[
        "seal",
        &model,
        "--out",
        &third,
        "--identity",
        &thirds_identity,
    ]);
    let somebody = somebody["recipients"][0].as_str().unwrap();
    let status = Command::new("age")
        .args(["-r", somebody, "-r", recipient, "-o", &sealed, &model])
        .status();
    assert!(status.unwrap().success());
    let opened = json(&["model", "inspect", &sealed, "--identity", &identity]);
    assert_eq!(opened["sealed"]["recipients"].as_array().unwrap().len(), 2);
    assert_eq!(opened["plaintext_sha256"], sha256(&model));
    // And for the same two by this program.
    let both = format!("{model}.4.age");
    json(&[
        "seal",
        &model,
        "--out",
        &both,
        "--recipient",
        somebody,
        "--recipient",
        recipient,
    ]);
    for identity in [&identity, &thirds_identity] {
        let opened = Command::new("age")
            .args(["-d", "-i", identity, &both])
            .output()
            .unwrap();
        assert!(opened.stdout == fs::read(&model).unwrap());
    }
}
