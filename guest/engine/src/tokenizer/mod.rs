//! Text to tokens and back: the byte-level BPE of Qwen2 and Qwen3, built from a GGUF file's `tokenizer.ggml.*` keys.
//!
//! Encoding cuts the text at added tokens, cuts what lies between into words and merges the bytes of
//! each word. Text is taken as it comes: no Unicode normalisation, as in the other engines that run GGUF files.
//! (The Python tokenizer of the same models applies NFC first, so decomposed text differs there.)
//!
//! Everything takes time proportional to the text, up to a logarithm.

mod added;
mod bpe;
mod decode;
mod pretokenize;
mod unicode;
mod unicode_tables;
mod vocabulary;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use decode::Decoder;
pub use vocabulary::TokenKind;

use crate::gguf::{Gguf, GgufError, Problem, Quoted};
use added::AddedTokens;
use bpe::{Bpe, Merges};
use pretokenize::Words;
use vocabulary::Vocabulary;

/// Texts that end an answer in the Qwen family, besides the token the file names.
const END_TEXTS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

/// A vocabulary with its merges and added tokens.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    merges: Merges,
    added: AddedTokens,
    /// Tokens after which generation stops, ascending.
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer that `gguf` describes.
    ///
    /// # Errors
    /// A `tokenizer.ggml.*` key is missing, malformed, or asks for another kind of tokenizer.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, GgufError> {
        expect(gguf, "tokenizer.ggml.model", "gpt2")?;
        expect(gguf, "tokenizer.ggml.pre", "qwen2")?;
        let vocabulary = Vocabulary::from_gguf(gguf)?;
        let merges = Merges::from_gguf(gguf, &vocabulary)?;
        let added = AddedTokens::new(&vocabulary)?;

        let mut ends = Vec::new();
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
            if let Some(id) = gguf.integer(key)? {
                if id >= vocabulary.len() {
                    return Err(GgufError::key(
                        key,
                        Problem::BadValue(format!("{id} is not in the vocabulary")),
                    ));
                }
                ends.push(id as u32);
            }
        }
        ends.extend(
            END_TEXTS
                .iter()
                .filter_map(|text| added.find(&vocabulary, text)),
        );
        ends.sort_unstable();
        ends.dedup();
        Ok(Self {
            vocabulary,
            merges,
            added,
            ends,
        })
    }

    /// The tokens of `text`. With `special`, text that spells a control token (such as `<|im_start|>`) becomes that
    /// token; user-defined tokens (such as `<think>`) are always recognised. No token is put in front.
    pub fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        let mut bpe = Bpe::new(&self.merges);
        let mut tokens = Vec::new();
        for (plain, token) in self.added.split(&self.vocabulary, text, special) {
            for word in Words::new(plain) {
                bpe.encode(word.as_bytes(), &mut tokens);
            }
            tokens.extend(token);
        }
        tokens
    }

    /// The text of `tokens`, control tokens left out and bytes that are no UTF-8 replaced by U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut text = String::new();
        let mut decoder = Decoder::new();
        for &token in tokens {
            decoder.push(self.text_bytes(token), &mut text);
        }
        decoder.finish(&mut text);
        text
    }

    /// The bytes that `token` adds to an answer's text: none for control tokens and unknown numbers.
    pub fn text_bytes(&self, token: u32) -> &[u8] {
        match self.kind(token) {
            Some(TokenKind::Control) | None => &[],
            Some(_) => self.token_bytes(token).unwrap_or_default(),
        }
    }

    /// The bytes that `token` stands for, control tokens by their name; `None` if there is no such token.
    pub fn token_bytes(&self, token: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(token)
    }

    /// What kind of token this is; `None` if there is no such token.
    pub fn kind(&self, token: u32) -> Option<TokenKind> {
        self.vocabulary.kind(token)
    }

    /// The added (control or user-defined) token spelled `text`.
    pub fn added_token(&self, text: &str) -> Option<u32> {
        self.added.find(&self.vocabulary, text)
    }

    /// Number of tokens; ids are below it.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether generation stops at `token`.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }
}

fn expect(gguf: &Gguf<'_>, key: &str, wanted: &str) -> Result<(), GgufError> {
    match gguf.string(key)? {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(GgufError::key(
            key,
            Problem::BadValue(format!(
                "{} is not supported, only {wanted:?} is",
                Quoted(found)
            )),
        )),
        None => Err(GgufError::key(key, Problem::Missing)),
    }
}
