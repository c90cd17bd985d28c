//! Server-sent events, parsed as the bytes arrive (WHATWG HTML, "Server-sent events").
//!
//! Only the `data` field matters to this API. An event's size is bounded, so a server cannot grow the client's memory.

use std::collections::VecDeque;

use crate::error::Error;

/// Bytes of one event's data, and of one line.
const EVENT_LIMIT: usize = 1 << 20;

/// Turns pieces of a stream into the data of whole events.
#[derive(Default)]
pub(crate) struct EventParser {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    after_carriage_return: bool,
    ready: VecDeque<String>,
}

impl EventParser {
    /// Takes the next piece of the stream, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for &byte in bytes {
            let second_half = byte == b'\n' && self.after_carriage_return;
            self.after_carriage_return = byte == b'\r';
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => self.end_line()?,
                _ if self.line.len() >= EVENT_LIMIT => {
                    return Err(Error::Protocol("an event is too long"));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// The data of the oldest event not yet taken.
    pub fn next_event(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) -> Result<(), Error> {
        let line = core::str::from_utf8(&self.line)
            .map_err(|_| Error::Protocol("an event is not UTF-8"))?;
        if line.is_empty() {
            if core::mem::take(&mut self.has_data) {
                self.ready.push_back(core::mem::take(&mut self.data));
            }
        } else if let Some(value) = field_value(line, "data") {
            if self.has_data {
                self.data.push('\n');
            }
            if self.data.len() + value.len() > EVENT_LIMIT {
                return Err(Error::Protocol("an event is too long"));
            }
            self.data.push_str(value);
            self.has_data = true;
        }
        self.line.clear();
        Ok(())
    }
}

/// The value of a line's field if it is the named one; one space after the colon is not part of it.
fn field_value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(':')?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<String>, Error> {
        let mut parser = EventParser::default();
        for piece in pieces {
            parser.feed(piece)?;
        }
        Ok(core::iter::from_fn(|| parser.next_event()).collect())
    }

    #[test]
    fn understands_the_grammar() {
        let stream = ": comment\r\ndata: one\r\n\r\nevent: x\ndata:two\ndata\ndata: three\n\n\n\ndata:  [DONE]\r\rdatabase: no\n\ndata: cut";
        assert_eq!(
            events(&[stream.as_bytes()]).unwrap(),
            ["one", "two\n\nthree", " [DONE]"]
        );
    }

    #[test]
    fn bounds_and_validates() {
        let mut parser = EventParser::default();
        assert!(parser.feed(&vec![b'x'; EVENT_LIMIT + 1]).is_err());
        assert!(events(&[b"data: \xff\n\n"]).is_err());
        let long = format!("data: {}\n", "x".repeat(EVENT_LIMIT / 2)).repeat(3);
        assert!(events(&[long.as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn cutting_the_stream_changes_nothing(
            stream in "(data: ?[a-zä€\u{1F600}]{0,5}|:c|event: x|(\r\n|\n|\r)){0,30}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(events(&pieces).unwrap(), events(&[bytes]).unwrap());
        }
    }
}
