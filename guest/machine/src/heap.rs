//! Memory: the global allocator for everything, and [`Arena`] for the few huge blocks.
//!
//! RAM arrives as physical ranges (identity mapped by the loader, above 4 GiB included) and lives in one [`Regions`] list of
//! free page ranges. Small blocks come from power-of-two free lists which are refilled from the list a chunk at a time, large ones
//! straight from the list. Running out gives a null pointer or [`OutOfMemory`], never undefined behaviour.

mod regions;

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ops::{Deref, DerefMut, Range};
use core::ptr::{self, NonNull};

use crate::paging;
use crate::sync::SpinLock;
use regions::Regions;

/// Size classes: powers of two from 16 bytes to 32 KiB. Anything larger is whole pages.
const SMALLEST: usize = 16;
const LARGEST: usize = 32 << 10;
const CLASSES: usize = (LARGEST / SMALLEST).trailing_zeros() as usize + 1;
/// What a size class takes from the page list when it is empty.
const REFILL: usize = 128 << 10;
/// Alignment of an arena: one large page, so that huge blocks are mapped by large pages only.
const ARENA_ALIGN: usize = 2 << 20;

static MEMORY: SpinLock<Memory> = SpinLock::new(Memory::new());

/// A free small block: its first bytes point to the next one of its class.
struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

struct Memory {
    regions: Regions,
    classes: [Option<NonNull<FreeBlock>>; CLASSES],
}

// SAFETY: the pointers lead to memory which only this structure owns.
unsafe impl Send for Memory {}

impl Memory {
    const fn new() -> Self {
        Self {
            regions: Regions::new(),
            classes: [None; CLASSES],
        }
    }

    /// The size class that serves `layout`, or `None` if it is served by whole pages.
    fn class(layout: Layout) -> Option<usize> {
        let size = layout.size().max(layout.align()).max(SMALLEST);
        (size <= LARGEST).then(|| (size.next_power_of_two() / SMALLEST).trailing_zeros() as usize)
    }

    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let Some(class) = Self::class(layout) else {
            return self.regions.take(layout.size(), layout.align());
        };
        if self.classes[class].is_none() {
            self.refill(class)?;
        }
        let block = self.classes[class]?;
        // SAFETY: every pointer on a class list leads to an unused block of that class, written by `give_back`.
        self.classes[class] = unsafe { block.as_ref().next };
        Some(block.cast())
    }

    /// Cuts a fresh chunk into blocks of `class`.
    fn refill(&mut self, class: usize) -> Option<()> {
        let chunk = self.regions.take(REFILL, LARGEST)?;
        let size = SMALLEST << class;
        for offset in (0..REFILL).step_by(size).rev() {
            // SAFETY: the block lies inside the chunk just taken and, since the chunk is aligned to the largest class, is
            // aligned to its own size.
            unsafe { self.give_back(chunk.add(offset), class) }
        }
        Some(())
    }

    /// # Safety
    /// `block` must be an unused block of `class` that nobody refers to.
    unsafe fn give_back(&mut self, block: NonNull<u8>, class: usize) {
        let block = block.cast::<FreeBlock>();
        // SAFETY: the block is ours by the caller's promise, at least 16 bytes long and 16-byte aligned.
        unsafe {
            block.write(FreeBlock {
                next: self.classes[class],
            })
        }
        self.classes[class] = Some(block);
    }

    /// # Safety
    /// `block` must come from `allocate` with the same layout and be unused from now on.
    unsafe fn release(&mut self, block: NonNull<u8>, layout: Layout) {
        // Keys and prompts are not left for a later bug to find.
        // SAFETY: the block holds that many bytes, and nobody uses them any more.
        unsafe { block.write_bytes(0, layout.size()) }
        match Self::class(layout) {
            // SAFETY: passed on from the caller.
            Some(class) => unsafe { self.give_back(block, class) },
            // SAFETY: passed on from the caller.
            None => unsafe { self.regions.give(block, layout.size()) },
        }
    }
}

/// What [`add`] was given, for [`wipe`].
static RANGES: SpinLock<heapless::Vec<Range<usize>, RANGES_MAX>> =
    SpinLock::new(heapless::Vec::new());
const RANGES_MAX: usize = loader::memory::MAX_RANGES;

/// Hands `length` bytes at `start` to the allocator.
///
/// # Safety
/// The range must be mapped, writable RAM that nothing else uses or will ever use.
pub unsafe fn add(start: NonNull<u8>, length: usize) {
    remember(start.addr().get()..start.addr().get() + length);
    // SAFETY: passed on from the caller.
    unsafe { MEMORY.lock().regions.give_unaligned(start, length) }
}

fn remember(range: Range<usize>) {
    let mut ranges = RANGES.lock();
    match ranges.iter_mut().find(|known| known.end == range.start) {
        Some(known) => known.end = range.end,
        // More ranges than a memory map has pieces cannot come.
        None => drop(ranges.push(range)),
    }
}

/// Overwrites all memory that was ever handed to the allocator, used or free, with zeros.
///
/// # Safety
/// Nothing of it may be in use: neither by this CPU, whose stack must be elsewhere, nor by another.
pub unsafe fn wipe() {
    for range in RANGES.lock().iter() {
        let mut address = range.start;
        while address < range.end {
            // The guards below stacks are not mapped any more.
            let end = paging::leaf_end(address).map(|end| end.min(range.end));
            if let Some(end) = end {
                let start: *mut u8 = ptr::with_exposed_provenance_mut(address);
                // SAFETY: `add` was given this memory, it is mapped, and it is not in use any more.
                unsafe { start.write_bytes(0, end - address) }
            }
            address = end.unwrap_or(address + regions::PAGE);
        }
    }
}

/// Bytes in free pages. Blocks kept on the small free lists are not counted.
pub fn free_bytes() -> usize {
    MEMORY.lock().regions.free_bytes()
}

/// The global allocator: a handle on the one memory of the machine.
pub struct Heap;

// SAFETY: `Memory` hands out disjoint blocks of at least the asked size and alignment, under a lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MEMORY
            .lock()
            .allocate(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller of `dealloc` promises that the block came from `alloc` with this layout.
            unsafe { MEMORY.lock().release(block, layout) }
        }
    }
}

/// There is no free stretch of memory as long as was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes free at that moment, in all stretches together.
    pub free: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "out of memory: {} MiB wanted, {} MiB free",
            self.wanted.div_ceil(1 << 20),
            self.free >> 20
        )
    }
}

impl core::error::Error for OutOfMemory {}

/// One contiguous block of zeroed memory, 2 MiB aligned, up to all there is. Dereferences to its bytes.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: an arena owns its memory alone, like a boxed slice.
unsafe impl Send for Arena {}
// SAFETY: shared access to an arena only reads.
unsafe impl Sync for Arena {}

impl Arena {
    /// Takes `length` bytes of zeroed memory.
    ///
    /// # Errors
    /// [`OutOfMemory`] if no free stretch is long enough.
    pub fn new(length: usize) -> Result<Self, OutOfMemory> {
        let start = {
            let mut memory = MEMORY.lock();
            let free = memory.regions.free_bytes();
            memory
                .regions
                .take(length, ARENA_ALIGN)
                .ok_or(OutOfMemory {
                    wanted: length,
                    free,
                })?
        };
        // SAFETY: the block was just taken, `length` bytes of it are ours.
        unsafe { start.write_bytes(0, length) }
        Ok(Self { start, length })
    }

    /// Makes the memory part of the program for good, as a model that every sequence borrows needs it.
    pub fn leak(self) -> &'static mut [u8] {
        let arena = core::mem::ManuallyDrop::new(self);
        // SAFETY: the arena is never dropped, so the block stays ours; its bytes are initialised.
        unsafe { core::slice::from_raw_parts_mut(arena.start.as_ptr(), arena.length) }
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the arena owns `length` initialised bytes at `start`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the arena owns `length` initialised bytes at `start`, and `&mut self` excludes other references.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the block came from `take` with this length and is not used any more.
        unsafe { MEMORY.lock().regions.give(self.start, self.length) }
    }
}

#[cfg(test)]
mod tests;
