//! The guest: brings the machine up, then serves.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../loader/src/mem.rs"]
mod mem;

use core::ptr::NonNull;

use loader::handoff::Handoff;
use loader::memory::Use;
use machine::{console, heap, println};

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

/// Where every CPU enters: the boot processor with index 0, the others once the gate is open.
///
/// # Safety
/// Called by the loader only, as `loader::handoff` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn guest_entry(handoff: &'static Handoff, cpu: u32) -> ! {
    if cpu == 0 { boot(handoff) } else { halt() }
}

fn boot(handoff: &'static Handoff) -> ! {
    console::init();
    println!(
        "vitrine: hello from 64-bit Rust, cpu 0, boot ticks {}",
        handoff.boot_ticks
    );
    for range in handoff.memory().unwrap_or_default() {
        println!(
            "vitrine: memory {:#014x}..{:#014x} {:?}",
            range.span.start,
            range.span.end(),
            range.usage
        );
        if range.usage == Use::Free {
            let start = core::ptr::with_exposed_provenance_mut(range.span.start as usize);
            if let Some(start) = NonNull::new(start) {
                // SAFETY: the loader maps free RAM writable and nothing uses it.
                unsafe { heap::add(start, range.span.length as usize) }
            }
        }
    }
    println!("vitrine: {} MiB free", heap::free_bytes() >> 20);
    println!(
        "vitrine: clock {:?}",
        machine::clock::init(handoff.boot_ticks)
    );
    println!(
        "vitrine: {} Hz, now {:?}, wall {:?}",
        machine::clock::frequency(),
        machine::clock::now(),
        machine::clock::unix_seconds()
    );
    let arena = heap::Arena::new(256 << 20).map(|arena| arena.as_ptr());
    println!("vitrine: arena {arena:?}, now {:?}", machine::clock::now());
    halt()
}

fn halt() -> ! {
    loop {
        // SAFETY: stops this CPU.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::print_dying(format_args!("vitrine: failed: {info}\n"));
    halt()
}
