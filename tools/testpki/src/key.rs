//! P-256 keys that sign both certificates (DER signatures, through `rcgen`) and quotes (raw `r ‖ s`).

use rcgen::KeyPair;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use crate::Error;

/// A P-256 key pair.
pub struct Key {
    /// For certificates and revocation lists.
    certifying: KeyPair,
    /// The same key, for raw signatures.
    raw: EcdsaKeyPair,
}

impl Key {
    /// A new key.
    pub fn generate() -> Result<Self, Error> {
        Self::new(KeyPair::generate()?)
    }

    /// The key in a PKCS#8 PEM block.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        Self::new(KeyPair::from_pem(pem)?)
    }

    fn new(certifying: KeyPair) -> Result<Self, Error> {
        let raw = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            certifying.serialized_der(),
            &SystemRandom::new(),
        )
        .map_err(|_| Error::Key)?;
        Ok(Self { certifying, raw })
    }

    /// The private key as a PKCS#8 PEM block.
    pub fn to_pem(&self) -> String {
        self.certifying.serialize_pem()
    }

    /// The key as `rcgen` signs with it.
    pub(crate) fn certifying(&self) -> &KeyPair {
        &self.certifying
    }

    /// The public point, `x ‖ y`, 64 bytes.
    pub fn public(&self) -> [u8; 64] {
        let mut point = [0; 64];
        // Uncompressed: 0x04 ‖ x ‖ y.
        point.copy_from_slice(&self.certifying.public_key_raw()[1..]);
        point
    }

    /// Twenty bytes that name the key: the serial number of its certificate, positive as RFC 5280 wants it.
    pub(crate) fn serial_number(&self) -> [u8; 20] {
        let digest = digest::digest(&digest::SHA256, &self.public());
        let mut serial = [0; 20];
        serial.copy_from_slice(&digest.as_ref()[..20]);
        serial[0] = serial[0] & 0x7f | 0x40;
        serial
    }

    /// ECDSA over SHA-256 of the message: `r ‖ s`, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], Error> {
        let signature = self
            .raw
            .sign(&SystemRandom::new(), message)
            .map_err(|_| Error::Key)?;
        signature.as_ref().try_into().map_err(|_| Error::Key)
    }
}
