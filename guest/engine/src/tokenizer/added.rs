//! Added tokens: text that is one token before any merging, found by the longest match at the leftmost place.

use alloc::format;
use alloc::vec::Vec;

use super::vocabulary::{TokenKind, Vocabulary};
use crate::gguf::{GgufError, Problem};

/// Longest added token, in bytes: bounds the work at each place of a text.
const MAX_BYTES: usize = 256;

/// Control and user-defined tokens.
#[derive(Clone, Debug)]
pub(super) struct AddedTokens {
    /// In the order of their bytes.
    sorted: Vec<u32>,
    /// The bytes that some token starts with.
    starts: [bool; 256],
}

impl AddedTokens {
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, GgufError> {
        let mut sorted: Vec<u32> = vocabulary
            .of_kind(TokenKind::Control)
            .chain(vocabulary.of_kind(TokenKind::UserDefined))
            .collect();
        sorted.sort_unstable_by_key(|&token| (vocabulary.bytes(token), token));
        let mut starts = [false; 256];
        for &token in &sorted {
            let bytes = vocabulary.bytes(token).unwrap_or_default();
            if bytes.len() > MAX_BYTES {
                let why = format!("added token {token} is longer than {MAX_BYTES} bytes");
                return Err(GgufError::key(
                    "tokenizer.ggml.tokens",
                    Problem::BadValue(why),
                ));
            }
            if let Some(start) = bytes
                .first()
                .and_then(|&byte| starts.get_mut(usize::from(byte)))
            {
                *start = true;
            }
        }
        Ok(Self { sorted, starts })
    }

    /// The added token spelled `text`.
    pub fn find(&self, vocabulary: &Vocabulary, text: &str) -> Option<u32> {
        let index = self
            .sorted
            .binary_search_by(|&token| vocabulary.bytes(token).cmp(&Some(text.as_bytes())))
            .ok()?;
        self.sorted.get(index).copied()
    }

    /// Cuts `text` into plain text and the token that follows it; the last part has none. Control tokens are recognised
    /// if `control` says so.
    pub fn split<'a>(
        &'a self,
        vocabulary: &'a Vocabulary,
        text: &'a str,
        control: bool,
    ) -> impl Iterator<Item = (&'a str, Option<u32>)> {
        let mut rest = Some(text);
        core::iter::from_fn(move || {
            let text = rest.take()?;
            for (place, &byte) in text.as_bytes().iter().enumerate() {
                if !self
                    .starts
                    .get(usize::from(byte))
                    .is_some_and(|&starts| starts)
                {
                    continue;
                }
                let (plain, here) = text.as_bytes().split_at_checked(place)?;
                let Some((token, length)) = self.longest(vocabulary, here, control) else {
                    continue;
                };
                rest = text.get(place + length..);
                return Some((text.get(..plain.len())?, Some(token)));
            }
            Some((text, None))
        })
    }

    /// The longest token that `text` starts with, and its length.
    fn longest(&self, vocabulary: &Vocabulary, text: &[u8], control: bool) -> Option<(u32, usize)> {
        let mut candidates = self.sorted.as_slice();
        let mut found = None;
        for (depth, byte) in text.iter().enumerate() {
            // All candidates agree up to `depth`, so they are in the order of their bytes there.
            let at = |token: u32| vocabulary.bytes(token).and_then(|bytes| bytes.get(depth));
            let from = candidates.partition_point(|&token| at(token) < Some(byte));
            let to = candidates.partition_point(|&token| at(token) <= Some(byte));
            candidates = candidates.get(from..to).unwrap_or_default();
            let Some(&first) = candidates.first() else {
                break;
            };
            let complete = vocabulary
                .bytes(first)
                .is_some_and(|bytes| bytes.len() == depth + 1);
            if complete && (control || vocabulary.kind(first) != Some(TokenKind::Control)) {
                found = Some((first, depth + 1));
            }
        }
        found
    }
}
