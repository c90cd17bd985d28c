//! Guest page tables, walked as the processor walks them: 4 levels of 64-bit entries, or none at all.
//!
//! A translation is checked twice: by the guest's own tables (present, write, no-execute; Intel SDM vol. 3, chapter 5), and by what the TDX
//! module knows of the page (accepted, shared, absent). The first gives page faults, the second ends the TD or gives a virtualization
//! exception.

use crate::cpu::{Cpu, VeInfo, control};
use crate::event::{Access, Death, Event, Exception};
use crate::memory::{FOUR_GIB, LARGE_PAGE, Memory, PAGE, PageState};

/// Bits of an entry of the page tables (SDM vol. 3, 5.5.4).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of a page fault's error code (SDM vol. 3, 5.7).
const ERROR_PRESENT: u32 = 1 << 0;
const ERROR_WRITE: u32 = 1 << 1;
const ERROR_RESERVED: u32 = 1 << 3;
const ERROR_FETCH: u32 = 1 << 4;

/// Exit reason "EPT violation", for accesses to device registers (SDM vol. 3, appendix C).
pub const EPT_VIOLATION: u32 = 48;

/// Bits of its exit qualification (SDM vol. 3, 29.2.1).
const EPT_READ: u64 = 1 << 0;
const EPT_WRITE: u64 = 1 << 1;

/// Merged mappings of large pages end at a multiple of this, those of small pages at a multiple of 2 MiB.
const MERGE_LIMIT: u64 = 64 << 20;

/// One translation of the guest's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first linear address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Its first guest-physical address, without the shared bit.
    pub gpa: u64,
    pub shared: bool,
    pub writable: bool,
    pub executable: bool,
}

/// A stretch of linear addresses that the tracee can map at once: contiguous memory with one set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub length: u64,
    pub gpa: u64,
    pub shared: bool,
    pub writable: bool,
    pub executable: bool,
    /// The largest leaf in it.
    pub leaf: u64,
}

/// A CPU's view of memory.
#[derive(Clone, Copy)]
pub struct View<'a> {
    memory: &'a Memory,
    shared_bit: u64,
    paging: bool,
    root: u64,
    write_protect: bool,
}

impl<'a> View<'a> {
    /// What `cpu` sees of `memory` now; `gpaw` is the width of guest-physical addresses, the shared bit included.
    ///
    /// # Errors
    /// [`Death::Unsupported`] for paging modes that no TD firmware uses.
    pub fn new(cpu: &Cpu, memory: &'a Memory, gpaw: u8) -> Result<Self, Death> {
        if cpu.paging() && cpu.efer & control::EFER_LMA == 0 {
            return Err(Death::Unsupported("32-bit paging".to_owned()));
        }
        if cpu.cr4 & control::CR4_LA57 != 0 {
            return Err(Death::Unsupported("5-level paging".to_owned()));
        }
        Ok(Self {
            memory,
            shared_bit: 1 << (gpaw - 1),
            paging: cpu.paging(),
            root: cpu.cr3 & ADDRESS,
            write_protect: cpu.cr0 & control::CR0_WP != 0,
        })
    }

    /// Walks the tables for one address. Sets the accessed bits on the way.
    ///
    /// # Errors
    /// A page fault with the error code's present and reserved bits only, or the end of the TD if the tables cannot be read.
    pub fn walk(&self, address: u64) -> Result<Leaf, Event> {
        if !self.paging {
            return self.identity(address);
        }
        if address.wrapping_add(1 << 47) >> 48 != 0 {
            return Err(Exception::general_protection(0).into());
        }
        let (mut table, mut writable, mut executable) = (self.root, true, true);
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let place = table + (address >> shift & 511) * 8;
            let entry = self.entry(place)?;
            if entry & PRESENT == 0 {
                return Err(Exception::page_fault(0, address).into());
            }
            writable &= entry & WRITABLE != 0;
            executable &= entry & NO_EXECUTE == 0;
            let leaf = level == 0 || level < 3 && entry & LARGE != 0;
            let base = entry & ADDRESS;
            let too_wide = base & !self.shared_bit >= self.shared_bit;
            if too_wide || level == 3 && entry & LARGE != 0 {
                let error = ERROR_PRESENT | ERROR_RESERVED;
                return Err(Exception::page_fault(error, address).into());
            }
            let touched = entry | ACCESSED | if leaf && writable { DIRTY } else { 0 };
            if touched != entry {
                // The walk above found memory there.
                let _ = self.memory.write(place, &touched.to_le_bytes());
            }
            if leaf {
                let size = 1 << shift;
                return Ok(Leaf {
                    start: address & !(size - 1),
                    size,
                    gpa: base & !(size - 1) & !self.shared_bit,
                    shared: base & self.shared_bit != 0,
                    writable: writable || !self.write_protect,
                    executable,
                });
            }
            table = base;
        }
        unreachable!("the last level is a leaf")
    }

    /// Without paging, the first 4 GiB are themselves.
    fn identity(&self, address: u64) -> Result<Leaf, Event> {
        if address >= FOUR_GIB {
            return Err(Death::Unsupported(format!("address {address:#x} without paging")).into());
        }
        Ok(Leaf {
            start: address & !(LARGE_PAGE - 1),
            size: LARGE_PAGE,
            gpa: address & !(LARGE_PAGE - 1),
            shared: false,
            writable: true,
            executable: true,
        })
    }

    fn entry(&self, place: u64) -> Result<u64, Event> {
        if place & self.shared_bit != 0 {
            return Err(Death::SharedPageTables { gpa: place }.into());
        }
        let access = Access::Read;
        match self.memory.state(place) {
            Some(PageState::Private) => {}
            Some(_) => return Err(Death::UnacceptedMemory { gpa: place, access }.into()),
            None => return Err(Death::NoPrivateMemory { gpa: place, access }.into()),
        }
        let mut entry = [0; 8];
        self.memory
            .read(place, &mut entry)
            .map_err(|_| Death::NoPrivateMemory { gpa: place, access })?;
        Ok(u64::from_le_bytes(entry))
    }

    /// The translation that lets `access` touch `address`, whose page is usable.
    ///
    /// # Errors
    /// A page fault; a virtualization exception for device registers; or the end of the TD for pages it may not touch.
    pub fn translate(&self, address: u64, access: Access) -> Result<Leaf, Event> {
        let kind = match access {
            Access::Read => 0,
            Access::Write => ERROR_WRITE,
            Access::Execute => ERROR_FETCH,
        };
        let leaf = self.walk(address).map_err(|event| match event {
            Event::Exception(fault) if fault.address.is_some() => {
                Exception::page_fault(fault.error.unwrap_or(0) | kind, address).into()
            }
            event => event,
        })?;
        let allowed = match access {
            Access::Read => true,
            Access::Write => leaf.writable,
            Access::Execute => leaf.executable,
        };
        if !allowed {
            return Err(Exception::page_fault(ERROR_PRESENT | kind, address).into());
        }
        let gpa = leaf.gpa + (address - leaf.start);
        match (leaf.shared, self.memory.state(gpa)) {
            (false, Some(PageState::Private)) => Ok(leaf),
            (false, Some(_)) => Err(Death::UnacceptedMemory { gpa, access }.into()),
            (false, None) => Err(Death::NoPrivateMemory { gpa, access }.into()),
            (true, _) if access == Access::Execute => Err(Death::SharedExecution { gpa }.into()),
            (true, Some(PageState::Shared)) => Ok(leaf),
            (true, Some(_)) => Err(Death::NotShared { gpa, access }.into()),
            (true, None) => Err(Event::Virtualization(VeInfo {
                reason: EPT_VIOLATION,
                qualification: if access == Access::Write {
                    EPT_WRITE
                } else {
                    EPT_READ
                },
                gla: address,
                gpa: gpa | self.shared_bit,
                length: 0,
            })),
        }
    }

    /// The largest stretch around `address` with the rights of its leaf, which came from [`View::translate`]: of contiguous memory whose pages
    /// are all usable.
    pub fn run(&self, address: u64, leaf: Leaf) -> Run {
        let limit = if leaf.size > PAGE {
            MERGE_LIMIT
        } else {
            LARGE_PAGE
        };
        let (bottom, top) = (address & !(limit - 1), (address & !(limit - 1)) + limit);
        let usable = if leaf.shared {
            PageState::Shared
        } else {
            PageState::Private
        };
        let good = |gpa| self.memory.state(gpa) == Some(usable);
        let page = address & !(PAGE - 1);
        let gpa = leaf.gpa + (page - leaf.start);
        let (mut start, mut end) = (page, page + PAGE);
        let (mut low, mut high) = (leaf, leaf);
        let alike = |one: &Leaf, other: &Leaf| {
            (one.shared, one.writable, one.executable)
                == (other.shared, other.writable, other.executable)
                && other.gpa.wrapping_sub(one.gpa) == other.start.wrapping_sub(one.start)
        };
        while start > bottom {
            if start == low.start {
                match self.walk(start - PAGE) {
                    Ok(next) if alike(&leaf, &next) => low = next,
                    _ => break,
                }
            }
            if !good(gpa - (page - start) - PAGE) {
                break;
            }
            start -= PAGE;
        }
        while end < top {
            if end == high.start + high.size {
                match self.walk(end) {
                    Ok(next) if alike(&leaf, &next) => high = next,
                    _ => break,
                }
            }
            if !good(gpa + (end - page)) {
                break;
            }
            end += PAGE;
        }
        Run {
            start,
            length: end - start,
            gpa: gpa - (page - start),
            shared: leaf.shared,
            writable: leaf.writable,
            executable: leaf.executable,
            leaf: leaf.size.max(low.size).max(high.size),
        }
    }

    /// Reads at a linear address, as an instruction does.
    ///
    /// # Errors
    /// As [`View::translate`].
    pub fn read(&self, address: u64, bytes: &mut [u8], access: Access) -> Result<(), Event> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let leaf = self.translate(at, access)?;
            let part = ((PAGE - at % PAGE) as usize).min(bytes.len() - done);
            let gpa = leaf.gpa + (at - leaf.start);
            let piece = &mut bytes[done..done + part];
            self.memory
                .read_any(gpa, leaf.shared, piece)
                .map_err(|_| Death::NoPrivateMemory { gpa, access })?;
            done += part;
        }
        Ok(())
    }

    /// Writes at a linear address, as an instruction does.
    ///
    /// # Errors
    /// As [`View::translate`].
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Event> {
        let access = Access::Write;
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let leaf = self.translate(at, access)?;
            let part = ((PAGE - at % PAGE) as usize).min(bytes.len() - done);
            let gpa = leaf.gpa + (at - leaf.start);
            self.memory
                .write_any(gpa, leaf.shared, &bytes[done..done + part])
                .map_err(|_| Death::NoPrivateMemory { gpa, access })?;
            done += part;
        }
        Ok(())
    }

    /// Reads a little-endian number of `size` bytes, at most 8.
    ///
    /// # Errors
    /// As [`View::translate`].
    pub fn number(&self, address: u64, size: usize) -> Result<u64, Event> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes[..size], Access::Read)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
