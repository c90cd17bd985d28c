//! The PC's memory map in its oldest form: 20-byte entries of start, length and type. Outside a TD only; host input all the same.

use heapless::Vec;

use crate::handoff::Span;
use crate::layout::PAGE;

/// Bytes of one entry.
pub const ENTRY: usize = 20;
/// Entries that are looked at; QEMU gives three or four.
pub const MAX_ENTRIES: usize = 32;
/// The type of usable RAM.
const RAM: u32 = 1;
/// Physical addresses have at most 52 bits.
const ADDRESS_END: u64 = 1 << 52;

/// Usable RAM, sorted, not overlapping, in whole pages.
pub type Ram = Vec<Span, MAX_ENTRIES>;

/// The memory map cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum E820Error {
    /// Its size is not a whole number of entries, or more than there is room for.
    Size(usize),
    /// An entry wraps around or leaves the physical address space.
    OutOfRange(Span),
    /// Two entries overlap.
    Overlap(Span, Span),
}

impl core::fmt::Display for E820Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size(size) => write!(f, "the memory map has an impossible size of {size} bytes"),
            Self::OutOfRange(span) => write!(
                f,
                "the memory map names {:#x} bytes at {:#x}",
                span.length, span.start
            ),
            Self::Overlap(a, b) => write!(
                f,
                "the memory map's ranges at {:#x} and {:#x} overlap",
                a.start, b.start
            ),
        }
    }
}

impl core::error::Error for E820Error {}

/// Reads the usable RAM from the raw map.
///
/// # Errors
/// [`E820Error`] if the map contradicts itself in any entry, usable or not.
pub fn parse(bytes: &[u8]) -> Result<Ram, E820Error> {
    if !bytes.len().is_multiple_of(ENTRY) {
        return Err(E820Error::Size(bytes.len()));
    }
    let mut entries: Vec<(Span, u32), MAX_ENTRIES> = Vec::new();
    for entry in bytes.chunks_exact(ENTRY) {
        let number = |range: core::ops::Range<usize>| {
            entry[range]
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        let span = Span {
            start: number(0..8),
            length: number(8..16),
        };
        if span
            .start
            .checked_add(span.length)
            .is_none_or(|end| end > ADDRESS_END)
        {
            return Err(E820Error::OutOfRange(span));
        }
        entries
            .push((span, number(16..20) as u32))
            .map_err(|_| E820Error::Size(bytes.len()))?;
    }
    entries.sort_unstable_by_key(|(span, _)| span.start);
    for pair in entries.windows(2) {
        if let [(a, _), (b, _)] = pair
            && a.overlaps(b)
        {
            return Err(E820Error::Overlap(*a, *b));
        }
    }
    let pages =
        |span: &Span| Span::between(span.start.next_multiple_of(PAGE), span.end() / PAGE * PAGE);
    Ok(entries
        .iter()
        .filter(|(_, kind)| *kind == RAM)
        .map(|(span, _)| pages(span))
        .filter(|span| span.length > 0)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec as Bytes;

    fn map(entries: &[(u64, u64, u32)]) -> Bytes<u8> {
        let encode = |(start, length, kind): &(u64, u64, u32)| {
            [
                &start.to_le_bytes()[..],
                &length.to_le_bytes(),
                &kind.to_le_bytes(),
            ]
            .concat()
        };
        entries.iter().flat_map(encode).collect()
    }

    #[test]
    fn reads_what_qemu_gives() {
        let bytes = map(&[
            (0xfd_0000_0000, 0x3_0000_0000, 2),
            (1 << 32, 1 << 32, 1),
            (0, 0x8000_0000, 1),
        ]);
        let ram = parse(&bytes).expect("a valid map");
        assert_eq!(
            ram,
            [
                Span {
                    start: 0,
                    length: 0x8000_0000
                },
                Span {
                    start: 1 << 32,
                    length: 1 << 32
                }
            ]
        );
    }

    #[test]
    fn keeps_whole_pages_only() {
        let ram = parse(&map(&[(0x1001, 0x2fff, 1), (0x5001, 0xffe, 1)])).expect("a valid map");
        assert_eq!(
            ram,
            [Span {
                start: 0x2000,
                length: 0x2000
            }]
        );
    }

    #[test]
    fn refuses_contradictions() {
        let far = Span {
            start: u64::MAX,
            length: 2,
        };
        assert_eq!(
            parse(&map(&[(far.start, far.length, 2)])),
            Err(E820Error::OutOfRange(far))
        );
        assert!(matches!(
            parse(&map(&[(1 << 52, 4096, 1)])),
            Err(E820Error::OutOfRange(_))
        ));
        assert!(matches!(
            parse(&map(&[(0, 0x2000, 1), (0x1000, 0x1000, 2)])),
            Err(E820Error::Overlap(..))
        ));
        assert_eq!(parse(&[0; 21]), Err(E820Error::Size(21)));
        assert_eq!(
            parse(&[0; ENTRY * (MAX_ENTRIES + 1)]),
            Err(E820Error::Size(ENTRY * (MAX_ENTRIES + 1)))
        );
    }
}
