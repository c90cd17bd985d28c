//! The PKI itself: keys, certificates, and what they sign.

use rcgen::{
    CertificateRevocationListParams, CustomExtension, KeyIdMethod, RevokedCertParams, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::certificate::{Kind, VALIDITY, date};
use crate::{Error, Key, Platform, QuotingEnclave, Revoked, Scenario, pck_extension};

/// Root, platform CA, PCK and TCB signing, the quoting enclave's attestation key and the platform's report key.
pub struct TestPki {
    pub(crate) platform: Platform,
    pub(crate) keys: Keys,
    pub(crate) certificates: Certificates,
}

/// Every private key.
pub(crate) struct Keys {
    pub root: Key,
    pub platform_ca: Key,
    pub pck: Key,
    pub tcb_signing: Key,
    /// The quoting enclave's own, which the PCK vouches for.
    pub attestation: Key,
    /// Under which the TDX module authenticates TDREPORTs to the quoting enclave of the same platform.
    pub report: [u8; 32],
}

impl Keys {
    fn generate() -> Result<Self, Error> {
        let mut report = [0; 32];
        SystemRandom::new()
            .fill(&mut report)
            .map_err(|_| Error::Key)?;
        Ok(Self {
            root: Key::generate()?,
            platform_ca: Key::generate()?,
            pck: Key::generate()?,
            tcb_signing: Key::generate()?,
            attestation: Key::generate()?,
            report,
        })
    }
}

/// The certificates as PEM blocks.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub root: String,
    pub platform_ca: String,
    pub pck: String,
    pub tcb_signing: String,
}

impl TestPki {
    /// A new PKI for a platform.
    pub fn generate(platform: Platform) -> Result<Self, Error> {
        let keys = Keys::generate()?;
        let root = (Kind::Root, &keys.root);
        let certify = |kind: Kind, key| kind.certify(key, root, VALIDITY, Vec::new());
        let certificates = Certificates {
            root: certify(Kind::Root, &keys.root)?,
            platform_ca: certify(Kind::PlatformCa, &keys.platform_ca)?,
            pck: certify_pck(&platform, &keys)?,
            tcb_signing: certify(Kind::TcbSigning, &keys.tcb_signing)?,
        };
        Ok(Self {
            platform,
            keys,
            certificates,
        })
    }

    /// What the PCK certificate says.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The trust anchor of this PKI, as a PEM block.
    pub fn root_pem(&self) -> &str {
        &self.certificates.root
    }

    /// The trust anchor of this PKI, as DER.
    pub fn root_der(&self) -> Vec<u8> {
        der(&self.certificates.root)
    }

    /// PCK certificate, platform CA and root: what a quote carries.
    pub fn pck_chain(&self) -> String {
        self.chain_of(&self.certificates.pck)
    }

    /// The chain of another PCK certificate of the same authority, PEM.
    pub fn chain_of(&self, pck: &str) -> String {
        [pck, &self.pck_crl_chain()].concat()
    }

    /// Platform CA and root: who signed the PCK CRL.
    pub fn pck_crl_chain(&self) -> String {
        [&*self.certificates.platform_ca, &self.certificates.root].concat()
    }

    /// TCB signing certificate and root: who signed TCB info and QE identity.
    pub fn tcb_signing_chain(&self) -> String {
        [&*self.certificates.tcb_signing, &self.certificates.root].concat()
    }

    /// A PCK certificate for another platform description under the same key and authority, as PEM.
    pub fn pck_certificate(&self, platform: &Platform) -> Result<String, Error> {
        certify_pck(platform, &self.keys)
    }

    /// A PCK certificate with any extensions, under the same key and authority, as PEM.
    pub(crate) fn pck_certificate_with(
        &self,
        extensions: Vec<CustomExtension>,
    ) -> Result<String, Error> {
        let signer = (Kind::PlatformCa, &self.keys.platform_ca);
        Kind::Pck.certify(&self.keys.pck, signer, VALIDITY, extensions)
    }

    /// Another machine under the same root and authorities, with keys of its own.
    pub fn sibling(&self, platform: Platform) -> Result<Self, Error> {
        let keys = Keys {
            root: Key::from_pem(&self.keys.root.to_pem())?,
            platform_ca: Key::from_pem(&self.keys.platform_ca.to_pem())?,
            tcb_signing: Key::from_pem(&self.keys.tcb_signing.to_pem())?,
            ..Keys::generate()?
        };
        Ok(Self {
            certificates: Certificates {
                pck: certify_pck(&platform, &keys)?,
                ..self.certificates.clone()
            },
            platform,
            keys,
        })
    }

    /// A TCB signing certificate of other validity (seconds since 1970) under the same key and authority, as PEM.
    pub fn tcb_signing_certificate(&self, from: u64, to: u64) -> Result<String, Error> {
        let root = (Kind::Root, &self.keys.root);
        Kind::TcbSigning.certify(&self.keys.tcb_signing, root, (from, to), Vec::new())
    }

    /// Signs a collateral document as TCB signing does: `r ‖ s` over its exact bytes.
    pub fn sign_collateral(&self, document: &str) -> Result<Vec<u8>, Error> {
        Ok(self.keys.tcb_signing.sign(document.as_bytes())?.to_vec())
    }

    /// The root's revocation list, as DER, valid between the two times (seconds since 1970).
    pub fn root_crl(&self, revoked: &[Revoked], validity: (u64, u64)) -> Result<Vec<u8>, Error> {
        let serials = revoked.iter().filter_map(|revoked| match revoked {
            Revoked::PlatformCa => Some(&self.keys.platform_ca),
            Revoked::TcbSigning => Some(&self.keys.tcb_signing),
            Revoked::Pck => None,
        });
        crl((Kind::Root, &self.keys.root), serials, validity)
    }

    /// The platform CA's revocation list, as DER, valid between the two times (seconds since 1970).
    pub fn pck_crl(&self, revoked: &[Revoked], validity: (u64, u64)) -> Result<Vec<u8>, Error> {
        let serials = revoked
            .iter()
            .filter(|&&revoked| revoked == Revoked::Pck)
            .map(|_| &self.keys.pck);
        crl(
            (Kind::PlatformCa, &self.keys.platform_ca),
            serials,
            validity,
        )
    }

    /// The quoting enclave of this platform.
    pub fn quoting_enclave(&self) -> QuotingEnclave<'_> {
        QuotingEnclave::new(self)
    }

    /// The key of the MAC in TDREPORTs: known to the TDX module and the quoting enclave of one platform.
    pub fn report_key(&self) -> &[u8; 32] {
        &self.keys.report
    }

    /// Sound evidence, issued and shown at `now` (seconds since 1970), to change at will.
    pub fn scenario(&self, now: u64) -> Result<Scenario<'_>, Error> {
        Scenario::new(self, now)
    }
}

fn certify_pck(platform: &Platform, keys: &Keys) -> Result<String, Error> {
    let signer = (Kind::PlatformCa, &keys.platform_ca);
    let extension = pck_extension::encode(platform);
    Kind::Pck.certify(&keys.pck, signer, VALIDITY, vec![extension])
}

fn crl<'a>(
    issuer: (Kind, &Key),
    revoked: impl Iterator<Item = &'a Key>,
    (from, to): (u64, u64),
) -> Result<Vec<u8>, Error> {
    let this_update = date(from)?;
    let revoked_certs = revoked
        .map(|key| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&key.serial_number()),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let list = CertificateRevocationListParams {
        this_update,
        next_update: date(to)?,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(&issuer.0.issuer(issuer.1)?)?.der().to_vec())
}

/// The bytes of a PEM block this crate made.
pub(crate) fn der(block: &str) -> Vec<u8> {
    pem::parse(block)
        .map(pem::Pem::into_contents)
        .unwrap_or_default()
}
