//! The one change made to the loader's map: a page taken out of it, so that a stack which overflows faults instead of corrupting its neighbour.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr;

const PAGE: usize = 4096;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// The address in an entry. In a large leaf bit 12 is an attribute (PAT), which the loader leaves zero.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[repr(C, align(4096))]
struct Table([u64; 512]);

/// Takes the page at `address` out of the map. Larger leaves are split first. Does nothing if the page is not mapped.
///
/// # Safety
/// The page must be RAM that belongs to the caller and that nothing will access any more. No other CPU may have used it: their translation
/// caches are not flushed.
pub unsafe fn unmap(address: usize) {
    // SAFETY: the loader's tables are identity mapped and writable, and only this function, on one CPU at a time by the caller's promise,
    // changes them. Splitting keeps every translation what it was.
    unsafe {
        let mut table = root();
        for level in (1..4).rev() {
            let entry = &mut (*table).0[index(address, level)];
            if *entry & PRESENT == 0 {
                return;
            }
            if *entry & LARGE != 0 {
                *entry = split(*entry, level);
            }
            table = ptr::with_exposed_provenance_mut((*entry & ADDRESS) as usize);
        }
        (*table).0[index(address, 0)] = 0;
        asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags));
    }
}

/// A table of 512 smaller leaves that together map what the large leaf `entry` of `level` maps; returns the entry that points to it.
fn split(entry: u64, level: u32) -> u64 {
    let layout = Layout::new::<Table>();
    // SAFETY: the layout is not empty.
    let table = unsafe { alloc_zeroed(layout) }.cast::<Table>();
    if table.is_null() {
        handle_alloc_error(layout);
    }
    let smaller = (PAGE as u64) << (9 * (level - 1));
    // A leaf of the last level has no such bit: there it means something else.
    let first = if level == 1 { entry & !LARGE } else { entry };
    // SAFETY: fresh memory for a table, which nothing else refers to.
    unsafe { (*table).0 = core::array::from_fn(|number| first + smaller * number as u64) }
    // The rights of the leaves decide: pointers to tables allow everything, as the loader's do.
    const POINTER: u64 = 0x63;
    table.expose_provenance() as u64 | POINTER
}

fn root() -> *mut Table {
    let root: usize;
    // SAFETY: reading CR3 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) }
    ptr::with_exposed_provenance_mut(root & !(PAGE - 1))
}

fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * level) & 511
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_keeps_every_translation() {
        const NO_EXECUTE: u64 = 1 << 63;
        let gigabyte = 0x4000_0000 | 0x63 | LARGE | NO_EXECUTE;
        let pointer = split(gigabyte, 2);
        let table: *const Table = ptr::with_exposed_provenance((pointer & ADDRESS) as usize);
        // SAFETY: `split` just made this table.
        let entries = unsafe { (*table).0 };
        assert_eq!(entries[0], gigabyte);
        assert_eq!(entries[511], gigabyte + 511 * 0x20_0000);
        let pointer = split(entries[1], 1);
        let table: *const Table = ptr::with_exposed_provenance((pointer & ADDRESS) as usize);
        // SAFETY: as above.
        let entries = unsafe { (*table).0 };
        assert_eq!(entries[0], 0x4020_0000 | 0x63 | NO_EXECUTE);
        assert_eq!(entries[511], 0x403f_f000 | 0x63 | NO_EXECUTE);
    }

    #[test]
    fn indices_take_nine_bits_each() {
        let address = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 5;
        assert_eq!(
            [3, 2, 1, 0].map(|level| index(address, level)),
            [1, 2, 3, 4]
        );
    }
}
