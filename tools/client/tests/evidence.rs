//! What a client sends, and to whom: a trust domain under a test root, honest and not, behind real TLS.

#[path = "../../verifier/tests/common/domain.rs"]
#[allow(dead_code)] // Made for the verifier's own tests.
mod domain;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use attestation::challenge::{Answer, Challenge, EXPORTER_LABEL, Purpose, Role, tree};
use attestation::claims::Model;
use attestation::provisioning::{Endorsement, PublicKey, session_message};
use attestation::report_data::ReportData;
use client::{Address, Connector, Error, Judge, Options, Request, Trust};
use domain::{Domain, collateral, pins, verifier};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use verifier::{Code, Collateral, Scope, Verifier, date};

/// What a server does with a challenge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// Asks to come again once, then is honest.
    Busy,
    /// Answers with what it would answer on another connection.
    Relaying,
    /// Answers what it was asked before.
    Replaying,
    /// Says that it has no evidence.
    Silent,
    /// Says nothing.
    Hanging,
    /// Shows the domain's certificate and has another key.
    Impostor,
}

/// A domain that serves, and remembers what it was asked.
struct Server {
    domain: Domain,
    conduct: Conduct,
    requests: Mutex<Vec<String>>,
}

impl Server {
    /// Gives its address.
    fn start(domain: Domain, conduct: Conduct) -> (Arc<Self>, Address) {
        let certificate = CertificateDer::from(domain.certificate());
        let key = match conduct {
            Conduct::Impostor => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            _ => KeyPair::try_from(domain.key.serialize_der()).unwrap(),
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = provider::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key)).unwrap();
        let certified = CertifiedKey::new(vec![certificate.clone()], key);
        let tls = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        let (tls, listener) = (Arc::new(tls), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self {
            domain,
            conduct,
            requests: Mutex::default(),
        });
        let served = Arc::clone(&server);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                while served.answer(&mut stream, &certificate).is_some() {}
            }
        });
        (server, address.parse().unwrap())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn answer(
        &self,
        stream: &mut StreamOwned<ServerConnection, impl Read + Write>,
        certificate: &[u8],
    ) -> Option<()> {
        let (line, body) = read_request(stream)?;
        let count = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(line.clone());
            requests.len()
        };
        let (status, body) = match (line.as_str(), self.conduct) {
            ("POST /attestation HTTP/1.1", Conduct::Silent) => (501, b"{}".to_vec()),
            ("POST /attestation HTTP/1.1", Conduct::Hanging) => loop {
                thread::park();
            },
            ("POST /attestation HTTP/1.1", Conduct::Busy) if count == 1 => (503, b"{}".to_vec()),
            ("POST /attestation HTTP/1.1", conduct) => {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                let purpose = match body["purpose"].as_str() {
                    Some("session") => Purpose::Session,
                    Some("key-release") => Purpose::KeyRelease,
                    other => panic!("{other:?}"),
                };
                let text = body["nonce"].as_str().unwrap();
                let mut nonce = [0; 32];
                for (byte, digits) in nonce.iter_mut().zip(text.as_bytes().chunks(2)) {
                    *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
                }
                if conduct == Conduct::Replaying {
                    nonce[0] ^= 1;
                }
                let connection = &stream.conn;
                let exported = connection.export_keying_material(
                    [0; 32],
                    EXPORTER_LABEL.as_bytes(),
                    Some(&nonce),
                );
                let exporter = match conduct {
                    Conduct::Relaying => [7; 32],
                    _ => exported.unwrap(),
                };
                (200, self.fresh(certificate, purpose, nonce, exporter))
            }
            ("GET /endorsement HTTP/1.1", _) => (200, self.endorsement()),
            _ => (200, b"{\"state\":\"ready\"}".to_vec()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
        stream.flush().ok()
    }

    fn fresh(
        &self,
        certificate: &[u8],
        purpose: Purpose,
        nonce: [u8; 32],
        exporter: [u8; 32],
    ) -> Vec<u8> {
        let challenge = Challenge {
            purpose,
            role: Role::Server,
            nonce,
            certificate: attestation::sha384(certificate),
            exporter,
            fingerprint: self.domain.claims.fingerprint,
        };
        let (root, mut paths) = tree(&[challenge.leaf()]).unwrap();
        let bound = ReportData::challenges(purpose, &root);
        let answer = Answer {
            quote: self.domain.quote(*bound.as_bytes()),
            path: paths.remove(0),
        };
        answer.encode()
    }
}

impl Server {
    /// The word of the domain's owner, and of its long-lived key.
    fn endorsement(&self) -> Vec<u8> {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let session = session_message(&self.domain.key.subject_public_key_info());
        let endorsement = Endorsement {
            boot: self.domain.claims.boot,
            public_key: attestation::sha384(&key.subject_public_key_info()),
            model: domain::model().sealed.unwrap(),
            not_after: domain::NOW,
        };
        let body = serde_json::json!({
            "public_key": hex(&key.subject_public_key_info()),
            "session_signature": hex(&key.sign(&session).unwrap()),
            "endorsement": {
                "not_after": endorsement.not_after,
                "signature": hex(owner().sign(&endorsement.message()).as_ref()),
            },
        });
        body.to_string().into_bytes()
    }
}

/// The owner of the domains here.
fn owner() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn read_request(stream: &mut impl Read) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let line = head.lines().next().unwrap().to_owned();
    Some((line, String::from_utf8(body).unwrap()))
}

/// Judges at the time and under the pins of the domain's making.
struct Pins(Scope);

impl Judge for Pins {
    fn verifier(&self) -> Verifier {
        Verifier {
            scope: self.0,
            ..verifier(pins())
        }
    }

    fn collateral(&self, _quote: &[u8]) -> Result<Collateral, Code> {
        Ok(collateral())
    }
}

/// The same, an hour later.
struct Late;

impl Judge for Late {
    fn verifier(&self) -> Verifier {
        Verifier {
            now: domain::NOW + 3600,
            ..verifier(pins())
        }
    }

    fn collateral(&self, _quote: &[u8]) -> Result<Collateral, Code> {
        Ok(collateral())
    }
}

/// The same, and demands an owner's word.
struct Owned(PublicKey);

impl Judge for Owned {
    fn verifier(&self) -> Verifier {
        verifier(pins())
    }

    fn collateral(&self, _quote: &[u8]) -> Result<Collateral, Code> {
        Ok(collateral())
    }

    fn owner(&self) -> Option<PublicKey> {
        Some(self.0)
    }
}

fn connector() -> Connector {
    connector_for(Scope::Everything)
}

fn connector_for(scope: Scope) -> Connector {
    Connector::new(Options::new(Trust::Evidence(Arc::new(Pins(scope))))).unwrap()
}

/// The first finding of a refusal.
fn finding(address: &Address) -> Code {
    finding_of(&connector(), address)
}

fn finding_of(connector: &Connector, address: &Address) -> Code {
    match connector.connect(address).map(|_| ()) {
        Err(Error::Untrusted(reports)) => reports.last().unwrap().findings[0],
        other => panic!("{other:?}"),
    }
}

const CHALLENGE: &str = "POST /attestation HTTP/1.1";

#[test]
fn an_honest_domain_is_asked_after_it_has_proved_itself() {
    for (conduct, challenges) in [(Conduct::Honest, 1), (Conduct::Busy, 2)] {
        let (server, address) = Server::start(Domain::new(), conduct);
        let session = connector().connect(&address).unwrap();
        assert_eq!(server.requests(), vec![CHALLENGE; challenges]);
        let proof = session.proof().unwrap();
        assert_eq!(proof.evidence.claims, server.domain.claims);
        assert_eq!(proof.validity, (domain::NOW - 60, domain::NOW + 600));
        // As if it had been made two minutes after its first second: a third before the end.
        let renewal = proof.term().renewal.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(renewal.as_secs(), domain::NOW + 600 - 180);
        assert_eq!(proof.term().end, None);
        let response = session.request(&Request::get("/health")).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(server.requests().last().unwrap(), "GET /health HTTP/1.1");
    }
}

#[test]
fn evidence_of_another_moment_or_connection_is_refused() {
    for conduct in [Conduct::Relaying, Conduct::Replaying] {
        let (server, address) = Server::start(Domain::new(), conduct);
        assert_eq!(finding(&address), Code::NotFresh);
        assert_eq!(server.requests(), [CHALLENGE]);
    }
}

#[test]
fn a_key_goes_only_where_no_model_is_yet() {
    let sealed = || Domain::with_model(Model::None);
    let release = connector_for(Scope::KeyRelease);
    let (server, address) = Server::start(sealed(), Conduct::Honest);
    release.connect(&address).unwrap();
    assert_eq!(server.requests(), [CHALLENGE]);
    assert_eq!(finding(&address), Code::ModelMismatch);
    let (_, open) = Server::start(Domain::new(), Conduct::Honest);
    assert_eq!(finding_of(&release, &open), Code::ModelMismatch);
    let (_, relayed) = Server::start(sealed(), Conduct::Relaying);
    assert_eq!(finding_of(&release, &relayed), Code::NotFresh);
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let (server, address) = Server::start(Domain::new(), Conduct::Impostor);
    assert_eq!(finding(&address), Code::HandshakeSignature);
    assert!(server.requests().is_empty());
}

#[test]
fn an_owner_s_word_is_a_second_leg() {
    let demanding =
        |key| Connector::new(Options::new(Trust::Evidence(Arc::new(Owned(key))))).unwrap();
    let owner = owner().public_key().as_ref().try_into().unwrap();
    let (server, address) = Server::start(Domain::new(), Conduct::Honest);
    let session = demanding(owner).connect(&address).unwrap();
    assert_eq!(server.requests(), [CHALLENGE, "GET /endorsement HTTP/1.1"]);
    let reports = &session.proof().unwrap().reports;
    assert_eq!(reports.len(), 3);
    assert_eq!(reports[2].checks[0].name, "owner's endorsement");
    let end = session.proof().unwrap().term().end.unwrap();
    let end = end.duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(end.as_secs(), domain::NOW);
    drop(session);
    let found = finding_of(&demanding([1; 32]), &address);
    assert_eq!(found, Code::EndorsementSignature);
    // The owner's word does not make up for evidence.
    let (server, relayed) = Server::start(Domain::new(), Conduct::Relaying);
    assert_eq!(finding_of(&demanding(owner), &relayed), Code::NotFresh);
    assert_eq!(server.requests(), [CHALLENGE]);
}

#[test]
fn a_domain_without_fresh_evidence_is_refused() {
    let (server, address) = Server::start(Domain::new(), Conduct::Silent);
    assert_eq!(finding(&address), Code::AnswerMissing);
    assert_eq!(server.requests(), [CHALLENGE]);
}

#[test]
fn a_domain_that_says_nothing_is_given_up_long_before_an_answer_is() {
    let (server, address) = Server::start(Domain::new(), Conduct::Hanging);
    let mut options = Options::new(Trust::Evidence(Arc::new(Pins(Scope::Everything))));
    options.proof_timeout = Duration::from_millis(300);
    let outcome = Connector::new(options).unwrap().connect(&address);
    let error = outcome.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Timeout(after) if after < Duration::from_secs(1)));
    assert_eq!(server.requests(), [CHALLENGE]);
}

#[test]
fn a_refusal_says_what_was_expected_and_found() {
    let (_, address) = Server::start(Domain::new(), Conduct::Honest);
    let late = Trust::Evidence(Arc::new(Late));
    let connector = Connector::new(Options::new(late)).unwrap();
    let words = connector
        .connect(&address)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        words.contains("evidence-mismatch, server-clock-skew"),
        "{words}"
    );
    // Both times: the client's, and the certificate's last second.
    for moment in [domain::NOW + 3600, domain::NOW + 600] {
        assert!(words.contains(&date::format(moment)), "{words}");
    }
}

#[test]
fn a_domain_that_is_not_the_pinned_one_is_not_even_challenged() {
    let mut other = Domain::new();
    other.registers.mrtd = [0x55; 48];
    other.claims.platform = other.registers.digest();
    let public_key = {
        use rcgen::PublicKeyData;
        other.key.subject_public_key_info()
    };
    other.claims.fingerprint =
        attestation::fingerprint::fingerprint(&other.registers, &other.claims.model, &public_key);
    let (server, address) = Server::start(other, Conduct::Honest);
    let error = connector().connect(&address).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Untrusted(_)), "{error}");
    assert!(server.requests().is_empty());
}
