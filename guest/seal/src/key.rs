//! The keys of one file, all derived from the 16 bytes that its recipients unwrap.

use core::fmt;

use ring::{
    aead::{CHACHA20_POLY1305, LessSafeKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Salt},
    hmac::{self, HMAC_SHA256},
};
use zeroize::{Zeroize, Zeroizing};

/// The secret that opens one sealed file. Overwritten when dropped, never printed.
#[derive(Clone)]
pub struct FileKey([u8; Self::LENGTH]);

impl FileKey {
    /// Bytes of a file key.
    pub const LENGTH: usize = 16;

    /// The bytes, for the one place that sends them.
    pub fn expose(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The key of the header's MAC: HKDF-SHA-256 without salt.
    pub(crate) fn header_key(&self) -> Result<hmac::Key, Unspecified> {
        let derived = Salt::new(HKDF_SHA256, &[]).extract(&self.0);
        Ok(derived.expand(&[b"header"], HMAC_SHA256)?.into())
    }

    /// The key of the payload with this nonce: HKDF-SHA-256 with the nonce as the salt.
    pub(crate) fn payload_key(&self, nonce: &[u8]) -> Result<LessSafeKey, Unspecified> {
        let derived = Salt::new(HKDF_SHA256, nonce).extract(&self.0);
        let key = derived.expand(&[b"payload"], &CHACHA20_POLY1305)?;
        Ok(LessSafeKey::new(key.into()))
    }
}

impl Drop for FileKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<[u8; Self::LENGTH]> for FileKey {
    fn from(bytes: [u8; Self::LENGTH]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self(*bytes)
    }
}

impl TryFrom<&[u8]> for FileKey {
    type Error = core::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self(bytes.try_into()?))
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey")
    }
}
