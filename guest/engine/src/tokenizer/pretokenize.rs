//! Cutting text into words, within which byte-level BPE merges.
//!
//! This is the regular expression of Qwen2 and Qwen3, by hand:
//!
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+
//! ```
//!
//! Alternatives are tried in order, each greedy. Every character starts some alternative, so words cover the text. Each
//! word is found by looking at its own characters and one more, except that a run of white space may be looked at
//! twice: linear time whatever the text.

use super::unicode::{is_letter, is_number, is_space};

/// The words of a text, in order and without gaps.
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_at_checked(word_length(self.rest)?)?;
        self.rest = rest;
        Some(word)
    }
}

/// Bytes of the first word of `text`; `None` at its end.
fn word_length(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let first = chars.next()?;
    let after_first = chars.as_str();

    if first == '\''
        && let Some(length) = contraction(after_first)
    {
        return Some(1 + length);
    }
    // [^\r\n\p{L}\p{N}]?\p{L}+
    if is_letter(first) {
        return Some(first.len_utf8() + run(after_first, is_letter));
    }
    if is_number(first) {
        return Some(first.len_utf8());
    }
    if !is_newline(first) {
        let letters = run(after_first, is_letter);
        if letters > 0 {
            return Some(first.len_utf8() + letters);
        }
    }
    // ?[^\s\p{L}\p{N}]+[\r\n]*
    let blank = if first == ' ' { 1 } else { 0 };
    let (_, after_blank) = text.split_at_checked(blank)?;
    let symbols = run(after_blank, is_symbol);
    if symbols > 0 {
        let (_, after_symbols) = after_blank.split_at_checked(symbols)?;
        return Some(blank + symbols + run(after_symbols, is_newline));
    }
    Some(space_length(text))
}

/// Bytes of the first word of a text that starts with white space: `\s*[\r\n]+|\s+(?!\S)|\s+`.
fn space_length(text: &str) -> usize {
    let spaces = run(text, is_space);
    let Some((run_of_spaces, rest)) = text.split_at_checked(spaces) else {
        return spaces;
    };
    if let Some(last_newline) = run_of_spaces.rfind(['\r', '\n']) {
        return last_newline + 1;
    }
    let last = run_of_spaces.chars().next_back().map_or(0, char::len_utf8);
    // The last space stays for the next word, unless nothing follows or nothing else would be left.
    if rest.is_empty() || spaces == last {
        spaces
    } else {
        spaces - last
    }
}

/// Bytes after the apostrophe of `'s|'t|'re|'ve|'m|'ll|'d` in any case.
fn contraction(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let first = chars.next()?;
    match first.to_ascii_lowercase() {
        // The long s is an `s` in the other case.
        's' | 't' | 'm' | 'd' | 'ſ' => Some(first.len_utf8()),
        'r' | 'v' if matches!(chars.next(), Some('e' | 'E')) => Some(2),
        'l' if matches!(chars.next(), Some('l' | 'L')) => Some(2),
        _ => None,
    }
}

/// Bytes of the longest prefix whose characters are all of a class.
fn run(text: &str, class: fn(char) -> bool) -> usize {
    text.find(|c| !class(c)).unwrap_or(text.len())
}

fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// `[^\s\p{L}\p{N}]`
fn is_symbol(c: char) -> bool {
    !is_space(c) && !is_letter(c) && !is_number(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<&str> {
        Words::new(text).collect()
    }

    #[test]
    fn words_of_known_texts() {
        // Expected cuts from the regular expression in Oniguruma.
        assert_eq!(
            words("I'm you'LL 'ſa we'x"),
            ["I", "'m", " you", "'LL", " '", "ſa", " we", "'x"]
        );
        assert_eq!(words("a  b   c"), ["a", " ", " b", "  ", " c"]);
        assert_eq!(words("a \n\n b\t\n"), ["a", " \n\n", " b", "\t\n"]);
        assert_eq!(words("x=1;\r\n  y"), ["x", "=", "1", ";\r\n", " ", " y"]);
        assert_eq!(words("  123 ½"), [" ", " ", "1", "2", "3", " ", "½"]);
        assert_eq!(words("_foo \u{a0}bar"), ["_foo", " ", "\u{a0}bar"]);
        assert_eq!(words("end   "), ["end", "   "]);
        assert_eq!(words(" !? \n"), [" !?", " \n"]);
        assert_eq!(words("'ſt"), ["'ſ", "t"]);
        assert_eq!(words(""), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn words_cover_the_text(text in "\\PC*|[ \n\r\t'a-zſ0-9!]*") {
            prop_assert_eq!(words(&text).concat(), text.clone());
            prop_assert!(words(&text).iter().all(|word| !word.is_empty()));
        }
    }
}
