//! The trust fingerprint: program, configuration, model and session key in one hash. A client recomputes it from the quote, the claims and
//! the certificate's key; nothing is believed because the text says so.

use ring::digest::SHA384;

use crate::claims::Model;
use crate::events::sealed_fields;
use crate::transcript::Transcript;
use crate::{Sha384, sha384};

/// The five registers of a quote or TDREPORT that say what runs in a trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The image.
    pub mrtd: Sha384,
    /// RTMR\[0\] to RTMR\[3\]; the last two hold the configuration and the model ([`crate::events`]).
    pub rtmr: [Sha384; 4],
}

impl Registers {
    /// The platform-measurement digest of the claims: SHA-384 over a domain string and the registers in order, each after its length.
    pub fn digest(&self) -> Sha384 {
        let mut transcript =
            Transcript::new(&SHA384, "vitrine platform measurement v1").field(&self.mrtd);
        for register in &self.rtmr {
            transcript = transcript.field(register);
        }
        transcript.finish()
    }
}

/// The trust fingerprint of a session: SHA-384 over a domain string, then, each after its length,
///
/// 1. MRTD and RTMR\[2\]: the application,
/// 2. the model: the text `none`, or `loaded`, its version (eight bytes, most significant first), the text `sealed` with the SHA-256 of the
///    sealed file or `unsealed` with nothing, and the SHA-256 of the GGUF file,
/// 3. SHA-384 of the TLS key as SubjectPublicKeyInfo in DER (`public_key`).
pub fn fingerprint(registers: &Registers, model: &Model, public_key: &[u8]) -> Sha384 {
    let transcript = Transcript::new(&SHA384, "vitrine trust fingerprint v1")
        .field(&registers.mrtd)
        .field(&registers.rtmr[2]);
    let transcript = match model {
        Model::None => transcript.field(b"none"),
        Model::Loaded { identity, version } => sealed_fields(
            transcript.field(b"loaded").field(&version.to_be_bytes()),
            identity,
        ),
    };
    transcript.field(&sha384(public_key)).finish()
}
