//! Run-time measurement registers: 48 zero bytes when the TD is built, then one SHA-384 per extension
//! (`TDG.MR.RTMR.EXTEND`: RTMR = SHA-384(RTMR ‖ digest)).

use sha2::{Digest, Sha384};

use crate::Hash;

/// A register that was never extended.
pub const UNEXTENDED: Hash = [0; 48];

/// The register's value after `digest` is extended into it.
pub fn extend(register: Hash, digest: &Hash) -> Hash {
    Sha384::new()
        .chain_update(register)
        .chain_update(digest)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha384;

    #[test]
    fn extension_is_the_hash_of_the_old_value_and_the_digest() {
        let first = extend(UNEXTENDED, &[7; 48]);
        assert_eq!(first, sha384(&[[0u8; 48], [7; 48]].concat()));
        assert_eq!(extend(first, &[8; 48]), sha384(&[first, [8; 48]].concat()));
    }
}
