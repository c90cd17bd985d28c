//! Tokens are bytes, answers are text: a character may arrive in several tokens.

use alloc::string::String;
use alloc::vec::Vec;

/// Turns bytes that arrive in pieces into text, holding back a character until it is complete.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The start of a character: at most three bytes.
    pending: Vec<u8>,
}

impl Decoder {
    /// A decoder that holds nothing back.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `text` what `bytes` completes. Bytes that can be no part of UTF-8 become U+FFFD, one for each maximal
    /// part, as in [`String::from_utf8_lossy`].
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut incomplete = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            incomplete = 0;
            let invalid = chunk.invalid();
            match core::str::from_utf8(invalid)
                .err()
                .map(|error| error.error_len())
            {
                None => {}
                Some(Some(_)) => text.push(char::REPLACEMENT_CHARACTER),
                Some(None) => {
                    incomplete = invalid.len();
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        if incomplete > 0 {
            // Only the last chunk can be incomplete; it may still become a character.
            text.pop();
        }
        self.pending.drain(..self.pending.len() - incomplete);
    }

    /// Appends U+FFFD for a character that never became complete.
    pub fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_wait_until_complete() {
        let mut decoder = Decoder::new();
        let mut text = String::new();
        decoder.push(&[b'a', 0xf0, 0x9f], &mut text);
        assert_eq!(text, "a");
        decoder.push(&[0xa6], &mut text);
        assert_eq!(text, "a");
        decoder.push(&[0x99, 0xe2], &mut text);
        assert_eq!(text, "a🦙");
        decoder.push(b"b", &mut text);
        assert_eq!(text, "a🦙\u{fffd}b");
        decoder.push(&[0xe2, 0x82], &mut text);
        decoder.finish(&mut text);
        assert_eq!(text, "a🦙\u{fffd}b\u{fffd}");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xc0, 0xe0u8..0xf5], 0..40),
            cut in 0usize..40,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let mut decoder = Decoder::new();
            let mut text = String::new();
            decoder.push(head, &mut text);
            for byte in tail {
                decoder.push(&[*byte], &mut text);
            }
            decoder.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
