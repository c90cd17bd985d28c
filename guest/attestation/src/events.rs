//! What extends the run-time measurement registers, each once, before the first prompt.
//!
//! | register   | extended with                                    | when                                   |
//! |------------|--------------------------------------------------|----------------------------------------|
//! | RTMR\[2\]  | [`configuration_digest`]                         | before anything is served              |
//! | RTMR\[3\]  | [`model_digest`]                                 | when the model is whole in private memory |
//!
//! RTMR\[0\] and RTMR\[1\] stay zero. A client recomputes both registers with [`extend`].

use alloc::string::String;

use ring::digest::SHA384;

use crate::transcript::Transcript;
use crate::{Sha256, Sha384, sha384};

/// A register that was never extended.
pub const UNEXTENDED: Sha384 = [0; 48];

/// A model name is never longer, in bytes.
pub const MAX_MODEL_NAME: usize = 128;

/// Which model a trust domain serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelIdentity {
    /// What clients call it, 1 to [`MAX_MODEL_NAME`] bytes.
    pub name: String,
    /// SHA-256 of the sealed file; `None` if the model came as a plain file.
    pub sealed: Option<Sha256>,
    /// SHA-256 of the GGUF file: what a model hub shows for it.
    pub plaintext: Sha256,
}

/// The digest that extends RTMR\[2\]: plain SHA-384 of the canonical configuration, so that any tool can compute it. It is also what
/// MRCONFIGID must be where a host sets it.
pub fn configuration_digest(canonical: &[u8]) -> Sha384 {
    sha384(canonical)
}

/// The digest that extends RTMR\[3\]: SHA-384 over a domain string, the name, how the model came, and its digests; each after its length.
pub fn model_digest(model: &ModelIdentity) -> Sha384 {
    sealed_fields(
        Transcript::new(&SHA384, "vitrine model event v1").field(model.name.as_bytes()),
        model,
    )
    .finish()
}

/// How a model came and its digests, as three fields. A sealed digest is absent, not zero, when the model came as a plain file.
pub(crate) fn sealed_fields(transcript: Transcript, model: &ModelIdentity) -> Transcript {
    let transcript = match &model.sealed {
        Some(digest) => transcript.field(b"sealed").field(digest),
        None => transcript.field(b"unsealed").field(&[]),
    };
    transcript.field(&model.plaintext)
}

/// A register after an extension, as the TDX module computes it (TDG.MR.RTMR.EXTEND): SHA-384 of the old value and the digest.
pub fn extend(register: &Sha384, digest: &Sha384) -> Sha384 {
    let mut both = [0; 96];
    both[..48].copy_from_slice(register);
    both[48..].copy_from_slice(digest);
    sha384(&both)
}
