//! Evidence: certificates, their rotation, challenges on a connection, and everything a quoting service may do to them.

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{
    Sha384,
    certificate::Evidence,
    challenge::{self, Answer, Challenge, EXPORTER_LABEL, Purpose, Role},
    claims::{Claims, Model},
    fingerprint::fingerprint,
    report_data::ReportData,
    sha384,
};
use common::{Client, Domain, Reply, Running, Script, Watch, eventually, model};
use serde_json::{Value, json};
use server::QuoteError;
use x509_cert::{
    Certificate,
    der::{Decode, Encode, asn1::ObjectIdentifier},
};

/// More than the life of a certificate.
const LONG: Duration = Duration::from_secs(1000);

fn start(domain: &Domain, configuration: &str) -> Running {
    let watch = Watch::default();
    let engine = common::engine(Script::default(), &watch);
    Running::start_in(Some(domain.clone()), configuration, watch, move || {
        Some(engine)
    })
}

/// A connection that shows evidence; new servers take a moment to have any.
fn connect(server: &Running) -> (Client, Shown) {
    let mut connected = None;
    eventually("a certificate with evidence", || {
        let client = server.connect_to_anybody();
        connected = Shown::in_certificate(&client.certificate()).map(|shown| (client, shown));
        connected.is_some()
    });
    connected.unwrap()
}

/// What a certificate shows.
struct Shown {
    certificate: Sha384,
    public_key: Vec<u8>,
    quote: Vec<u8>,
    claims_buffer: Vec<u8>,
    claims: Claims,
    validity: (u64, u64),
}

impl Shown {
    /// None if it has no evidence.
    fn in_certificate(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).expect("a certificate");
        let body = certificate.tbs_certificate();
        let id = ObjectIdentifier::new_unwrap(attestation::certificate::EXTENSION_ID);
        let extensions = body.extensions().expect("extensions");
        let extension = extensions.iter().find(|one| one.extn_id == id)?;
        assert!(!extension.critical);
        let evidence = Evidence::decode(extension.extn_value.as_bytes()).expect("evidence");
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        let validity = body.validity();
        Some(Self {
            certificate: sha384(der),
            public_key: body.subject_public_key_info().to_der().expect("DER"),
            quote: evidence.quote.to_vec(),
            claims_buffer: evidence.claims_buffer.to_vec(),
            claims: Claims::decode(evidence.claims_buffer).expect("claims"),
            validity: (seconds(&validity.not_before), seconds(&validity.not_after)),
        })
    }
}

fn ask(client: &mut Client, nonce: [u8; 32], purpose: &str) -> Reply {
    client.post("/attestation", request(nonce, purpose))
}

fn request(nonce: [u8; 32], purpose: &str) -> String {
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"nonce": nonce, "purpose": purpose}).to_string()
}

/// Whether the reply is an answer to this challenge on this connection.
fn answers(
    reply: &Reply,
    client: &Client,
    shown: &Shown,
    nonce: [u8; 32],
    purpose: Purpose,
) -> bool {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/cbor"))
    );
    let answer = Answer::decode(&reply.body).expect("an answer");
    let challenge = Challenge {
        purpose,
        role: Role::Server,
        nonce,
        certificate: shown.certificate,
        exporter: client.export(EXPORTER_LABEL, &nonce),
        fingerprint: shown.claims.fingerprint,
    };
    let root = challenge::root(&challenge.leaf(), &answer.path);
    Domain::report_data(&answer.quote) == *ReportData::challenges(purpose, &root).as_bytes()
}

#[test]
fn the_certificate_carries_claims_under_a_quote() {
    let domain = Domain::default();
    let server = start(
        &domain,
        "[model]\nname = \"mine\"\nversion = 3\n[trust]\nminimum_tcb_evaluation = 17\n",
    );
    let (_, shown) = connect(&server);
    assert_eq!(
        Domain::report_data(&shown.quote),
        *ReportData::certificate(&shown.claims_buffer).as_bytes()
    );
    let claims = shown.claims;
    let registers = Domain::registers();
    let loaded = Model::Loaded {
        identity: model("mine"),
        version: 3,
    };
    assert_eq!(claims.public_key_hash, sha384(&shown.public_key));
    assert_eq!(claims.platform, registers.digest());
    assert_eq!(claims.compile, Domain::COMPILE);
    assert_eq!(claims.model, loaded);
    assert_eq!(claims.minimum_tcb.evaluation, 17);
    assert_eq!(
        claims.fingerprint,
        fingerprint(&registers, &loaded, &shown.public_key)
    );
    let configuration = String::from_utf8(claims.configuration).unwrap();
    assert!(configuration.contains("model.name=mine\n"));

    let (not_before, not_after) = shown.validity;
    assert_eq!(
        (claims.validity.not_before, claims.validity.not_after),
        shown.validity
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((not_before..not_after).contains(&now));
    assert!(not_after - not_before <= 15 * 60, "a matter of minutes");
}

#[test]
fn without_a_trust_domain_there_is_no_evidence_and_everything_else() {
    let server = Running::ready();
    let mut client = server.connect();
    assert!(Shown::in_certificate(&client.certificate()).is_none());
    let reply = ask(&mut client, [1; 32], "session");
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (501, &"no_evidence".into())
    );
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn certificates_are_replaced_without_disturbing_connections() {
    for domain in [Some(Domain::default()), None] {
        let watch = Watch::default();
        let script = Script {
            endless: true,
            step: Duration::from_millis(1),
            ..Script::default()
        };
        let engine = common::engine(script, &watch);
        let server = Running::start_in(domain.clone(), "", watch, move || Some(engine));
        let old = match domain {
            Some(_) => connect(&server).0,
            None => server.connect_to_anybody(),
        };
        let mut old = old;
        let body = json!({"prompt": "abc", "max_tokens": 1000, "stream": true}).to_string();
        old.send_post("/v1/completions", body);
        old.wait_for(b"data: ");
        // While the quote for the new certificate is being made, everybody goes on with the old one.
        if let Some(domain) = &domain {
            domain.allow(Some(0));
        }
        server.pass(Duration::from_secs(401));
        if let Some(domain) = &domain {
            eventually("a second quote", || domain.requests().len() >= 2);
            let meanwhile = server.connect_to_anybody();
            assert_eq!(meanwhile.certificate(), old.certificate());
            domain.allow(None);
        }
        eventually("another certificate", || {
            server.connect_to_anybody().certificate() != old.certificate()
        });
        let public_key = |der: &[u8]| {
            let certificate = Certificate::from_der(der).unwrap();
            certificate
                .tbs_certificate()
                .subject_public_key_info()
                .to_der()
                .unwrap()
        };
        let new = server.connect_to_anybody();
        assert_ne!(
            public_key(&new.certificate()),
            public_key(&old.certificate())
        );
        old.wait_for(b"data: [DONE]");
        // The old connection is as good as before.
        old.wait_for(b"0\r\n\r\n");
        assert_eq!(old.get("/v1/models").status, 200);
    }
}

#[test]
fn a_challenge_is_answered_for_this_connection_and_no_other() {
    let domain = Domain::default();
    let server = start(&domain, "");
    let (mut client, shown) = connect(&server);
    for (name, purpose) in [
        ("session", Purpose::Session),
        ("key-release", Purpose::KeyRelease),
    ] {
        let reply = ask(&mut client, [7; 32], name);
        assert!(answers(&reply, &client, &shown, [7; 32], purpose));
        assert!(!answers(&reply, &client, &shown, [8; 32], purpose));
        let other_purpose = match purpose {
            Purpose::Session => Purpose::KeyRelease,
            Purpose::KeyRelease => Purpose::Session,
        };
        assert!(!answers(&reply, &client, &shown, [7; 32], other_purpose));
        let (other, other_shown) = connect(&server);
        assert!(!answers(&reply, &other, &other_shown, [7; 32], purpose));
    }
    // The same connection can ask again, and can do everything else.
    assert_eq!(client.get("/v1/models").status, 200);
    let reply = ask(&mut client, [9; 32], "session");
    assert!(answers(&reply, &client, &shown, [9; 32], Purpose::Session));
}

#[test]
fn malformed_challenges_are_refused() {
    let domain = Domain::default();
    let server = start(&domain, "");
    let (mut client, _) = connect(&server);
    let nonce = "00".repeat(32);
    for body in [
        "{}".to_string(),
        "[]".to_string(),
        json!({"nonce": nonce}).to_string(),
        json!({"nonce": nonce, "purpose": "other"}).to_string(),
        json!({"nonce": nonce, "purpose": "session", "report_data": "00"}).to_string(),
        json!({"nonce": &nonce[1..], "purpose": "session"}).to_string(),
        json!({"nonce": format!("{nonce}00"), "purpose": "session"}).to_string(),
        json!({"nonce": nonce.replace('0', "g"), "purpose": "session"}).to_string(),
        json!({"nonce": [0, 0], "purpose": "session"}).to_string(),
    ] {
        assert_eq!(client.post("/attestation", &body).status, 400, "{body}");
    }
    assert_eq!(client.get("/attestation").status, 405);
}

#[test]
fn concurrent_challenges_share_one_quote() {
    let domain = Domain::default();
    let server = start(&domain, "");
    let mut clients: Vec<_> = (0..7).map(|_| connect(&server)).collect();
    domain.allow(Some(0));
    let before = domain.requests().len();
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        client.send_post("/attestation", request([index as u8; 32], "session"));
        if index == 0 {
            eventually("the first quote", || domain.requests().len() == before + 1);
        }
    }
    // Somebody gives up while waiting.
    drop(clients.pop());
    let (mut other, other_shown) = {
        let client = server.connect_to_anybody();
        let shown = Shown::in_certificate(&client.certificate()).unwrap();
        (client, shown)
    };
    other.send_post("/attestation", request([99; 32], "key-release"));
    assert_eq!(server.connect_to_anybody().get("/health").status, 200);
    domain.allow(None);
    for (index, (client, shown)) in clients.iter_mut().enumerate() {
        let reply = client.reply();
        assert!(answers(
            &reply,
            client,
            shown,
            [index as u8; 32],
            Purpose::Session
        ));
    }
    let reply = other.reply();
    assert!(answers(
        &reply,
        &other,
        &other_shown,
        [99; 32],
        Purpose::KeyRelease
    ));
    // The first alone, the next five together, the other purpose alone.
    assert_eq!(domain.requests().len(), before + 3);
}

#[test]
fn a_full_queue_turns_challenges_away_and_nothing_else() {
    let domain = Domain::default();
    let server = start(&domain, "[limits]\nchallenges = 2\n");
    let mut clients: Vec<_> = (0..4).map(|_| connect(&server).0).collect();
    domain.allow(Some(0));
    let before = domain.requests().len();
    clients[0].send_post("/attestation", request([0; 32], "session"));
    eventually("the first quote", || domain.requests().len() == before + 1);
    clients[1].send_post("/attestation", request([1; 32], "session"));
    clients[2].send_post("/attestation", request([2; 32], "session"));
    // When this has an answer, every connection has had its turn since, and so the queue is full.
    server.connect_to_anybody().get("/health");
    let reply = ask(&mut clients[3], [4; 32], "session");
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (503, &"evidence_unavailable".into())
    );
    assert!(reply.header("retry-after").is_some());
    let answer = clients[3].post("/v1/completions", json!({"prompt": "abc"}).to_string());
    assert_eq!(answer.status, 200);
    domain.allow(None);
    for client in &mut clients[..3] {
        assert_eq!(client.reply().status, 200);
    }
}

/// What `/health` says of the evidence, and why there is no newer one.
fn standing(client: &mut Client) -> (Value, Value) {
    let health = client.get("/health").json();
    (
        health["evidence"].clone(),
        health["evidence_failure"].clone(),
    )
}

#[test]
fn nobody_is_served_before_the_first_quote_and_a_full_batch() {
    let domain = Domain::default();
    domain.allow(Some(0));
    let server = start(&domain, "[model]\nmax_sequences = 5\n");
    let mut client = server.connect_to_anybody();
    assert_eq!(client.get("/health").json()["state"], "warming");
    let refused = client.post("/v1/completions", json!({"prompt": "abc"}).to_string());
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &"model_not_ready".into())
    );
    let tried = server.watch.requests();
    assert_eq!(tried.len(), 5);
    // One token comes from the prompt, and the next from a step of all of them.
    assert!(tried.iter().all(|request| request.max_tokens >= 2));
    assert_eq!(server.watch.live(), 0);
    domain.allow(None);
    eventually("readiness", || {
        client.get("/health").json()["state"] == "ready"
    });
    assert_eq!(server.watch.requests().len(), 5);
}

#[test]
fn the_operator_says_how_long_certificates_are_valid() {
    let server = start(&Domain::default(), "[limits]\ncertificate_seconds = 30\n");
    let (_, first) = connect(&server);
    let (from, to) = first.validity;
    assert_eq!(to - from, 120 + 30);
    server.pass(Duration::from_secs(10));
    assert_eq!(connect(&server).1.certificate, first.certificate);
    server.pass(Duration::from_secs(11));
    eventually("another certificate", || {
        connect(&server).1.certificate != first.certificate
    });
}

#[test]
fn a_quoting_service_that_fails_is_asked_again() {
    let domain = Domain::default();
    domain.fail(Some(QuoteError::Unavailable));
    let server = start(&domain, "");
    let mut bare = server.connect_to_anybody();
    assert!(Shown::in_certificate(&bare.certificate()).is_none());
    let reply = ask(&mut bare, [1; 32], "session");
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (503, &"evidence_unavailable".into())
    );
    let why = json!("the host's quoting service is not available");
    assert_eq!(standing(&mut bare), (json!("pending"), why));
    domain.fail(None);
    server.pass(LONG);
    let (mut client, shown) = connect(&server);
    assert_eq!(standing(&mut client), (json!("current"), json!(null)));
    assert!(answers(
        &ask(&mut client, [2; 32], "session"),
        &client,
        &shown,
        [2; 32],
        Purpose::Session
    ));

    for error in [QuoteError::Timeout, QuoteError::NotOurs, QuoteError::Failed] {
        domain.fail(Some(error));
        assert_eq!(ask(&mut client, [3; 32], "session").status, 503);
    }
    domain.fail(None);
    assert_eq!(ask(&mut client, [4; 32], "session").status, 200);
}

#[test]
fn without_fresh_evidence_nothing_new_is_taken_on() {
    let domain = Domain::default();
    let server = start(&domain, "[limits]\nidle_seconds = 3600\n");
    let (mut client, _) = connect(&server);
    assert_eq!(client.get("/health").json()["state"], "ready");
    domain.fail(Some(QuoteError::Unavailable));
    server.pass(LONG);
    let health = client.get("/health");
    assert_eq!(
        (health.status, &health.json()["state"]),
        (503, &"draining".into())
    );
    assert_eq!(standing(&mut client).0, "expired");
    let refused = client.post("/v1/completions", json!({"prompt": "abc"}).to_string());
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &"draining".into())
    );
    domain.fail(None);
    server.pass(LONG);
    eventually("new evidence", || client.get("/health").status == 200);
}
