use super::regions::PAGE;
use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// Page-aligned host memory that plays the RAM.
fn ram(pages: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(pages * PAGE, ARENA_ALIGN).expect("a valid layout");
    // SAFETY: the layout is not empty; the block is leaked, so it is never used by anything else.
    NonNull::new(unsafe { std::alloc::alloc(layout) }).expect("host memory")
}

fn memory(pages: usize) -> Memory {
    let mut memory = Memory::new();
    // SAFETY: fresh memory of that size which nothing else uses.
    unsafe { memory.regions.give_unaligned(ram(pages), pages * PAGE) }
    memory
}

#[test]
fn pages_come_back_as_one_range() {
    let mut regions = memory(16).regions;
    let blocks: Vec<_> = (0..4)
        .map(|_| regions.take(4 * PAGE, PAGE).expect("room"))
        .collect();
    assert_eq!(regions.free_bytes(), 0);
    assert!(regions.take(1, 1).is_none());
    for index in [2, 0, 3, 1] {
        // SAFETY: each block is given back once.
        unsafe { regions.give(blocks[index], 4 * PAGE) }
    }
    assert!(regions.take(16 * PAGE, PAGE).is_some());
}

#[test]
fn odd_edges_are_left_out() {
    let mut regions = Regions::new();
    // SAFETY: fresh memory which nothing else uses.
    unsafe { regions.give_unaligned(ram(4).add(1), 4 * PAGE - 2) }
    assert_eq!(regions.free_bytes(), 2 * PAGE);
    // SAFETY: as above; the range holds no whole page, so it is not touched at all.
    unsafe { regions.give_unaligned(ram(1).add(8), PAGE - 8) }
    assert_eq!(regions.free_bytes(), 2 * PAGE);
}

#[test]
fn impossible_sizes_are_refused() {
    let mut regions = memory(4).regions;
    assert!(regions.take(usize::MAX, PAGE).is_none());
    assert!(regions.take(5 * PAGE, PAGE).is_none());
    assert!(regions.take(PAGE, 1 << 63).is_none());
    assert_eq!(regions.free_bytes(), 4 * PAGE);
}

#[test]
fn arenas_are_aligned_zeroed_and_returned() {
    // SAFETY: fresh memory which nothing else uses. Only this test uses the global heap.
    unsafe { add(ram(1024), 1024 * PAGE) }
    let before = free_bytes();
    let mut arena = Arena::new(ARENA_ALIGN).expect("room");
    assert_eq!(arena.as_ptr().addr() % ARENA_ALIGN, 0);
    assert!(arena.iter().all(|byte| *byte == 0));
    arena.fill(7);
    drop(arena);
    assert_eq!(free_bytes(), before);
    assert!(
        Arena::new(ARENA_ALIGN)
            .expect("room")
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(Arena::new(1 << 40).expect_err("too large").wanted, 1 << 40);
}

#[test]
fn freed_blocks_hold_nothing_of_what_they_held() {
    let mut memory = memory(64);
    for size in [300, 100_000] {
        let layout = Layout::from_size_align(size, 16).expect("a valid layout");
        let block = memory.allocate(layout).expect("room");
        // SAFETY: the block is live and holds `size` bytes; afterwards the memory is still this test's, and readable.
        let left = unsafe {
            block.write_bytes(7, size);
            memory.release(block, layout);
            core::slice::from_raw_parts(block.as_ptr(), size)
        };
        assert!(left.iter().all(|byte| *byte != 7), "{size} bytes");
    }
}

proptest! {
    /// Whatever the order of requests: blocks are aligned, do not overlap, keep what was written, and all pages come back.
    #[test]
    fn blocks_never_overlap(requests in prop::collection::vec((1usize..200_000, 0u32..14, any::<bool>()), 1..60)) {
        let mut memory = memory(1024);
        let mut live: Vec<(NonNull<u8>, Layout, u8)> = vec![];
        for (number, (size, align, release)) in requests.into_iter().enumerate() {
            if release && !live.is_empty() {
                let (block, layout, mark) = live.swap_remove(size % live.len());
                // SAFETY: the block is live and of this layout.
                unsafe {
                    prop_assert_eq!(*block.as_ptr(), mark);
                    prop_assert_eq!(*block.as_ptr().add(layout.size() - 1), mark);
                    memory.release(block, layout);
                }
                continue;
            }
            let layout = Layout::from_size_align(size, 1 << align).expect("a valid layout");
            let Some(block) = memory.allocate(layout) else { continue };
            prop_assert_eq!(block.addr().get() % layout.align(), 0);
            let mark = number as u8;
            // SAFETY: the block holds `size` bytes.
            unsafe { block.write_bytes(mark, size) }
            live.push((block, layout, mark));
        }
    }
}
