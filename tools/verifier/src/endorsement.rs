//! The second leg: an owner's word for one running domain, judged beside its evidence and independent of it
//! (`attestation::provisioning`). Whoever breaks a platform's keys still lacks the owner's, and the reverse.

use attestation::claims::Model;
use attestation::provisioning::{Endorsement, PublicKey, session_message};
use measurements::Hex;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::code::Code;
use crate::date;
use crate::report::{Report, Table, Verdict, hex};
use crate::verifier::{VerifiedEvidence, Verifier};

/// The body of `GET /endorsement` is never longer.
pub const MAX_ENDORSEMENT: usize = 4096;

/// The body of `GET /endorsement`. The domain's boot identifier is in it too, and is taken from the evidence instead.
#[derive(Deserialize)]
struct Body {
    public_key: String,
    session_signature: String,
    endorsement: Option<Given>,
}

/// What the owner left.
#[derive(Deserialize)]
struct Given {
    not_after: u64,
    signature: Hex<64>,
}

/// The same, its hexadecimal taken out.
struct Shown {
    /// The domain's long-lived key: SubjectPublicKeyInfo in DER.
    public_key: Vec<u8>,
    /// That key's signature of the session's, in DER.
    session_signature: Vec<u8>,
    endorsement: Option<Given>,
}

impl Shown {
    fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_ENDORSEMENT {
            return None;
        }
        let body: Body = serde_json::from_slice(body).ok()?;
        Some(Self {
            public_key: unhex(&body.public_key)?,
            session_signature: unhex(&body.session_signature)?,
            endorsement: body.endorsement,
        })
    }

    /// Whether the domain's long-lived key signed the session's.
    fn vouches(&self, evidence: &VerifiedEvidence) -> bool {
        let Ok(key) = SubjectPublicKeyInfoRef::from_der(&self.public_key) else {
            return false;
        };
        let Some(point) = key.subject_public_key.as_bytes() else {
            return false;
        };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(
                &session_message(&evidence.public_key),
                &self.session_signature,
            )
            .is_ok()
    }
}

impl Verifier {
    /// Judges the endorsement that a server shows on a connection whose evidence was accepted: `shown` is the body of its answer to
    /// `GET /endorsement`, or nothing.
    pub fn endorsement(
        &self,
        evidence: &VerifiedEvidence,
        owner: &PublicKey,
        shown: &[u8],
    ) -> Report {
        let mut table = Table::default();
        judge(&mut table, evidence, owner, shown, self.now);
        table.conclude(Verdict::Accepted, self.anchor.name(), None)
    }
}

/// The long-lived key that an endorsement of a domain is for (SubjectPublicKeyInfo in DER), if it vouches for the connection's key. `shown`
/// is the body of `GET /endorsement`.
///
/// # Errors
/// [`Code::EndorsementMalformed`] or [`Code::EndorsementSession`].
pub fn endorsed_key(evidence: &VerifiedEvidence, shown: &[u8]) -> Result<Vec<u8>, Code> {
    let shown = Shown::parse(shown).ok_or(Code::EndorsementMalformed)?;
    match shown.vouches(evidence) {
        true => Ok(shown.public_key),
        false => Err(Code::EndorsementSession),
    }
}

/// The last second of what an owner left, whatever it is worth. `shown` is the body of `GET /endorsement`.
pub fn endorsed_until(shown: &[u8]) -> Option<u64> {
    Some(Shown::parse(shown)?.endorsement?.not_after)
}

const OWNER: &str = "owner's endorsement";

fn judge(
    table: &mut Table,
    evidence: &VerifiedEvidence,
    owner: &PublicKey,
    shown: &[u8],
    now: u64,
) {
    let expected = format!("of this domain and model, by {}", hex(owner));
    let mut missing = |code, found: &str| table.fail(code, OWNER, expected.clone(), found);
    let Some(shown) = Shown::parse(shown) else {
        return missing(Code::EndorsementMalformed, "not understood");
    };
    let Some(given) = &shown.endorsement else {
        return missing(Code::EndorsementMissing, "none");
    };
    let Model::Loaded { identity, .. } = &evidence.claims.model else {
        return missing(Code::EndorsementMissing, "none: there is no model yet");
    };
    let Some(model) = identity.sealed else {
        return missing(Code::EndorsementMissing, "none: the model is not sealed");
    };
    let endorsement = Endorsement {
        boot: evidence.claims.boot,
        public_key: attestation::sha384(&shown.public_key),
        model,
        not_after: given.not_after,
    };
    let signed = endorsement.verify(owner, &given.signature.0).is_ok();
    table.check(
        signed,
        Code::EndorsementSignature,
        OWNER,
        expected,
        match signed {
            true => "it is",
            false => "of something else, or by another key",
        },
    );
    table.check(
        now <= given.not_after,
        Code::EndorsementExpired,
        "endorsed until",
        format!("{} or later", date::format(now)),
        date::format(given.not_after),
    );
    let vouched = shown.vouches(evidence);
    table.check(
        vouched,
        Code::EndorsementSession,
        "endorsed session key",
        "this connection's",
        match vouched {
            true => "this connection's",
            false => "not signed by the endorsed key",
        },
    );
}

/// Lower-case hexadecimal, as servers write it.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    if !digits.remainder().is_empty() {
        return None;
    }
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
