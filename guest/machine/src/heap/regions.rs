//! Free memory as a list of page ranges, sorted by address, each range's header in its own first bytes.

use core::ptr::NonNull;

/// The unit of the list: everything in it starts and ends on a page.
pub const PAGE: usize = 4096;

/// A free range: `length` bytes from here, then the next one, which starts at a higher address and never touches this one.
struct Range {
    length: usize,
    next: Option<NonNull<Range>>,
}

/// The free page ranges of the machine.
pub struct Regions {
    first: Option<NonNull<Range>>,
    free: usize,
}

impl Regions {
    /// No memory at all.
    pub const fn new() -> Self {
        Self {
            first: None,
            free: 0,
        }
    }

    /// Bytes in the list.
    pub fn free_bytes(&self) -> usize {
        self.free
    }

    /// Takes `size` bytes, rounded up to pages, aligned to `align` (a power of two) or a page: the first place that fits.
    pub fn take(&mut self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let size = size.max(1).checked_next_multiple_of(PAGE)?;
        let align = align.max(PAGE);
        let mut link = &mut self.first;
        loop {
            let range = (*link)?;
            let start = range.addr().get();
            // SAFETY: every range on the list is free memory with a valid header, which only this list refers to.
            let header = unsafe { &mut *range.as_ptr() };
            let end = start.checked_add(header.length)?;
            let block = start.checked_next_multiple_of(align);
            if let Some(block) =
                block.filter(|block| block.checked_add(size).is_some_and(|last| last <= end))
            {
                let (before, after) = (block - start, end - block - size);
                let mut next = header.next;
                if after > 0 {
                    // SAFETY: the pages after the block belong to this range and are free.
                    next =
                        Some(unsafe { put_header(range.cast().add(before + size), after, next) });
                }
                if before > 0 {
                    header.length = before;
                    header.next = next;
                } else {
                    *link = next;
                }
                self.free -= size;
                // SAFETY: the block starts inside the range.
                return Some(unsafe { range.cast::<u8>().add(before) });
            }
            link = &mut header.next;
        }
    }

    /// Returns what `take` gave for `size`.
    ///
    /// # Safety
    /// `block` and `size` must be those of a `take`, or name whole pages of unused RAM; nothing may refer to them any more.
    pub unsafe fn give(&mut self, block: NonNull<u8>, size: usize) {
        // `take` succeeded with this size, so rounding it up cannot overflow.
        let length = size.max(1).next_multiple_of(PAGE);
        self.free += length;
        let start = block.addr().get();
        let mut link = &mut self.first;
        while let Some(range) = *link {
            // SAFETY: every range on the list is free memory with a valid header, which only this list refers to.
            let header = unsafe { &mut *range.as_ptr() };
            if range.addr().get() > start {
                break;
            }
            if range.addr().get() + header.length == start {
                header.length += length;
                absorb_next(range);
                return;
            }
            link = &mut header.next;
        }
        // SAFETY: the caller hands the memory over, it holds at least a page.
        let range = unsafe { put_header(block, length, *link) };
        *link = Some(range);
        absorb_next(range);
    }

    /// Hands over the whole pages inside an arbitrary range; nothing if there are none.
    ///
    /// # Safety
    /// The range must be unused RAM that nothing else will ever refer to.
    pub unsafe fn give_unaligned(&mut self, start: NonNull<u8>, length: usize) {
        let skip = start.addr().get().next_multiple_of(PAGE) - start.addr().get();
        let whole = length.saturating_sub(skip) / PAGE * PAGE;
        if whole > 0 {
            // SAFETY: the pages lie inside the range the caller hands over.
            unsafe { self.give(start.add(skip), whole) }
        }
    }
}

/// Writes a range's header into its first bytes.
///
/// # Safety
/// `start` must be page aligned, free and at least a page long.
unsafe fn put_header(
    start: NonNull<u8>,
    length: usize,
    next: Option<NonNull<Range>>,
) -> NonNull<Range> {
    let range = start.cast::<Range>();
    // SAFETY: by the caller's promise there is room for a header.
    unsafe { range.write(Range { length, next }) }
    range
}

/// Joins a range with its successor if they touch.
fn absorb_next(range: NonNull<Range>) {
    // SAFETY: both ranges are on the list: free memory with valid headers, which only the list refers to.
    unsafe {
        let header = &mut *range.as_ptr();
        if let Some(next) = header.next
            && range.addr().get() + header.length == next.addr().get()
        {
            header.length += (*next.as_ptr()).length;
            header.next = (*next.as_ptr()).next;
        }
    }
}
