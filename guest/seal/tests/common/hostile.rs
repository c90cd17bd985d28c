//! What hostile bytes are put through, by the test with the corpus and by `cargo xtask fuzz`.

use seal::{Envelope, FileKey, HEADER_LIMIT, Header, Opening};

/// The longest plaintext that is worth the memory.
const PLAINTEXT: u64 = 1 << 20;

/// Any bytes as a sealed file: its header, its nonce, and chunks that nobody knows a key for.
pub fn sealed(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes) {
        assert!(header.length() <= bytes.len() && header.length() <= HEADER_LIMIT);
        assert!(!header.stanzas.is_empty());
    }
    let key = FileKey::from([0; FileKey::LENGTH]);
    // As a whole file, and as the beginning of a longer one.
    for length in [bytes.len() as u64, bytes.len() as u64 + 70_000] {
        let Ok(Some(envelope)) = Envelope::read(bytes, length) else {
            continue;
        };
        assert!(envelope.length() <= bytes.len());
        let plaintext = envelope.layout().plaintext_length();
        assert!(plaintext < length);
        assert!(envelope.check(&key).is_err());
        if plaintext <= PLAINTEXT {
            let memory = vec![0; plaintext as usize];
            assert!(Opening::new(envelope, &key, memory).is_err());
        }
    }
}
