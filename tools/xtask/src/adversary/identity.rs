//! Who the adversary says it is: certificates with the victim's evidence, with none, and with evidence that the test root's keys make.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use attestation::certificate::Evidence as Extension;
use attestation::challenge::{Answer, Challenge, Purpose, Role, tree};
use attestation::claims::Claims;
use attestation::fingerprint::fingerprint;
use attestation::report_data::ReportData;
use client::Session;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tdx::report::Attributes;
use testpki::{QuoteFormat, TestPki, authenticate};
use time::OffsetDateTime;
use verifier::{Collateral, Policy, Proved, Scope, TrustAnchor, UntrustedCertificate, Verifier};

use crate::failure::{Context, Failure, Result};

/// TCG DICE conceptual message wrapper, [`attestation::certificate::EXTENSION_ID`].
const EXTENSION: &[u64] = &[2, 23, 133, 5, 4, 9];

/// What the victim shows to anybody.
pub struct Victim {
    certificate: Vec<u8>,
    shown: UntrustedCertificate,
    claims: Claims,
    proved: Proved,
}

impl Victim {
    /// Takes the certificate of a connection apart. `directory` is where the test root is kept.
    pub fn look(session: &Session, pki: &TestPki, directory: &Path, now: u64) -> Result<Self> {
        let certificate = session.certificate().unwrap_or_default().to_vec();
        let shown = UntrustedCertificate::parse(&certificate)
            .map_err(|code| Failure::new(format!("the victim's certificate: {code}")))?;
        let claims = Claims::decode(shown.claims_buffer()).context("read the victim's claims")?;
        let path = TestPki::collateral_path(directory);
        let collateral = fs::read(&path).context(format!("read {}", path.display()))?;
        let anchor = TrustAnchor::test(&pki.root_der());
        let verifier = Verifier {
            policy: Policy::default(),
            anchor: anchor.ok_or_else(|| Failure::new("the test root is no certificate"))?,
            scope: Scope::PlatformOnly,
            now,
            seen: None,
        };
        let (report, _) = verifier.certificate(&certificate, Collateral::parse(&collateral));
        let proved = report.proved;
        Ok(Self {
            certificate,
            shown,
            claims,
            proved: proved.ok_or_else(|| Failure::new("the victim's quote proves nothing"))?,
        })
    }

    /// The quote in its certificate.
    pub fn quote(&self) -> &[u8] {
        self.shown.quote()
    }

    /// A quote of such a domain with this REPORTDATA, by the test root's quoting enclave.
    fn forge(&self, pki: &TestPki, report_data: &ReportData) -> Result<Vec<u8>> {
        let Proved {
            registers,
            attributes,
            xfam,
            mrseam,
            ..
        } = &self.proved;
        let mut report = pki.platform().report();
        report.mac.report_data = *report_data.as_bytes();
        report.tcb.mr_seam = *mrseam;
        report.td.attributes = Attributes(*attributes);
        report.td.xfam = *xfam;
        report.td.mr_td = registers.mrtd;
        report.td.rtmr = registers.rtmr;
        authenticate(&mut report, pki.report_key());
        pki.quoting_enclave()
            .quote(report.as_bytes(), QuoteFormat::V4)
            .context("forge a quote")
    }
}

/// What a certificate of the adversary's carries.
#[derive(Clone, Copy)]
pub enum Evidence<'a> {
    None,
    /// The victim's, as it is.
    Copied,
    /// The victim's quote with claims about the adversary's key.
    Rewritten,
    /// The quote in this answer to a challenge, with claims about the adversary's key.
    Answer(&'a [u8]),
    /// A quote of claims about the adversary's key.
    Sound,
}

/// A certificate and a key, which is the certificate's or not.
pub struct Identity {
    key: KeyPair,
    certificate: Vec<u8>,
    /// The trust fingerprint of the adversary's key.
    fingerprint: [u8; 48],
}

/// What an answer is made for.
pub struct Asked {
    pub purpose: Purpose,
    pub role: Role,
    pub nonce: [u8; 32],
    pub exporter: [u8; 32],
}

impl Identity {
    /// A key of the adversary's, and a certificate of it.
    pub fn new(victim: &Victim, evidence: Evidence<'_>, pki: &TestPki) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")?;
        let public_key = key.subject_public_key_info();
        let fingerprint = fingerprint(&victim.proved.registers, &victim.claims.model, &public_key);
        let claims = Claims {
            public_key_hash: attestation::sha384(&public_key),
            fingerprint,
            ..victim.claims.clone()
        }
        .encode();
        let extension = match evidence {
            Evidence::None => None,
            Evidence::Copied => Some((
                victim.quote().to_vec(),
                victim.shown.claims_buffer().to_vec(),
            )),
            Evidence::Rewritten => Some((victim.quote().to_vec(), claims)),
            Evidence::Answer(answer) => {
                let answer = Answer::decode(answer).context("read the victim's answer")?;
                Some((answer.quote, claims))
            }
            Evidence::Sound => Some((
                victim.forge(pki, &ReportData::certificate(&claims))?,
                claims,
            )),
        };
        let mut parameters =
            CertificateParams::new(["vitrine".to_owned()]).context("describe a certificate")?;
        let date = |seconds: u64| {
            OffsetDateTime::from_unix_timestamp(seconds.cast_signed()).context("date a certificate")
        };
        let validity = victim.claims.validity;
        parameters.not_before = date(validity.not_before)?;
        parameters.not_after = date(validity.not_after)?;
        if let Some((quote, claims)) = extension {
            let value = Extension {
                quote: &quote,
                claims_buffer: &claims,
            };
            let extension = CustomExtension::from_oid_content(EXTENSION, value.encode());
            parameters.custom_extensions = vec![extension];
        }
        let certificate = parameters
            .self_signed(&key)
            .context("sign a certificate")?
            .der()
            .to_vec();
        Ok(Self {
            key,
            certificate,
            fingerprint,
        })
    }

    /// The victim's certificate, and a key that is not its.
    pub fn without_key(victim: &Victim) -> Result<Self> {
        Ok(Self {
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")?,
            certificate: victim.certificate.clone(),
            fingerprint: victim.claims.fingerprint,
        })
    }

    /// A TLS server with this identity.
    pub fn config(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = ring::sign::any_supported_type(&key).context("use a key")?;
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("configure TLS")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                chain, key,
            ))));
        Ok(Arc::new(config))
    }

    /// An answer to a challenge on a connection of this identity's, by the test root's quoting enclave.
    pub fn answer(&self, victim: &Victim, pki: &TestPki, asked: &Asked) -> Result<Vec<u8>> {
        let challenge = Challenge {
            purpose: asked.purpose,
            role: asked.role,
            nonce: asked.nonce,
            certificate: attestation::sha384(&self.certificate),
            exporter: asked.exporter,
            fingerprint: self.fingerprint,
        };
        let (root, _) = tree(&[challenge.leaf()])
            .ok_or_else(|| Failure::new("a challenge that no tree takes"))?;
        let bound = ReportData::challenges(asked.purpose, &root);
        let answer = Answer {
            quote: victim.forge(pki, &bound)?,
            path: Vec::new(),
        };
        Ok(answer.encode())
    }
}
