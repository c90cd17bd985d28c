//! Certificates and fresh evidence: rows M1 to M16 of the catalogue.

mod common;

use attestation::challenge::{Answer, Challenge, Purpose, Role, root, tree};
use attestation::claims::{Claims, Model};
use attestation::events::ModelIdentity;
use attestation::fingerprint::fingerprint;
use attestation::report_data::ReportData;
use common::domain::*;
use rcgen::{CustomExtension, PublicKeyData};
use verifier::{Class, Code, Connection, Report, Verdict, VerifiedEvidence};

/// The findings of a certificate; it must be refused, and accepted evidence must not come with a refusal.
fn refused(certificate: &[u8]) -> Vec<Code> {
    let (report, evidence) = judge(certificate);
    assert_eq!(evidence, None);
    assert_ne!(report.verdict, Verdict::Accepted);
    report.findings
}

/// The findings after a change of the domain.
fn changed(change: impl FnOnce(&mut Domain)) -> Vec<Code> {
    let mut domain = Domain::new();
    change(&mut domain);
    refused(&domain.certificate())
}

/// Recomputes what follows from registers, model and key, as a domain that lies consistently would.
fn consistent(domain: &mut Domain) {
    let public_key = domain.key.subject_public_key_info();
    domain.claims.platform = domain.registers.digest();
    domain.claims.fingerprint = fingerprint(&domain.registers, &domain.claims.model, &public_key);
}

#[test]
fn a_sound_certificate_is_accepted() {
    let domain = Domain::new();
    let (report, evidence) = judge(&domain.certificate());
    assert_eq!(report.verdict, Verdict::Accepted, "{:#?}", report.checks);
    assert_eq!(report.findings, []);
    let evidence = evidence.unwrap();
    assert_eq!(evidence.claims, domain.claims);
    assert_eq!(evidence.registers, domain.registers);
    assert_eq!(evidence.public_key, domain.key.subject_public_key_info());
}

#[test]
fn m1_a_quote_of_another_certificate() {
    let (one, other) = (Domain::new(), Domain::new());
    let quote = other.quote(*ReportData::certificate(&other.claims.encode()).as_bytes());
    // Its own claims beside the other's quote.
    let findings = refused(&one.certificate_with(&quote, &one.claims.encode()));
    assert_eq!(findings[0], Code::ClaimsUnbound);
    // The other's claims as well, in a certificate of another key.
    let findings = refused(&one.certificate_with(&quote, &other.claims.encode()));
    assert_eq!(findings[0], Code::KeyMismatch);
}

#[test]
fn m2_claims_that_contradict_the_registers() {
    let another = Model::Loaded {
        identity: ModelIdentity {
            name: "model".into(),
            sealed: None,
            plaintext: [6; 32],
        },
        version: 3,
    };
    let findings = changed(|domain| domain.claims.model = another.clone());
    assert_eq!(findings[0], Code::ModelUnbound);
    assert!(findings.contains(&Code::FingerprintMismatch));
    // The same with a fingerprint to match.
    let findings = changed(|domain| {
        domain.claims.model = another.clone();
        consistent(domain);
    });
    assert_eq!(findings[0], Code::ModelUnbound);
    let findings = changed(|domain| domain.claims.fingerprint[0] ^= 1);
    assert_eq!(findings, [Code::FingerprintMismatch]);
    let findings = changed(|domain| domain.claims.platform[0] ^= 1);
    assert_eq!(findings, [Code::PlatformMismatch]);
    let findings = changed(|domain| domain.claims.configuration.push(b'x'));
    assert_eq!(findings, [Code::ConfigurationUnbound]);
}

#[test]
fn m3_claims_altered_after_quoting() {
    let domain = Domain::new();
    let claims = domain.claims.encode();
    let quote = domain.quote(*ReportData::certificate(&claims).as_bytes());
    for place in 0..claims.len() {
        let mut altered = claims.clone();
        altered[place] ^= 1;
        let findings = refused(&domain.certificate_with(&quote, &altered));
        assert_eq!(findings[0], Code::ClaimsUnbound, "{place}");
    }
    // The same data in another encoding, quoted honestly: the outer map with its length in a byte of its own.
    let mut longer = claims.clone();
    longer.splice(..1, [0xb8, 2]);
    assert_eq!(
        refused(&domain.certificate_over(longer))[0],
        Code::ClaimsMalformed
    );
}

#[test]
fn m4_report_data_with_a_tail() {
    let findings = changed(|domain| {
        let mut report_data = *ReportData::certificate(&domain.claims.encode()).as_bytes();
        report_data[63] = 1;
        domain.report_data = Some(report_data);
    });
    assert_eq!(findings, [Code::ReportDataTail]);
}

#[test]
fn m5_key_hashes_of_other_algorithms() {
    let domain = Domain::new();
    let claims = domain.claims.encode();
    let hash = [&[0x82, 7, 0x58, 48][..], &domain.claims.public_key_hash].concat();
    let at = claims
        .windows(hash.len())
        .position(|window| window == hash)
        .unwrap();
    // SHA-256 cut to 96 bits, an algorithm nobody has assigned, SHA-512.
    for algorithm in [2, 200, 8] {
        let mut other = claims.clone();
        match algorithm {
            200 => drop(other.splice(at + 1..=at + 1, [0x18, 200])),
            short => other[at + 1] = short,
        }
        assert_eq!(
            refused(&domain.certificate_over(other))[0],
            Code::ClaimsMalformed
        );
    }
}

#[test]
fn m6_other_carriers_of_evidence() {
    let with = |extensions| {
        refused(
            &Domain {
                extensions,
                ..Domain::new()
            }
            .certificate(),
        )
    };
    assert_eq!(with(|_| vec![]), [Code::EvidenceMissing]);
    assert_eq!(
        with(|evidence| {
            let again = CustomExtension::from_oid_content(EVIDENCE, evidence.clone());
            vec![CustomExtension::from_oid_content(EVIDENCE, evidence), again]
        }),
        [Code::EvidenceDuplicate]
    );
    assert_eq!(
        with(|evidence| {
            let mut extension = CustomExtension::from_oid_content(EVIDENCE, evidence);
            extension.set_criticality(true);
            vec![extension]
        }),
        [Code::EvidenceCritical]
    );
    // Gramine's legacy extension, dstack's.
    for foreign in [
        (|evidence| {
            vec![CustomExtension::from_oid_content(
                &[1, 2, 840, 113_741, 1337, 6],
                evidence,
            )]
        }) as fn(Vec<u8>) -> Vec<CustomExtension>,
        |evidence| {
            vec![CustomExtension::from_oid_content(
                &[1, 3, 6, 1, 4, 1, 62397, 1, 1],
                evidence,
            )]
        },
    ] {
        assert_eq!(with(foreign), [Code::EvidenceForeign]);
    }
    // An identifier that nobody knows is no evidence.
    assert_eq!(
        with(|evidence| vec![CustomExtension::from_oid_content(
            &[2, 23, 133, 5, 4, 10],
            evidence
        )]),
        [Code::EvidenceMissing]
    );
    // A bare quote; an OCTET STRING within; a byte more.
    for malformed in [
        (|evidence| {
            vec![CustomExtension::from_oid_content(
                EVIDENCE,
                evidence[8..].to_vec(),
            )]
        }) as fn(Vec<u8>) -> Vec<CustomExtension>,
        |evidence| {
            let length = (evidence.len() as u16).to_be_bytes();
            let nested = [&[0x04, 0x82][..], &length, &evidence].concat();
            vec![CustomExtension::from_oid_content(EVIDENCE, nested)]
        },
        |evidence| {
            vec![CustomExtension::from_oid_content(
                EVIDENCE,
                [evidence, vec![0]].concat(),
            )]
        },
    ] {
        assert_eq!(with(malformed), [Code::EvidenceMalformed]);
    }
}

/// What a replayed certificate lacks is the key: TLS refuses. Here only its own signature is checked, which no one else can renew.
#[test]
fn m7_a_certificate_that_its_key_did_not_sign() {
    let certificate = Domain::new().certificate();
    let signature = certificate.len() - 1;
    let mut altered = certificate.clone();
    altered[signature] ^= 1;
    assert_eq!(refused(&altered), [Code::CertificateSignature]);
}

/// An accepted connection, and what answers on it.
struct Session {
    domain: Domain,
    evidence: VerifiedEvidence,
    connection: Connection,
}

impl Session {
    fn new(purpose: Purpose) -> Self {
        let domain = Domain::new();
        let (_, evidence) = judge(&domain.certificate());
        Self {
            domain,
            evidence: evidence.unwrap(),
            connection: Connection {
                purpose,
                nonce: [1; 32],
                exporter: [2; 32],
            },
        }
    }

    fn challenge(&self) -> Challenge {
        Challenge {
            purpose: self.connection.purpose,
            role: Role::Server,
            nonce: self.connection.nonce,
            certificate: self.evidence.certificate,
            exporter: self.connection.exporter,
            fingerprint: self.evidence.claims.fingerprint,
        }
    }

    /// The domain's answer to a challenge.
    fn answer(&self, challenge: &Challenge) -> Vec<u8> {
        let top = root(&challenge.leaf(), &[]);
        let quote = self
            .domain
            .quote(*ReportData::challenges(challenge.purpose, &top).as_bytes());
        Answer {
            quote,
            path: Vec::new(),
        }
        .encode()
    }

    fn judge(&self, answer: &[u8]) -> Report {
        verifier(pins()).answer(&self.evidence, &self.connection, answer, Ok(collateral()))
    }

    /// What is found in an answer to a challenge other than the one sent.
    fn findings(&self, change: impl FnOnce(&mut Challenge)) -> Vec<Code> {
        let mut challenge = self.challenge();
        change(&mut challenge);
        self.judge(&self.answer(&challenge)).findings
    }
}

#[test]
fn fresh_evidence_is_accepted_alone_and_shared() {
    for purpose in [Purpose::Session, Purpose::KeyRelease] {
        let session = Session::new(purpose);
        let report = session.judge(&session.answer(&session.challenge()));
        assert_eq!(report.verdict, Verdict::Accepted, "{:#?}", report.checks);

        let mut other = session.challenge();
        other.nonce = [3; 32];
        let leaves = [other.leaf(), session.challenge().leaf(), other.leaf()];
        let (top, mut paths) = tree(&leaves).unwrap();
        let quote = session
            .domain
            .quote(*ReportData::challenges(purpose, &top).as_bytes());
        let answer = |path| {
            Answer {
                quote: quote.clone(),
                path,
            }
            .encode()
        };
        let mine = answer(paths.remove(1));
        assert_eq!(session.judge(&mine).verdict, Verdict::Accepted);
        // Another challenge's path does not lead there from mine.
        assert_eq!(
            session.judge(&answer(paths.remove(0))).findings,
            [Code::NotFresh]
        );
    }
}

#[test]
fn m8_m9_m10_answers_for_another_certificate_nonce_or_connection() {
    let session = Session::new(Purpose::Session);
    assert_eq!(
        session.findings(|challenge| challenge.certificate[0] ^= 1),
        [Code::NotFresh]
    );
    assert_eq!(
        session.findings(|challenge| challenge.nonce[0] ^= 1),
        [Code::NotFresh]
    );
    assert_eq!(
        session.findings(|challenge| challenge.exporter[0] ^= 1),
        [Code::NotFresh]
    );
    assert_eq!(
        session.findings(|challenge| challenge.fingerprint[0] ^= 1),
        [Code::NotFresh]
    );
}

#[test]
fn m11_another_genuine_domain() {
    // The same image with another model is refused by the pins; a session's answer by another domain, by its registers.
    let other = ModelIdentity {
        plaintext: [5; 32],
        ..model()
    };
    let other = Domain::with_model(Model::Loaded {
        identity: other,
        version: 3,
    });
    assert_eq!(refused(&other.certificate()), [Code::ModelMismatch]);
    let mut session = Session::new(Purpose::Session);
    session.domain = other;
    let findings = session.findings(|_| {});
    assert_eq!(findings, [Code::AnotherDomain]);
}

#[test]
fn m12_the_clients_own_role() {
    let session = Session::new(Purpose::Session);
    let findings = session.findings(|challenge| challenge.role = Role::Client);
    assert_eq!(findings, [Code::Reflected]);
}

#[test]
fn m13_quotes_for_other_purposes() {
    let session = Session::new(Purpose::Session);
    let findings = session.findings(|challenge| challenge.purpose = Purpose::KeyRelease);
    assert_eq!(findings, [Code::WrongPurpose]);
    // A certificate's quote as an answer.
    let claims = session.domain.claims.encode();
    let quote = session
        .domain
        .quote(*ReportData::certificate(&claims).as_bytes());
    let answer = Answer {
        quote,
        path: Vec::new(),
    }
    .encode();
    assert_eq!(session.judge(&answer).findings, [Code::WrongPurpose]);
    // An answer's quote in a certificate.
    let top = root(&session.challenge().leaf(), &[]);
    let findings = changed(|domain| {
        domain.report_data = Some(*ReportData::challenges(Purpose::Session, &top).as_bytes());
    });
    assert_eq!(findings, [Code::ClaimsUnbound]);
}

#[test]
fn answers_that_are_none() {
    let session = Session::new(Purpose::Session);
    let answer = session.answer(&session.challenge());
    for malformed in [
        &answer[1..],
        &answer[..answer.len() - 1],
        &[],
        &vec![0; 1 << 20],
    ] {
        assert_eq!(session.judge(malformed).findings, [Code::AnswerMalformed]);
    }
}

#[test]
fn m15_dates() {
    let findings = changed(|domain| domain.validity = Some((NOW - 60, NOW + 6000)));
    assert_eq!(findings[0], Code::ValidityMismatch);
    // Consistent, and over or not begun.
    for (from, to) in [(NOW - 600, NOW - 1), (NOW + 1, NOW + 600)] {
        let findings = changed(|domain| {
            domain.claims.validity.not_before = from;
            domain.claims.validity.not_after = to;
        });
        assert_eq!(findings, [Code::ServerClockSkew]);
    }
    // Consistent and longer than a policy allows: genuine, and not accepted.
    let findings = changed(|domain| domain.claims.validity.not_after = NOW + 90 * 24 * 3600);
    assert_eq!(findings, [Code::CertificateLife]);
    assert_eq!(findings[0].class(), Class::Policy);
}

#[test]
fn m16_a_model_that_was_not_there() {
    // A certificate from before the model was opened, and an answer from after another one was.
    let none = Domain::with_model(Model::None);
    assert_eq!(refused(&none.certificate()), [Code::ModelMismatch]);
    let mut session = Session::new(Purpose::Session);
    session.domain.registers.rtmr[3][0] ^= 1;
    assert_eq!(session.findings(|_| {}), [Code::AnotherDomain]);
}

#[test]
fn the_owners_demands_add_to_the_clients() {
    let demand = |change: fn(&mut Claims)| changed(|domain| change(&mut domain.claims));
    assert_eq!(
        demand(|claims| claims.minimum_tcb.cpu[0] = 99),
        [Code::SvnBelowMinimum]
    );
    assert_eq!(
        demand(|claims| claims.minimum_tcb.tdx[2] = 99),
        [Code::SvnBelowMinimum]
    );
    assert_eq!(
        demand(|claims| claims.minimum_tcb.tdx[1] = 2),
        [Code::SvnBelowMinimum]
    );
    assert_eq!(
        demand(|claims| claims.minimum_tcb.evaluation = 9999),
        [Code::EvaluationTooOld]
    );
    // A demand that the platform meets.
    let mut domain = Domain::new();
    domain.claims.minimum_tcb.cpu[0] = 1;
    assert_eq!(judge(&domain.certificate()).0.verdict, Verdict::Accepted);
}

#[test]
fn certificates_that_are_too_long_or_none() {
    assert_eq!(refused(&vec![0x30; 65 << 10]), [Code::CertificateTooLarge]);
    assert_eq!(refused(b"certificate"), [Code::CertificateMalformed]);
    let findings = refused(
        &Domain {
            extensions: |_| {
                vec![CustomExtension::from_oid_content(
                    EVIDENCE,
                    vec![0x40; 40 << 10],
                )]
            },
            ..Domain::new()
        }
        .certificate(),
    );
    assert_eq!(findings, [Code::EvidenceMalformed]);
}
