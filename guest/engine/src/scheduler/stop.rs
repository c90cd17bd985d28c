//! Finding stop texts in an answer that arrives in pieces.

use alloc::string::String;
use alloc::vec::Vec;

/// Lets text pass until a stop text, holding back what may be the start of one.
pub(super) struct StopMatcher {
    /// None is empty.
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    pub fn new(stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            held: String::new(),
        }
    }

    /// Takes the next piece of text; returns what is certain, and whether a stop text follows it.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(start) = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min()
        {
            self.held.truncate(start);
            return (core::mem::take(&mut self.held), true);
        }
        let certain = self.held.len() - self.longest_start();
        let kept = self.held.split_off(certain);
        (core::mem::replace(&mut self.held, kept), false)
    }

    /// What is still held back, at the end of the answer.
    pub fn finish(&mut self) -> String {
        core::mem::take(&mut self.held)
    }

    /// Bytes of the longest end of the held text that some stop text starts with.
    fn longest_start(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = self
            .stops
            .iter()
            .map(|stop| stop.len() - 1)
            .max()
            .unwrap_or(0)
            .min(held.len());
        (1..=longest)
            .rev()
            .find(|&length| {
                let (_, end) = held.split_at(held.len() - length);
                // A stop text starts at a character, so what remains before it ends with one.
                self.stops
                    .iter()
                    .any(|stop| stop.as_bytes().starts_with(end))
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut texts = Vec::new();
        for piece in pieces {
            let (text, stopped) = matcher.push(piece);
            texts.push(text);
            if stopped {
                return (texts, true);
            }
        }
        texts.push(matcher.finish());
        (texts, false)
    }

    #[test]
    fn stops_across_pieces() {
        assert_eq!(
            run(&["END"], &["to the E", "N", "Dless"]),
            (vec!["to the ".into(), "".into(), "".into()], true)
        );
        assert_eq!(run(&["END"], &["E", "N", "x"]).0.concat(), "ENx");
        assert_eq!(
            run(&["aab"], &["aa", "ab"]),
            (vec!["".into(), "a".into()], true)
        );
        // The earlier one wins, whatever the order of the list.
        assert_eq!(run(&["c", "bc"], &["abc"]), (vec!["a".into()], true));
        assert_eq!(
            run(&["", "é!"], &["caf", "é", "?"]),
            (vec!["caf".into(), "".into(), "é?".into(), "".into()], false)
        );
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[ab]{0,30}", stops in proptest::collection::vec("[ab]{1,4}", 0..4), size in 1usize..5) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = text.as_bytes().chunks(size).map(|piece| core::str::from_utf8(piece).unwrap()).collect();
            let (texts, stopped) = run(&stops, &pieces);
            let first = stops.iter().filter_map(|stop| text.find(stop)).min();
            prop_assert_eq!(stopped, first.is_some());
            // Pieces decide when a stop text is seen; a longer one that starts earlier may not be complete by then.
            prop_assert!(text.starts_with(&texts.concat()));
            if first.is_none() {
                prop_assert_eq!(texts.concat(), text);
            }
        }
    }
}
