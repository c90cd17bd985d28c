//! The P-256 key pair: *ring* does the arithmetic; this lets x509-cert and rustls ask for it.
//!
//! The private key exists only inside *ring*'s type. It is neither exported nor printed.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;

use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::{SignatureAlgorithm, SignatureScheme, sign};
use signature::{Keypair, Signer};
use x509_cert::{
    AlgorithmIdentifier, SubjectPublicKeyInfo,
    der::{
        self, Any, Encode,
        asn1::{BitString, ObjectIdentifier},
    },
    spki::{
        self, Document, DynSignatureAlgorithmIdentifier, EncodePublicKey,
        SignatureBitStringEncoding,
    },
};

use super::IdentityError;

/// RFC 5480: an elliptic curve public key.
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480: the curve P-256.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5758: ECDSA over SHA-256.
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A P-256 key pair that signs with ECDSA over SHA-256. Clones share it.
#[derive(Clone)]
pub(super) struct Key {
    pair: Arc<EcdsaKeyPair>,
    rng: SystemRandom,
}

/// An ECDSA signature, as the DER structure that X.509 and TLS want.
pub(super) struct EcdsaSignature(Vec<u8>);

/// A P-256 public key: the uncompressed point of SEC 1, 65 bytes.
#[derive(Clone)]
pub(super) struct PublicPoint(Vec<u8>);

impl Key {
    /// Generates a key pair.
    pub(super) fn generate() -> Result<Self, IdentityError> {
        let rng = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &rng)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &rng)
            .map_err(|_| IdentityError::Key)?;
        Ok(Self {
            pair: Arc::new(pair),
            rng,
        })
    }

    /// Random bytes.
    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N], IdentityError> {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The public half as X.509 writes it.
    pub(super) fn public_key_info(&self) -> der::Result<SubjectPublicKeyInfo> {
        self.verifying_key().info()
    }

    /// ECDSA over SHA-256 of `message`, in DER.
    pub(super) fn signature(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let signature = self.pair.sign(&self.rng, message)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl PublicPoint {
    fn info(&self) -> der::Result<SubjectPublicKeyInfo> {
        Ok(SubjectPublicKeyInfo {
            algorithm: AlgorithmIdentifier {
                oid: ID_EC_PUBLIC_KEY,
                parameters: Some(Any::encode_from(&SECP256R1)?),
            },
            subject_public_key: BitString::from_bytes(&self.0)?,
        })
    }
}

// What x509-cert's builder asks of a signer.

impl Signer<EcdsaSignature> for Key {
    fn try_sign(&self, message: &[u8]) -> Result<EcdsaSignature, signature::Error> {
        let signature = self.signature(message);
        signature
            .map(EcdsaSignature)
            .map_err(|_| signature::Error::new())
    }
}

impl Keypair for Key {
    type VerifyingKey = PublicPoint;

    fn verifying_key(&self) -> PublicPoint {
        PublicPoint(self.pair.public_key().as_ref().to_vec())
    }
}

impl DynSignatureAlgorithmIdentifier for Key {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifier> {
        Ok(AlgorithmIdentifier {
            oid: ECDSA_WITH_SHA256,
            parameters: None,
        })
    }
}

impl SignatureBitStringEncoding for EcdsaSignature {
    fn to_bitstring(&self) -> der::Result<BitString> {
        BitString::from_bytes(&self.0)
    }
}

impl EncodePublicKey for PublicPoint {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.info()?.to_der()?)?)
    }
}

// What rustls asks of one.

impl sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let scheme = sign::Signer::scheme(self);
        let signer: Box<dyn sign::Signer> = Box::new(self.clone());
        offered.contains(&scheme).then_some(signer)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl sign::Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let failed = |_| rustls::Error::General("signing failed".into());
        self.signature(message).map_err(failed)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
