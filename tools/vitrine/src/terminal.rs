//! Text from elsewhere, made safe to show: on a terminal, control characters would let whoever wrote it move the cursor, retitle
//! the window or worse.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write, stdout};

/// Writes a piece of an answer to stdout at once, made safe if stdout is a terminal.
pub fn show(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    match out.is_terminal() {
        true => out.write_all(printable(text).as_bytes())?,
        false => out.write_all(text.as_bytes())?,
    }
    out.flush()
}

/// The text with every control character but line feed and tab replaced.
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    match text.contains(harmful) {
        true => text.replace(harmful, "\u{fffd}").into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_drive_the_terminal() {
        assert_eq!(
            printable("a\x1b]0;x\x07b\u{9b}1m"),
            "a\u{fffd}]0;x\u{fffd}b\u{fffd}1m"
        );
        assert!(matches!(printable("plain\n\tä"), Cow::Borrowed(_)));
    }
}
