//! Sealed models: who may bring the key, what becomes of a wrong one, and what the evidence says afterwards.

mod common;
#[path = "../../seal/tests/common/mod.rs"]
mod sealing;

use std::time::Duration;

use attestation::{
    certificate::Evidence,
    claims::{Claims, Model},
    provisioning::{Endorsement, RELEASE_LABEL, release_message, session_message},
    sha384,
};
use common::{Client, Domain, Reply, Running, eventually};
use ring::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_ASN1, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use seal::FileKey;
use serde_json::{Value, json};
use x509_cert::{
    Certificate,
    der::{Decode, Encode, asn1::ObjectIdentifier},
};

const PLAINTEXT: &[u8] = b"not much of a model";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().expect("digits");
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
    (0..digits.len()).step_by(2).map(pair).collect()
}

fn send(client: &mut Client, key: &FileKey) -> Reply {
    client.post("/model-key", json!({"key": hex(key.expose())}).to_string())
}

fn code(reply: &Reply) -> (u16, String) {
    let code = reply.json()["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (reply.status, code)
}

fn state(client: &mut Client) -> Value {
    client.get("/health").json()["state"].clone()
}

/// The claims in a certificate, if it has any.
fn claims(der: &[u8]) -> Option<Claims> {
    let certificate = Certificate::from_der(der).expect("a certificate");
    let id = ObjectIdentifier::new_unwrap(attestation::certificate::EXTENSION_ID);
    let extensions = certificate.tbs_certificate().extensions()?;
    let extension = extensions.iter().find(|one| one.extn_id == id)?;
    let evidence = Evidence::decode(extension.extn_value.as_bytes()).expect("evidence");
    Some(Claims::decode(evidence.claims_buffer).expect("claims"))
}

#[test]
fn a_sealed_model_is_served_once_its_key_has_come() {
    let sealed = sealing::seal(PLAINTEXT, 1);
    let server = Running::sealed(Domain::default(), "", sealed.file.clone());
    let mut client = server.connect_to_anybody();
    assert_eq!(state(&mut client), "sealed");
    let prompt = json!({"prompt": "abc"}).to_string();
    let refused = client.post("/v1/completions", &prompt);
    assert_eq!(code(&refused), (503, "model_sealed".into()));
    assert!(refused.header("retry-after").is_some());
    eventually("evidence without a model", || {
        let shown = claims(&server.connect_to_anybody().certificate());
        shown.is_some_and(|claims| claims.model == Model::None)
    });

    assert_eq!(send(&mut client, &sealed.key).status, 202);
    eventually("a ready service", || state(&mut client) == "ready");
    assert_eq!(client.post("/v1/completions", &prompt).status, 200);
    let shown = claims(&server.connect_to_anybody().certificate()).expect("claims");
    let Model::Loaded { identity, .. } = shown.model else {
        panic!("a model in the claims");
    };
    let sha256 = |bytes| digest(&SHA256, bytes).as_ref().to_vec();
    assert_eq!(identity.sealed.unwrap().to_vec(), sha256(&sealed.file));
    assert_eq!(identity.plaintext.to_vec(), sha256(PLAINTEXT));

    // Whatever key comes now: the model stays.
    let other = sealing::seal(b"other", 0);
    for key in [&sealed.key, &other.key] {
        let refused = send(&mut client, key);
        assert_eq!(code(&refused), (409, "already_provisioned".into()));
    }
}

#[test]
fn wrong_keys_are_refused_and_slow_the_next_one_down() {
    let sealed = sealing::seal(PLAINTEXT, 0);
    let wrong = sealing::seal(b"other", 0).key;
    let server = Running::sealed(Domain::default(), "", sealed.file.clone());
    let mut client = server.connect_to_anybody();
    assert_eq!(code(&send(&mut client, &wrong)), (403, "wrong_key".into()));
    // Nobody's key is looked at for a while, on no connection.
    let refused = send(&mut server.connect_to_anybody(), &sealed.key);
    assert_eq!(code(&refused), (429, "too_many_wrong_keys".into()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(state(&mut client), "sealed");
    server.pass(Duration::from_secs(2));
    assert_eq!(code(&send(&mut client, &wrong)), (403, "wrong_key".into()));
    server.pass(Duration::from_secs(1));
    assert_eq!(send(&mut client, &sealed.key).status, 429);
    server.pass(Duration::from_secs(2));
    assert_eq!(send(&mut client, &sealed.key).status, 202);
}

#[test]
fn a_damaged_model_waits_for_its_key_again() {
    let sealed = sealing::seal(PLAINTEXT, 0);
    let mut damaged = sealed.file.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let server = Running::sealed(Domain::default(), "", damaged);
    let mut client = server.connect_to_anybody();
    assert_eq!(send(&mut client, &sealed.key).status, 202);
    eventually("a model that waits again", || {
        state(&mut client) == "sealed"
    });
    let shown = claims(&server.connect_to_anybody().certificate());
    assert!(shown.is_none_or(|claims| claims.model == Model::None));
    server.replace(sealed.file.clone());
    assert_eq!(send(&mut client, &sealed.key).status, 202);
    eventually("a ready service", || state(&mut client) == "ready");
}

#[test]
fn only_the_provisioner_may_bring_the_key_where_one_is_named() {
    let sealed = sealing::seal(PLAINTEXT, 0);
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
    let configuration = format!(
        "[trust]\nprovisioner = \"{}\"\n",
        hex(pair.public_key().as_ref())
    );
    let server = Running::sealed(Domain::default(), &configuration, sealed.file.clone());
    let mut client = server.connect_to_anybody();
    let other = server.connect_to_anybody();
    let signed = |signer: &Ed25519KeyPair, over: &Client, key: &FileKey| {
        let exporter = over.export(RELEASE_LABEL, key.expose());
        let signature = signer.sign(&release_message(&exporter));
        json!({"key": hex(key.expose()), "signature": hex(signature.as_ref())}).to_string()
    };
    let wrong = FileKey::from([0; 16]);
    for body in [
        json!({"key": hex(sealed.key.expose())}).to_string(),
        signed(&stranger, &client, &sealed.key),
        signed(&pair, &other, &sealed.key),
        signed(&pair, &client, &wrong).replace(&hex(wrong.expose()), &hex(sealed.key.expose())),
    ] {
        let refused = client.post("/model-key", &body);
        assert_eq!(
            code(&refused),
            (403, "not_the_provisioner".into()),
            "{body}"
        );
    }
    // Strangers delay nobody.
    let body = signed(&pair, &client, &sealed.key);
    assert_eq!(client.post("/model-key", body).status, 202);
}

#[test]
fn only_whole_keys_for_sealed_models_are_looked_at() {
    let sealed = sealing::seal(PLAINTEXT, 0);
    let server = Running::sealed(Domain::default(), "", sealed.file.clone());
    let mut client = server.connect_to_anybody();
    let digits = hex(sealed.key.expose());
    for body in [
        "{}".to_owned(),
        json!({"key": digits[1..]}).to_string(),
        json!({"key": format!("{digits}00")}).to_string(),
        json!({"key": digits, "more": 1}).to_string(),
        json!({"key": digits, "endorsement": {"not_after": 1}}).to_string(),
    ] {
        let refused = client.post("/model-key", &body);
        assert_eq!(refused.status, 400, "{body}");
        // What was sent may be secret, and is not repeated.
        assert!(!String::from_utf8_lossy(&refused.body).contains(&digits[2..]));
    }
    assert_eq!(client.get("/model-key").status, 405);
    let plain = Running::ready();
    let refused = send(&mut plain.connect(), &sealed.key);
    assert_eq!(code(&refused), (409, "not_sealed".into()));
}

#[test]
fn the_owner_s_endorsement_is_shown_on_every_connection() {
    let sealed = sealing::seal(PLAINTEXT, 0);
    let server = Running::sealed(Domain::default(), "", sealed.file.clone());
    let mut client = server.connect_to_anybody();
    let before = client.get("/endorsement").json();
    assert_eq!(before["endorsement"], Value::Null);
    let owner = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let endorsement = Endorsement {
        boot: bytes(&before["boot"]).try_into().unwrap(),
        public_key: sha384(&bytes(&before["public_key"])),
        model: digest(&SHA256, &sealed.file).as_ref().try_into().unwrap(),
        not_after: 4_000_000_000,
    };
    let signature = owner.sign(&endorsement.message());
    let body = json!({
        "key": hex(sealed.key.expose()),
        "endorsement": {"not_after": endorsement.not_after, "signature": hex(signature.as_ref())},
    });
    assert_eq!(client.post("/model-key", body.to_string()).status, 202);
    eventually("a ready service", || state(&mut client) == "ready");

    let mut later = server.connect_to_anybody();
    let shown = later.get("/endorsement").json();
    assert_eq!(
        (&shown["boot"], &shown["public_key"]),
        (&before["boot"], &before["public_key"])
    );
    assert_eq!(shown["endorsement"]["not_after"], endorsement.not_after);
    let owner_key = owner.public_key().as_ref().try_into().unwrap();
    let signature = bytes(&shown["endorsement"]["signature"]);
    assert_eq!(endorsement.verify(&owner_key, &signature), Ok(()));
    assert_eq!(claims(&later.certificate()).unwrap().boot, endorsement.boot);

    // The long-lived key vouches for the key of this very connection.
    let certificate = Certificate::from_der(&later.certificate()).unwrap();
    let session = certificate.tbs_certificate().subject_public_key_info();
    // The point is the last 65 bytes of a P-256 SubjectPublicKeyInfo.
    let public_key = bytes(&shown["public_key"]);
    let point = &public_key[public_key.len() - 65..];
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(
            &session_message(&session.to_der().unwrap()),
            &bytes(&shown["session_signature"]),
        )
        .expect("the machine's signature");
}
