//! The seam between the core (processors, TDX module) and the devices.
//!
//! Devices get shared memory, and a way to send interrupts. The core gets a [`Bus`] that answers port and memory-mapped accesses. Private
//! memory is not reachable from here: a guest that forgets to convert or to copy a buffer breaks as it would on hardware.

use vm_memory::GuestMemoryMmap;

/// The memory that devices can reach: the pages that the TD shares. Guest-physical addresses, *without* the shared bit. Contents of pages
/// that the TD keeps private are not there: such an address holds other bytes, as with KVM's separate private memory.
pub type SharedMemory = GuestMemoryMmap<()>;

/// What answers the TD's device accesses. Called from any virtual CPU's thread.
pub trait Bus: Send + Sync {
    /// A port access of `size` 1, 2 or 4 bytes: a write of `Some(value)`, or a read. Ports without a device read as all ones. The result of
    /// a write is ignored.
    fn io(&self, port: u16, size: u8, write: Option<u32>) -> u32;

    /// An access of `size` 1, 2, 4 or 8 bytes to device registers at `gpa` (without the shared bit). Like [`Bus::io`].
    fn mmio(&self, gpa: u64, size: u8, write: Option<u64>) -> u64;
}

/// Where devices send message-signalled interrupts. Called from any thread.
pub trait Interrupts: Send + Sync {
    /// A write of `data` to `address`, as a device does (Intel SDM vol. 3, 11.11). Messages that no local APIC takes are dropped.
    fn msi(&self, address: u64, data: u32);
}
