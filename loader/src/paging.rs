//! Page tables: four levels, built once into a pool, with leaves as large as alignment allows. A page is mapped once or not at all; nothing
//! is ever both writable and executable, because no [`Access`] says so.

use crate::handoff::Span;
use crate::layout::PAGE;

const ENTRIES: usize = 512;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
/// Set in advance, so that the CPU never writes to a table.
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Four levels reach this far, without the upper half of the canonical addresses.
const VIRTUAL_END: u64 = 1 << 47;

/// One page table of any level.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
pub struct Table(pub [u64; ENTRIES]);

impl Table {
    /// A table that maps nothing.
    pub const EMPTY: Self = Self([0; ENTRIES]);
}

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Constants.
    Read,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
    /// Device registers: read, written, never cached.
    Device,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Read => PRESENT | ACCESSED_DIRTY | NO_EXECUTE,
            Self::ReadWrite => PRESENT | ACCESSED_DIRTY | NO_EXECUTE | WRITABLE,
            Self::ReadExecute => PRESENT | ACCESSED_DIRTY,
            Self::Device => {
                PRESENT | ACCESSED_DIRTY | NO_EXECUTE | WRITABLE | CACHE_DISABLE | WRITE_THROUGH
            }
        }
    }
}

/// A stretch of virtual addresses on equally many physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Virtual addresses, whole pages.
    pub memory: Span,
    /// The physical address of the first byte.
    pub physical: u64,
    /// What the pages allow.
    pub access: Access,
}

impl Mapping {
    /// Physical and virtual addresses are the same.
    pub const fn identity(memory: Span, access: Access) -> Self {
        Self {
            memory,
            physical: memory.start,
            access,
        }
    }
}

/// A mapping cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingError {
    /// Not whole pages, or beyond what four levels reach.
    Misaligned(Mapping),
    /// Part of it is mapped already.
    AlreadyMapped(u64),
    /// The pool has no table left.
    OutOfTables,
}

impl core::fmt::Display for PagingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Misaligned(mapping) => {
                write!(
                    f,
                    "cannot map {:#x} bytes at {:#x}",
                    mapping.memory.length, mapping.memory.start
                )
            }
            Self::AlreadyMapped(address) => write!(f, "address {address:#x} would be mapped twice"),
            Self::OutOfTables => f.write_str("too much memory for the room that page tables have"),
        }
    }
}

impl core::error::Error for PagingError {}

/// Page tables under construction. The first table of the pool is the root.
#[derive(Debug)]
pub struct PageTables<'a> {
    pool: &'a mut [Table],
    physical: u64,
    used: usize,
    gigabyte_leaves: bool,
}

impl<'a> PageTables<'a> {
    /// Starts an empty map in `pool`, whose first byte has the address `physical`; 1 GiB leaves only if the CPU knows them.
    ///
    /// # Errors
    /// [`PagingError::OutOfTables`] if the pool has not even a root.
    pub fn new(
        pool: &'a mut [Table],
        physical: u64,
        gigabyte_leaves: bool,
    ) -> Result<Self, PagingError> {
        *pool.first_mut().ok_or(PagingError::OutOfTables)? = Table::EMPTY;
        Ok(Self {
            pool,
            physical,
            used: 1,
            gigabyte_leaves,
        })
    }

    /// The physical address of the root, for CR3.
    pub fn root(&self) -> u64 {
        self.physical
    }

    /// Tables used so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Maps a stretch of pages.
    ///
    /// # Errors
    /// [`PagingError`]; part of the stretch may be mapped then.
    pub fn map(&mut self, mapping: Mapping) -> Result<(), PagingError> {
        let Mapping {
            memory,
            physical,
            access,
        } = mapping;
        let aligned = (memory.start | memory.length | physical).is_multiple_of(PAGE);
        let end = memory
            .start
            .checked_add(memory.length)
            .filter(|end| *end <= VIRTUAL_END);
        let physical_end = physical
            .checked_add(memory.length)
            .filter(|end| *end <= ADDRESS);
        let (true, Some(end), Some(_)) = (aligned, end, physical_end) else {
            return Err(PagingError::Misaligned(mapping));
        };
        let mut address = memory.start;
        while address < end {
            let target = physical + (address - memory.start);
            let level = self.leaf_level(address | target, end - address);
            self.set_leaf(address, level, target, access)?;
            address += size(level);
        }
        Ok(())
    }

    /// The largest leaf that suits the alignment and what is left to map: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
    fn leaf_level(&self, addresses: u64, left: u64) -> u32 {
        let largest = if self.gigabyte_leaves { 2 } else { 1 };
        let fits = |level: &u32| addresses.is_multiple_of(size(*level)) && left >= size(*level);
        (1..=largest).rev().find(fits).unwrap_or(0)
    }

    fn set_leaf(
        &mut self,
        address: u64,
        level: u32,
        target: u64,
        access: Access,
    ) -> Result<(), PagingError> {
        let mut table = 0;
        for above in (level + 1..4).rev() {
            table = self.descend(table, index(address, above), address)?;
        }
        let entry = &mut self.pool[table].0[index(address, level)];
        if *entry != 0 {
            return Err(PagingError::AlreadyMapped(address));
        }
        *entry = target | access.bits() | if level > 0 { LARGE } else { 0 };
        Ok(())
    }

    /// The table that an entry points to, made if there is none yet.
    fn descend(&mut self, table: usize, entry: usize, address: u64) -> Result<usize, PagingError> {
        let value = self.pool[table].0[entry];
        if value & LARGE != 0 {
            return Err(PagingError::AlreadyMapped(address));
        }
        if value & PRESENT != 0 {
            return Ok(((value & ADDRESS) - self.physical) as usize / size_of::<Table>());
        }
        let fresh = self.used;
        *self.pool.get_mut(fresh).ok_or(PagingError::OutOfTables)? = Table::EMPTY;
        self.used += 1;
        let target = self.physical + (fresh * size_of::<Table>()) as u64;
        self.pool[table].0[entry] = target | PRESENT | WRITABLE | ACCESSED_DIRTY;
        Ok(fresh)
    }
}

/// Bytes that one entry of a level covers.
const fn size(level: u32) -> u64 {
    PAGE << (9 * level)
}

const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const BASE: u64 = 0x10_0000;

    /// What the CPU would find: physical address, leaf level and bits.
    fn walk(pool: &[Table], address: u64) -> Option<(u64, u32, u64)> {
        let mut table = 0;
        for level in (0..4).rev() {
            let entry = pool[table].0[index(address, level)];
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                let offset = address % size(level);
                return Some((
                    (entry & ADDRESS & !(size(level) - 1)) + offset,
                    level,
                    entry & !ADDRESS,
                ));
            }
            table = ((entry & ADDRESS) - BASE) as usize / 4096;
        }
        None
    }

    fn pool() -> Vec<Table> {
        vec![Table([!0; ENTRIES]); 32]
    }

    #[test]
    fn leaves_are_as_large_as_alignment_allows() {
        let mut memory = pool();
        let mut tables = PageTables::new(&mut memory, BASE, true).expect("a root");
        let span = Span::between(0x1ff_f000, 0x8000_1000);
        tables
            .map(Mapping::identity(span, Access::ReadWrite))
            .expect("free addresses");
        for (address, level) in [
            (0x1ff_f000, 0),
            (0x200_0000, 1),
            (0x3fe0_0000, 1),
            (0x4000_0000, 2),
            (0x7fff_ffff, 2),
            (0x8000_0fff, 0),
        ] {
            let (physical, found, bits) = walk(&memory, address).expect("mapped");
            assert_eq!((physical, found), (address, level));
            assert_eq!(bits & (WRITABLE | NO_EXECUTE), WRITABLE | NO_EXECUTE);
        }
        assert_eq!(walk(&memory, 0x1ff_efff), None);
        assert_eq!(walk(&memory, 0x8000_1000), None);
    }

    #[test]
    fn without_gigabyte_leaves_two_megabytes_are_the_largest() {
        let mut memory = pool();
        let mut tables = PageTables::new(&mut memory, BASE, false).expect("a root");
        tables
            .map(Mapping::identity(
                Span::between(1 << 32, 5 << 30),
                Access::Read,
            ))
            .expect("free addresses");
        assert_eq!(tables.used(), 3);
        assert_eq!(
            walk(&memory, 0x1_2345_6789).map(|(physical, level, _)| (physical, level)),
            Some((0x1_2345_6789, 1))
        );
    }

    #[test]
    fn other_addresses_and_other_access() {
        let mut memory = pool();
        let mut tables = PageTables::new(&mut memory, BASE, true).expect("a root");
        let data = Mapping {
            memory: Span {
                start: 0xfffe_0000,
                length: 0x2000,
            },
            physical: 0x1_0000,
            access: Access::ReadWrite,
        };
        tables.map(data).expect("free addresses");
        tables
            .map(Mapping::identity(
                Span {
                    start: 0xffff_4000,
                    length: 0x1000,
                },
                Access::ReadExecute,
            ))
            .expect("free addresses");
        tables
            .map(Mapping::identity(
                Span {
                    start: 0xfee0_0000,
                    length: 0x20_0000,
                },
                Access::Device,
            ))
            .expect("free addresses");
        assert_eq!(
            walk(&memory, 0xfffe_1234).map(|(physical, ..)| physical),
            Some(0x1_1234)
        );
        let (_, _, code) = walk(&memory, 0xffff_4000).expect("mapped");
        assert_eq!(code & (WRITABLE | NO_EXECUTE), 0);
        let (_, level, device) = walk(&memory, 0xfee0_0000).expect("mapped");
        assert_eq!((level, device & CACHE_DISABLE), (1, CACHE_DISABLE));
    }

    #[test]
    fn mistakes_are_errors() {
        let mut memory = pool();
        let mut tables = PageTables::new(&mut memory, BASE, true).expect("a root");
        let whole = Mapping::identity(
            Span {
                start: 0,
                length: 0x20_0000,
            },
            Access::Read,
        );
        tables.map(whole).expect("free addresses");
        let page = Mapping::identity(
            Span {
                start: 0x1000,
                length: 0x1000,
            },
            Access::Read,
        );
        assert_eq!(tables.map(page), Err(PagingError::AlreadyMapped(0x1000)));
        assert_eq!(tables.map(whole), Err(PagingError::AlreadyMapped(0)));
        let odd = Mapping::identity(
            Span {
                start: 0x40_0800,
                length: 0x1000,
            },
            Access::Read,
        );
        assert_eq!(tables.map(odd), Err(PagingError::Misaligned(odd)));
        let far = Mapping::identity(
            Span {
                start: VIRTUAL_END,
                length: 0x1000,
            },
            Access::Read,
        );
        assert_eq!(tables.map(far), Err(PagingError::Misaligned(far)));
        let mut small = vec![Table::EMPTY; 2];
        let mut tables = PageTables::new(&mut small, BASE, true).expect("a root");
        assert_eq!(tables.map(page), Err(PagingError::OutOfTables));
        assert_eq!(
            PageTables::new(&mut [], BASE, true).err(),
            Some(PagingError::OutOfTables)
        );
    }
}
