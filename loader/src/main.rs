//! The loader: from reset to the guest's first instruction. It copies the guest out of the image, maps it, and is gone.
//!
//! What holds when `start_plain` or `start_trust_domain` is entered (see `entry.s`):
//! 1. 64-bit mode, interrupts off, no interrupt table: a fault resets the machine, and ends a TD.
//! 2. The boot map: the first 1 GiB of addresses writable, the image read-only, the loader's own pages as its segments say. In a TD, RAM must be
//!    accepted before it is touched.
//! 3. The loader's data is writable, its stack is 16 KiB of it; everything has the contents that were measured.
//! 4. Only the boot processor is here. Application processors have not started, or wait at the gate (`entry.s`).
//!
//! What it is responsible for:
//! 1. Nothing from the host is believed unchecked: the memory map from fw_cfg, or in a TD from the hand-off block.
//! 2. The guest gets only memory that is RAM and that nothing else uses; nothing is mapped writable and executable.
//! 3. If anything does not add up, one line says so and the machine stops.
#![no_std]
#![no_main]

mod console;
mod fw_cfg;
mod machine;
mod mem;
mod ports;
mod trust_domain;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use loader::e820::{self, E820Error};
use loader::elf::{ElfError, Executable};
use loader::handoff::{Mode, Span};
use loader::header::{Header, HeaderError};
use loader::memory::{self, MemoryError, MemoryMap};
use loader::paging::{PageTables, PagingError};
use loader::{layout, plan};
use tdx::Hardware;

use crate::ports::Ports;
use crate::trust_domain::{TrustDomain, TrustDomainError};

/// Whether this is a TD; for a panic, which has nobody to ask.
static IN_TRUST_DOMAIN: AtomicBool = AtomicBool::new(false);

/// Why the guest cannot be started.
enum BootError {
    TrustDomain(TrustDomainError),
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
            Self::TrustDomain(error) => error.fmt(f),
            Self::Header(error) => error.fmt(f),
            Self::Guest(error) => write!(f, "guest: {error}"),
            Self::FwCfg(error) => error.fmt(f),
            Self::MemoryMap(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Paging(error) => error.fmt(f),
        }
    }
}

impl From<TrustDomainError> for BootError {
    fn from(error: TrustDomainError) -> Self {
        Self::TrustDomain(error)
    }
}

/// The boot processor outside a TD.
#[unsafe(no_mangle)]
extern "C" fn start_plain(boot_ticks: u64) -> ! {
    run(load(boot_ticks, None))
}

/// CPU 0 of a TD.
#[unsafe(no_mangle)]
extern "C" fn start_trust_domain(boot_ticks: u64, address_bits: u64) -> ! {
    IN_TRUST_DOMAIN.store(true, Ordering::Relaxed);
    run(TrustDomain::check(hardware(), address_bits)
        .map_err(BootError::TrustDomain)
        .and_then(|trust_domain| load(boot_ticks, Some(trust_domain))))
}

fn run(guest: Result<machine::Guest, BootError>) -> ! {
    match guest {
        Ok(guest) => guest.run(),
        Err(error) => stop(&error),
    }
}

/// Says why, and stops.
fn stop(reason: &dyn fmt::Display) -> ! {
    if IN_TRUST_DOMAIN.load(Ordering::Relaxed) {
        console::fail(Ports::TrustDomain(hardware()), reason);
        TrustDomain::stop(hardware())
    }
    console::fail(Ports::Plain, reason);
    machine::halt()
}

/// Only in a TD.
fn hardware() -> Hardware {
    // SAFETY: all callers know that this is a TD; the boot map and the final map have private memory at its own addresses.
    unsafe { Hardware::new() }
}

/// Find the guest, find room, copy, map, and write down what was done.
fn load(boot_ticks: u64, trust_domain: Option<TrustDomain>) -> Result<machine::Guest, BootError> {
    let header = Header::decode(machine::image_header()).map_err(BootError::Header)?;
    let room = Span::between(layout::GUEST, layout::GUEST_END);
    let guest = Executable::parse(machine::image_bytes(&header), room).map_err(BootError::Guest)?;
    let memory = match trust_domain {
        None => plain_memory(guest.span())?,
        Some(trust_domain) => private_memory(trust_domain, guest.span())?,
    };

    machine::copy_segments(&guest);
    let image = Span::between(header.image_start(), layout::IMAGE_END);
    let pool = machine::table_pool();
    let mut tables = PageTables::new(pool, layout::TABLES, machine::has_gigabyte_pages())
        .map_err(BootError::Paging)?;
    let width = trust_domain.map(|trust_domain| trust_domain.width);
    for mapping in plan::plan(&memory, &guest, image, width) {
        tables.map(mapping).map_err(BootError::Paging)?;
    }
    let page_table = tables.root();

    let handoff = machine::handoff();
    handoff.mode = match trust_domain {
        None => {
            machine::install_trampoline(page_table);
            Mode::Plain
        }
        Some(_) => Mode::TrustDomain,
    };
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

/// The memory map outside a TD: what fw_cfg says.
fn plain_memory(guest: Span) -> Result<MemoryMap, BootError> {
    let mut buffer = [0; e820::ENTRY * e820::MAX_ENTRIES];
    let raw = fw_cfg::read("etc/e820", &mut buffer).map_err(BootError::FwCfg)?;
    let ram = e820::parse(raw).map_err(BootError::MemoryMap)?;
    let reserved = memory::reservations(guest, Mode::Plain);
    memory::partition(&ram, &reserved).map_err(BootError::Memory)
}

/// The memory map of a TD: what the hand-off block says. Accepts what boot needs, and shares what devices see.
fn private_memory(trust_domain: TrustDomain, guest: Span) -> Result<MemoryMap, BootError> {
    let ram = trust_domain.ram()?;
    let reserved = memory::reservations(guest, Mode::TrustDomain);
    let memory = memory::partition(&ram, &reserved)
        .and_then(|memory| memory::withhold(&memory))
        .map_err(BootError::Memory)?;
    trust_domain.accept(&memory)?;
    trust_domain.share_window()?;
    Ok(memory)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => stop(place),
        None => stop(&"panic"),
    }
}
