//! Servers, judged over TLS: by their certificate, and by the answer to a challenge on the connection.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use attestation::challenge::{Answer, Challenge, EXPORTER_LABEL, Purpose, Role, tree};
use attestation::report_data::ReportData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::common::domain::Domain;
use crate::support::{Files, verify};

/// How a server takes a challenge.
#[derive(Clone, Copy)]
enum Conduct {
    Answers,
    /// Answers for another nonce.
    Replays,
    /// Says that it cannot.
    Refuses,
}

/// A TLS server with this certificate and key, that can do nothing but answer challenges, with quotes of this domain.
fn server(certificate: Vec<u8>, key: Vec<u8>, domain: Domain, conduct: Conduct) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate.clone())], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let Some(nonce) = challenge(&mut stream) else {
                continue;
            };
            let (status, body) = match conduct {
                Conduct::Refuses => (501, Vec::new()),
                _ => (
                    200,
                    answer(&domain, &certificate, &stream.conn, nonce, conduct),
                ),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            let _ = stream.flush();
        }
    });
    address
}

/// The nonce of the challenge that a client sends; `None` if it sends nothing.
fn challenge(stream: &mut impl Read) -> Option<[u8; 32]> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"}") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("POST /attestation "), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let digits = body["nonce"].as_str().unwrap();
    let bytes = (0..32).map(|index| u8::from_str_radix(&digits[2 * index..][..2], 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().ok()
}

fn answer(
    domain: &Domain,
    certificate: &[u8],
    connection: &ServerConnection,
    mut nonce: [u8; 32],
    conduct: Conduct,
) -> Vec<u8> {
    if let Conduct::Replays = conduct {
        nonce[0] ^= 1;
    }
    let exporter = connection
        .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&nonce))
        .unwrap();
    let challenge = Challenge {
        purpose: Purpose::Session,
        role: Role::Server,
        nonce,
        certificate: attestation::sha384(certificate),
        exporter,
        fingerprint: domain.claims.fingerprint,
    };
    let (root, mut paths) = tree(&[challenge.leaf()]).unwrap();
    let bound = ReportData::challenges(Purpose::Session, &root);
    let answer = Answer {
        quote: domain.quote(*bound.as_bytes()),
        path: paths.remove(0),
    };
    answer.encode()
}

#[test]
fn servers_are_judged_by_certificate_and_challenge() {
    for (conduct, code, finding) in [
        (Conduct::Answers, 0, Value::Null),
        (Conduct::Replays, 21, "not-fresh".into()),
        (Conduct::Refuses, 23, "answer-missing".into()),
    ] {
        let files = Files::new("server");
        let domain = Domain::new();
        let (certificate, key) = (domain.certificate(), domain.key.serialize_der());
        let address = server(certificate, key, domain, conduct);
        let to = ["--to", &*address, "--collateral", &files.collateral];
        let (found, report, words) = files.run(&[&to[..], &files.pins()].concat());
        assert_eq!(
            (found, &report["code"]),
            (code, &finding),
            "{report} {words}"
        );
        let checks = report["checks"].as_array().unwrap();
        assert!(checks.iter().any(|check| check["check"] == "challenge"));
        // The platform alone is judged without a challenge, and what was not named is not accepted.
        let (found, report, _) = files.run(&[&to[..], &["--platform-only"]].concat());
        assert_eq!((found, &report["verdict"]), (0, &"platform-genuine".into()));
        let (found, report, _) = files.run(&to);
        assert_eq!((found, &report["code"]), (22, &"manifest-missing".into()));
    }
}

#[test]
fn servers_without_evidence_or_without_anyone() {
    let files = Files::new("plain-server");
    let plain = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
    let certificate = plain.cert.der().to_vec();
    let key = plain.signing_key.serialize_der();
    let address = server(certificate, key, Domain::new(), Conduct::Answers);
    let to = ["--to", &*address, "--collateral", &files.collateral];
    let (code, report, _) = files.run(&to);
    assert_eq!((code, &report["verdict"]), (23, &"no-evidence".into()));
    assert_eq!(report["code"], "evidence-missing");

    let output = verify(&files.home, &["--to", "tcp://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(30));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_service_that_cannot_be_reached_is_a_failed_connection() {
    let files = Files::new("server-without-service");
    let (certificate, key) = (files.domain.certificate(), files.domain.key.serialize_der());
    let address = server(certificate, key, Domain::new(), Conduct::Answers);
    let arguments = ["--to", &*address, "--collateral", "http://127.0.0.1:1"];
    let output = verify(&files.home, &arguments);
    assert_eq!(output.status.code(), Some(30));
}
