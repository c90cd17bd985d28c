//! The one arena of memory that devices see, and the only way to touch it: copies.
//!
//! Rings and bounce buffers come out of a fixed arena that the loader maps in a window of its own. In a trust domain the loader converted
//! it to shared memory, once and as a whole, and nothing outside it ever is; elsewhere the same discipline costs one copy. The host may change these bytes at any time, so no Rust reference to them exists: every
//! access is a volatile load or store, or a block copy that the compiler cannot repeat or read through later.

use core::arch::asm;
use core::fmt;
use core::num::NonZero;
use core::ptr::NonNull;

use loader::layout;

/// An address as a device uses it in rings and registers: guest-physical, without the TDX shared bit. It cannot be
/// dereferenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    const fn plus(self, offset: usize) -> Self {
        Self(self.0 + offset as u64)
    }
}

/// The arena has no room left for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaFull;

impl fmt::Display for ArenaFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shared arena is full")
    }
}

impl core::error::Error for ArenaFull {}

/// The fixed arena. Devices take their buffers from it when they are set up and keep them: nothing is given back, so a
/// device that was shut down can never be handed memory of another one.
pub struct SharedArena {
    rest: SharedBuffer,
}

impl SharedArena {
    /// The machine's arena, where the loader maps it.
    ///
    /// # Safety
    /// On this machine only, and once.
    pub unsafe fn of_machine() -> Self {
        const WINDOW: NonZero<usize> = NonZero::new(layout::SHARED_WINDOW as usize).unwrap();
        let base = NonNull::with_exposed_provenance(WINDOW);
        let length = layout::SHARED_SIZE as usize;
        // SAFETY: the loader keeps this memory for devices, and maps it here.
        unsafe { Self::new(base, DeviceAddress(layout::SHARED), length) }
    }

    /// # Safety
    /// `length` bytes at `base` are mapped, writable, reachable by devices at `device`, and used by nobody else for
    /// the rest of the program. No reference to them exists or will be made.
    pub const unsafe fn new(base: NonNull<u8>, device: DeviceAddress, length: usize) -> Self {
        Self {
            rest: SharedBuffer {
                base,
                device,
                length,
            },
        }
    }

    /// Takes `length` zeroed bytes at a multiple of `alignment`, a power of two not above a large page.
    pub fn allocate(&mut self, length: usize, alignment: usize) -> Result<SharedBuffer, ArenaFull> {
        let start = self.rest.device.0 as usize;
        let padding = start.checked_next_multiple_of(alignment).ok_or(ArenaFull)? - start;
        let taken = padding.checked_add(length).ok_or(ArenaFull)?;
        if taken > self.rest.length {
            return Err(ArenaFull);
        }
        let (head, rest) = self.rest.split(taken);
        self.rest = rest;
        let (_, mut buffer) = head.split(padding);
        buffer.zero();
        Ok(buffer)
    }
}

/// An exclusive piece of the arena. Offsets are the driver's own numbers, never the device's: an access outside the
/// buffer is a mistake in the driver and panics.
pub struct SharedBuffer {
    base: NonNull<u8>,
    device: DeviceAddress,
    length: usize,
}

impl SharedBuffer {
    /// The device's address of byte `offset`.
    pub fn address(&self, offset: usize) -> DeviceAddress {
        self.check(offset, 0);
        self.device.plus(offset)
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads a little-endian number once.
    pub fn read_u16(&self, offset: usize) -> u16 {
        // SAFETY: `pointer` checked the range, which this buffer owns; the address is aligned.
        u16::from_le(unsafe { self.pointer::<u16>(offset).read_volatile() })
    }

    /// Reads a little-endian number once.
    pub fn read_u32(&self, offset: usize) -> u32 {
        // SAFETY: as in `read_u16`.
        u32::from_le(unsafe { self.pointer::<u32>(offset).read_volatile() })
    }

    /// Stores a little-endian number.
    pub fn write_u16(&mut self, offset: usize, value: u16) {
        // SAFETY: as in `read_u16`.
        unsafe { self.pointer::<u16>(offset).write_volatile(value.to_le()) }
    }

    /// Stores a little-endian number.
    pub fn write_u32(&mut self, offset: usize, value: u32) {
        // SAFETY: as in `read_u16`.
        unsafe { self.pointer::<u32>(offset).write_volatile(value.to_le()) }
    }

    /// Stores a little-endian number.
    pub fn write_u64(&mut self, offset: usize, value: u64) {
        // SAFETY: as in `read_u16`.
        unsafe { self.pointer::<u64>(offset).write_volatile(value.to_le()) }
    }

    /// Copies `into.len()` bytes at `offset` into private memory, reading each exactly once.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        // SAFETY: the source lies in this buffer and the destination is a unique reference outside the arena.
        unsafe {
            copy(
                self.base.as_ptr().add(offset),
                into.as_mut_ptr(),
                into.len(),
            )
        }
    }

    /// Copies private bytes to `offset`.
    pub fn copy_in(&mut self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        // SAFETY: the destination lies in this buffer, which `&mut self` makes ours; the source is outside the arena.
        unsafe { copy(from.as_ptr(), self.base.as_ptr().add(offset), from.len()) }
    }

    fn zero(&mut self) {
        // SAFETY: the whole buffer is mapped and owned.
        unsafe { core::ptr::write_bytes(self.base.as_ptr(), 0, self.length) }
    }

    fn split(&self, at: usize) -> (Self, Self) {
        self.check(at, 0);
        let head = Self {
            length: at,
            ..*self
        };
        let tail = Self {
            // SAFETY: `at` is within the buffer or just past its end.
            base: unsafe { self.base.add(at) },
            device: self.device.plus(at),
            length: self.length - at,
        };
        (head, tail)
    }

    fn check(&self, offset: usize, length: usize) {
        assert!(
            offset <= self.length && length <= self.length - offset,
            "access outside a shared buffer"
        );
    }

    fn pointer<T>(&self, offset: usize) -> *mut T {
        self.check(offset, size_of::<T>());
        // SAFETY: just checked to lie inside the buffer.
        let pointer = unsafe { self.base.as_ptr().add(offset) }.cast::<T>();
        assert!(pointer.is_aligned(), "unaligned access to a shared buffer");
        pointer
    }
}

/// Copies by string instructions, eight bytes at a time: opaque to the compiler, which therefore can neither read the
/// source a second time nor forward later private reads to it.
///
/// # Safety
/// `length` bytes are readable at `from` and writable at `to`, and the two ranges do not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the two instructions together copy exactly `length` bytes forward; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {tail}",
            "rep movsb",
            tail = in(reg) length % 8,
            inout("rcx") length / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
pub(crate) fn test_arena(length: usize) -> SharedArena {
    extern crate std;
    let words = std::vec![0u128; length / 16].leak();
    let base = NonNull::new(words.as_mut_ptr().cast::<u8>()).unwrap();
    // The fake devices of the tests use a device address as a pointer.
    let device = DeviceAddress(base.as_ptr() as u64);
    // SAFETY: the memory was leaked just now and the unique reference to it ends here.
    unsafe { SharedArena::new(base, device, length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buffers_are_aligned_disjoint_and_end_with_the_arena() {
        let mut arena = test_arena(0x4000);
        let first = arena.allocate(100, 16).unwrap();
        let second = arena.allocate(0x1000, 0x1000).unwrap();
        assert_eq!(second.address(0).0 % 0x1000, 0);
        assert!(first.address(0).0 + 100 <= second.address(0).0);
        assert!(arena.allocate(0x4000, 1).is_err());
        assert!(arena.allocate(usize::MAX, 1).is_err());
        assert!(
            arena.allocate(16, 16).is_ok(),
            "a refused request takes nothing"
        );
    }

    #[test]
    #[should_panic(expected = "outside a shared buffer")]
    fn a_driver_cannot_reach_beyond_its_buffer() {
        let buffer = test_arena(0x1000).allocate(16, 16).unwrap();
        buffer.copy_out(8, &mut [0; 9]);
    }

    #[test]
    fn numbers_are_little_endian() {
        let mut buffer = test_arena(0x1000).allocate(16, 16).unwrap();
        buffer.write_u64(0, 0x0807_0605_0403_0201);
        assert_eq!(buffer.read_u16(2), 0x0403);
        assert_eq!(buffer.read_u32(4), 0x0807_0605);
    }

    proptest! {
        #[test]
        fn copies_are_exact(bytes in proptest::collection::vec(any::<u8>(), 0..100), offset in 0usize..28) {
            let mut buffer = test_arena(0x1000).allocate(128, 16).unwrap();
            buffer.copy_in(offset, &bytes);
            let mut whole = [0; 128];
            buffer.copy_out(0, &mut whole);
            prop_assert_eq!(&whole[offset..offset + bytes.len()], &bytes[..]);
            prop_assert!(whole[..offset].iter().chain(&whole[offset + bytes.len()..]).all(|byte| *byte == 0));
        }
    }
}
