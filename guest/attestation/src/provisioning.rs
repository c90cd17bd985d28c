//! What is signed when a model's owner hands its key to a trust domain. Both signatures are optional, Ed25519 (RFC 8032), and by keys that
//! have nothing to do with attestation.
//!
//! * A *release* shows the domain, whose configuration may name one provisioner, that the key comes from that one.
//! * An [`Endorsement`] shows later clients, who may demand it beside attestation, that the owner chose this very domain. It names a key that
//!   the domain has for as long as it runs, because session keys are replaced every few minutes; the domain signs each session key with it.

use ring::digest::SHA384;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::transcript::Transcript;
use crate::{Sha256, Sha384};

/// The label for the TLS exporter that ties a release to its connection; its context is the file key.
pub const RELEASE_LABEL: &str = "EXPERIMENTAL-vitrine-model-key-v1";

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// The signature is not that key's over this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

/// What a provisioner signs; `exporter` is the connection's under [`RELEASE_LABEL`].
pub fn release_message(exporter: &[u8; 32]) -> Sha384 {
    Transcript::new(&SHA384, "vitrine model key release v1")
        .field(exporter)
        .finish()
}

/// Whether `signature` is the provisioner's over [`release_message`].
///
/// # Errors
/// It is not.
pub fn verify_release(
    provisioner: &PublicKey,
    exporter: &[u8; 32],
    signature: &[u8],
) -> Result<(), BadSignature> {
    verify(provisioner, &release_message(exporter), signature)
}

/// An owner's word for one running domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The domain's boot identifier, as in its claims.
    pub boot: [u8; 16],
    /// SHA-384 of the domain's long-lived key as SubjectPublicKeyInfo in DER.
    pub public_key: Sha384,
    /// SHA-256 of the sealed file whose key the owner handed over.
    pub model: Sha256,
    /// The last second of its validity, since 1970.
    pub not_after: u64,
}

impl Endorsement {
    /// What the owner signs.
    pub fn message(&self) -> Sha384 {
        Transcript::new(&SHA384, "vitrine endorsement v1")
            .field(&self.boot)
            .field(&self.public_key)
            .field(&self.model)
            .field(&self.not_after.to_be_bytes())
            .finish()
    }

    /// Whether `signature` is the owner's.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, owner: &PublicKey, signature: &[u8]) -> Result<(), BadSignature> {
        verify(owner, &self.message(), signature)
    }
}

/// What the domain signs with its long-lived key (ECDSA P-256, SHA-256): that this session key is its own. `session` is the certificate's
/// key as SubjectPublicKeyInfo in DER.
pub fn session_message(session: &[u8]) -> Sha384 {
    Transcript::new(&SHA384, "vitrine endorsed session v1")
        .field(session)
        .finish()
}

fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    UnparsedPublicKey::new(&ED25519, key)
        .verify(message, signature)
        .map_err(|_| BadSignature)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn owner() -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, public)
    }

    #[test]
    fn an_endorsement_is_for_one_domain_model_and_time() {
        let (pair, public) = owner();
        let endorsement = Endorsement {
            boot: [1; 16],
            public_key: [2; 48],
            model: [3; 32],
            not_after: 4,
        };
        let signature = pair.sign(&endorsement.message());
        let signature = signature.as_ref();
        assert_eq!(endorsement.verify(&public, signature), Ok(()));
        let others = [
            Endorsement {
                boot: [0; 16],
                ..endorsement.clone()
            },
            Endorsement {
                public_key: [0; 48],
                ..endorsement.clone()
            },
            Endorsement {
                model: [0; 32],
                ..endorsement.clone()
            },
            Endorsement {
                not_after: 5,
                ..endorsement.clone()
            },
        ];
        for other in others {
            assert_eq!(other.verify(&public, signature), Err(BadSignature));
        }
        assert_eq!(endorsement.verify(&[9; 32], signature), Err(BadSignature));
        assert_eq!(endorsement.verify(&public, &[]), Err(BadSignature));
    }

    #[test]
    fn a_release_is_for_one_connection() {
        let (pair, public) = owner();
        let signature = pair.sign(&release_message(&[1; 32]));
        let signature = signature.as_ref();
        assert_eq!(verify_release(&public, &[1; 32], signature), Ok(()));
        assert_eq!(
            verify_release(&public, &[2; 32], signature),
            Err(BadSignature)
        );
        assert_eq!(pair.sign(&session_message(b"")).as_ref().len(), 64);
        assert_ne!(session_message(b"a"), session_message(b"b"));
    }
}
