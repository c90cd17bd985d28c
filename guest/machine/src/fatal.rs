//! The end of the machine: say why, stop every CPU, halt.

use core::arch::asm;
use core::fmt;

use crate::{console, interrupts, port};

/// QEMU's isa-debug-exit device, if the machine has one: ends QEMU with status 3. Without it the write goes nowhere.
const DEBUG_EXIT: u16 = 0xf4;
const DEBUG_EXIT_FAILURE: u8 = 1;

/// Prints `vitrine: failed: <reason>` and stops the whole machine.
pub fn stop(reason: fmt::Arguments<'_>) -> ! {
    interrupts::stop_others();
    console::print_dying(format_args!("vitrine: failed: {reason}\n"));
    // SAFETY: the port belongs to isa-debug-exit or to nothing.
    unsafe { port::out8(DEBUG_EXIT, DEBUG_EXIT_FAILURE) }
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off the CPU stays in the halt; nothing of it is needed any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}
