//! Every fixed address, in one place. All are physical addresses, and equal to the virtual ones unless said otherwise.
//!
//! The image ends at 4 GiB; its last [`LOADER_SIZE`] bytes are the loader. In a TD those bytes are private RAM and the loader runs in
//! place. Outside a TD they are ROM, so the 32-bit entry copies the writable part to [`DATA_COPY`] and maps the copy at the same virtual
//! addresses: one executable, one set of addresses, both modes.
//!
//! Also read by `build.rs` (as constants for the linker), so this file stands alone.

/// The unit of everything here.
pub const PAGE: u64 = 4096;

/// The end of the image, always.
pub const IMAGE_END: u64 = 1 << 32;
/// The largest image: 16 MiB end right above the local APIC's page.
pub const IMAGE_MAX: u64 = 16 << 20;
/// Images are a multiple of this (QEMU's rule for `-bios`).
pub const IMAGE_UNIT: u64 = 64 << 10;

/// The loader's part of the image.
pub const LOADER_SIZE: u64 = 128 << 10;
/// Where the loader starts.
pub const LOADER: u64 = IMAGE_END - LOADER_SIZE;
/// Writable data: boot page tables, boot stack, mailbox, hand-off.
pub const DATA: u64 = LOADER;
/// Size of the writable data.
pub const DATA_SIZE: u64 = 64 << 10;
/// Constants.
pub const RODATA: u64 = DATA + DATA_SIZE;
/// Size of the constants.
pub const RODATA_SIZE: u64 = 16 << 10;
/// 32-bit and 64-bit code.
pub const TEXT: u64 = RODATA + RODATA_SIZE;
/// Size of the code.
pub const TEXT_SIZE: u64 = TOP - TEXT;
/// The last page: image header, TDVF metadata, 16-bit code, reset vector. Real mode reaches only the last 64 KiB.
pub const TOP: u64 = IMAGE_END - PAGE;
/// The image header ([`crate::header`]) and, behind it, the TDVF metadata; written by the image builder.
pub const HEADER: u64 = TOP;
/// The start of the TDVF metadata: a GUID and the descriptor.
pub const METADATA: u64 = TOP + 0x40;
/// The end of the room for both.
pub const METADATA_END: u64 = TOP + 0x100;
/// 16-bit code and the global descriptor table.
pub const REAL_MODE: u64 = METADATA_END;
/// The GUID table that leads to the TDVF descriptor; written by the image builder.
pub const GUID_TABLE: u64 = IMAGE_END - 0x60;
/// The end of the GUID table.
pub const GUID_TABLE_END: u64 = IMAGE_END - 0x20;
/// The reset vector.
pub const RESET: u64 = IMAGE_END - 16;

/// The page where application processors start in 16-bit mode; SIPI vector 8. Outside a TD only.
pub const TRAMPOLINE: u64 = 0x8000;
/// Outside a TD: the copy of the loader's writable data.
pub const DATA_COPY: u64 = 0x1_0000;
/// Video memory and option ROMs of the PC: not RAM whatever the memory map says.
pub const VIDEO_HOLE: u64 = 0xa_0000;
/// The end of the hole.
pub const VIDEO_HOLE_END: u64 = 0x10_0000;
/// The TD hand-off block ([`crate::hob`]), written by the host in a TD. Never used otherwise.
pub const TD_HOB: u64 = 0x80_0000;
/// Its size.
pub const TD_HOB_SIZE: u64 = 8 << 10;
/// Below the guest's first stack: a page that is not mapped.
pub const STACK_GUARD: u64 = 0x90_0000;
/// The first stack of the guest.
pub const STACK: u64 = STACK_GUARD + PAGE;
/// The end of the stack, where it starts to grow down.
pub const STACK_END: u64 = 0x98_0000;
/// Page tables of the final map.
pub const TABLES: u64 = 0xa0_0000;
/// Room for page tables.
pub const TABLES_SIZE: u64 = 4 << 20;
/// Where the guest is linked.
pub const GUEST: u64 = 0x100_0000;
/// The guest must end below this.
pub const GUEST_END: u64 = 0x300_0000;
/// The one piece of memory that devices see: physical pages that are private to nobody. In a TD they are shared with the host.
pub const SHARED: u64 = GUEST_END;
/// Its size, whole large pages.
pub const SHARED_SIZE: u64 = 8 << 20;
/// The virtual address at which it is mapped; its own window, far from every other.
pub const SHARED_WINDOW: u64 = 0x4000_0000_0000;
/// In a TD, RAM below this is accepted by the loader; what is above, the guest accepts when it knows how much it needs.
pub const BOOT_MEMORY_END: u64 = MEMORY_MIN;

/// Device registers: PCI windows, I/O APIC, local APIC. Uncached; in a TD not mapped at all, because there they are reached by hypercalls.
pub const DEVICES: u64 = 0xc000_0000;
/// The end of the device registers.
pub const DEVICES_END: u64 = 0xff00_0000;

/// The least memory that is worth starting with.
pub const MEMORY_MIN: u64 = 64 << 20;
