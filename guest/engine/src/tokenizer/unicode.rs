//! The character classes of the pre-tokeniser's regular expression.

use super::unicode_tables::{LETTER, NUMBER};

/// `\p{L}`
pub(super) fn is_letter(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphabetic()
    } else {
        contains(&LETTER, c)
    }
}

/// `\p{N}`
pub(super) fn is_number(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_digit()
    } else {
        contains(&NUMBER, c)
    }
}

/// `\s`: the White_Space property, which no Unicode version since 6.3 has changed.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace()
}

fn contains(ranges: &[(u32, u32)], c: char) -> bool {
    let point = u32::from(c);
    ranges
        .binary_search_by(|&(first, last)| {
            if last < point {
                core::cmp::Ordering::Less
            } else if first > point {
                core::cmp::Ordering::Greater
            } else {
                core::cmp::Ordering::Equal
            }
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_known_characters() {
        for c in ['a', 'Z', 'é', 'ʰ', 'ª', '我', 'ក', 'ſ', '\u{10d50}'] {
            assert!(is_letter(c) && !is_number(c) && !is_space(c), "{c:?}");
        }
        for c in ['0', '½', 'Ⅷ', '٣', '〇', '\u{10d40}'] {
            assert!(is_number(c) && !is_letter(c), "{c:?}");
        }
        // A vowel sign and a joiner are neither: they are category M and Cf.
        for c in ['\u{17b6}', '\u{200d}', '_', '-', '🚀', '\u{1c}'] {
            assert!(!is_number(c) && !is_letter(c) && !is_space(c), "{c:?}");
        }
        for c in [
            ' ', '\t', '\u{b}', '\u{85}', '\u{a0}', '\u{3000}', '\u{2028}',
        ] {
            assert!(is_space(c), "{c:?}");
        }
    }

    #[test]
    fn tables_ascend() {
        for table in [&LETTER[..], &NUMBER[..]] {
            assert!(table.iter().all(|&(first, last)| first <= last));
            assert!(table.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
