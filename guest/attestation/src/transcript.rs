//! Hashes over several fields that no two different field lists share: a domain string first, and every part after its length.

use ring::digest::{Algorithm, Context};

/// A hash in the making.
pub(crate) struct Transcript(Context);

impl Transcript {
    /// Begins a hash whose meaning is `domain`; no two meanings have the same string.
    pub(crate) fn new(algorithm: &'static Algorithm, domain: &str) -> Self {
        Self(Context::new(algorithm)).field(domain.as_bytes())
    }

    /// Adds a field: its length as four bytes, most significant first, then the field.
    pub(crate) fn field(mut self, field: &[u8]) -> Self {
        self.0.update(&length(field));
        self.0.update(field);
        self
    }

    /// The digest. The algorithm has `N` bytes of output.
    pub(crate) fn finish<const N: usize>(self) -> [u8; N] {
        let mut digest = [0; N];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

/// Nothing that is hashed here comes near 4 GiB; were it so, the longest length would still be an unambiguous prefix of one field only.
fn length(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes()
}
