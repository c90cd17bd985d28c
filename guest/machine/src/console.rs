//! The console: COM1 at 0x3F8, polled, 115200 8N1. Output only.
//!
//! The host reads everything that is written here: nothing about a prompt or a key may ever be printed.

use core::fmt::{self, Write};

use crate::port::{in8, out8};
use crate::sync::SpinLock;

const COM1: u16 = 0x3f8;
/// Line status register, and its "transmit holding register empty" bit.
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// How often a full transmitter is looked at before a byte is given up: a dead port must not hang the guest.
const TRANSMIT_POLLS: u32 = 100_000;
/// How often a dying CPU tries for the lock before it writes regardless of who holds it.
const LOCK_TRIES: u32 = 10_000_000;

static CONSOLE: SpinLock<Com1> = SpinLock::new(Com1);

struct Com1;

impl Com1 {
    fn put(&mut self, byte: u8) {
        // SAFETY: COM1's registers have no effect but on the serial line.
        unsafe {
            for _ in 0..TRANSMIT_POLLS {
                if in8(LINE_STATUS) & TRANSMIT_EMPTY != 0 {
                    break;
                }
            }
            out8(COM1, byte);
        }
    }
}

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// Sets the port to 115200 8N1, no interrupts, FIFO on. Once, before the first line.
pub fn init() {
    const SETUP: [(u16, u8); 7] = [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 3)];
    for (register, value) in SETUP {
        // SAFETY: COM1's registers have no effect but on the serial line.
        unsafe { out8(COM1 + register, value) }
    }
}

/// Writes formatted text; what [`println!`](crate::println) expands to.
pub fn print(arguments: fmt::Arguments<'_>) {
    // Com1 never returns an error, and there is nowhere to report one.
    let _ = CONSOLE.lock().write_fmt(arguments);
}

/// Writes formatted text from a panic or a fault, where the lock may be held by a CPU that will never release it.
pub fn print_dying(arguments: fmt::Arguments<'_>) {
    for _ in 0..LOCK_TRIES {
        if let Some(mut console) = CONSOLE.try_lock() {
            let _ = console.write_fmt(arguments);
            return;
        }
        core::hint::spin_loop();
    }
    let _ = Com1.write_fmt(arguments);
}

/// Prints one line on the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($argument)*))) };
}
