//! A small byte-level vocabulary in the manner of GPT-2 and Qwen: 256 bytes, merges for common English, Qwen3's added tokens.
//!
//! Every text survives encoding and decoding, because every byte is a token. The merges are learnt by byte-pair encoding from the
//! text beside this file, so ordinary words take one or two tokens instead of one a letter.

use std::collections::BTreeMap;

/// What the merges are learnt from: plain English of our own.
const TEXT: &str = include_str!("words.txt");
/// A pair seen less often than this is not worth a token.
const LEAST_COUNT: usize = 3;

/// Token types of the GGUF format.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Qwen3's added tokens in their order; those that are ordinary text to a reader are user-defined, not control tokens.
const ADDED: [(&str, i32); 26] = [
    ("<|endoftext|>", CONTROL),
    ("<|im_start|>", CONTROL),
    ("<|im_end|>", CONTROL),
    ("<|object_ref_start|>", CONTROL),
    ("<|object_ref_end|>", CONTROL),
    ("<|box_start|>", CONTROL),
    ("<|box_end|>", CONTROL),
    ("<|quad_start|>", CONTROL),
    ("<|quad_end|>", CONTROL),
    ("<|vision_start|>", CONTROL),
    ("<|vision_end|>", CONTROL),
    ("<|vision_pad|>", CONTROL),
    ("<|image_pad|>", CONTROL),
    ("<|video_pad|>", CONTROL),
    ("<tool_call>", USER_DEFINED),
    ("</tool_call>", USER_DEFINED),
    ("<|fim_prefix|>", USER_DEFINED),
    ("<|fim_middle|>", USER_DEFINED),
    ("<|fim_suffix|>", USER_DEFINED),
    ("<|fim_pad|>", USER_DEFINED),
    ("<|repo_name|>", USER_DEFINED),
    ("<|file_sep|>", USER_DEFINED),
    ("<tool_response>", USER_DEFINED),
    ("</tool_response>", USER_DEFINED),
    ("<think>", USER_DEFINED),
    ("</think>", USER_DEFINED),
];

/// The `tokenizer.ggml.*` arrays.
#[derive(Clone, Debug)]
pub(crate) struct Vocabulary {
    /// In the byte alphabet of GPT-2.
    pub tokens: Vec<String>,
    pub types: Vec<i32>,
    /// "left right", most important first.
    pub merges: Vec<String>,
    pub end_of_text: u32,
    pub end_of_turn: u32,
}

impl Vocabulary {
    /// The vocabulary, filled up with unused tokens to `size` if that is more.
    pub fn new(size: Option<u64>) -> Self {
        let alphabet = byte_alphabet();
        let mut tokens: Vec<String> = gpt2_order()
            .map(|byte| alphabet[usize::from(byte)].to_string())
            .collect();
        let pairs = learn(TEXT, &alphabet);
        tokens.extend(pairs.iter().map(|(left, right)| format!("{left}{right}")));
        let merges = pairs
            .iter()
            .map(|(left, right)| format!("{left} {right}"))
            .collect();
        let mut types = vec![NORMAL; tokens.len()];
        let first_added = tokens.len() as u32;
        for (token, kind) in ADDED {
            tokens.push(token.to_owned());
            types.push(kind);
        }
        while (tokens.len() as u64) < size.unwrap_or(0) {
            tokens.push(format!("[PAD{}]", tokens.len()));
            types.push(UNUSED);
        }
        Self {
            tokens,
            types,
            merges,
            end_of_text: first_added,
            end_of_turn: first_added + 2,
        }
    }
}

/// Bytes with a visible Latin-1 character of their own.
fn is_visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// GPT-2's token order: the visible bytes, then the others.
fn gpt2_order() -> impl Iterator<Item = u8> {
    let visible = (0..=u8::MAX).filter(|byte| is_visible(*byte));
    visible.chain((0..=u8::MAX).filter(|byte| !is_visible(*byte)))
}

/// The character that stands for each byte: itself where visible, else the next unused one from U+0100 on.
fn byte_alphabet() -> [char; 256] {
    let mut hidden = '\u{100}'..;
    core::array::from_fn(|byte| {
        let byte = byte as u8;
        match is_visible(byte) {
            true => char::from(byte),
            false => hidden.next().unwrap_or(char::REPLACEMENT_CHARACTER),
        }
    })
}

/// Byte-pair encoding: joins the most frequent pair, again and again. Ties go to the pair that sorts first.
fn learn(text: &str, alphabet: &[char; 256]) -> Vec<(String, String)> {
    let mut words: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for word in text.split_ascii_whitespace() {
        let letters = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
        let spaced = format!(" {letters}");
        for form in [spaced.as_str(), letters] {
            let symbols = form
                .bytes()
                .map(|byte| alphabet[usize::from(byte)].to_string())
                .collect();
            // Inside a sentence words follow a space; at its start they do not.
            *words.entry(symbols).or_default() += if form.starts_with(' ') { 2 } else { 1 };
        }
    }
    let mut words: Vec<(Vec<String>, usize)> = words.into_iter().collect();
    let mut merges = Vec::new();
    loop {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (symbols, count) in &words {
            for (left, right) in symbols.iter().zip(symbols.iter().skip(1)) {
                *counts.entry((left, right)).or_default() += count;
            }
        }
        // The map is sorted, and `max_by_key` keeps the last of equals: look at it backwards.
        let best = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        let Some(((left, right), LEAST_COUNT..)) = best else {
            return merges;
        };
        let pair = (left.to_owned(), right.to_owned());
        for (symbols, _) in &mut words {
            join(symbols, &pair);
        }
        merges.push(pair);
    }
}

/// Replaces every occurrence of a pair by its concatenation.
fn join(symbols: &mut Vec<String>, (left, right): &(String, String)) {
    let mut joined: Vec<String> = Vec::with_capacity(symbols.len());
    let mut rest = symbols.drain(..).peekable();
    while let Some(mut symbol) = rest.next() {
        if symbol == *left && rest.peek() == Some(right) {
            symbol.push_str(right);
            rest.next();
        }
        joined.push(symbol);
    }
    drop(rest);
    *symbols = joined;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn tokens_are_distinct_and_complete() {
        let vocabulary = Vocabulary::new(None);
        let distinct: BTreeSet<&String> = vocabulary.tokens.iter().collect();
        assert_eq!(distinct.len(), vocabulary.tokens.len());
        assert_eq!(vocabulary.types.len(), vocabulary.tokens.len());
        assert!(
            (800..1600).contains(&vocabulary.tokens.len()),
            "{}",
            vocabulary.tokens.len()
        );
        assert_eq!(
            vocabulary.tokens[vocabulary.end_of_turn as usize],
            "<|im_end|>"
        );
        assert!(vocabulary.tokens.iter().any(|token| token == "Ġthe"));
    }

    #[test]
    fn every_merge_makes_a_token_of_tokens() {
        let vocabulary = Vocabulary::new(Some(2000));
        assert_eq!(vocabulary.tokens.len(), 2000);
        let tokens: BTreeSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
        for merge in &vocabulary.merges {
            let (left, right) = merge.split_once(' ').unwrap();
            for token in [left, right, &format!("{left}{right}")] {
                assert!(tokens.contains(token), "{token}");
            }
        }
    }

    #[test]
    fn the_alphabet_is_gpt2s() {
        let alphabet = byte_alphabet();
        assert_eq!(alphabet[usize::from(b'A')], 'A');
        assert_eq!(alphabet[usize::from(b' ')], 'Ġ');
        assert_eq!(alphabet[usize::from(b'\n')], 'Ċ');
        assert_eq!(alphabet[0xad], 'Ń');
        assert_eq!(gpt2_order().count(), 256);
    }
}
