//! Any bytes as the beginning of a sealed model: an age header, its nonce, and what a file of that length would hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seal::{Envelope, FileKey, HEADER_LIMIT, Header};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes) {
        assert!(header.length() <= bytes.len() && header.length() <= HEADER_LIMIT);
    }
    if let Ok(Some(envelope)) = Envelope::read(bytes, bytes.len() as u64) {
        assert!(envelope.length() <= bytes.len());
        // Nobody knows a key for what the fuzzer makes.
        assert!(
            envelope
                .check(&FileKey::from([0; FileKey::LENGTH]))
                .is_err()
        );
    }
});
