//! The tokens as bytes.
//!
//! GGUF spells a normal token in the printable alphabet of GPT-2, one character a byte. Here every token is kept as the
//! bytes it stands for, all in one buffer, so that 150 thousand of them cost two allocations.

use alloc::format;
use alloc::vec::Vec;

use crate::gguf::{Array, Gguf, GgufError, Problem, Value, ValueType};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Part of ordinary text; reached by merging.
    Normal,
    /// Structure such as `<|im_start|>`: never part of an answer's text.
    Control,
    /// Text that is always one token, such as `<think>`.
    UserDefined,
    /// Padding of the vocabulary and the like: never the result of encoding.
    Unused,
}

/// Every token's bytes and kind.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`; it starts where the one before it ends.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    /// The normal tokens, in the order of their bytes, then of their ids.
    sorted: Vec<u32>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

impl Vocabulary {
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, GgufError> {
        let texts = gguf
            .array(TOKENS, ValueType::String)?
            .ok_or_else(|| GgufError::key(TOKENS, Problem::Missing))?;
        if texts.is_empty() || u32::try_from(texts.len()).is_err() {
            return Err(GgufError::key(
                TOKENS,
                Problem::BadValue(format!("{} tokens", texts.len())),
            ));
        }
        let types = gguf.array(TYPES, ValueType::I32)?;
        let kinds = kinds(types, texts.len()).map_err(|problem| GgufError::key(TYPES, problem))?;

        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(texts.len());
        for (text, kind) in texts.strings().zip(&kinds) {
            match kind {
                TokenKind::Normal => extend_decoded(text, &mut bytes),
                _ => bytes.extend_from_slice(text.as_bytes()),
            }
            ends.push(
                u32::try_from(bytes.len()).map_err(|_| GgufError::key(TOKENS, Problem::TooLong))?,
            );
        }
        let mut vocabulary = Self {
            bytes,
            ends,
            kinds,
            sorted: Vec::new(),
        };
        let mut sorted: Vec<u32> = vocabulary.of_kind(TokenKind::Normal).collect();
        sorted.sort_unstable_by_key(|&token| (vocabulary.bytes(token), token));
        vocabulary.sorted = sorted;
        Ok(vocabulary)
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn kind(&self, token: u32) -> Option<TokenKind> {
        self.kinds.get(token as usize).copied()
    }

    pub fn bytes(&self, token: u32) -> Option<&[u8]> {
        let token = token as usize;
        let start = match token.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes
            .get(start as usize..*self.ends.get(token)? as usize)
    }

    /// The tokens of one kind, ascending.
    pub fn of_kind(&self, kind: TokenKind) -> impl Iterator<Item = u32> {
        self.kinds
            .iter()
            .zip(0..)
            .filter(move |&(&other, _)| other == kind)
            .map(|(_, token)| token)
    }

    /// The normal token that stands for exactly `bytes`; of several, the last.
    pub fn normal(&self, bytes: &[u8]) -> Option<u32> {
        let after = self
            .sorted
            .partition_point(|&token| self.bytes(token) <= Some(bytes));
        let token = *self.sorted.get(after.checked_sub(1)?)?;
        (self.bytes(token) == Some(bytes)).then_some(token)
    }
}

fn kinds(types: Option<Array<'_>>, count: usize) -> Result<Vec<TokenKind>, Problem> {
    let Some(types) = types else {
        return Ok(alloc::vec![TokenKind::Normal; count]);
    };
    if types.len() != count {
        return Err(Problem::BadValue(format!(
            "{} types for {count} tokens",
            types.len()
        )));
    }
    types
        .iter()
        .map(|value| match value {
            Value::Signed(1) => Ok(TokenKind::Normal),
            Value::Signed(3) => Ok(TokenKind::Control),
            Value::Signed(4) => Ok(TokenKind::UserDefined),
            // Undefined, unknown, unused, and the byte tokens of other tokenizers.
            Value::Signed(0 | 2 | 5 | 6) => Ok(TokenKind::Unused),
            other => Err(Problem::BadValue(format!("{other:?} is no token type"))),
        })
        .collect()
}

/// Appends the bytes that `text` spells in GPT-2's alphabet, or its own bytes if it is not written in it.
pub(super) fn extend_decoded(text: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in text.chars() {
        match spelled_byte(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(text.as_bytes());
                return;
            }
        }
    }
}

/// The byte that `c` spells: printable Latin-1 spells itself, the other 68 bytes are spelled from U+0100 on, in order.
fn spelled_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        point @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(point as u8),
        point @ 0x100..=0x120 => Some((point - 0x100) as u8),
        point @ 0x121..=0x142 => Some((point - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_spelling() {
        let mut spelled: Vec<u8> = ('\0'..='\u{fff}').filter_map(spelled_byte).collect();
        spelled.sort_unstable();
        assert_eq!(spelled, (0..=255).collect::<Vec<u8>>());
        assert_eq!(spelled_byte('Ġ'), Some(b' '));
        assert_eq!(spelled_byte('Ċ'), Some(b'\n'));
    }

    #[test]
    fn foreign_spelling_is_kept() {
        let mut bytes = Vec::new();
        extend_decoded("a我", &mut bytes);
        assert_eq!(bytes, "a我".as_bytes());
    }
}
