//! Byte-pair merging of one word: the adjacent pair of lowest rank first, the leftmost of equals.
//!
//! A heap of candidate pairs over a linked list of symbols: n log n for a word of n bytes, whatever the bytes.

use alloc::collections::BinaryHeap;
use alloc::format;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::vocabulary::{Vocabulary, extend_decoded};
use crate::gguf::{Gguf, GgufError, Problem, ValueType};

const MERGES: &str = "tokenizer.ggml.merges";

/// One rule: `left` and `right` side by side become `merged`.
#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    merged: u32,
    /// Its place in the file; lower merges first.
    rank: u32,
}

/// All rules, in the order of their pairs, and the tokens of single bytes.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    rules: Vec<Merge>,
    single: [Option<u32>; 256],
}

impl Merges {
    /// Reads the rules. One whose parts or result are no tokens can never apply and is left out.
    pub fn from_gguf(gguf: &Gguf<'_>, vocabulary: &Vocabulary) -> Result<Self, GgufError> {
        let fail = |problem| GgufError::key(MERGES, problem);
        let lines = gguf
            .array(MERGES, ValueType::String)?
            .ok_or_else(|| fail(Problem::Missing))?;
        let mut rules = Vec::with_capacity(lines.len());
        let mut bytes = Vec::new();
        for (rank, line) in (0u32..).zip(lines.strings()) {
            let (left, right) = line
                .split_once(' ')
                .ok_or_else(|| fail(Problem::BadValue(format!("entry {rank} is not a pair"))))?;
            bytes.clear();
            extend_decoded(left, &mut bytes);
            let middle = bytes.len();
            extend_decoded(right, &mut bytes);
            let (left, right) = bytes.split_at(middle);
            if let (Some(left), Some(right), Some(merged)) = (
                vocabulary.normal(left),
                vocabulary.normal(right),
                vocabulary.normal(&bytes),
            ) {
                rules.push(Merge {
                    left,
                    right,
                    merged,
                    rank,
                });
            }
        }
        rules.sort_unstable_by_key(|rule| (rule.left, rule.right, rule.rank));
        rules.dedup_by_key(|rule| (rule.left, rule.right));
        Ok(Self {
            rules,
            single: core::array::from_fn(|byte| vocabulary.normal(&[byte as u8])),
        })
    }

    fn find(&self, left: u32, right: u32) -> Option<&Merge> {
        let index = self
            .rules
            .binary_search_by_key(&(left, right), |rule| (rule.left, rule.right))
            .ok()?;
        self.rules.get(index)
    }
}

/// No symbol.
const NONE: u32 = u32::MAX;

/// A symbol of the word being merged, in a doubly linked list. Kept small: a hostile text may be one long word.
struct Symbol {
    token: u32,
    previous: u32,
    next: u32,
    /// The rule that would merge it with its next symbol: (rank, result).
    rule: Option<(u32, u32)>,
}

/// Encodes words; keeps its buffers between them.
pub(super) struct Bpe<'v> {
    merges: &'v Merges,
    symbols: Vec<Symbol>,
    /// (rank, left symbol) of pairs that could merge when they were entered.
    candidates: BinaryHeap<Reverse<(u32, u32)>>,
    /// Look-ups so far: the unit of work, for the test that it stays linear.
    #[cfg(test)]
    pub lookups: usize,
}

impl<'v> Bpe<'v> {
    pub fn new(merges: &'v Merges) -> Self {
        Self {
            merges,
            symbols: Vec::new(),
            candidates: BinaryHeap::new(),
            #[cfg(test)]
            lookups: 0,
        }
    }

    /// Appends the tokens of `word`, which is shorter than 4 GiB. Bytes that the vocabulary has no token for are left
    /// out.
    pub fn encode(&mut self, word: &[u8], tokens: &mut Vec<u32>) {
        self.symbols.clear();
        self.candidates.clear();
        let known = word
            .iter()
            .filter_map(|&byte| self.merges.single.get(usize::from(byte)).copied().flatten());
        self.symbols
            .extend(known.zip(0..NONE).map(|(token, index)| Symbol {
                token,
                previous: index.wrapping_sub(1),
                next: index + 1,
                rule: None,
            }));
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
        for index in 0..self.symbols.len() as u32 {
            self.consider(index);
        }
        while let Some(Reverse((rank, index))) = self.candidates.pop() {
            self.merge(rank, index);
        }
        let mut next = 0;
        while let Some(symbol) = self.symbol(next) {
            tokens.push(symbol.token);
            next = symbol.next;
        }
    }

    fn symbol(&self, index: u32) -> Option<&Symbol> {
        self.symbols.get(index as usize)
    }

    fn symbol_mut(&mut self, index: u32) -> Option<&mut Symbol> {
        self.symbols.get_mut(index as usize)
    }

    /// Looks up whether the symbol at `index` merges with the next one, and if so enters the pair.
    fn consider(&mut self, index: u32) {
        #[cfg(test)]
        {
            self.lookups += 1;
        }
        let Some(left) = self.symbol(index) else {
            return;
        };
        let rule = self
            .symbol(left.next)
            .and_then(|right| self.merges.find(left.token, right.token))
            .map(|rule| (rule.rank, rule.merged));
        if let Some(left) = self.symbol_mut(index) {
            left.rule = rule;
        }
        if let Some((rank, _)) = rule {
            self.candidates.push(Reverse((rank, index)));
        }
    }

    /// Merges the symbol at `index` with its next one, if the rule of `rank` still applies there.
    fn merge(&mut self, rank: u32, index: u32) {
        let Some(&Symbol {
            previous,
            next: right,
            rule: Some((current, merged)),
            ..
        }) = self.symbol(index)
        else {
            return;
        };
        // Ranks are unique, so another rank means that the pair has changed since it was entered.
        if current != rank {
            return;
        }
        let after = self.symbol(right).map_or(NONE, |right| right.next);
        if let Some(right) = self.symbol_mut(right) {
            right.rule = None;
        }
        if let Some(left) = self.symbol_mut(index) {
            left.token = merged;
            left.next = after;
        }
        if let Some(after) = self.symbol_mut(after) {
            after.previous = index;
        }
        self.consider(index);
        if previous != NONE {
            self.consider(previous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf_writer::{Aligned, GgufWriter};

    /// A vocabulary of the letters, `aa`, `aaaa`, `ab` and `aab`, in which `aa` merges before `ab`.
    fn merges() -> (Vocabulary, Merges) {
        let (_, file) = GgufWriter::new()
            .strings(
                "tokenizer.ggml.tokens",
                ["a", "b", "c", "aa", "aaaa", "ab", "aab"],
            )
            .strings(
                "tokenizer.ggml.merges",
                ["a a", "aa aa", "a b", "aa b", "b x"],
            )
            .finish();
        let file = Aligned::new(&file);
        let gguf = Gguf::parse(file.bytes()).unwrap();
        let vocabulary = Vocabulary::from_gguf(&gguf).unwrap();
        let merges = Merges::from_gguf(&gguf, &vocabulary).unwrap();
        (vocabulary, merges)
    }

    fn encode(word: &str) -> (Vec<u32>, usize) {
        let (_, merges) = merges();
        let mut bpe = Bpe::new(&merges);
        let mut tokens = Vec::new();
        bpe.encode(word.as_bytes(), &mut tokens);
        (tokens, bpe.lookups)
    }

    #[test]
    fn lowest_rank_then_leftmost_first() {
        assert_eq!(encode("aab").0, [6]);
        assert_eq!(encode("aaab").0, [3, 5]);
        assert_eq!(encode("aaaaa").0, [4, 0]);
        assert_eq!(encode("cab").0, [2, 5]);
        assert_eq!(encode("").0, []);
        // No token for `x`.
        assert_eq!(encode("axb").0, [5]);
    }

    #[test]
    fn work_is_linear_in_the_word() {
        for word in ["a", "ab", "ba", "aab"] {
            let word = word.repeat(20_000);
            let (_, lookups) = encode(&word);
            // One look-up a byte, and two for each merge, of which there are fewer than bytes.
            assert!(
                lookups <= 3 * word.len(),
                "{lookups} for {} bytes",
                word.len()
            );
        }
    }
}
