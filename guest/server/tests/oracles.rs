//! Clients and parsers somebody else wrote: OpenSSL, curl, ciborium.

mod common;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use ciborium::Value;
use common::{Domain, Running, Script, Watch, eventually};

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

/// What CBOR says, whole.
fn cbor(mut bytes: &[u8]) -> Value {
    let value = ciborium::from_reader(&mut bytes).expect("CBOR");
    assert!(bytes.is_empty(), "something follows");
    value
}

#[test]
fn openssl_finds_the_evidence_and_ciborium_reads_it() {
    const EXTENSION: &str = "2.23.133.5.4.9";
    let Some(mut x509) = oracle("openssl") else {
        return;
    };
    let watch = Watch::default();
    let engine = common::engine(Script::default(), &watch);
    let server = Running::start_in(Some(Domain::default()), "", watch, move || Some(engine));
    let mut text = String::new();
    let mut certificate = Vec::new();
    x509.args(["x509", "-inform", "DER", "-noout", "-text"]);
    eventually("a certificate with evidence", || {
        certificate = server.connect_to_anybody().certificate();
        let (success, shown) = output(&mut x509, &certificate);
        assert!(success, "{shown}");
        text = shown;
        text.contains(EXTENSION)
    });
    let line = text.lines().find(|line| line.contains(EXTENSION));
    assert!(!line.unwrap().contains("critical"), "{text}");

    let mut parse = oracle("openssl").expect("it was there");
    let (success, parsed) = output(parse.args(["asn1parse", "-inform", "DER"]), &certificate);
    assert!(success, "{parsed}");
    let mut lines = parsed.lines().skip_while(|line| !line.contains(EXTENSION));
    let dump = lines.nth(1).and_then(|line| line.split_once("[HEX DUMP]:"));
    let digits = dump.expect("an octet string and nothing in between").1;
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
    let value: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();

    let Value::Tag(60000, evidence) = cbor(&value) else {
        panic!("tag 60000");
    };
    let evidence = evidence.into_array().expect("quote and claims");
    assert!(evidence.len() == 2 && evidence[0].is_bytes());
    let claims_buffer = cbor(evidence[1].as_bytes().expect("bytes"));
    let entries = claims_buffer.into_map().expect("a map");
    let entry = |name: &str| {
        let entry = entries.iter().find(|(key, _)| key.as_text() == Some(name));
        cbor(entry.unwrap().1.as_bytes().expect("bytes in bytes"))
    };
    let hash = entry("pubkey-hash").into_array().expect("an array");
    assert_eq!(hash[0], Value::from(7));
    assert_eq!(hash[1].as_bytes().map(Vec::len), Some(48));
    let claims = entry("vitrine.v1").into_map().expect("a map");
    let keys: Vec<_> = claims.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, (1..=8).map(Value::from).collect::<Vec<_>>());
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
