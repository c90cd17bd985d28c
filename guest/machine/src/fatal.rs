//! The end of the machine: say why, stop every CPU, halt. In a TD all memory that ever held a key or a prompt is wiped first, and the host is asked
//! to end the TD.
//!
//! Whatever is said here, the host reads. In a TD nothing may be said that depends on what a program computed: of a fault only where it was, of
//! a panic only its place in the source.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use loader::layout;
use tdx::hypercall;

use crate::{clock, console, heap, interrupts, platform, port, smp};

/// QEMU's isa-debug-exit device, if the machine has one: ends QEMU with status 3. Without it the write goes nowhere.
const DEBUG_EXIT: u16 = 0xf4;
const DEBUG_EXIT_FAILURE: u8 = 1;
/// What the host is told of a TD's end.
const MESSAGE: &str = "vitrine: stopped; the console says why";
/// How long the other CPUs get to halt before their memory is wiped.
const HALT_TIMEOUT: Duration = Duration::from_millis(50);

/// Whether a CPU has begun to end the machine.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Prints `vitrine: failed: <reason>` and stops the whole machine. The reason must not contain anything private.
pub fn stop(reason: fmt::Arguments<'_>) -> ! {
    if STOPPING.swap(true, Ordering::SeqCst) {
        halt();
    }
    interrupts::stop_others();
    console::print_dying(format_args!("vitrine: failed: {reason}\n"));
    if platform::trust_domain().is_some() {
        let start = clock::ticks();
        while interrupts::stopped() < smp::others()
            && clock::ticks().wrapping_sub(start) < clock::ticks_in(HALT_TIMEOUT)
        {
            core::hint::spin_loop();
        }
        // SAFETY: this is the end, and the other CPUs had their time.
        unsafe { wipe_and_report() }
    }
    // SAFETY: the port belongs to isa-debug-exit or to nothing.
    unsafe { port::out8(DEBUG_EXIT, DEBUG_EXIT_FAILURE) }
    halt()
}

/// What a panic handler does: says where, and outside a TD also what.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    let Some(place) = info.location() else {
        stop(format_args!("panic"))
    };
    let (file, line) = (place.file(), place.line());
    if platform::trust_domain().is_some() {
        stop(format_args!("panic at {file}:{line}"))
    }
    stop(format_args!("panic at {file}:{line}: {}", info.message()))
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        match platform::trust_domain() {
            Some(domain) => hypercall::halt_for_good(domain.tdcall()),
            // SAFETY: with interrupts off the CPU stays in the halt; nothing of it is needed any more.
            None => unsafe { asm!("cli", "hlt", options(nomem, nostack)) },
        }
    }
}

/// A stack that is not in the memory to be wiped.
#[repr(C, align(16))]
struct LastStack(UnsafeCell<[u8; LAST_STACK]>);

// SAFETY: only the one CPU that ends the machine uses it.
unsafe impl Sync for LastStack {}

const LAST_STACK: usize = 4096;
static LAST: LastStack = LastStack(UnsafeCell::new([0; LAST_STACK]));

/// Switches to the last stack and wipes.
///
/// # Safety
/// No other CPU may run any more, and nothing in memory may be needed.
#[unsafe(naked)]
unsafe extern "sysv64" fn wipe_and_report() -> ! {
    core::arch::naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "xor ebp, ebp",
        "call {end}",
        "ud2",
        stack = sym LAST,
        size = const LAST_STACK,
        end = sym end,
    )
}

/// Needs nothing from the heap, where even this CPU's interrupt table is: from here on an interrupt would end the TD, which is what is wanted.
extern "sysv64" fn end() -> ! {
    // SAFETY: nothing of it is used any more, by the promise of `wipe_and_report`.
    unsafe {
        heap::wipe();
        let stack = (layout::STACK_END - layout::STACK) as usize;
        core::ptr::with_exposed_provenance_mut::<u8>(layout::STACK as usize).write_bytes(0, stack);
    }
    if let Some(domain) = platform::trust_domain() {
        hypercall::report_fatal_error(domain.tdcall(), MESSAGE);
    }
    halt()
}
