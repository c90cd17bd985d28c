//! The certificates: what each kind says, and who signs it.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use time::OffsetDateTime;

use crate::{Error, Key};

/// 2018-05-21 and 2049-12-31, which bound the genuine root; here they bound every certificate.
pub(crate) const VALIDITY: (u64, u64) = (1_526_857_200, 2_524_521_600);

/// The four kinds of certificate in the PKI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    PlatformCa,
    Pck,
    TcbSigning,
}

impl Kind {
    /// Like Intel's names, and clearly not Intel's. Verifiers look for "Platform" in the name of a PCK's issuer.
    fn common_name(self) -> &'static str {
        match self {
            Self::Root => "Vitrine Test SGX Root CA",
            Self::PlatformCa => "Vitrine Test SGX PCK Platform CA",
            Self::Pck => "Vitrine Test SGX PCK Certificate",
            Self::TcbSigning => "Vitrine Test SGX TCB Signing",
        }
    }

    /// What a certificate of this kind for `key` says.
    fn parameters(self, key: &Key, (from, to): (u64, u64)) -> Result<CertificateParams, Error> {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.common_name());
        name.push(DnType::OrganizationName, "Vitrine Test");
        let mut parameters = CertificateParams::default();
        parameters.not_before = date(from)?;
        parameters.not_after = date(to)?;
        parameters.serial_number = Some(SerialNumber::from_slice(&key.serial_number()));
        parameters.distinguished_name = name;
        parameters.use_authority_key_identifier_extension = self != Self::Root;
        match self {
            Self::Root | Self::PlatformCa => {
                let below = u8::from(self == Self::Root);
                parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
                parameters.key_usages =
                    vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }
            Self::Pck | Self::TcbSigning => {
                parameters.is_ca = IsCa::ExplicitNoCa;
                parameters.key_usages = vec![
                    KeyUsagePurpose::DigitalSignature,
                    KeyUsagePurpose::ContentCommitment,
                ];
            }
        }
        Ok(parameters)
    }

    /// The authority of this kind that signs with `key`.
    pub fn issuer(self, key: &Key) -> Result<Issuer<'static, &KeyPair>, Error> {
        Ok(Issuer::new(
            self.parameters(key, VALIDITY)?,
            key.certifying(),
        ))
    }

    /// A certificate of this kind for `key`, signed by `signer`, as PEM.
    pub fn certify(
        self,
        key: &Key,
        signer: (Kind, &Key),
        validity: (u64, u64),
        extensions: Vec<CustomExtension>,
    ) -> Result<String, Error> {
        let mut parameters = self.parameters(key, validity)?;
        parameters.custom_extensions = extensions;
        let issuer = signer.0.issuer(signer.1)?;
        Ok(parameters.signed_by(key.certifying(), &issuer)?.pem())
    }
}

/// A time as certificates have it, from seconds since 1970.
pub(crate) fn date(seconds: u64) -> Result<OffsetDateTime, Error> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(Error::Time(seconds))
}
