//! `vitrine hardware-report` on a machine made of files, with a guest that this test plays.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use measurements::{Hex, Metadata, PageOrder, mrtd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;

use crate::support::{arguments, good_machine, image, program, qemu, quote_service};

/// A TLS server with an ordinary certificate; its port.
fn server_without_evidence() -> u16 {
    let certificate = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        certificate.signing_key.serialize_der(),
    ));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that refuses ends the handshake with an alert, which is the point of the test.
            let _ = connection.complete_io(&mut stream.unwrap());
        }
    });
    port
}

/// The exit code, the evidence and the words of a report on the machine in `root`.
fn report(root: &Path, tcp: u16) -> (i32, Value, String) {
    let steps = root.join("vitrine");
    let steps = match steps.exists() {
        true => steps,
        false => env!("CARGO_BIN_EXE_vitrine").into(),
    };
    let service = format!("unix:{}", root.join("qgs.socket").display());
    fs::write(root.join("model.gguf"), b"model").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .current_dir(root)
        .env("VITRINE_QEMU", root.join("qemu"))
        .env("VITRINE_PROGRAM", steps)
        .args([
            "hardware-report",
            "--image",
            "vitrine.fd",
            "--model",
            "model.gguf",
        ])
        .args([
            "--root",
            root.to_str().unwrap(),
            "--quote-service",
            &service,
        ])
        .args([
            "--tcp",
            &tcp.to_string(),
            "--memory",
            "1G",
            "--out",
            "report.json",
        ])
        .args(["--answers", "3", "--", "--collateral", "collateral"])
        .output()
        .unwrap();
    let evidence = fs::read(root.join("report.json")).unwrap();
    (
        output.status.code().unwrap(),
        serde_json::from_slice(&evidence).unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Has a program answer for `vitrine verify` and `vitrine chat`; everything else is done by the real one.
fn answer_for(root: &Path, verify: &str, chat: &str) {
    program(
        &root.join("vitrine"),
        &format!(
            "echo \"$@\" >> '{}'\ncase \"$1\" in\nverify) {verify};;\nchat) {chat};;\n*) exec '{}' \"$@\";;\nesac",
            root.join("steps").display(),
            env!("CARGO_BIN_EXE_vitrine")
        ),
    );
}

/// A good machine with an image and a quote service.
fn host(name: &str) -> std::path::PathBuf {
    let root = good_machine(name);
    fs::write(root.join("vitrine.fd"), image()).unwrap();
    // Where collateral is looked for: this machine asks nobody.
    fs::create_dir(root.join("collateral")).unwrap();
    quote_service(&root.join("qgs.socket"));
    root
}

#[test]
fn a_guest_without_evidence_is_shown_and_asked_nothing() {
    let root = host("report-no-evidence");
    answer_for(
        &root,
        "echo '{\"verdict\":\"no-evidence\"}'; exit 23",
        "exit 99",
    );
    let (code, evidence, words) = report(&root, server_without_evidence());
    assert_eq!(code, 23, "{words}");
    assert_eq!(evidence["schema"], "vitrine-hardware-report/1");
    assert_eq!(evidence["machine"]["kernel"], "6.16.3-generic");
    assert_eq!(evidence["doctor"]["usable"], true);

    let image = image();
    let metadata = Metadata::parse(&image).unwrap();
    let expected = Hex(mrtd(&image, &metadata, PageOrder::PageByPage)).to_string();
    assert_eq!(evidence["image"]["mrtd"], expected);
    assert_eq!(evidence["image"]["bytes"], 65_536);

    // The command in the evidence is the one that ran.
    let command = evidence["command"].as_str().unwrap();
    for argument in arguments(&root) {
        assert!(command.contains(&argument), "{argument}");
    }
    assert_eq!(evidence["ready"]["boot_ms"], 9);
    assert!(evidence["console"].to_string().contains("vitrine: ready"));
    let certificate = evidence["certificate"].as_str().unwrap();
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(evidence["verification"]["exit_code"], 23);
    assert_eq!(evidence["verification"]["report"]["verdict"], "no-evidence");
    assert_eq!(evidence["stopped"]["step"], "verify");
    assert_eq!(evidence["stopped"]["code"], 23);
    assert!(evidence["benchmark"].is_null());
    // The guest is gone.
    let process = evidence["ready"]["process"].as_u64().unwrap();
    assert!(!Path::new(&format!("/proc/{process}")).exists());
}

#[test]
fn an_accepted_guest_is_timed() {
    let root = host("report-accepted");
    answer_for(
        &root,
        "echo '{\"verdict\":\"accepted\",\"code\":0}'",
        "echo '{\"ttft_ms\":100,\"total_ms\":1100,\"usage\":{\"completion_tokens\":65}}'",
    );
    let (code, evidence, words) = report(&root, 18443);
    assert_eq!(code, 0, "{words}");
    assert!(evidence["stopped"].is_null());
    assert_eq!(evidence["verification"]["report"]["verdict"], "accepted");
    assert_eq!(evidence["benchmark"]["median_first_ms"], 100.0);
    assert_eq!(evidence["benchmark"]["median_tokens_per_second"], 64.0);
    assert_eq!(
        evidence["benchmark"]["answers"].as_array().unwrap().len(),
        3
    );
    // The command line first, then the guest; what to accept goes to every step that judges.
    let steps = fs::read_to_string(root.join("steps")).unwrap();
    let steps: Vec<&str> = steps.lines().collect();
    assert_eq!(steps.len(), 2 + 1 + 4, "{steps:?}");
    assert!(steps[0].ends_with("--dry-run") && steps[1].starts_with("run --backend tdx --json"));
    assert_eq!(
        steps[2],
        "verify --json --to tcp://127.0.0.1:18443 --collateral collateral"
    );
    for step in &steps[3..] {
        assert!(
            step.starts_with("chat --json --to tcp://127.0.0.1:18443 "),
            "{step}"
        );
        assert!(step.ends_with("--collateral collateral"), "{step}");
    }
}

#[test]
fn a_refusal_decides_the_exit_code() {
    for refusal in [20, 21, 22, 30] {
        let root = host(&format!("report-{refusal}"));
        answer_for(&root, &format!("echo no >&2; exit {refusal}"), "exit 99");
        let (code, evidence, words) = report(&root, 18443);
        assert_eq!(code, refusal, "{words}");
        assert_eq!(evidence["verification"]["exit_code"], refusal);
        assert_eq!(evidence["verification"]["words"], "no");
        assert!(evidence["benchmark"].is_null());
    }
}

#[test]
fn an_answer_that_breaks_off_ends_the_benchmark() {
    let root = host("report-broken");
    answer_for(
        &root,
        "echo '{}'",
        "echo 'the connection broke' >&2; exit 30",
    );
    let (code, evidence, words) = report(&root, 18443);
    assert_eq!(code, 1, "{words}");
    assert_eq!(evidence["stopped"]["step"], "benchmark");
    assert_eq!(evidence["stopped"]["reason"], "the connection broke");
}

#[test]
fn a_machine_that_cannot_is_reported_without_a_boot() {
    let root = host("report-machine");
    fs::remove_dir_all(root.join("sys/module")).unwrap();
    let (code, evidence, words) = report(&root, 1);
    assert_eq!(code, 1, "{words}");
    assert_eq!(evidence["stopped"]["step"], "doctor");
    assert_eq!(evidence["doctor"]["usable"], false);
    assert!(evidence["ready"].is_null() && !root.join("arguments").exists());
}

#[test]
fn a_guest_that_fails_is_reported_with_its_console() {
    let root = host("report-failure");
    qemu(
        &root,
        "10.1.0",
        "tdx-guest",
        "vitrine: failed: the weights end early",
    );
    let (code, evidence, words) = report(&root, 1);
    assert_eq!(code, 1, "{words}");
    assert_eq!(evidence["stopped"]["step"], "run");
    assert!(
        evidence["console"]
            .to_string()
            .contains("the weights end early")
    );
    assert!(evidence["verification"].is_null());
}

#[test]
fn a_file_that_is_no_image_is_named() {
    let root = host("report-image");
    fs::write(root.join("vitrine.fd"), vec![0; 65_536]).unwrap();
    let (code, evidence, words) = report(&root, 1);
    assert_eq!(code, 2, "{words}");
    assert_eq!(evidence["stopped"]["step"], "measure");
    assert!(words.contains("vitrine.fd"), "{words}");
}
