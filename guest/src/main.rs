//! The guest: the composition root of the trust domain. It brings the machine up, then serves.
//!
//! What holds on entry: 64-bit mode, interrupts off, the final page tables (all RAM identity mapped, code read-only, no page
//! both writable and executable), a stack with an unmapped page below it, and a hand-off from the loader.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../loader/src/mem.rs"]
mod mem;

mod contents;
mod devices;
mod inference;
mod service;

use core::fmt;
use core::panic::PanicInfo;
use core::ptr::{self, NonNull};

use alloc::boxed::Box;
use alloc::string::ToString;

use loader::handoff::{Handoff, HandoffError};
use loader::memory::Use;
use machine::entropy::EntropyError;
use machine::fw_cfg::FwCfgError;
use machine::smp::Team;
use machine::{apic, clock, console, cpu, entropy, fatal, fw_cfg, heap, interrupts, println, smp};

use crate::service::Service;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

/// Why the machine cannot be used.
enum BootError {
    Handoff(HandoffError),
    Entropy(EntropyError),
    FwCfg(FwCfgError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handoff(error) => error.fmt(f),
            Self::Entropy(error) => error.fmt(f),
            Self::FwCfg(error) => error.fmt(f),
        }
    }
}

/// Where every CPU enters: the boot processor as number 0, the others once the loader's gate is open.
///
/// # Safety
/// Called by the loader alone, in the state that `loader::handoff` describes.
#[unsafe(no_mangle)]
unsafe extern "sysv64" fn guest_entry(handoff: &'static Handoff, cpu: u32) -> ! {
    if cpu != 0 {
        smp::join()
    }
    console::init();
    match bring_up(handoff) {
        Ok(team) => serve(team),
        Err(error) => fatal::stop(format_args!("{error}")),
    }
}

/// Memory, this CPU, time, randomness, the other CPUs: in the order in which they need each other.
fn bring_up(handoff: &'static Handoff) -> Result<Team, BootError> {
    add_memory(handoff).map_err(BootError::Handoff)?;
    interrupts::init(0);
    cpu::init();
    if let Err(error) = clock::init(handoff.boot_ticks) {
        println!("vitrine: {error}; certificates will carry no real dates");
    }
    entropy::init().map_err(BootError::Entropy)?;
    apic::init();
    let cpus = fw_cfg::cpu_count().map_err(BootError::FwCfg)?;
    Ok(smp::start(&handoff.mailbox, usize::from(cpus)))
}

/// Gives all free RAM to the heap.
fn add_memory(handoff: &Handoff) -> Result<(), HandoffError> {
    for range in handoff
        .memory()?
        .iter()
        .filter(|range| range.usage == Use::Free)
    {
        let start = NonNull::new(ptr::with_exposed_provenance_mut(range.span.start as usize));
        if let Some(start) = start {
            // SAFETY: the loader maps free RAM writable, and nothing uses it.
            unsafe { heap::add(start, range.span.length as usize) }
        }
    }
    Ok(())
}

/// Opens the devices and serves for ever.
fn serve(team: Team) -> ! {
    println!(
        "vitrine: {} CPUs, {} MiB of memory, TSC {} MHz",
        team.count(),
        heap::free_bytes() >> 20,
        clock::frequency() / 1_000_000,
    );
    let service = devices::start()
        .map_err(|error| error.to_string())
        .and_then(|devices| Service::start(devices, Box::leak(Box::new(team))));
    match service {
        Ok(service) => service.run(),
        Err(error) => fatal::stop(format_args!("{error}")),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(location) => fatal::stop(format_args!(
            "panic at {}:{}: {}",
            location.file(),
            location.line(),
            info.message()
        )),
        None => fatal::stop(format_args!("panic: {}", info.message())),
    }
}
