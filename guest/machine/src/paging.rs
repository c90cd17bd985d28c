//! The one change made to the loader's map: a page taken out of it, so that a stack which overflows faults instead of corrupting its neighbour.
//!
//! The tables that this takes are not in the heap, which may be wiped while they are in use.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// The address in an entry. In a large leaf bit 12 is an attribute (PAT), which the loader leaves zero.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[repr(C, align(4096))]
struct Table([u64; 512]);

/// Tables for large leaves that are split: the stacks of 255 CPUs take fewer.
const TABLES: usize = 48;
static POOL: Pool = Pool {
    tables: [const { UnsafeCell::new(Table([0; 512])) }; TABLES],
    used: AtomicUsize::new(0),
};

struct Pool {
    tables: [UnsafeCell<Table>; TABLES],
    used: AtomicUsize,
}

// SAFETY: each table is given out once.
unsafe impl Sync for Pool {}

impl Pool {
    fn take(&self) -> Option<*mut Table> {
        let table = self.tables.get(self.used.fetch_add(1, Ordering::Relaxed))?;
        Some(table.get())
    }
}

/// Takes the page at `address` out of the map. Larger leaves are split first. Does nothing if the page is not mapped, or if there is no table left
/// to split a leaf with.
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
                let Some(table) = POOL.take() else {
                    return;
                };
                *entry = split(*entry, level, table);
            }
            table = ptr::with_exposed_provenance_mut((*entry & ADDRESS) as usize);
        }
        (*table).0[index(address, 0)] = 0;
        asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags));
    }
}

/// Where the mapping that `address` is part of ends, or `None` if it is not mapped. Only on the machine.
pub fn leaf_end(address: usize) -> Option<usize> {
    let mut table: *const Table = root();
    for level in (0..4).rev() {
        // SAFETY: the tables are identity mapped, and change only before other CPUs use what is taken out of them.
        let entry = unsafe { (*table).0[index(address, level)] };
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & LARGE != 0 {
            let size = PAGE << (9 * level);
            return Some((address / size + 1) * size);
        }
        table = ptr::with_exposed_provenance((entry & ADDRESS) as usize);
    }
    None
}

/// Makes `table` one of 512 smaller leaves that together map what the large leaf `entry` of `level` maps; returns the entry that points to it.
///
/// # Safety
/// Nothing else may refer to the table.
unsafe fn split(entry: u64, level: u32, table: *mut Table) -> u64 {
    let smaller = (PAGE as u64) << (9 * (level - 1));
    // A leaf of the last level has no such bit: there it means something else.
    let first = if level == 1 { entry & !LARGE } else { entry };
    // SAFETY: passed on from the caller.
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
        let take = || POOL.take().expect("a table");
        // SAFETY: the pool gives each table once.
        let pointer = unsafe { split(gigabyte, 2, take()) };
        let table: *const Table = ptr::with_exposed_provenance((pointer & ADDRESS) as usize);
        // SAFETY: `split` just made this table.
        let entries = unsafe { (*table).0 };
        assert_eq!(entries[0], gigabyte);
        assert_eq!(entries[511], gigabyte + 511 * 0x20_0000);
        // SAFETY: as above.
        let pointer = unsafe { split(entries[1], 1, take()) };
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
