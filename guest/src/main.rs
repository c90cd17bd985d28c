//! The guest: the composition root of the trust domain. It brings the machine up, then serves.
//!
//! What holds on entry: 64-bit mode, interrupts off, the final page tables (all RAM identity mapped, code read-only, no page
//! both writable and executable), a stack with an unmapped page below it, and a hand-off from the loader.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../loader/src/mem.rs"]
mod mem;

mod contents;
mod devices;
mod evidence;
mod inference;
mod model;
mod service;

use core::fmt;
use core::panic::PanicInfo;
use core::ptr::{self, NonNull};
use core::slice;

use alloc::boxed::Box;
use alloc::string::ToString;

use loader::handoff::{Handoff, HandoffError, Span};
use loader::memory::{MemoryRange, Use};
use machine::acceptance::Reserve;
use machine::entropy::EntropyError;
use machine::fw_cfg::FwCfgError;
use machine::platform::PlatformError;
use machine::smp::Team;
use machine::{
    apic, clock, console, cpu, entropy, fatal, fw_cfg, heap, interrupts, platform, println, smp,
};

use crate::service::Service;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

/// Why the machine cannot be used.
enum BootError {
    Handoff(HandoffError),
    Entropy(EntropyError),
    FwCfg(FwCfgError),
    Platform(PlatformError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handoff(error) => error.fmt(f),
            Self::Entropy(error) => error.fmt(f),
            Self::FwCfg(error) => error.fmt(f),
            Self::Platform(error) => error.fmt(f),
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
    // SAFETY: the loader says how it was entered.
    let platform = unsafe { platform::init(handoff.mode) }.map_err(BootError::Platform);
    console::init();
    match platform.and_then(|()| bring_up(handoff)) {
        Ok((team, reserve)) => serve(team, reserve, handoff),
        Err(error) => fatal::stop(format_args!("{error}")),
    }
}

/// Memory, this CPU, time, randomness, the other CPUs: in the order in which they need each other.
fn bring_up(handoff: &'static Handoff) -> Result<(Team, Reserve), BootError> {
    let memory = handoff.memory().map_err(BootError::Handoff)?;
    add_memory(memory);
    interrupts::init(0);
    cpu::init();
    if let Err(error) = clock::init(handoff.boot_ticks) {
        println!("vitrine: {error}; certificates will carry no real dates");
    }
    entropy::init().map_err(BootError::Entropy)?;
    apic::init();
    let team = smp::start(&handoff.mailbox, cpu_count()?);
    // SAFETY: the map is the loader's, and this is the only reserve.
    let reserve = unsafe { Reserve::new(memory) };
    Ok((team, reserve))
}

/// How many CPUs there are: the TDX module's word in a TD, fw_cfg's elsewhere.
fn cpu_count() -> Result<usize, BootError> {
    match platform::trust_domain() {
        Some(domain) => domain
            .info()
            .map(|info| info.vcpus as usize)
            .map_err(BootError::Platform),
        None => fw_cfg::cpu_count()
            .map(usize::from)
            .map_err(BootError::FwCfg),
    }
}

/// Gives all free RAM to the heap.
fn add_memory(memory: &[MemoryRange]) {
    for range in memory.iter().filter(|range| range.usage == Use::Free) {
        let start = NonNull::new(ptr::with_exposed_provenance_mut(range.span.start as usize));
        if let Some(start) = start {
            // SAFETY: the loader maps free RAM writable, and nothing uses it.
            unsafe { heap::add(start, range.span.length as usize) }
        }
    }
}

/// Opens the devices and serves for ever.
fn serve(team: Team, reserve: Reserve, handoff: &Handoff) -> ! {
    println!(
        "vitrine: {} CPUs, {} MiB of memory, TSC {} MHz",
        team.count(),
        (heap::free_bytes() + reserve.bytes()) >> 20,
        clock::frequency() / 1_000_000,
    );
    // SAFETY: the loader says where the executable lies, in memory that nobody writes to.
    let executable = unsafe { bytes(handoff.guest) };
    let service = devices::start(executable)
        .map_err(|error| error.to_string())
        .and_then(|(devices, evidence)| {
            Service::start(devices, evidence, Box::leak(Box::new(team)), reserve)
        });
    match service {
        Ok(service) => service.run(),
        Err(error) => fatal::stop(format_args!("{error}")),
    }
}

/// The bytes at physical addresses, which are also where they are mapped.
///
/// # Safety
/// They are mapped, and never written to.
unsafe fn bytes(span: Span) -> &'static [u8] {
    let start = ptr::with_exposed_provenance(span.start as usize);
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(start, span.length as usize) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fatal::panicked(info)
}
