//! `vitrine verify` as its users see it: verdicts, exit codes, JSON, and where collateral comes from.

#[path = "../../verifier/tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use common::domain::{CONFIGURATION, Domain, NOW, manifest, pki};
use common::genuine_cases;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;

/// A directory of a test's own, which is also the home of what it runs.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("verify")
        .join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn verify(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .arg("verify")
        .args(arguments)
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_CACHE_HOME")
        .output()
        .unwrap()
}

/// The exit code, the JSON and the words on stderr.
fn json(home: &Path, arguments: &[&str]) -> (i32, Value, String) {
    let output = verify(home, &[arguments, &["--json"]].concat());
    let words = String::from_utf8(output.stderr).unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{words}"));
    (output.status.code().unwrap(), value, words)
}

fn write(directory: &Path, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    fs::write(&path, contents).unwrap();
    path.display().to_string()
}

/// Files of a sound domain under the test root, and the options that accept it.
struct Files {
    home: PathBuf,
    domain: Domain,
    certificate: String,
    root: String,
    collateral: String,
    manifest: String,
}

const DIGEST: &str = "0808080808080808080808080808080808080808080808080808080808080808";

impl Files {
    fn new(name: &str) -> Self {
        let home = directory(name);
        let domain = Domain::new();
        let evidence = pki().scenario(NOW).unwrap().build().unwrap();
        Self {
            certificate: write(&home, "server.der", domain.certificate()),
            root: write(&home, "root.pem", pki().root_pem()),
            collateral: write(&home, "collateral.json", evidence.collateral.to_json()),
            manifest: write(&home, "vitrine.json", manifest().encode()),
            domain,
            home,
        }
    }

    fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        let now = NOW.to_string();
        let common = ["--test-root", &self.root, "--at", &now];
        json(&self.home, &[&common, arguments].concat())
    }

    /// What accepts the domain, but for where collateral and evidence come from.
    fn pins(&self) -> [&str; 4] {
        ["--manifest", &self.manifest, "--model-digest", DIGEST]
    }
}

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

/// A TLS server with this certificate, which answers nothing.
fn server(certificate: Vec<u8>, key: Vec<u8>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate)], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let _ = connection.complete_io(&mut stream.unwrap());
        }
    });
    address
}

#[test]
fn servers_are_judged_by_their_certificates() {
    let files = Files::new("server");
    let address = server(files.domain.certificate(), files.domain.key.serialize_der());
    let to = ["--to", &*address, "--collateral", &files.collateral];
    let (code, report, _) = files.run(&[&to[..], &files.pins()].concat());
    assert_eq!(
        (code, &report["verdict"]),
        (0, &"accepted".into()),
        "{report}"
    );

    let plain = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
    let address = server(plain.cert.der().to_vec(), plain.signing_key.serialize_der());
    let (code, report, _) = files.run(&["--to", &address, "--collateral", &files.collateral]);
    assert_eq!((code, &report["verdict"]), (23, &"no-evidence".into()));
    assert_eq!(report["code"], "evidence-missing");

    let output = verify(&files.home, &["--to", "tcp://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(30));
}

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
    fs::write(&mark, "soon\n").unwrap();
    let output = verify(&home, &arguments);
    assert_eq!(output.status.code(), Some(2));
}
