//! What the guest says on its serial console, and what of it matters: that it is ready, that it waits for its model's key, or why it
//! failed.

use std::collections::BTreeMap;

use crate::terminal;

/// Bytes of one line shown; a longer one is cut.
pub const LINE_LIMIT: u64 = 4096;

/// A console line with a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The guest serves.
    Ready(Ready),
    /// The guest waits for the key of its sealed model.
    Sealed,
    /// The key has come.
    Opening,
    /// The guest cannot serve, and why.
    Failed(String),
    /// Anything else.
    Other,
}

/// `vitrine: ready` and the words after it, `key=value` each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    words: BTreeMap<String, String>,
}

impl Ready {
    /// The value of a key, where it is a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// The value of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.words.get(key).map(String::as_str)
    }
}

impl Line {
    /// Judges a line without its line end.
    pub fn parse(line: &str) -> Self {
        let Some(said) = line.trim().strip_prefix("vitrine: ") else {
            return Self::Other;
        };
        if let Some(reason) = said.strip_prefix("failed: ") {
            return Self::Failed(reason.to_owned());
        }
        match said.trim_end() {
            "the model is sealed and waits for its key" => return Self::Sealed,
            "opening the sealed model" => return Self::Opening,
            _ => {}
        }
        let mut words = said.split_ascii_whitespace();
        if words.next() != Some("ready") {
            return Self::Other;
        }
        let words = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self::Ready(Ready { words })
    }
}

/// A line of output as text that is safe to show.
pub fn decode(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    terminal::printable(text.trim_end_matches(['\r', '\n'])).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_ready_and_failed() {
        let Line::Ready(ready) =
            Line::parse("vitrine: ready tcp=8443 vsock=8443 isa=avx2 vcpus=2 boot_ms=123\r")
        else {
            panic!("not ready");
        };
        assert_eq!(ready.number("boot_ms"), Some(123));
        assert_eq!(ready.text("isa"), Some("avx2"));
        assert_eq!(ready.number("isa"), None);
        assert_eq!(
            Line::parse("vitrine: failed: no disk with role `model`"),
            Line::Failed("no disk with role `model`".into())
        );
        assert_eq!(
            Line::parse("vitrine: the model is sealed and waits for its key\r"),
            Line::Sealed
        );
        assert_eq!(Line::parse("vitrine: readying"), Line::Other);
        assert_eq!(Line::parse("ready"), Line::Other);
    }

    #[test]
    fn output_is_decoded_whatever_it_is() {
        assert_eq!(decode(b"a\x1bb\xff\r\n"), "a\u{fffd}b\u{fffd}");
    }
}
