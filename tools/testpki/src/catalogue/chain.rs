//! Attacks on certificates and revocation lists: C11–C14, C19, C23.

use rcgen::SigningKey;

use super::Case;
use super::Change::{Described, Issued, Prepared, Shown};
use crate::certificate::VALIDITY;
use crate::{Error, Evidence, Key, Revoked, TestPki};

/// Seconds.
const DAY: u64 = 24 * 3600;

pub(super) const CASES: &[Case] = &[
    // C11: the chain in the quote.
    Case::new(
        "C11",
        "the chain reversed",
        Described(|scenario| {
            let certificates = &scenario.pki.certificates;
            scenario.chain = [
                &*certificates.root,
                &certificates.platform_ca,
                &certificates.pck,
            ]
            .concat();
        }),
    ),
    Case::new(
        "C11",
        "the leaf alone",
        Described(|scenario| scenario.chain = scenario.pki.certificates.pck.clone()),
    ),
    Case::new(
        "C11",
        "no certificate",
        Described(|scenario| scenario.chain.clear()),
    ),
    Case::new(
        "C11",
        "without the leaf",
        Described(|scenario| scenario.chain = scenario.pki.pck_crl_chain()),
    ),
    Case::new(
        "C11",
        "twenty more certificates",
        Described(|scenario| {
            let more = scenario.pki.certificates.platform_ca.repeat(20);
            scenario.chain.push_str(&more);
        }),
    ),
    Case::new(
        "C11",
        "the TCB signing certificate as the leaf",
        Described(|scenario| scenario.chain = scenario.pki.tcb_signing_chain()),
    ),
    Case::new(
        "C11",
        "without the root, which the verifier has",
        Described(|scenario| {
            scenario.chain = [
                &*scenario.pki.certificates.pck,
                &scenario.pki.certificates.platform_ca,
            ]
            .concat();
        }),
    )
    .accepted(),
    // C12: another root.
    Case::new(
        "C12",
        "quote and collateral of another root",
        Issued(|evidence, pki| {
            let other = TestPki::generate(pki.platform().clone())?;
            let others = other.scenario(evidence.now)?.build()?;
            evidence.quote = others.quote;
            evidence.collateral = others.collateral;
            Ok(())
        }),
    ),
    Case::new(
        "C12",
        "the quote of another root",
        Issued(|evidence, pki| {
            let other = TestPki::generate(pki.platform().clone())?;
            evidence.quote = other.scenario(evidence.now)?.build()?.quote;
            Ok(())
        }),
    ),
    Case::new(
        "C12",
        "the collateral of another root",
        Issued(|evidence, pki| {
            let other = TestPki::generate(pki.platform().clone())?;
            evidence.collateral = other.scenario(evidence.now)?.build()?.collateral;
            Ok(())
        }),
    ),
    // C13
    Case::new(
        "C13",
        "PCK certificate revoked",
        Described(|scenario| scenario.revoked = vec![Revoked::Pck]),
    ),
    Case::new(
        "C13",
        "platform CA revoked",
        Described(|scenario| scenario.revoked = vec![Revoked::PlatformCa]),
    ),
    Case::new(
        "C13",
        "TCB signing certificate revoked",
        Described(|scenario| scenario.revoked = vec![Revoked::TcbSigning]),
    ),
    // C14
    Case::new(
        "C14",
        "PCK CRL empty",
        Shown(|evidence| evidence.collateral.pck_crl.clear()),
    ),
    Case::new(
        "C14",
        "root CRL empty",
        Shown(|evidence| evidence.collateral.root_ca_crl.clear()),
    ),
    Case::new(
        "C14",
        "PCK CRL garbage",
        Shown(|evidence| evidence.collateral.pck_crl = vec![0x5a; 300]),
    ),
    Case::new(
        "C14",
        "root CRL garbage",
        Shown(|evidence| evidence.collateral.root_ca_crl = vec![0x5a; 300]),
    ),
    Case::new(
        "C14",
        "a bit of the PCK CRL flipped",
        Shown(|evidence| flip_last(&mut evidence.collateral.pck_crl)),
    ),
    Case::new(
        "C14",
        "a bit of the root CRL flipped",
        Shown(|evidence| flip_last(&mut evidence.collateral.root_ca_crl)),
    ),
    Case::new(
        "C14",
        "PCK CRL of another issuer",
        Issued(|evidence, pki| {
            let other = TestPki::generate(pki.platform().clone())?;
            evidence.collateral.pck_crl = other.pck_crl(&[], valid(evidence))?;
            Ok(())
        }),
    ),
    Case::new(
        "C14",
        "root CRL of another issuer",
        Issued(|evidence, pki| {
            let other = TestPki::generate(pki.platform().clone())?;
            evidence.collateral.root_ca_crl = other.root_crl(&[], valid(evidence))?;
            Ok(())
        }),
    ),
    Case::new(
        "C14",
        "both lists swapped",
        Shown(|evidence| {
            let Evidence { collateral, .. } = evidence;
            std::mem::swap(&mut collateral.pck_crl, &mut collateral.root_ca_crl);
        }),
    ),
    Case::new(
        "C14",
        "the root CRL in place of the PCK CRL",
        Shown(|evidence| evidence.collateral.pck_crl = evidence.collateral.root_ca_crl.clone()),
    ),
    Case::new(
        "C14",
        "PCK CRL expired",
        Issued(|evidence, pki| {
            evidence.collateral.pck_crl = pki.pck_crl(&[], past(evidence))?;
            Ok(())
        }),
    ),
    Case::new(
        "C14",
        "root CRL expired",
        Issued(|evidence, pki| {
            evidence.collateral.root_ca_crl = pki.root_crl(&[], past(evidence))?;
            Ok(())
        }),
    ),
    Case::new(
        "C14",
        "PCK CRL without nextUpdate",
        Issued(|evidence, pki| endless(&mut evidence.collateral.pck_crl, &pki.keys.platform_ca)),
    ),
    Case::new(
        "C14",
        "root CRL without nextUpdate",
        Issued(|evidence, pki| endless(&mut evidence.collateral.root_ca_crl, &pki.keys.root)),
    ),
    // C19
    Case::new(
        "C19",
        "TCB signing certificate expired",
        Issued(|evidence, pki| resign(evidence, pki, VALIDITY.0, evidence.now - 1)),
    ),
    Case::new(
        "C19",
        "TCB signing certificate not yet valid",
        Issued(|evidence, pki| resign(evidence, pki, evidence.now + DAY, VALIDITY.1)),
    ),
    // C23
    Case::new(
        "C23",
        "the chain of another machine of the same authority",
        Prepared(|scenario| {
            scenario.chain = scenario
                .pki
                .sibling(scenario.pki.platform().clone())?
                .pck_chain();
            Ok(())
        }),
    ),
];

/// A revocation list's validity as long as it takes.
fn valid(evidence: &Evidence) -> (u64, u64) {
    (evidence.now, evidence.now + 30 * DAY)
}

/// A validity that has ended.
fn past(evidence: &Evidence) -> (u64, u64) {
    (evidence.now - 60 * DAY, evidence.now - DAY)
}

fn flip_last(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

/// Certifies the same TCB signing key for another time.
fn resign(evidence: &mut Evidence, pki: &TestPki, from: u64, to: u64) -> Result<(), Error> {
    let signer = pki.tcb_signing_certificate(from, to)?;
    let chain = [&*signer, pki.root_pem()].concat();
    evidence.collateral.tcb_info_issuer_chain = chain.clone();
    evidence.collateral.qe_identity_issuer_chain = chain;
    Ok(())
}

/// Takes nextUpdate out of a revocation list without revocations, and signs it again.
fn endless(list: &mut Vec<u8>, key: &Key) -> Result<(), Error> {
    /// Version, algorithm, issuer, thisUpdate, nextUpdate, extensions.
    const NEXT_UPDATE: usize = 4;
    let (mut parts, algorithm) = yasna::parse_der(list, |reader| {
        reader.read_sequence(|reader| {
            let parts = reader.next().read_sequence(|reader| {
                (0..6)
                    .map(|_| reader.next().read_der())
                    .collect::<Result<Vec<_>, _>>()
            })?;
            let algorithm = reader.next().read_der()?;
            reader.next().read_der()?;
            Ok((parts, algorithm))
        })
    })
    .expect("a list that rcgen made");
    parts.remove(NEXT_UPDATE);
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| parts.iter().for_each(|part| writer.next().write_der(part)));
    });
    let signature = key.certifying().sign(&content)?;
    *list = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&content);
            writer.next().write_der(&algorithm);
            writer
                .next()
                .write_bitvec_bytes(&signature, signature.len() * 8);
        });
    });
    Ok(())
}
