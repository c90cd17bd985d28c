//! Huge pages of the host behind a memory file: faster address translation for a guest that maps 2 MiB at once.
//!
//! `MADV_COLLAPSE` makes them without privileges and whatever the system's settings for shared memory are (Linux 6.1 and later). Where it does
//! not work, small pages do.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use super::LARGE_PAGE;

/// Collapses `length` bytes from `offset` into huge pages; both multiples of 2 MiB. Contents stay.
///
/// # Errors
/// The kernel's; nothing has changed for the guest then.
pub fn collapse(file: &File, offset: u64, length: usize) -> io::Result<()> {
    let room = length + LARGE_PAGE as usize;
    // SAFETY: a new reservation at an address of the kernel's choice.
    let reserved = unsafe {
        libc::mmap(
            null_mut(),
            room,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if reserved == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let aligned = reserved.map_addr(|address| address.next_multiple_of(LARGE_PAGE as usize));
    // SAFETY: the range lies within the reservation above, which nobody else knows.
    let mapped = unsafe {
        libc::mmap(
            aligned,
            length,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_FIXED,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    let result = if mapped == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        collapse_mapping(aligned.cast(), length)
    };
    // SAFETY: the reservation with what was mapped into it; nothing points there any more.
    unsafe { libc::munmap(reserved, room) };
    result
}

/// Collapses a mapping that starts at a multiple of 2 MiB.
fn collapse_mapping(start: *mut u8, length: usize) -> io::Result<()> {
    // The kernel collapses only where some page exists.
    for block in (0..length).step_by(LARGE_PAGE as usize) {
        // SAFETY: within the mapping; the guest may write at the same time, hence volatile, and the value does not matter.
        unsafe { start.add(block).read_volatile() };
    }
    // SAFETY: the mapping is ours, and the advice changes no contents.
    match unsafe { libc::madvise(start.cast(), length, libc::MADV_COLLAPSE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
