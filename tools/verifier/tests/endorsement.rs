//! The owner's word: accepted for one domain, model and time, and refused for every other.

mod common;

use attestation::claims::Model;
use attestation::provisioning::{Endorsement, PublicKey, session_message};
use common::domain::{Domain, NOW, judge, model, pins, verifier};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use verifier::{Code, Report, Verdict, VerifiedEvidence, endorsed_key};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A domain's long-lived key, and its owner's.
struct Owned {
    evidence: VerifiedEvidence,
    key: KeyPair,
    owner: Ed25519KeyPair,
    endorsement: Endorsement,
}

impl Owned {
    fn new() -> Self {
        let evidence = judge(&Domain::new().certificate()).1.unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self {
            endorsement: Endorsement {
                boot: evidence.claims.boot,
                public_key: attestation::sha384(&key.subject_public_key_info()),
                model: model().sealed.unwrap(),
                not_after: NOW,
            },
            evidence,
            key,
            owner: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(),
        }
    }

    fn owner(&self) -> PublicKey {
        self.owner.public_key().as_ref().try_into().unwrap()
    }

    /// What the domain shows on `GET /endorsement`.
    fn shown(&self) -> Value {
        let session = session_message(&self.evidence.public_key);
        let signature = self.owner.sign(&self.endorsement.message());
        json!({
            "boot": hex(&self.evidence.claims.boot),
            "public_key": hex(&self.key.subject_public_key_info()),
            "session_signature": hex(&self.key.sign(&session).unwrap()),
            "endorsement": {
                "not_after": self.endorsement.not_after,
                "signature": hex(signature.as_ref()),
            },
        })
    }

    fn judge(&self, shown: &Value) -> Report {
        let shown = shown.to_string();
        verifier(pins()).endorsement(&self.evidence, &self.owner(), shown.as_bytes())
    }

    fn findings(&self) -> Vec<Code> {
        self.judge(&self.shown()).findings
    }
}

#[test]
fn an_endorsement_of_this_very_domain_is_accepted() {
    let owned = Owned::new();
    let report = owned.judge(&owned.shown());
    assert_eq!(report.verdict, Verdict::Accepted);
    assert_eq!(report.checks[0].name, "owner's endorsement");
    let shown = owned.shown().to_string();
    let key = endorsed_key(&owned.evidence, shown.as_bytes());
    assert_eq!(key, Ok(owned.key.subject_public_key_info()));
}

#[test]
fn one_of_anything_else_is_not() {
    let changes: [fn(&mut Owned); 4] = [
        |owned| owned.endorsement.boot[0] ^= 1,
        |owned| owned.endorsement.public_key[0] ^= 1,
        |owned| owned.endorsement.model[0] ^= 1,
        // Of the plain file, which an owner does not seal.
        |owned| owned.endorsement.model = model().plaintext,
    ];
    for change in changes {
        let mut owned = Owned::new();
        change(&mut owned);
        assert_eq!(owned.findings(), [Code::EndorsementSignature]);
    }
    let mut owned = Owned::new();
    owned.endorsement.not_after = NOW - 1;
    assert_eq!(owned.findings(), [Code::EndorsementExpired]);
    // The end is signed too.
    let mut shown = owned.shown();
    shown["endorsement"]["not_after"] = json!(NOW);
    assert_eq!(owned.judge(&shown).findings, [Code::EndorsementSignature]);
}

#[test]
fn another_owner_is_nobody() {
    let owned = Owned::new();
    let shown = owned.shown().to_string();
    let report = verifier(pins()).endorsement(&owned.evidence, &[9; 32], shown.as_bytes());
    assert_eq!(report.findings, [Code::EndorsementSignature]);
    assert_eq!(report.verdict, Verdict::PolicyUnsatisfied);
}

#[test]
fn an_endorsed_domain_s_answer_says_nothing_of_another_session() {
    let owned = Owned::new();
    // Everything is genuine, and was shown on another connection.
    let mut other = Owned::new();
    other.evidence.public_key[0] ^= 1;
    let mut shown = owned.shown();
    shown["session_signature"] = other.shown()["session_signature"].clone();
    let report = owned.judge(&shown);
    assert_eq!(report.verdict, Verdict::EvidenceMismatch);
    assert_eq!(report.findings, [Code::EndorsementSession]);
    let shown = shown.to_string();
    assert_eq!(
        endorsed_key(&owned.evidence, shown.as_bytes()),
        Err(Code::EndorsementSession)
    );
}

#[test]
fn what_is_absent_or_not_understood_is_told_apart() {
    let owned = Owned::new();
    let mut none = owned.shown();
    none["endorsement"] = Value::Null;
    assert_eq!(owned.judge(&none).findings, [Code::EndorsementMissing]);
    let mut open = Owned::new();
    let Model::Loaded { identity, .. } = &mut open.evidence.claims.model else {
        panic!("the domain has a model");
    };
    identity.sealed = None;
    assert_eq!(open.findings(), [Code::EndorsementMissing]);
    open.evidence.claims.model = Model::None;
    assert_eq!(open.findings(), [Code::EndorsementMissing]);

    for field in ["public_key", "session_signature"] {
        for wrong in [json!("0"), json!("zz"), json!("é0"), Value::Null] {
            let mut shown = owned.shown();
            shown[field] = wrong;
            assert_eq!(owned.judge(&shown).findings, [Code::EndorsementMalformed]);
        }
    }
    let mut short = owned.shown();
    short["endorsement"]["signature"] = json!("00");
    let mut long = owned.shown();
    long["more"] = json!("x".repeat(verifier::MAX_ENDORSEMENT));
    for shown in [short, long, json!([]), json!("")] {
        assert_eq!(owned.judge(&shown).findings, [Code::EndorsementMalformed]);
    }
}
