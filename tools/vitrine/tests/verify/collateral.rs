//! Where collateral comes from: a service, and what was kept of its answers.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::common::domain::{NOW, pki};
use crate::support::{Files, json, verify};

/// A service that speaks Intel's protocol and has the collateral of the test PKI. Counts what it is asked.
fn service(asked: &'static AtomicUsize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let evidence = pki().scenario(NOW).unwrap().build().unwrap().collateral;
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let encode = |pem: &str| {
        pem.replace('\n', "%0A")
            .replace(' ', "%20")
            .replace('+', "%2B")
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut request).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            asked.fetch_add(1, SeqCst);
            let path = request.split(' ').nth(1).unwrap();
            let (header, body) = match path.split('?').next().unwrap() {
                "/tdx/certification/v4/tcb" => {
                    assert!(path.ends_with("?fmspc=565445535400"), "{path}");
                    let signature = hex(&evidence.tcb_info_signature);
                    let body = format!(
                        "{{\"tcbInfo\":{},\"signature\":\"{signature}\"}}",
                        evidence.tcb_info
                    );
                    (
                        format!(
                            "TCB-Info-Issuer-Chain: {}\r\n",
                            encode(&evidence.tcb_info_issuer_chain)
                        ),
                        body.into_bytes(),
                    )
                }
                "/tdx/certification/v4/qe/identity" => {
                    let signature = hex(&evidence.qe_identity_signature);
                    let body = format!(
                        "{{\"enclaveIdentity\":{},\"signature\":\"{signature}\"}}",
                        evidence.qe_identity
                    );
                    let chain = encode(&evidence.qe_identity_issuer_chain);
                    (
                        format!("SGX-Enclave-Identity-Issuer-Chain: {chain}\r\n"),
                        body.into_bytes(),
                    )
                }
                "/sgx/certification/v4/pckcrl" => {
                    assert!(path.contains("ca=platform"), "{path}");
                    let chain = encode(&evidence.pck_crl_issuer_chain);
                    (
                        format!("SGX-PCK-CRL-Issuer-Chain: {chain}\r\n"),
                        evidence.pck_crl.clone(),
                    )
                }
                // As caches answer: in hexadecimal.
                "/sgx/certification/v4/rootcacrl" => {
                    (String::new(), hex(&evidence.root_ca_crl).into_bytes())
                }
                other => panic!("{other}"),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\n{header}Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream
                .write_all(&[head.as_bytes(), &body].concat())
                .unwrap();
        }
    });
    base
}

#[test]
fn collateral_comes_from_a_service_once() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let files = Files::new("service");
    let base = service(&ASKED);
    let arguments = [
        "--platform-only",
        "--cert",
        &files.certificate,
        "--collateral",
        &base,
    ];
    let (code, report, words) = files.run(&arguments);
    assert_eq!(
        (code, &report["verdict"]),
        (0, &"platform-genuine".into()),
        "{report} {words}"
    );
    assert_eq!(ASKED.load(SeqCst), 4);
    // The copy is used, and asked for anew when it has expired.
    assert_eq!(files.run(&arguments).0, 0);
    assert_eq!(ASKED.load(SeqCst), 4);
    let later = (NOW + 40 * 24 * 3600).to_string();
    let (code, report, _) = json(
        &files.home,
        &[
            &arguments[..],
            &["--test-root", &files.root, "--at", &later],
        ]
        .concat(),
    );
    assert_eq!((code, &report["code"]), (20, &"collateral-expired".into()));
    assert_eq!(ASKED.load(SeqCst), 8);
    // A service that is not there; a copy that has not expired will do.
    let cache = files.home.join(".cache/vitrine/collateral");
    let copy = fs::read_dir(&cache)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let name = copy.file_name().unwrap().to_string_lossy().into_owned();
    let port = base.rsplit(':').next().unwrap();
    fs::copy(&copy, cache.join(name.replace(port, "1"))).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(cache.join(name.replace(port, "1")))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let gone = [
        "--platform-only",
        "--cert",
        &files.certificate,
        "--collateral",
        "http://127.0.0.1:1",
    ];
    let (code, _, words) = files.run(&gone);
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("warning"), "{words}");
    fs::remove_dir_all(cache).unwrap();
    let output = verify(&files.home, &gone);
    assert_eq!(output.status.code(), Some(30));
}

#[test]
fn a_service_without_collateral_for_a_platform_is_not_one_that_is_down() {
    let files = Files::new("service-without");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let answer =
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).unwrap();
        }
    });
    let evidence = ["--cert", &*files.certificate, "--collateral", &base];
    let (code, report, _) = files.run(&evidence);
    assert_eq!((code, &report["code"]), (20, &"collateral-missing".into()));
    assert_eq!(report["measurements"], serde_json::json!({}));
}
