//! Clients and parsers somebody else wrote: OpenSSL and curl.

mod common;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use common::Running;

/// The program, if it is installed; otherwise the test is skipped, or fails where skipping is not
/// allowed.
fn oracle(name: &str) -> Option<Command> {
    let found = Command::new(name)
        .arg("version")
        .stdin(Stdio::null())
        .output();
    if found.is_ok() {
        return Some(Command::new(name));
    }
    assert!(
        std::env::var_os("VITRINE_REQUIRE_ORACLES").is_none_or(|value| value != "1"),
        "{name} is not installed"
    );
    eprintln!("SKIPPED: {name} is not installed");
    None
}

/// The server's certificate in a PEM file of its own, made by OpenSSL and removed at the end.
struct CertificateFile(PathBuf);

impl CertificateFile {
    fn new(server: &Running, test: &str) -> Self {
        let name = format!("vitrine-{}-{test}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-inform", "DER", "-out"]).arg(&path);
        let (success, text) = output(&mut convert, &server.certificate);
        assert!(success, "{text}");
        Self(path)
    }
}

impl Drop for CertificateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn output(command: &mut Command, input: &[u8]) -> (bool, String) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("a child process");
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(input)
        .expect("writable input");
    let output = child.wait_with_output().expect("its output");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn openssl_parses_the_certificate() {
    let Some(mut openssl) = oracle("openssl") else {
        return;
    };
    let server = Running::ready();
    let file = CertificateFile::new(&server, "parse");
    openssl
        .args(["x509", "-noout", "-text", "-in"])
        .arg(&file.0);
    let (success, text) = output(&mut openssl, b"");
    assert!(success, "{text}");
    for expected in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: CN = vitrine",
        "Subject: CN = vitrine",
        "NIST CURVE: P-256",
        "DNS:vitrine, DNS:localhost",
        "CA:FALSE",
        "Digital Signature",
        "TLS Web Server Authentication",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
    let mut verify = oracle("openssl").expect("it was there");
    verify.args([
        "verify",
        "-check_ss_sig",
        "-purpose",
        "sslserver",
        "-CAfile",
    ]);
    let (success, text) = output(verify.arg(&file.0).arg(&file.0), b"");
    assert!(success, "{text}");
}

#[test]
fn openssl_handshakes_and_gets_an_answer() {
    let Some(mut openssl) = oracle("openssl") else {
        return;
    };
    let server = Running::ready();
    let file = CertificateFile::new(&server, "handshake");
    openssl.args([
        "s_client",
        "-ign_eof",
        "-verify_return_error",
        "-verify_hostname",
        "localhost",
    ]);
    openssl.args(["-CAfile"]).arg(&file.0);
    openssl.args(["-connect", &server.address.to_string()]);
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (success, text) = output(&mut openssl, request);
    assert!(success, "{text}");
    for expected in [
        "TLSv1.3",
        "Verification: OK",
        "HTTP/1.1 200 OK",
        "\"state\":\"ready\"",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
    assert!(!text.contains("New Session Ticket"), "{text}");
    assert!(text.contains("closed"), "{text}");
}

#[test]
fn openssl_cannot_have_an_older_version() {
    let Some(mut openssl) = oracle("openssl") else {
        return;
    };
    let server = Running::ready();
    openssl.args([
        "s_client",
        "-tls1_2",
        "-connect",
        &server.address.to_string(),
    ]);
    let (success, text) = output(&mut openssl, b"");
    assert!(!success && text.contains("protocol version"), "{text}");
}

#[test]
fn openssl_is_asked_for_another_key_share() {
    let Some(mut openssl) = oracle("openssl") else {
        return;
    };
    let server = Running::ready();
    openssl.args(["s_client", "-ign_eof", "-groups", "P-384:P-256"]);
    openssl.args(["-connect", &server.address.to_string()]);
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (_, text) = output(&mut openssl, request);
    for expected in ["ECDH, prime256v1, 256 bits", "HTTP/1.1 200 OK"] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}

#[test]
fn curl_chats() {
    let Some(mut curl) = oracle("curl") else {
        return;
    };
    let server = Running::ready();
    let url = format!("https://{}/v1/chat/completions", server.address);
    let body = r#"{"messages":[{"role":"user","content":"abc"}]}"#;
    curl.args([
        "-sSk",
        "--fail",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
        &url,
    ]);
    let (success, text) = output(&mut curl, b"");
    assert!(success && text.contains(r#""content":"cba""#), "{text}");

    let mut curl = oracle("curl").expect("it was there");
    let body = body.replace("}]}", "}],\"stream\":true}");
    curl.args([
        "-sSkN",
        "--fail",
        "-H",
        "Content-Type: application/json",
        "-d",
        &body,
        &url,
    ]);
    let (success, text) = output(&mut curl, b"");
    assert!(
        success && text.trim_end().ends_with("data: [DONE]"),
        "{text}"
    );
    assert_eq!(text.matches("data: ").count(), 6);
}

#[test]
fn curl_sends_a_long_body_after_100_continue() {
    let Some(mut curl) = oracle("curl") else {
        return;
    };
    let server = Running::ready();
    let url = format!("https://{}/v1/completions", server.address);
    let body = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(200_000));
    curl.args([
        "-sSk",
        "-H",
        "Expect: 100-continue",
        "-H",
        "Content-Type: application/json",
    ]);
    let (_, text) = output(curl.args(["--data-binary", "@-", &url]), body.as_bytes());
    assert!(text.contains("context_length_exceeded"), "{text}");
}
