//! What the loader gives to the guest: one typed, versioned structure, and the mailbox through which application processors start.
//!
//! Both live in the loader's writable data: private, measured memory in a TD. The guest gets a pointer to the [`Handoff`] in RDI and
//! its CPU index in RSI (0 for the boot processor), in 64-bit mode with interrupts off, on its own stack, under the final page tables.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::memory::{MAX_RANGES, MemoryMap, MemoryRange};

/// The first bytes of a hand-off.
pub const MAGIC: [u8; 8] = *b"VITR-HND";
/// Changes with every change of the structure.
pub const VERSION: u32 = 2;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

impl Span {
    /// The span from `start` up to but without `end`; empty if `end` is not above `start`.
    pub const fn between(start: u64, end: u64) -> Self {
        Self {
            start,
            length: end.saturating_sub(start),
        }
    }

    /// The first byte behind the span.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Whether the two have a byte in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// How the image was entered, which decides what the guest may believe and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// 16-bit reset: an ordinary virtual machine, no protection at all.
    Plain = 1,
    /// 32-bit reset: a TDX trust domain.
    TrustDomain = 2,
}

/// The hand-off itself. `repr(C)` with explicit sizes: loader and guest are two programs.
#[derive(Debug)]
#[repr(C)]
pub struct Handoff {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// How the image was entered.
    pub mode: Mode,
    /// The time stamp counter at reset.
    pub boot_ticks: u64,
    /// The whole image, mapped read-only.
    pub image: Span,
    /// The guest executable inside the image: the bytes of which the compile hash is taken.
    pub guest: Span,
    /// How many entries of `memory` are valid.
    pub memory_count: u32,
    /// Zero.
    pub reserved: u32,
    /// All RAM, sorted, not overlapping, with its use.
    pub memory: [MemoryRange; MAX_RANGES],
    /// How application processors start.
    pub mailbox: Mailbox,
}

/// The hand-off is not one this guest understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffError {
    /// The first bytes are wrong.
    Magic,
    /// Loader and guest are of different versions.
    Version(u32),
    /// More ranges than there is room for.
    MemoryCount(u32),
}

impl core::fmt::Display for HandoffError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => f.write_str("there is no hand-off where the loader points"),
            Self::Version(version) => write!(
                f,
                "the loader's hand-off has version {version}, this guest knows {VERSION}"
            ),
            Self::MemoryCount(count) => write!(
                f,
                "the hand-off counts {count} memory ranges, {MAX_RANGES} at most"
            ),
        }
    }
}

impl core::error::Error for HandoffError {}

impl Handoff {
    /// An empty hand-off, before the loader fills it.
    pub const fn new() -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            mode: Mode::Plain,
            boot_ticks: 0,
            image: Span {
                start: 0,
                length: 0,
            },
            guest: Span {
                start: 0,
                length: 0,
            },
            memory_count: 0,
            reserved: 0,
            memory: [MemoryRange::EMPTY; MAX_RANGES],
            mailbox: Mailbox::new(),
        }
    }

    /// Records the memory map.
    pub fn set_memory(&mut self, map: &MemoryMap) {
        self.memory_count = 0;
        for (slot, range) in self.memory.iter_mut().zip(map) {
            *slot = *range;
            self.memory_count += 1;
        }
    }

    /// All RAM with its use.
    ///
    /// # Errors
    /// [`HandoffError`] if loader and guest do not belong together.
    pub fn memory(&self) -> Result<&[MemoryRange], HandoffError> {
        if self.magic != MAGIC {
            return Err(HandoffError::Magic);
        }
        if self.version != VERSION {
            return Err(HandoffError::Version(self.version));
        }
        self.memory
            .get(..self.memory_count as usize)
            .ok_or(HandoffError::MemoryCount(self.memory_count))
    }
}

impl Default for Handoff {
    fn default() -> Self {
        Self::new()
    }
}

/// The gate at which application processors wait, in code of the loader (`entry.s`), until the guest opens it.
///
/// A CPU that comes through takes the next ticket, which is its index from then on, loads the stack of that index, and enters the guest at
/// the one entry point that the measured image fixes. Tickets at or above the limit are turned away for good.
#[derive(Debug)]
#[repr(C)]
pub struct Mailbox {
    /// How many CPUs may run the guest, the boot processor included; 0 while the gate is closed.
    limit: AtomicU32,
    /// The next ticket.
    next: AtomicU32,
    /// Address of an array with the initial stack pointer of each CPU index, 0 to `limit`.
    stacks: AtomicU64,
    /// The guest's entry point. Set by the loader.
    pub entry: u64,
    /// Physical address of the final page tables. Set by the loader.
    pub page_table: u64,
}

impl Mailbox {
    const fn new() -> Self {
        Self {
            limit: AtomicU32::new(0),
            next: AtomicU32::new(1),
            stacks: AtomicU64::new(0),
            entry: 0,
            page_table: 0,
        }
    }

    /// Opens the gate for as many CPUs as there are stacks (index 0, the boot processor's, is not used). The stacks stay theirs.
    pub fn open(&self, stacks: &'static [u64]) {
        self.stacks.store(
            stacks.as_ptr().expose_provenance() as u64,
            Ordering::Relaxed,
        );
        self.limit.store(
            u32::try_from(stacks.len()).unwrap_or(u32::MAX),
            Ordering::Release,
        );
    }

    /// Lets nobody through any more: CPUs that are too late never run anything.
    pub fn close(&self) {
        self.limit.store(1, Ordering::Release);
    }
}

/// Byte offsets into [`Handoff`] for the assembly that meets it.
pub mod offsets {
    use super::{Handoff, Mailbox};
    use core::mem::offset_of;

    /// [`Mailbox::open`]'s limit.
    pub const LIMIT: usize = offset_of!(Handoff, mailbox) + offset_of!(Mailbox, limit);
    /// The next ticket.
    pub const NEXT: usize = offset_of!(Handoff, mailbox) + offset_of!(Mailbox, next);
    /// The array of stacks.
    pub const STACKS: usize = offset_of!(Handoff, mailbox) + offset_of!(Mailbox, stacks);
    /// The guest's entry point.
    pub const ENTRY: usize = offset_of!(Handoff, mailbox) + offset_of!(Mailbox, entry);
    /// How the image was entered.
    pub const MODE: usize = offset_of!(Handoff, mode);
    /// The final page tables.
    pub const PAGE_TABLE: usize = offset_of!(Handoff, mailbox) + offset_of!(Mailbox, page_table);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Use;

    #[test]
    fn memory_is_checked_before_use() {
        let mut handoff = Handoff::new();
        let range = MemoryRange {
            span: Span {
                start: 0x1000,
                length: 0x1000,
            },
            usage: Use::Free,
        };
        handoff.set_memory(&MemoryMap::from_slice(&[range]).expect("one range fits"));
        assert_eq!(handoff.memory(), Ok(&[range][..]));
        handoff.memory_count = 1000;
        assert_eq!(handoff.memory(), Err(HandoffError::MemoryCount(1000)));
        handoff.version = 9;
        assert_eq!(handoff.memory(), Err(HandoffError::Version(9)));
        handoff.magic[0] = 0;
        assert_eq!(handoff.memory(), Err(HandoffError::Magic));
    }
}
