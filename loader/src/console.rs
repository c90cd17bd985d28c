//! The loader's console: COM1, polled, one line if the boot fails and silence otherwise.

use core::fmt::{self, Write};

use crate::ports::Ports;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// How often a full transmitter is looked at before a byte is given up.
const TRANSMIT_POLLS: u32 = 100_000;

struct Com1(Ports);

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            for _ in 0..TRANSMIT_POLLS {
                if self.0.in8(LINE_STATUS) & TRANSMIT_EMPTY != 0 {
                    break;
                }
            }
            self.0.out8(COM1, byte);
        }
        Ok(())
    }
}

/// Sets COM1 to 115200 8N1 and says why there is no guest.
pub fn fail(ports: Ports, reason: &dyn fmt::Display) {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 3)] {
        ports.out8(COM1 + register, value);
    }
    // Com1 never returns an error.
    let _ = write!(Com1(ports), "vitrine: failed: {reason}\r\n");
}
