//! The loader's unsafe half: fixed addresses become typed memory here, and the one jump is made.
//!
//! The boot map covers every address below 1 GiB and the image (`entry.s`), `layout.rs` gives each its one use, and there is one CPU and
//! no interrupt: that is why each access below is sound.

use core::arch::{asm, global_asm, x86_64::__cpuid};
use core::ptr;
use core::slice;

use loader::elf::Executable;
use loader::handoff::{Handoff, Mode, Span, offsets};
use loader::header::{self, Header};
use loader::layout;
use loader::paging::Table;

global_asm!(
    include_str!("entry.s"),
    DATA = const layout::DATA,
    DATA_SIZE = const layout::DATA_SIZE,
    DATA_COPY = const layout::DATA_COPY,
    RODATA_SIZE = const layout::RODATA_SIZE,
    TEXT_SIZE = const layout::TEXT_SIZE,
    TRAMPOLINE = const layout::TRAMPOLINE,
    LIMIT = const offsets::LIMIT,
    NEXT = const offsets::NEXT,
    STACKS = const offsets::STACKS,
    MODE = const offsets::MODE,
    TRUST_DOMAIN = const Mode::TrustDomain as u32,
    ENTRY = const offsets::ENTRY,
    PAGE_TABLE = const offsets::PAGE_TABLE,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
    static trampoline_page_table: u8;
    fn run_guest(handoff: &'static Handoff, page_table: u64, stack_end: u64, entry: u64) -> !;
}

/// The hand-off, in the loader's data, where application processors look for it too.
#[unsafe(no_mangle)]
static HANDOFF: HandoffCell = HandoffCell(core::cell::UnsafeCell::new(Handoff::new()));

#[repr(transparent)]
struct HandoffCell(core::cell::UnsafeCell<Handoff>);

// SAFETY: `handoff` is called once, by the only CPU that is past the gate.
unsafe impl Sync for HandoffCell {}

/// A guest ready to run.
pub struct Guest {
    pub handoff: &'static Handoff,
}

impl Guest {
    /// Switches to the final map and the guest's stack, and enters the guest.
    pub fn run(self) -> ! {
        let Handoff { mailbox, .. } = self.handoff;
        // SAFETY: the final map holds the loader's code and data at the same addresses, the stack and the guest's code.
        unsafe {
            run_guest(
                self.handoff,
                mailbox.page_table,
                layout::STACK_END,
                mailbox.entry,
            )
        }
    }
}

/// The hand-off to fill. Called once.
pub fn handoff() -> &'static mut Handoff {
    // SAFETY: one call, one CPU: the only reference.
    unsafe { &mut *HANDOFF.0.get() }
}

/// The bytes of the image header.
pub fn image_header() -> &'static [u8; header::SIZE] {
    // SAFETY: the last page of the image is mapped and never written.
    unsafe { &*at(layout::HEADER).cast() }
}

/// The bytes of the guest executable in the image.
pub fn image_bytes(header: &Header) -> &'static [u8] {
    // SAFETY: a decoded header places the guest inside the image, which the boot map covers to its largest size; never written.
    unsafe { slice::from_raw_parts(at(header.guest_start()), header.guest_length as usize) }
}

/// Copies every segment to its place; the rest of its pages is zeroed.
pub fn copy_segments(guest: &Executable<'_>) {
    for segment in &guest.segments {
        let Span { start, length } = segment.pages();
        // SAFETY: `layout` keeps [GUEST, GUEST_END) for the guest alone, the executable was checked to lie inside, and the memory map has
        // RAM there.
        let pages = unsafe { slice::from_raw_parts_mut(at(start), length as usize) };
        pages.fill(0);
        let offset = (segment.memory.start - start) as usize;
        if let (Some(to), Some(from)) = (
            pages.get_mut(offset..offset + segment.file.len()),
            guest.bytes.get(segment.file.clone()),
        ) {
            to.copy_from_slice(from);
        }
    }
}

/// The room for the final page tables. Called once.
pub fn table_pool() -> &'static mut [Table] {
    let count = layout::TABLES_SIZE as usize / size_of::<Table>();
    // SAFETY: `layout` keeps this RAM for page tables alone; a table is plain numbers, and this is the only reference.
    unsafe { slice::from_raw_parts_mut(at(layout::TABLES).cast(), count) }
}

/// Puts the application processors' 16-bit entry into place.
pub fn install_trampoline(page_table: u64) {
    let start = &raw const trampoline;
    let length = (&raw const trampoline_end).addr() - start.addr();
    let field = (&raw const trampoline_page_table).addr() - start.addr();
    // SAFETY: `layout` keeps this page of RAM for the trampoline alone; `entry.s` makes it shorter than a page, with a 32-bit field for
    // the page table, which lies below 4 GiB.
    unsafe {
        ptr::copy_nonoverlapping(start, at(layout::TRAMPOLINE), length);
        at(layout::TRAMPOLINE)
            .add(field)
            .cast::<u32>()
            .write_unaligned(page_table as u32);
    }
}

/// Whether the CPU has 1 GiB pages.
pub fn has_gigabyte_pages() -> bool {
    const EXTENDED_FEATURES: u32 = 0x8000_0001;
    __cpuid(0x8000_0000).eax >= EXTENDED_FEATURES && __cpuid(EXTENDED_FEATURES).edx & 1 << 26 != 0
}

/// The pages of the host's hand-off block, in a TD.
pub fn hand_off_block() -> &'static [u8; layout::TD_HOB_SIZE as usize] {
    // SAFETY: the metadata has these pages added before the first instruction; they are private, mapped by the boot map and never written.
    unsafe { &*at(layout::TD_HOB).cast() }
}

/// Stops for good, outside a TD.
pub fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off; the CPU stops.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

fn at(address: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address as usize)
}
