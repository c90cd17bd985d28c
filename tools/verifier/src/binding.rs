//! The binding: whether a quote and the claims, key and dates beside it belong together. Whether the quote is genuine, the chain says.

use attestation::Sha384;
use attestation::claims::Claims;
use attestation::events::{UNEXTENDED, configuration_digest, extend, model_digest};
use attestation::fingerprint::{Registers, fingerprint};
use attestation::report_data::ReportData;

use crate::certificate::UntrustedCertificate;
use crate::code::Code;
use crate::date;
use crate::report::{Table, hex};

/// Compares a certificate with the quote in it. Returns the claims, if there are any to judge.
pub(crate) fn check(
    table: &mut Table,
    certificate: &UntrustedCertificate,
    registers: &Registers,
    report_data: &[u8; 64],
    now: u64,
) -> Option<Claims> {
    check_report_data(table, certificate.claims_buffer(), report_data);
    let claims = match Claims::decode(certificate.claims_buffer()) {
        Ok(claims) => claims,
        Err(error) => {
            table.fail(
                Code::ClaimsMalformed,
                "claims",
                "one set of claims",
                error.to_string(),
            );
            return None;
        }
    };
    let key = attestation::sha384(certificate.public_key());
    equal(
        table,
        Code::KeyMismatch,
        "session key",
        &key,
        &claims.public_key_hash,
    );
    let measured = registers.digest();
    equal(
        table,
        Code::PlatformMismatch,
        "claimed measurement",
        &measured,
        &claims.platform,
    );

    let configuration = extend(&UNEXTENDED, &configuration_digest(&claims.configuration));
    equal(
        table,
        Code::ConfigurationUnbound,
        "claimed configuration",
        &registers.rtmr[2],
        &configuration,
    );
    let model = match &claims.model {
        attestation::claims::Model::None => UNEXTENDED,
        attestation::claims::Model::Loaded { identity, .. } => {
            extend(&UNEXTENDED, &model_digest(identity))
        }
    };
    equal(
        table,
        Code::ModelUnbound,
        "claimed model",
        &registers.rtmr[3],
        &model,
    );
    let session = fingerprint(registers, &claims.model, certificate.public_key());
    equal(
        table,
        Code::FingerprintMismatch,
        "trust fingerprint",
        &session,
        &claims.fingerprint,
    );

    let validity = (claims.validity.not_before, claims.validity.not_after);
    table.check(
        certificate.validity() == validity,
        Code::ValidityMismatch,
        "certificate dates",
        period(validity),
        period(certificate.validity()),
    );
    let (from, to) = certificate.validity();
    table.check(
        (from..=to).contains(&now),
        Code::ServerClockSkew,
        "certificate valid now",
        format!("{} (this side's clock)", date::format(now)),
        period((from, to)),
    );
    Some(claims)
}

/// REPORTDATA is the claims' hash and zeros.
fn check_report_data(table: &mut Table, claims_buffer: &[u8], report_data: &[u8; 64]) {
    let expected = ReportData::certificate(claims_buffer);
    let code = match report_data[..32] == expected.as_bytes()[..32] {
        true => Code::ReportDataTail,
        false => Code::ClaimsUnbound,
    };
    table.check(
        report_data == expected.as_bytes(),
        code,
        "REPORTDATA",
        hex(expected.as_bytes()),
        hex(report_data),
    );
}

fn equal(table: &mut Table, code: Code, name: &'static str, expected: &Sha384, found: &Sha384) {
    table.check(expected == found, code, name, hex(expected), hex(found));
}

fn period((from, to): (u64, u64)) -> String {
    format!("{} to {}", date::format(from), date::format(to))
}
