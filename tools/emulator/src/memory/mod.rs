//! The TD's memory: where RAM is, what state every page is in, and the two memories behind it.
//!
//! Private and shared pages live in two files without names (memfds), as KVM keeps private memory apart from what the VMM maps. The core reads
//! and writes both; devices get the shared one only. A page is in one state at a time ([`PageState`]); whoever reads through the other alias
//! finds other bytes.

mod huge;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::bus::SharedMemory;

/// Bytes of a page (SDM vol. 3, 5.5.4).
pub const PAGE: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;
/// Where the image ends and high RAM begins.
pub const FOUR_GIB: u64 = 1 << 32;

/// With this much RAM or more, QEMU's q35 keeps only 2 GiB of it below 4 GiB (`hw/i386/pc_q35.c`).
const LOW_RAM_SPLIT: u64 = 0xb000_0000;
const LOW_RAM_MAX: u64 = 0x8000_0000;

/// What a page of RAM is to the TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageState {
    /// Private, not accepted: touching it kills the TD.
    Pending = 0,
    /// Private and in use: accepted by the TD, or added before it started.
    Private = 1,
    /// Shared with the host.
    Shared = 2,
}

/// Where the memory is: RAM from 0, the rest of it from 4 GiB, and the image below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of RAM from address 0.
    pub low: u64,
    /// Bytes of RAM from 4 GiB.
    pub high: u64,
    /// Bytes of the image, which ends at 4 GiB.
    pub image: u64,
}

/// A stretch of guest-physical addresses: start and length in bytes.
pub type Region = (u64, u64);

impl Layout {
    /// The layout of QEMU's q35 machine with `ram` bytes of RAM and an image of `image` bytes.
    pub fn new(ram: u64, image: u64) -> Self {
        let low = if ram >= LOW_RAM_SPLIT {
            LOW_RAM_MAX
        } else {
            ram
        };
        Self {
            low,
            high: ram - low,
            image,
        }
    }

    /// The regions that exist, in ascending order.
    pub fn regions(&self) -> Vec<Region> {
        [
            (0, self.low),
            (FOUR_GIB - self.image, self.image),
            (FOUR_GIB, self.high),
        ]
        .into_iter()
        .filter(|region| region.1 > 0)
        .collect()
    }

    /// The regions of RAM, without the image: QEMU's e820.
    pub fn ram(&self) -> Vec<Region> {
        [(0, self.low), (FOUR_GIB, self.high)]
            .into_iter()
            .filter(|region| region.1 > 0)
            .collect()
    }

    /// Where `gpa` is in the files. Offsets and addresses are equal modulo 2 MiB, so that large pages of one are large pages of the other.
    pub fn offset(&self, gpa: u64) -> Option<u64> {
        let high = self.low.next_multiple_of(LARGE_PAGE);
        let image = high + self.high.next_multiple_of(LARGE_PAGE);
        let base = FOUR_GIB - self.image;
        if gpa < self.low {
            Some(gpa)
        } else if (base..FOUR_GIB).contains(&gpa) {
            Some(image + base % LARGE_PAGE + (gpa - base))
        } else if (FOUR_GIB..FOUR_GIB + self.high).contains(&gpa) {
            Some(high + (gpa - FOUR_GIB))
        } else {
            None
        }
    }

    /// Bytes of the files.
    fn file_length(&self) -> u64 {
        self.low.next_multiple_of(LARGE_PAGE)
            + self.high.next_multiple_of(LARGE_PAGE)
            + LARGE_PAGE
            + self.image
    }
}

/// The memory of one TD. Addresses here are without the shared bit.
pub struct Memory {
    layout: Layout,
    private: Backing,
    shared: Backing,
    states: Vec<AtomicU8>,
    /// Which 2 MiB of the private file were made huge pages, or could not be.
    huge: Vec<AtomicBool>,
    huge_pages: AtomicU64,
}

/// One of the two memories.
struct Backing {
    file: File,
    map: GuestMemoryMmap<()>,
}

/// Why there is no memory.
#[derive(Debug)]
pub enum MemoryError {
    /// The kernel gives no memory file of this size.
    File(std::io::Error),
    /// It cannot be mapped.
    Map(String),
}

impl std::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => write!(f, "no memory for the TD: {error}"),
            Self::Map(error) => write!(f, "the TD's memory cannot be mapped: {error}"),
        }
    }
}

impl std::error::Error for MemoryError {}

impl Backing {
    fn new(name: &str, layout: &Layout) -> Result<Self, MemoryError> {
        let file: File = memfd_create(name, MFdFlags::MFD_CLOEXEC)
            .map_err(|error| MemoryError::File(error.into()))?
            .into();
        file.set_len(layout.file_length())
            .map_err(MemoryError::File)?;
        let ranges = layout
            .regions()
            .into_iter()
            .map(|(start, length)| {
                let file = file.try_clone().map_err(MemoryError::File)?;
                let offset = layout
                    .offset(start)
                    .expect("a region starts where memory is");
                let file = FileOffset::new(file, offset);
                Ok((GuestAddress(start), length as usize, Some(file)))
            })
            .collect::<Result<Vec<_>, MemoryError>>()?;
        let map = GuestMemoryMmap::from_ranges_with_files(ranges)
            .map_err(|error| MemoryError::Map(error.to_string()))?;
        Ok(Self { file, map })
    }

    /// Gives the bytes back to the kernel; they read as zeros from now on.
    fn discard(&self, offset: u64, length: u64) {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, offset as i64, length as i64)
            .expect("a memory file takes holes");
    }
}

impl Memory {
    /// Memory in which every page is private and not accepted, and reads as zeros.
    ///
    /// # Errors
    /// [`MemoryError`] if the kernel does not give it.
    pub fn new(layout: Layout) -> Result<Self, MemoryError> {
        let pages = layout.file_length() / PAGE;
        Ok(Self {
            layout,
            private: Backing::new("td-private", &layout)?,
            shared: Backing::new("td-shared", &layout)?,
            states: (0..pages)
                .map(|_| AtomicU8::new(PageState::Pending as u8))
                .collect(),
            huge: (0..layout.file_length().div_ceil(LARGE_PAGE))
                .map(|_| AtomicBool::new(false))
                .collect(),
            huge_pages: AtomicU64::new(0),
        })
    }

    /// Where the memory is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory that devices see.
    pub fn shared(&self) -> &SharedMemory {
        &self.shared.map
    }

    /// The file behind a page, and the offset of `gpa` in it.
    pub fn file(&self, shared: bool) -> BorrowedFd<'_> {
        let backing = if shared { &self.shared } else { &self.private };
        backing.file.as_fd()
    }

    /// The state of the page at `gpa`; none if there is no memory.
    pub fn state(&self, gpa: u64) -> Option<PageState> {
        let page = self.layout.offset(gpa)? / PAGE;
        Some(match self.states[page as usize].load(Ordering::Acquire) {
            1 => PageState::Private,
            2 => PageState::Shared,
            _ => PageState::Pending,
        })
    }

    /// Puts the pages of a range into a state. A page that stops being private or shared loses its contents there, as it does on hardware; a
    /// page that is accepted therefore reads as zeros. The range must be memory.
    pub fn set_state(&self, start: u64, length: u64, state: PageState) {
        let offset = self
            .layout
            .offset(start)
            .expect("the caller checked that this is memory");
        match state {
            PageState::Pending => self.shared.discard(offset, length),
            PageState::Shared => self.private.discard(offset, length),
            PageState::Private => {}
        }
        for page in offset / PAGE..(offset + length) / PAGE {
            self.states[page as usize].store(state as u8, Ordering::Release);
        }
    }

    /// Puts huge pages of the host behind the whole 2 MiB blocks of a range of private memory, once. Only speed depends on it.
    pub fn use_huge_pages(&self, start: u64, length: u64) {
        let Some(offset) = self.layout.offset(start) else {
            return;
        };
        let blocks = offset.div_ceil(LARGE_PAGE)..(offset + length) / LARGE_PAGE;
        for block in blocks {
            if !self.huge[block as usize].swap(true, Ordering::Relaxed) {
                let (offset, length) = (block * LARGE_PAGE, LARGE_PAGE as usize);
                // Without it, small pages do.
                let collapsed = huge::collapse(&self.private.file, offset, length).is_ok();
                self.huge_pages
                    .fetch_add(u64::from(collapsed), Ordering::Relaxed);
            }
        }
    }

    /// How many huge pages [`Memory::use_huge_pages`] got.
    pub fn huge_pages(&self) -> u64 {
        self.huge_pages.load(Ordering::Relaxed)
    }

    /// Whether every page of a range is memory in this state.
    pub fn all(&self, start: u64, length: u64, state: PageState) -> bool {
        (start..start + length)
            .step_by(PAGE as usize)
            .all(|page| self.state(page) == Some(state))
    }

    /// Reads private bytes whatever the state of their pages.
    ///
    /// # Errors
    /// [`NoMemory`] if not all of it is memory.
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), NoMemory> {
        self.read_any(gpa, false, bytes)
    }

    /// Writes private bytes whatever the state of their pages.
    ///
    /// # Errors
    /// [`NoMemory`] if not all of it is memory.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), NoMemory> {
        self.write_any(gpa, false, bytes)
    }

    /// Reads from one of the two memories.
    ///
    /// # Errors
    /// [`NoMemory`] if not all of it is memory.
    pub fn read_any(&self, gpa: u64, shared: bool, bytes: &mut [u8]) -> Result<(), NoMemory> {
        self.map(shared)
            .read_slice(bytes, GuestAddress(gpa))
            .map_err(|_| NoMemory(gpa))
    }

    /// Writes to one of the two memories.
    ///
    /// # Errors
    /// [`NoMemory`] if not all of it is memory.
    pub fn write_any(&self, gpa: u64, shared: bool, bytes: &[u8]) -> Result<(), NoMemory> {
        self.map(shared)
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|_| NoMemory(gpa))
    }

    /// The contents of all shared pages, in order of address.
    pub fn shared_pages(&self) -> Vec<u8> {
        let mut contents = Vec::new();
        for (start, length) in self.layout.regions() {
            for gpa in (start..start + length).step_by(PAGE as usize) {
                if self.state(gpa) == Some(PageState::Shared) {
                    let mut page = [0; PAGE as usize];
                    if self.read_any(gpa, true, &mut page).is_ok() {
                        contents.extend(page);
                    }
                }
            }
        }
        contents
    }

    fn map(&self, shared: bool) -> &GuestMemoryMmap<()> {
        if shared {
            &self.shared.map
        } else {
            &self.private.map
        }
    }
}

/// There is no memory at this guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory(pub u64);
