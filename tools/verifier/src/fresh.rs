//! Fresh evidence on an established connection: the answer to a challenge, judged like any quote and compared with the evidence in the
//! connection's certificate.

use attestation::challenge::{Answer, Challenge, MAX_ANSWER, Purpose, Role, root};
use attestation::report_data::ReportData;

use crate::code::Code;
use crate::collateral::Collateral;
use crate::judge;
use crate::report::{Report, Table, Verdict, hex};
use crate::verifier::{Scope, VerifiedEvidence, Verifier};

/// What only this connection has.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// What the challenge is for.
    pub purpose: Purpose,
    /// The nonce that was sent.
    pub nonce: [u8; 32],
    /// The TLS exporter under [`attestation::challenge::EXPORTER_LABEL`] with the nonce as context.
    pub exporter: [u8; 32],
}

impl Verifier {
    /// Judges an answer to a challenge on the connection whose certificate was accepted.
    pub fn answer(
        &self,
        evidence: &VerifiedEvidence,
        connection: &Connection,
        answer: &[u8],
        collateral: Result<Collateral, Code>,
    ) -> Report {
        let mut table = Table::default();
        let decoded = match answer.len() <= MAX_ANSWER {
            true => Answer::decode(answer).map_err(|error| error.to_string()),
            false => Err("longer than any answer".to_owned()),
        };
        let answer = match decoded {
            Ok(answer) => answer,
            Err(words) => {
                table.fail(Code::AnswerMalformed, "answer", "a quote and a path", words);
                return table.conclude(Verdict::Accepted, self.anchor.name(), None);
            }
        };
        let policy = judge::stricter(&self.policy, &evidence.claims.minimum_tcb);
        let judged = self.chain(&mut table, &answer.quote, collateral, &policy);
        if let Some(claimed) = &judged.claimed {
            table.check(
                claimed.registers == evidence.registers,
                Code::AnotherDomain,
                "same domain",
                hex(&evidence.registers.digest()),
                hex(&claimed.registers.digest()),
            );
            let found = claimed.report.report_data;
            let expected = report_data(evidence, connection, &answer, Role::Server);
            let code = diagnose(evidence, connection, &answer, &found);
            table.check(
                found == *expected.as_bytes(),
                code,
                "freshness (REPORTDATA)",
                hex(expected.as_bytes()),
                hex(&found),
            );
        }
        debug_assert_ne!(self.scope, Scope::PlatformOnly);
        self.conclude(table, judged)
    }
}

/// What REPORTDATA must be.
fn report_data(
    evidence: &VerifiedEvidence,
    connection: &Connection,
    answer: &Answer,
    role: Role,
) -> ReportData {
    let challenge = Challenge {
        purpose: connection.purpose,
        role,
        nonce: connection.nonce,
        certificate: evidence.certificate,
        exporter: connection.exporter,
        fingerprint: evidence.claims.fingerprint,
    };
    ReportData::challenges(connection.purpose, &root(&challenge.leaf(), &answer.path))
}

/// What a wrong REPORTDATA is instead, where that can be told.
fn diagnose(
    evidence: &VerifiedEvidence,
    connection: &Connection,
    answer: &Answer,
    found: &[u8; 64],
) -> Code {
    let other = Connection {
        purpose: match connection.purpose {
            Purpose::Session => Purpose::KeyRelease,
            Purpose::KeyRelease => Purpose::Session,
        },
        ..*connection
    };
    if report_data(evidence, connection, answer, Role::Client).as_bytes() == found {
        return Code::Reflected;
    }
    // Only a certificate's REPORTDATA ends in zeros.
    let of_a_certificate = found[32..] == [0; 32];
    if of_a_certificate || report_data(evidence, &other, answer, Role::Server).as_bytes() == found {
        return Code::WrongPurpose;
    }
    Code::NotFresh
}
