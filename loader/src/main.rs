//! The loader: from reset to the guest's first instruction. It copies the guest out of the image, maps it, and is gone.
//!
//! What holds when `load_and_run` is entered (see `entry.s`):
//! 1. 64-bit mode, interrupts off, no interrupt table: a fault resets the machine.
//! 2. The boot map: the first 1 GiB of addresses writable, the image read-only, the loader's own pages as its segments say.
//! 3. The loader's data is writable, its stack is 16 KiB of it; everything has the contents that were measured.
//! 4. Only the boot processor is here. Application processors have not started, or wait at the gate (`entry.s`).
//!
//! What it is responsible for:
//! 1. Nothing from the host is believed unchecked: outside a TD that is the memory map from fw_cfg.
//! 2. The guest gets only memory that is RAM and that nothing else uses; nothing is mapped writable and executable.
//! 3. If anything does not add up, one line says so and the machine stops.
#![no_std]
#![no_main]

mod console;
mod fw_cfg;
mod machine;
mod mem;
mod ports;

use core::fmt;

use loader::e820::{self, E820Error};
use loader::elf::{ElfError, Executable};
use loader::handoff::{Mode, Span};
use loader::header::{Header, HeaderError};
use loader::memory::{self, MemoryError};
use loader::paging::{PageTables, PagingError};
use loader::{layout, plan};

/// Why the guest cannot be started.
enum BootError {
    Header(HeaderError),
    Guest(ElfError),
    FwCfg(fw_cfg::FwCfgError),
    MemoryMap(E820Error),
    Memory(MemoryError),
    Paging(PagingError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Guest(error) => write!(f, "guest: {error}"),
            Self::FwCfg(error) => error.fmt(f),
            Self::MemoryMap(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Paging(error) => error.fmt(f),
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn load_and_run(boot_ticks: u64) -> ! {
    match load(boot_ticks) {
        Ok(guest) => guest.run(),
        Err(error) => {
            console::fail(&error);
            machine::halt()
        }
    }
}

/// Find the guest, find room, copy, map, and write down what was done.
fn load(boot_ticks: u64) -> Result<machine::Guest, BootError> {
    let header = Header::decode(machine::image_header()).map_err(BootError::Header)?;
    let room = Span::between(layout::GUEST, layout::GUEST_END);
    let guest = Executable::parse(machine::image_bytes(&header), room).map_err(BootError::Guest)?;

    let mut buffer = [0; e820::ENTRY * e820::MAX_ENTRIES];
    let raw = fw_cfg::read("etc/e820", &mut buffer).map_err(BootError::FwCfg)?;
    let ram = e820::parse(raw).map_err(BootError::MemoryMap)?;
    let memory =
        memory::partition(&ram, &memory::reservations(guest.span())).map_err(BootError::Memory)?;

    machine::copy_segments(&guest);
    let image = Span::between(header.image_start(), layout::IMAGE_END);
    let pool = machine::table_pool();
    let mut tables = PageTables::new(pool, layout::TABLES, machine::has_gigabyte_pages())
        .map_err(BootError::Paging)?;
    for mapping in plan::plan(&memory, &guest, image, layout::DATA_COPY) {
        tables.map(mapping).map_err(BootError::Paging)?;
    }
    let page_table = tables.root();
    machine::install_trampoline(page_table);

    let handoff = machine::handoff();
    handoff.mode = Mode::Plain;
    handoff.boot_ticks = boot_ticks;
    handoff.image = image;
    handoff.guest = Span {
        start: header.guest_start(),
        length: u64::from(header.guest_length),
    };
    handoff.set_memory(&memory);
    handoff.mailbox.entry = guest.entry;
    handoff.mailbox.page_table = page_table;
    Ok(machine::Guest { handoff })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::fail(info);
    machine::halt()
}
