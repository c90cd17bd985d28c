//! A quote in parts, each open to change, and its bytes.
//!
//! Layout: header 48 ‖ body ‖ signature data, little-endian throughout (Intel DCAP, `sgx_quote_4.h` and `sgx_quote_5.h`).

use ring::digest;

use crate::tcb::{QE_MRSIGNER, QE_PRODUCT};
use crate::{Error, Key, Platform};

/// Intel's quoting enclaves.
const INTEL: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Where an SGX report body has its REPORTDATA.
const QE_REPORT_DATA: usize = 320;

/// What is quoted, and how the quote names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteBody {
    /// Type and size, which only version 5 writes down.
    pub descriptor: Option<(u16, u32)>,
    pub bytes: Vec<u8>,
}

/// Lengths to write instead of the true ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    pub signature_data: Option<u32>,
    pub certification_data: Option<u32>,
    pub auth_data: Option<u16>,
    pub chain: Option<u32>,
}

/// A quote in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub version: u16,
    /// 2: ECDSA with P-256.
    pub key_type: u16,
    /// 0x81: TDX.
    pub tee_type: u32,
    pub reserved: [u8; 4],
    pub vendor: [u8; 16],
    pub user_data: [u8; 20],
    pub body: QuoteBody,
    /// `r ‖ s` of the attestation key over header and body.
    pub signature: [u8; 64],
    /// `x ‖ y`.
    pub attestation_key: [u8; 64],
    /// 6 around the QE report; none in version 3.
    pub certification_type: Option<u16>,
    /// An SGX report body, whose REPORTDATA vouches for the attestation key.
    pub qe_report: [u8; 384],
    /// `r ‖ s` of the PCK key over the QE report.
    pub qe_report_signature: [u8; 64],
    pub auth_data: Vec<u8>,
    /// 5: a PEM chain.
    pub chain_type: u16,
    pub chain: Vec<u8>,
    pub lengths: Lengths,
}

impl Quote {
    /// An unsigned TDX quote of `body` by the quoting enclave of `platform`, with the PEM chain of its PCK.
    pub fn new(version: u16, body: QuoteBody, platform: &Platform, chain: &str) -> Self {
        Self {
            version,
            key_type: 2,
            tee_type: 0x81,
            reserved: [0; 4],
            vendor: INTEL,
            user_data: [0x1d; 20],
            body,
            signature: [0; 64],
            attestation_key: [0; 64],
            certification_type: Some(6),
            qe_report: qe_report(platform),
            qe_report_signature: [0; 64],
            auth_data: (0..32).collect(),
            chain_type: 5,
            chain: chain.as_bytes().to_vec(),
            lengths: Lengths::default(),
        }
    }

    /// Signs as things stand: the PCK vouches for the attestation key, and that signs header and body.
    pub fn sign(&mut self, attestation: &Key, pck: &Key) -> Result<(), Error> {
        self.vouch(attestation.public(), pck)?;
        self.signature = attestation.sign(&self.signed_part())?;
        Ok(())
    }

    /// Has the PCK vouch for an attestation key (`x ‖ y`).
    pub fn vouch(&mut self, attestation_key: [u8; 64], pck: &Key) -> Result<(), Error> {
        self.attestation_key = attestation_key;
        let vouched = [&self.attestation_key[..], &self.auth_data].concat();
        let digest = digest::digest(&digest::SHA256, &vouched);
        self.qe_report[QE_REPORT_DATA..][..32].copy_from_slice(digest.as_ref());
        self.qe_report_signature = pck.sign(&self.qe_report)?;
        Ok(())
    }

    /// Header and body.
    fn signed_part(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.key_type.to_le_bytes());
        bytes.extend(self.tee_type.to_le_bytes());
        bytes.extend(self.reserved);
        bytes.extend(self.vendor);
        bytes.extend(self.user_data);
        if let Some((kind, size)) = self.body.descriptor {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(size.to_le_bytes());
        }
        bytes.extend(&self.body.bytes);
        bytes
    }

    /// The quote's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut certification = Vec::new();
        certification.extend(self.qe_report);
        certification.extend(self.qe_report_signature);
        let auth_length = self
            .lengths
            .auth_data
            .unwrap_or(self.auth_data.len() as u16);
        certification.extend(auth_length.to_le_bytes());
        certification.extend(&self.auth_data);
        certification.extend(self.chain_type.to_le_bytes());
        let chain_length = self.lengths.chain.unwrap_or(self.chain.len() as u32);
        certification.extend(chain_length.to_le_bytes());
        certification.extend(&self.chain);

        let mut signature_data = Vec::new();
        signature_data.extend(self.signature);
        signature_data.extend(self.attestation_key);
        if let Some(kind) = self.certification_type {
            signature_data.extend(kind.to_le_bytes());
            let length = self.lengths.certification_data;
            signature_data.extend(length.unwrap_or(certification.len() as u32).to_le_bytes());
        }
        signature_data.extend(certification);

        let mut bytes = self.signed_part();
        let length = self.lengths.signature_data;
        bytes.extend(length.unwrap_or(signature_data.len() as u32).to_le_bytes());
        bytes.extend(signature_data);
        bytes
    }
}

/// The report of the quoting enclave of `platform`: an SGX report body that matches its QE identity.
fn qe_report(platform: &Platform) -> [u8; 384] {
    let mut report = [0; 384];
    report[..16].copy_from_slice(&platform.components);
    // ATTRIBUTES: initialised, 64-bit, provision key; XFRM: x87 and SSE.
    report[48] = 0x15;
    report[56] = 0x03;
    // MRENCLAVE
    report[64..96].copy_from_slice(&[0xe5; 32]);
    report[128..160].copy_from_slice(&QE_MRSIGNER);
    report[256..258].copy_from_slice(&QE_PRODUCT.to_le_bytes());
    report[258..260].copy_from_slice(&platform.qe_svn.to_le_bytes());
    report
}
