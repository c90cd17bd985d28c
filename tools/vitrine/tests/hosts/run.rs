//! `vitrine run --backend tdx` against a QEMU that only records its command line, and a quote generation service on a Unix socket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{arguments, fake_qemu, place, program, quote_service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tdx::quote::Body;
use testpki::{authenticate, qgs};

/// `vitrine run --backend tdx` with these more arguments.
fn command(directory: &Path, qemu: &Path, more: &[&str]) -> Command {
    for (name, bytes) in [
        ("vitrine.fd", 65_536),
        ("model.gguf", 1234),
        ("config.toml", 7),
    ] {
        fs::write(directory.join(name), vec![b'#'; bytes]).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
    command
        .current_dir(directory)
        .env("VITRINE_QEMU", qemu)
        .args(["run", "--backend", "tdx", "--image", "vitrine.fd"])
        .args(more);
    command
}

fn output(directory: &Path, qemu: &Path, more: &[&str]) -> Output {
    command(directory, qemu, more).output().unwrap()
}

/// Waits for the guest to be ready; what is printed then.
fn wait_ready(run: &mut Child) -> Value {
    let mut line = String::new();
    let mut stdout = BufReader::new(run.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Ends `vitrine run` as Ctrl-C does; its exit code.
fn interrupt(mut run: Child) -> Option<i32> {
    let process = Pid::from_raw(i32::try_from(run.id()).unwrap());
    kill(process, Signal::SIGINT).unwrap();
    run.wait().unwrap().code()
}

#[test]
fn qemu_gets_exactly_the_documented_command_line_and_its_quotes_work() {
    let directory = place("tdx-run");
    let socket = directory.join("qgs.socket");
    let pki = quote_service(&socket);
    let qemu = fake_qemu(&directory);
    let service = format!("unix:{}", socket.display());
    let mut run = command(
        &directory,
        &qemu,
        &[
            "--model",
            "model.gguf",
            "--config",
            "config.toml",
            "--cpus",
            "16",
            "--memory",
            "64G",
            "--vsock-cid",
            "10",
            "--quote-service",
            &service,
            "--json",
        ],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let ready = wait_ready(&mut run);
    assert_eq!(ready["backend"], "tdx");
    assert_eq!(ready["accelerator"], "kvm");
    assert_eq!(ready["addresses"], serde_json::json!(["vsock://10:8443"]));

    let arguments = arguments(&directory);
    let object = format!(
        r#"{{"qom-type":"tdx-guest","id":"tdx0","quote-generation-socket":{{"type":"unix","path":"{}"}}}}"#,
        socket.display()
    );
    assert_eq!(
        arguments,
        [
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-object",
            &object,
            "-machine",
            "q35,kernel_irqchip=split,hpet=off,confidential-guest-support=tdx0",
            "-smp",
            "16",
            "-m",
            "65536M",
            "-bios",
            "vitrine.fd",
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
            "-drive",
            "if=none,id=model,format=raw,readonly=on,file=model.gguf",
            "-device",
            "virtio-blk-pci,drive=model,serial=model:1234,disable-legacy=on",
            "-drive",
            "if=none,id=config,format=raw,readonly=on,file=config.toml",
            "-device",
            "virtio-blk-pci,drive=config,serial=config:7,disable-legacy=on",
            "-device",
            "vhost-vsock-pci,guest-cid=10,disable-legacy=on",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ]
    );

    // As QEMU does when the guest asks for a quote.
    let object: Value = serde_json::from_str(&arguments[5]).unwrap();
    let path = object["quote-generation-socket"]["path"].as_str().unwrap();
    let mut report = pki.platform().report();
    report.mac.report_data = [5; 64];
    authenticate(&mut report, pki.report_key());
    let mut connection = UnixStream::connect(path).unwrap();
    let mut ask = |report: &[u8]| {
        qgs::send(&mut connection, &qgs::Request::encode(report)).unwrap();
        qgs::receive(&mut connection).unwrap()
    };
    let answer = ask(report.as_bytes());
    let body = Body::find(qgs::quote(&answer).unwrap()).unwrap();
    assert_eq!(body.compare(&report), Ok(()));
    // A report that the module did not make.
    report.td.mr_td[0] ^= 1;
    let answer = ask(report.as_bytes());
    assert_eq!(qgs::quote(&answer), Err(qgs::NoQuote::Refused(0x12003)));

    assert_eq!(interrupt(run), Some(0));
}

#[test]
fn the_quote_service_may_be_on_vsock() {
    let directory = place("tdx-vsock");
    let more = [
        "--quote-service",
        "vsock://2:4050",
        "--tcp",
        "18443",
        "--dry-run",
    ];
    let output = output(&directory, Path::new("/nonexistent/qemu"), &more);
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    let socket = r#""quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}"#;
    assert!(line.contains(socket), "{line}");
    assert!(line.contains("hostfwd=tcp:127.0.0.1:18443-:8443"), "{line}");
    assert!(!line.contains("isa-debug-exit"), "{line}");
}

#[test]
fn what_a_trust_domain_cannot_have_is_refused_with_a_way_out() {
    let directory = place("tdx-refusals");
    for (more, word) in [
        (&["--accel", "tcg"][..], "--backend qemu"),
        (&["--vsock-uds", "v.sock"], "--vsock-cid"),
        (&["--quote-service", "/run/qgs"], "unix:PATH"),
    ] {
        let output = command(&directory, Path::new("/nonexistent/qemu"), more)
            .env("VITRINE_VHOST_DEVICE_VSOCK", "/nonexistent/device")
            .output()
            .unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains(word), "{words}");
    }
}

#[test]
fn a_host_that_cannot_is_sent_to_the_doctor() {
    let directory = place("tdx-host");
    let qemu = directory.join("qemu");
    program(
        &qemu,
        "echo 'qemu: tdx-guest is not a valid type' >&2\nexit 1",
    );
    let more = [
        "--vsock-cid",
        "10",
        "--quote-service",
        "unix:missing.socket",
    ];
    let output = output(&directory, &qemu, &more);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    for part in [
        "missing.socket is not there",
        "not a valid type",
        "vitrine doctor",
    ] {
        assert!(words.contains(part), "{words}");
    }
}
