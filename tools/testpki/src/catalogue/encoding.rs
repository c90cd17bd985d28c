//! Encodings meant to exhaust or confuse a parser: C24 (DER and PEM) and C25 (JSON).

use rcgen::CustomExtension;

use super::Case;
use super::Change::{Described, Issued, Prepared, Shown};
use crate::pck_extension::{self, SGX_EXTENSION};
use crate::{Error, Evidence, Scenario, TestPki};

pub(super) const CASES: &[Case] = &[
    // C24: harmful encodings. The authority's own signature is on what it can sign.
    Case::new(
        "C24",
        "10 000 nested sequences in the SGX extension",
        Prepared(|scenario| extend(scenario, &[nested(10_000)])),
    ),
    Case::new(
        "C24",
        "the SGX extension twice",
        Prepared(|scenario| {
            let mut other = scenario.pki.platform().clone();
            other.fmspc[0] ^= 1;
            let contents = [scenario.pki.platform(), &other]
                .map(|platform| pck_extension::encode(platform).content().to_vec());
            extend(scenario, &contents)
        }),
    ),
    Case::new(
        "C24",
        "an object identifier of 64 KiB",
        Prepared(|scenario| {
            let mut oid = vec![0x06, 0x83, 0x01, 0x00, 0x00];
            oid.extend([0xff; 65_535]);
            oid.push(0x7f);
            extend(scenario, &[oid])
        }),
    ),
    Case::new(
        "C24",
        "a leaf of 10 000 nested sequences",
        Described(|scenario| leaf(scenario, &nested(10_000))),
    ),
    Case::new(
        "C24",
        "a leaf of indefinite length",
        Described(|scenario| leaf(scenario, &[0x30, 0x80, 0x30, 0x80, 0, 0, 0, 0])),
    ),
    Case::new(
        "C24",
        "a leaf of 4 GiB",
        Described(|scenario| leaf(scenario, &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30])),
    ),
    Case::new(
        "C24",
        "a leaf whose length is written in 100 bytes",
        Described(|scenario| {
            let mut der = vec![0x30, 0x80 | 100];
            der.extend([0; 99]);
            der.extend([1, 0]);
            leaf(scenario, &der);
        }),
    ),
    Case::new(
        "C24",
        "a negative serial number",
        Described(|scenario| {
            let mut der = crate::pki::der(&scenario.pki.certificates.pck);
            let serial = scenario.pki.keys.pck.serial_number();
            let at = der
                .windows(20)
                .position(|window| window == serial)
                .expect("it is there");
            der[at] |= 0x80;
            leaf(scenario, &der);
        }),
    ),
    Case::new(
        "C24",
        "a serial number of 4 KiB",
        Described(|scenario| {
            let mut integer = vec![0x02, 0x82, 0x10, 0x00];
            integer.extend([0x41; 4096]);
            let mut der = vec![0x30, 0x82, 0x10, 0x08, 0x30, 0x82, 0x10, 0x04];
            der.extend(integer);
            leaf(scenario, &der);
        }),
    ),
    Case::new(
        "C24",
        "10 000 PEM blocks",
        Described(|scenario| {
            let block = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
            scenario.chain.push_str(&block.repeat(10_000));
        }),
    ),
    Case::new(
        "C24",
        "a NUL in the middle of the chain",
        Described(|scenario| {
            let middle = scenario.pki.certificates.pck.len() / 2;
            scenario.chain.insert(middle, '\0');
        }),
    ),
    Case::new(
        "C24",
        "a NUL at the end of the chain, as Intel's have",
        Described(|scenario| scenario.chain.push('\0')),
    )
    .accepted(),
    Case::new(
        "C24",
        "a PCK CRL of 10 000 nested sequences",
        Shown(|evidence| evidence.collateral.pck_crl = nested(10_000)),
    ),
    // C25: signed, and too much for a careless parser.
    Case::new(
        "C25",
        "TCB info within 100 000 arrays",
        Issued(|evidence, pki| {
            let arrays = ["[".repeat(100_000), "]".repeat(100_000)];
            let document = evidence.collateral.tcb_info.replacen(
                "{",
                &format!("{{\"x\":{},", arrays.concat()),
                1,
            );
            issue(evidence, pki, document)
        }),
    ),
    Case::new(
        "C25",
        "TCB info of 100 000 open arrays",
        Issued(|evidence, pki| issue(evidence, pki, "[".repeat(100_000))),
    ),
    Case::new(
        "C25",
        "TCB info with the FMSPC twice",
        Issued(|evidence, pki| {
            let document =
                evidence
                    .collateral
                    .tcb_info
                    .replacen("{", "{\"fmspc\":\"000000000000\",", 1);
            issue(evidence, pki, document)
        }),
    ),
    Case::new(
        "C25",
        "TCB info with a string of 10 MB",
        Issued(|evidence, pki| {
            let field = format!("{{\"x\":\"{}\",", "a".repeat(10_000_000));
            let document = evidence.collateral.tcb_info.replacen("{", &field, 1);
            issue(evidence, pki, document)
        }),
    ),
    Case::new(
        "C25",
        "TCB info with the number 1e400",
        Issued(|evidence, pki| {
            let document =
                evidence
                    .collateral
                    .tcb_info
                    .replacen("\"tcbType\":0", "\"tcbType\":1e400", 1);
            issue(evidence, pki, document)
        }),
    ),
    Case::new(
        "C25",
        "TCB info with NaN",
        Issued(|evidence, pki| {
            let document =
                evidence
                    .collateral
                    .tcb_info
                    .replacen("\"tcbType\":0", "\"tcbType\":NaN", 1);
            issue(evidence, pki, document)
        }),
    ),
    Case::new(
        "C25",
        "TCB info that is no object",
        Issued(|evidence, pki| issue(evidence, pki, "null".into())),
    ),
];

/// Certifies the PCK with one SGX extension for each of these contents.
fn extend(scenario: &mut Scenario<'_>, contents: &[Vec<u8>]) -> Result<(), Error> {
    let extension =
        |content: &Vec<u8>| CustomExtension::from_oid_content(&SGX_EXTENSION, content.clone());
    let leaf = scenario
        .pki
        .pck_certificate_with(contents.iter().map(extension).collect())?;
    scenario.chain = scenario.pki.chain_of(&leaf);
    Ok(())
}

/// Shows these bytes as the leaf.
fn leaf(scenario: &mut Scenario<'_>, der: &[u8]) {
    let leaf = pem::encode(&pem::Pem::new("CERTIFICATE", der));
    scenario.chain = scenario.pki.chain_of(&leaf);
}

/// Sequences within sequences.
fn nested(depth: usize) -> Vec<u8> {
    let mut reversed = Vec::new();
    for _ in 0..depth {
        let length = reversed.len();
        match u16::try_from(length) {
            Ok(short @ ..0x80) => reversed.push(short as u8),
            Ok(long) => reversed.extend([long.to_le_bytes().as_slice(), &[0x82]].concat()),
            Err(_) => reversed.extend([&(length as u32).to_le_bytes()[..3], &[0x83]].concat()),
        }
        reversed.push(0x30);
    }
    reversed.reverse();
    reversed
}

/// Signs another TCB info.
fn issue(evidence: &mut Evidence, pki: &TestPki, document: String) -> Result<(), Error> {
    evidence.collateral.tcb_info_signature = pki.sign_collateral(&document)?;
    evidence.collateral.tcb_info = document;
    Ok(())
}
