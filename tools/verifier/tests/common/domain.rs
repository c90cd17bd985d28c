//! A trust domain under a test root, with everything it shows and what a client would pin: sound until a test changes it.

use std::sync::OnceLock;

use attestation::certificate::Evidence;
use attestation::claims::{Claims, MinimumTcb, Model, Validity};
use attestation::events::{ModelIdentity, UNEXTENDED, configuration_digest, extend, model_digest};
use attestation::fingerprint::{Registers, fingerprint};
use attestation::report_data::ReportData;
use measurements::manifest::{
    ConfigurationEntry, ImageEntry, Masked, ModelEntry, MrtdEntry, SCHEMA, Source, TcbSummary,
    Toolchain,
};
use measurements::{Hex, Manifest};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use testpki::{Platform, TestPki};
use verifier::policy::ModelPolicy;
use verifier::{
    Collateral, ManifestSource, Policy, Report, Scope, TrustAnchor, VerifiedEvidence, Verifier,
};

/// 2026-03-01.
pub const NOW: u64 = 1_772_323_200;
pub const EVIDENCE: &[u64] = &[2, 23, 133, 5, 4, 9];
pub const CONFIGURATION: &[u8] = b"vitrine-configuration/1\nmodel.context=4096\n";

/// One PKI for all tests of a program.
pub fn pki() -> &'static TestPki {
    static PKI: OnceLock<TestPki> = OnceLock::new();
    PKI.get_or_init(|| TestPki::generate(Platform::default()).unwrap())
}

pub fn model() -> ModelIdentity {
    ModelIdentity {
        name: "model".into(),
        sealed: Some([7; 32]),
        plaintext: [8; 32],
    }
}

/// A domain. [`Domain::new`] is sound.
pub struct Domain {
    pub key: KeyPair,
    /// The registers of the quote.
    pub registers: Registers,
    pub claims: Claims,
    /// REPORTDATA of the quote, if not the one of the claims.
    pub report_data: Option<[u8; 64]>,
    /// The extensions, if not the one with the evidence; from the evidence's encoding.
    pub extensions: fn(Vec<u8>) -> Vec<CustomExtension>,
    /// First and last second of the certificate, if not the claimed ones.
    pub validity: Option<(u64, u64)>,
}

impl Domain {
    pub fn new() -> Self {
        Self::with_model(Model::Loaded {
            identity: model(),
            version: 3,
        })
    }

    pub fn with_model(model: Model) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let rtmr3 = match &model {
            Model::None => UNEXTENDED,
            Model::Loaded { identity, .. } => extend(&UNEXTENDED, &model_digest(identity)),
        };
        let registers = Registers {
            mrtd: [0x4d; 48],
            rtmr: [
                UNEXTENDED,
                UNEXTENDED,
                extend(&UNEXTENDED, &configuration_digest(CONFIGURATION)),
                rtmr3,
            ],
        };
        let public_key = key.subject_public_key_info();
        let claims = Claims {
            public_key_hash: attestation::sha384(&public_key),
            platform: registers.digest(),
            compile: [2; 48],
            configuration: CONFIGURATION.to_vec(),
            fingerprint: fingerprint(&registers, &model, &public_key),
            model,
            minimum_tcb: MinimumTcb::default(),
            boot: [9; 16],
            validity: Validity {
                not_before: NOW - 60,
                not_after: NOW + 600,
            },
        };
        Self {
            key,
            registers,
            claims,
            report_data: None,
            extensions: |evidence| vec![CustomExtension::from_oid_content(EVIDENCE, evidence)],
            validity: None,
        }
    }

    /// A quote of the domain with this REPORTDATA.
    pub fn quote(&self, report_data: [u8; 64]) -> Vec<u8> {
        let mut scenario = pki().scenario(NOW).unwrap();
        scenario.report.mac.report_data = report_data;
        scenario.report.td.mr_td = self.registers.mrtd;
        scenario.report.td.rtmr = self.registers.rtmr;
        scenario.build().unwrap().quote
    }

    /// The domain's certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.certificate_over(self.claims.encode())
    }

    /// The same with this encoding of the claims.
    pub fn certificate_over(&self, claims_buffer: Vec<u8>) -> Vec<u8> {
        let bound = *ReportData::certificate(&claims_buffer).as_bytes();
        let quote = self.quote(self.report_data.unwrap_or(bound));
        self.certificate_with(&quote, &claims_buffer)
    }

    /// The same with this quote.
    pub fn certificate_with(&self, quote: &[u8], claims_buffer: &[u8]) -> Vec<u8> {
        let claimed = &self.claims.validity;
        let (from, to) = self
            .validity
            .unwrap_or((claimed.not_before, claimed.not_after));
        let date = |seconds: u64| {
            time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
        };
        let mut params = CertificateParams::new(["vitrine".to_owned()]).unwrap();
        params.not_before = date(from);
        params.not_after = date(to);
        let evidence = Evidence {
            quote,
            claims_buffer,
        };
        params.custom_extensions = (self.extensions)(evidence.encode());
        params.self_signed(&self.key).unwrap().der().to_vec()
    }
}

/// Sound collateral.
pub fn collateral() -> Collateral {
    let evidence = pki().scenario(NOW).unwrap().build().unwrap();
    Collateral::parse(evidence.collateral.to_json().as_bytes()).unwrap()
}

/// What a release with this program, configuration and model publishes.
pub fn manifest() -> Manifest {
    let domain = Domain::new();
    Manifest {
        schema: SCHEMA.into(),
        version: "1.0.0".into(),
        image: ImageEntry {
            bytes: 65536,
            sha384: Hex([1; 48]),
            guest_sha384: Hex([2; 48]),
        },
        mrtd: MrtdEntry {
            page_by_page: Hex([0x4d; 48]),
            add_then_extend: Hex([0x4e; 48]),
        },
        rtmr0: Hex(UNEXTENDED),
        rtmr1: Hex(UNEXTENDED),
        configurations: vec![ConfigurationEntry {
            name: "default".into(),
            canonical: String::from_utf8(CONFIGURATION.to_vec()).unwrap(),
            digest: Hex(configuration_digest(CONFIGURATION)),
            rtmr2: Hex(domain.registers.rtmr[2]),
        }],
        models: vec![ModelEntry {
            name: "model".into(),
            sealed_sha256: Some(Hex([7; 32])),
            sha256: Hex([8; 32]),
            digest: Hex(model_digest(&model())),
            rtmr3: Hex(domain.registers.rtmr[3]),
        }],
        attributes: Masked::ATTRIBUTES,
        xfam: Masked::XFAM,
        source: Source {
            files: 1,
            sha384: Hex([3; 48]),
        },
        toolchain: Toolchain {
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            gcc: "gcc".into(),
            binutils: "binutils".into(),
        },
        tcb: TcbSummary {
            crates: 1,
            lines: 1,
            unsafe_lines: 0,
        },
    }
}

/// A policy that pins what the sound domain is.
pub fn pins() -> Policy {
    Policy {
        manifests: vec![ManifestSource::read(manifest().encode().as_bytes())],
        model: ModelPolicy {
            digests: vec![[8; 32]],
            ..ModelPolicy::default()
        },
        ..Policy::default()
    }
}

/// A verifier under the test root.
pub fn verifier(policy: Policy) -> Verifier {
    Verifier {
        policy,
        anchor: TrustAnchor::test(&pki().root_der()).unwrap(),
        scope: Scope::Everything,
        now: NOW,
        seen: None,
    }
}

/// Judges a certificate under the pins.
pub fn judge(certificate: &[u8]) -> (Report, Option<VerifiedEvidence>) {
    verifier(pins()).certificate(certificate, Ok(collateral()))
}
