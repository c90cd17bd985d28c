//! Static ELF64 executables, as strictly as we make them: a few loadable segments, each on pages of its own, never writable and executable.

use core::ops::Range;
use heapless::Vec;

use crate::handoff::Span;
use crate::layout::PAGE;

/// Loadable segments an executable may have.
pub const MAX_SEGMENTS: usize = 8;
/// Bytes of an ELF64 file header.
pub const FILE_HEADER: usize = 64;
/// Bytes of a program header.
pub const PROGRAM_HEADER: usize = 56;
/// Program headers that are looked at.
const MAX_PROGRAM_HEADERS: u16 = 16;

const PT_LOAD: u32 = 1;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// What may be done with a segment's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Constants.
    Read,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
}

/// A loadable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is loaded, in bytes; need not be page aligned.
    pub memory: Span,
    /// Its bytes in the file; the rest of `memory` is zero.
    pub file: Range<usize>,
    /// What its pages allow.
    pub access: Access,
}

impl Segment {
    /// The whole pages that the segment occupies.
    pub fn pages(&self) -> Span {
        Span::between(
            self.memory.start / PAGE * PAGE,
            self.memory.end().next_multiple_of(PAGE),
        )
    }
}

/// A checked executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable<'a> {
    /// The whole file.
    pub bytes: &'a [u8],
    /// Where execution starts: inside a segment of code.
    pub entry: u64,
    /// Sorted by address; no two share a page.
    pub segments: Vec<Segment, MAX_SEGMENTS>,
}

/// The file is not an executable of our kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// Shorter than its own headers say.
    Truncated,
    /// Not a static little-endian x86-64 ELF64 executable.
    NotOurKind,
    /// A program header of a kind that a static executable has no use for, such as PT_DYNAMIC (2), PT_INTERP (3) or PT_TLS (7).
    UnexpectedKind(u32),
    /// No segment, or more than [`MAX_SEGMENTS`].
    SegmentCount(usize),
    /// A segment that is writable and executable, or not readable.
    Flags {
        /// Its address.
        address: u64,
        /// Its flags.
        flags: u32,
    },
    /// A segment outside the room it has to lie in, or with more file than memory.
    Placement(Span),
    /// Two segments on one page.
    SharedPage(Span, Span),
    /// The entry point is not in code.
    Entry(u64),
}

impl core::fmt::Display for ElfError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => f.write_str("the executable is truncated"),
            Self::NotOurKind => f.write_str("not a static x86-64 ELF executable"),
            Self::UnexpectedKind(kind) => {
                write!(f, "the executable has a program header of kind {kind:#x}")
            }
            Self::SegmentCount(count) => write!(
                f,
                "the executable has {count} segments, 1 to {MAX_SEGMENTS} are possible"
            ),
            Self::Flags { address, flags } => {
                write!(f, "the segment at {address:#x} has flags {flags:#x}")
            }
            Self::Placement(span) => write!(
                f,
                "the segment at {:#x} ({:#x} bytes) is misplaced",
                span.start, span.length
            ),
            Self::SharedPage(a, b) => write!(
                f,
                "the segments at {:#x} and {:#x} share a page",
                a.start, b.start
            ),
            Self::Entry(entry) => write!(f, "the entry point {entry:#x} is not in code"),
        }
    }
}

impl core::error::Error for ElfError {}

impl<'a> Executable<'a> {
    /// Checks `bytes`, whose segments must lie inside `room`.
    ///
    /// # Errors
    /// [`ElfError`] naming the first thing that is wrong.
    pub fn parse(bytes: &'a [u8], room: Span) -> Result<Self, ElfError> {
        const IDENTITY: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
        const ET_EXEC: u64 = 2;
        const EM_X86_64: u64 = 62;
        let header = bytes.get(..FILE_HEADER).ok_or(ElfError::Truncated)?;
        if !header.starts_with(&IDENTITY)
            || number(header, 16..18)? != ET_EXEC
            || number(header, 18..20)? != EM_X86_64
        {
            return Err(ElfError::NotOurKind);
        }
        let count = number(header, 56..58)? as u16;
        if number(header, 54..56)? as usize != PROGRAM_HEADER || count > MAX_PROGRAM_HEADERS {
            return Err(ElfError::NotOurKind);
        }
        let table = usize::try_from(number(header, 32..40)?).map_err(|_| ElfError::Truncated)?;
        let end = table
            .checked_add(usize::from(count) * PROGRAM_HEADER)
            .ok_or(ElfError::Truncated)?;
        let table = bytes.get(table..end).ok_or(ElfError::Truncated)?;

        let mut segments: Vec<Segment, MAX_SEGMENTS> = Vec::new();
        for header in table.chunks_exact(PROGRAM_HEADER) {
            match number(header, 0..4)? as u32 {
                PT_LOAD => segments
                    .push(segment(header, bytes, room)?)
                    .map_err(|_| ElfError::SegmentCount(MAX_SEGMENTS + 1))?,
                PT_GNU_STACK if number(header, 4..8)? as u32 & PF_X == 0 => {}
                kind => return Err(ElfError::UnexpectedKind(kind)),
            }
        }
        if segments.is_empty() {
            return Err(ElfError::SegmentCount(0));
        }
        segments.sort_unstable_by_key(|segment| segment.memory.start);
        for pair in segments.windows(2) {
            if let [a, b] = pair
                && a.pages().overlaps(&b.pages())
            {
                return Err(ElfError::SharedPage(a.memory, b.memory));
            }
        }
        let entry = number(header, 24..32)?;
        let code = |segment: &Segment| {
            segment.access == Access::ReadExecute
                && segment.memory.start <= entry
                && entry < segment.memory.end()
        };
        if !segments.iter().any(code) {
            return Err(ElfError::Entry(entry));
        }
        Ok(Self {
            bytes,
            entry,
            segments,
        })
    }

    /// The pages from the first segment to the last, gaps included.
    pub fn span(&self) -> Span {
        let start = self
            .segments
            .first()
            .map_or(0, |segment| segment.pages().start);
        Span::between(
            start,
            self.segments
                .last()
                .map_or(0, |segment| segment.pages().end()),
        )
    }
}

fn segment(header: &[u8], bytes: &[u8], room: Span) -> Result<Segment, ElfError> {
    let flags = number(header, 4..8)? as u32;
    let memory = Span {
        start: number(header, 16..24)?,
        length: number(header, 40..48)?,
    };
    let access = match flags {
        PF_R => Access::Read,
        flags if flags == PF_R | PF_W => Access::ReadWrite,
        flags if flags == PF_R | PF_X => Access::ReadExecute,
        _ => {
            return Err(ElfError::Flags {
                address: memory.start,
                flags,
            });
        }
    };
    let file = number(header, 32..40)?;
    let fits = memory.start >= room.start
        && memory
            .start
            .checked_add(memory.length)
            .is_some_and(|end| end <= room.end());
    if !fits || memory.length == 0 || file > memory.length {
        return Err(ElfError::Placement(memory));
    }
    let offset = usize::try_from(number(header, 8..16)?).map_err(|_| ElfError::Truncated)?;
    let length = usize::try_from(file).map_err(|_| ElfError::Truncated)?;
    let end = offset
        .checked_add(length)
        .filter(|end| *end <= bytes.len())
        .ok_or(ElfError::Truncated)?;
    Ok(Segment {
        memory,
        file: offset..end,
        access,
    })
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8], range: Range<usize>) -> Result<u64, ElfError> {
    let bytes = bytes.get(range).ok_or(ElfError::Truncated)?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec as Bytes;

    const ROOM: Span = Span {
        start: 0x10_0000,
        length: 0x10_0000,
    };

    /// An executable with the given segments: (kind, flags, offset, address, file size, memory size).
    fn elf(segments: &[(u32, u32, u64, u64, u64, u64)]) -> Bytes<u8> {
        let mut bytes = std::vec![0; 0x3000];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[24..32].copy_from_slice(&0x10_0010u64.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = segments.len() as u8;
        for (index, (kind, flags, offset, address, file, memory)) in segments.iter().enumerate() {
            let at = 64 + 56 * index;
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
            for (field, value) in [(8, offset), (16, address), (32, file), (40, memory)] {
                bytes[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    const TEXT: (u32, u32, u64, u64, u64, u64) = (PT_LOAD, 5, 0x1000, 0x10_0000, 0x800, 0x800);
    const DATA: (u32, u32, u64, u64, u64, u64) = (PT_LOAD, 6, 0x2000, 0x10_1000, 0x100, 0x1100);

    #[test]
    fn a_good_executable_passes() {
        let bytes = elf(&[DATA, TEXT, (PT_GNU_STACK, 6, 0, 0, 0, 0)]);
        let executable = Executable::parse(&bytes, ROOM).expect("a valid file");
        assert_eq!(executable.entry, 0x10_0010);
        assert_eq!(
            executable.span(),
            Span {
                start: 0x10_0000,
                length: 0x3000
            }
        );
        assert_eq!(executable.segments[0].file, 0x1000..0x1800);
        assert_eq!(executable.segments[1].access, Access::ReadWrite);
    }

    #[test]
    fn bad_executables_are_refused() {
        let refuse =
            |segments: &[_]| Executable::parse(&elf(segments), ROOM).expect_err("a bad file");
        assert_eq!(refuse(&[]), ElfError::SegmentCount(0));
        assert_eq!(
            refuse(&[TEXT, (2, 4, 0, 0, 0, 0)]),
            ElfError::UnexpectedKind(2)
        );
        assert_eq!(
            refuse(&[TEXT, (7, 4, 0, 0, 0, 0)]),
            ElfError::UnexpectedKind(7)
        );
        assert_eq!(
            refuse(&[TEXT, (PT_GNU_STACK, 7, 0, 0, 0, 0)]),
            ElfError::UnexpectedKind(PT_GNU_STACK)
        );
        assert_eq!(
            refuse(&[(PT_LOAD, 7, 0x1000, 0x10_0000, 1, 1)]),
            ElfError::Flags {
                address: 0x10_0000,
                flags: 7
            }
        );
        assert_eq!(refuse(&[DATA]), ElfError::Entry(0x10_0010));
        for (address, file, memory) in [
            (0xf_f000, 1, 1),
            (0x1f_f000, 1, 0x1001),
            (0x10_0000, 2, 1),
            (0x10_0000, 0, 0),
            (u64::MAX, 1, 1),
        ] {
            let error = refuse(&[(PT_LOAD, 5, 0x1000, address, file, memory)]);
            assert_eq!(
                error,
                ElfError::Placement(Span {
                    start: address,
                    length: memory
                })
            );
        }
        assert_eq!(
            refuse(&[(PT_LOAD, 5, 0x2fff, 0x10_0000, 2, 2)]),
            ElfError::Truncated
        );
        assert_eq!(
            refuse(&[(PT_LOAD, 5, u64::MAX, 0x10_0000, 2, 2)]),
            ElfError::Truncated
        );
        assert!(matches!(
            refuse(&[TEXT, (PT_LOAD, 6, 0, 0x10_0800, 1, 1)]),
            ElfError::SharedPage(..)
        ));
    }

    #[test]
    fn no_prefix_and_no_changed_byte_panics() {
        let bytes = elf(&[TEXT, DATA]);
        for length in 0..0x200 {
            let _ = Executable::parse(&bytes[..length], ROOM);
        }
        for position in 0..64 + 2 * 56 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[position] = value;
                let _ = Executable::parse(&changed, ROOM);
            }
        }
    }
}
