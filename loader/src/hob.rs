//! The TD hand-off block: how the host tells a TD where its RAM is (UEFI PI hand-off blocks, in the form that QEMU's `tdvf-hob.c` writes).
//!
//! The pages are private, so their bytes stand still, but the host chose them and nobody measured them. Hence the strictest reading that
//! QEMU's blocks pass: blocks of two kinds, in order; ranges sorted, apart, in whole pages, and nowhere near the image or the devices; the one
//! range said to be present already is exactly the one our metadata asked for. Everything else ends the boot. Fields that say nothing about
//! RAM (boot mode, owner) are not looked at.

use core::fmt;

use heapless::Vec;
use tdx::address::AddressWidth;

use crate::handoff::Span;
use crate::layout::{self, PAGE};

/// Ranges there can be; QEMU gives four.
pub const MAX_RANGES: usize = 16;
/// The most RAM that is believed in.
pub const RAM_MAX: u64 = 4 << 40;

const PHIT: u16 = 1;
const PHIT_LENGTH: u16 = 56;
const PHIT_VERSION: u32 = 9;
/// Where the first block keeps the end of the list.
const PHIT_END: usize = 48;
const RESOURCE: u16 = 3;
const RESOURCE_LENGTH: u16 = 48;
const END: u16 = 0xffff;
const END_LENGTH: u16 = 8;
const HEADER: usize = 8;

const SYSTEM_MEMORY: u32 = 0;
const UNACCEPTED: u32 = 7;
/// Present, initialised, tested.
const ATTRIBUTES: u32 = 7;

/// RAM, sorted, not overlapping, in whole pages. The hand-off block's own pages are a range of their own.
pub type Ram = Vec<Span, MAX_RANGES>;

/// The hand-off block is not one that an honest host writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HobError {
    /// The list does not begin with a valid hand-off information table.
    Start,
    /// A block of a kind that is not expected, or of the wrong length.
    Block {
        /// Its type.
        kind: u16,
        /// Its length.
        length: u16,
    },
    /// The list runs out of its pages without an end.
    NoEnd,
    /// The list ends elsewhere than its first block says.
    End(u64),
    /// A resource that is not RAM.
    Resource(u32),
    /// RAM with other attributes than present, initialised and tested.
    Attributes(u32),
    /// A range that is empty, not whole pages, or beyond the private half of the address space.
    Range(Span),
    /// A range that overlaps the one before it, or comes before it.
    Order(Span),
    /// RAM said to be present already that our metadata did not ask for.
    Present(Span),
    /// RAM where devices or the image are.
    Misplaced(Span),
    /// The pages of this very block are not said to be present.
    Missing,
    /// More ranges than [`MAX_RANGES`].
    TooManyRanges,
    /// More RAM than [`RAM_MAX`].
    TooMuch(u64),
}

impl fmt::Display for HobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |f: &mut fmt::Formatter<'_>, what: &str, span: &Span| {
            write!(
                f,
                "hand-off block: {what}: {:#x} bytes at {:#x}",
                span.length, span.start
            )
        };
        match self {
            Self::Start => f.write_str("hand-off block: no information table at its start"),
            Self::Block { kind, length } => write!(
                f,
                "hand-off block: unexpected type {kind:#x} of {length} bytes"
            ),
            Self::NoEnd => f.write_str("hand-off block: no end"),
            Self::End(end) => write!(f, "hand-off block: does not end at {end:#x} as it says"),
            Self::Resource(kind) => write!(f, "hand-off block: resource of type {kind:#x}"),
            Self::Attributes(bits) => write!(f, "hand-off block: memory attributes {bits:#x}"),
            Self::Range(range) => span(f, "impossible range", range),
            Self::Order(range) => span(f, "range out of order", range),
            Self::Present(range) => span(f, "memory present that nobody asked for", range),
            Self::Misplaced(range) => span(f, "memory where devices or the image are", range),
            Self::Missing => f.write_str("hand-off block: its own pages are missing"),
            Self::TooManyRanges => f.write_str("hand-off block: too many ranges"),
            Self::TooMuch(bytes) => write!(f, "hand-off block: {bytes:#x} bytes of memory"),
        }
    }
}

impl core::error::Error for HobError {}

/// Reads the RAM from the block's pages, which stand at [`layout::TD_HOB`].
///
/// # Errors
/// [`HobError`] for the first thing that an honest host would not have written.
pub fn parse(
    bytes: &[u8; layout::TD_HOB_SIZE as usize],
    width: AddressWidth,
) -> Result<Ram, HobError> {
    let end = start(bytes)?;
    let mut ram = Ram::new();
    let mut present = false;
    let mut total = 0u64;
    let mut position = PHIT_LENGTH as usize;
    loop {
        let block = bytes.get(position..).ok_or(HobError::NoEnd)?;
        let (Some(kind), Some(length)) = (u16_at(block, 0), u16_at(block, 2)) else {
            return Err(HobError::NoEnd);
        };
        match (kind, length) {
            (RESOURCE, RESOURCE_LENGTH) => {}
            (END, END_LENGTH) => break,
            _ => return Err(HobError::Block { kind, length }),
        }
        let block = block
            .get(..RESOURCE_LENGTH as usize)
            .ok_or(HobError::NoEnd)?;
        let (span, is_present) = resource(block)?;
        check(&span, is_present, ram.last(), width)?;
        present |= is_present;
        total = total.saturating_add(span.length);
        ram.push(span).map_err(|_| HobError::TooManyRanges)?;
        position += RESOURCE_LENGTH as usize;
    }
    // Hosts differ in whether the end is that of the last block or of the list.
    let last = layout::TD_HOB + position as u64;
    if position + HEADER > bytes.len() || (end != last && end != last + u64::from(END_LENGTH)) {
        return Err(HobError::End(end));
    }
    if !present {
        return Err(HobError::Missing);
    }
    if total > RAM_MAX {
        return Err(HobError::TooMuch(total));
    }
    Ok(ram)
}

/// Checks the first block and returns where it says that the list ends.
fn start(bytes: &[u8]) -> Result<u64, HobError> {
    let header = (u16_at(bytes, 0), u16_at(bytes, 2), u32_at(bytes, HEADER));
    match (header, u64_at(bytes, PHIT_END)) {
        ((Some(PHIT), Some(PHIT_LENGTH), Some(PHIT_VERSION)), Some(end)) => Ok(end),
        _ => Err(HobError::Start),
    }
}

/// A resource descriptor's range, and whether it is present already. Behind the header: owner (16 bytes), type, attributes, start, length.
fn resource(block: &[u8]) -> Result<(Span, bool), HobError> {
    let numbers = (
        u32_at(block, 24),
        u32_at(block, 28),
        u64_at(block, 32),
        u64_at(block, 40),
    );
    let (Some(kind), Some(attributes), Some(start), Some(length)) = numbers else {
        return Err(HobError::NoEnd);
    };
    if attributes != ATTRIBUTES {
        return Err(HobError::Attributes(attributes));
    }
    let span = Span { start, length };
    match kind {
        SYSTEM_MEMORY => Ok((span, true)),
        UNACCEPTED => Ok((span, false)),
        _ => Err(HobError::Resource(kind)),
    }
}

/// Checks a range by itself and against the one before it.
fn check(
    span: &Span,
    is_present: bool,
    previous: Option<&Span>,
    width: AddressWidth,
) -> Result<(), HobError> {
    let whole = span.length > 0 && (span.start | span.length).is_multiple_of(PAGE);
    let end = span.start.checked_add(span.length);
    if !whole || end.is_none_or(|end| end > width.shared_bit()) {
        return Err(HobError::Range(*span));
    }
    if previous.is_some_and(|previous| span.start < previous.end()) {
        return Err(HobError::Order(*span));
    }
    let own = Span {
        start: layout::TD_HOB,
        length: layout::TD_HOB_SIZE,
    };
    if is_present && *span != own {
        return Err(HobError::Present(*span));
    }
    if span.overlaps(&Span::between(layout::DEVICES, layout::IMAGE_END)) {
        return Err(HobError::Misplaced(*span));
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
