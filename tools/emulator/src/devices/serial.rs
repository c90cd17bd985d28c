//! COM1: a 16550 whose output goes to the console. Nothing is ever received and no interrupt raised: the guest polls.

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

/// The first and last of its eight ports, where PCs have COM1.
pub const BASE: u16 = 0x3f8;
pub const LAST: u16 = 0x3ff;
/// The port that firmware for QEMU prints to if reading it gives [`DEBUG_PRESENT`] (QEMU `hw/char/debugcon.c`; edk2 `PcdDebugIoPort`).
pub const DEBUG_PORT: u16 = 0x402;
const DEBUG_PRESENT: u8 = 0xe9;

struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Where the machine's text goes.
pub type Console = Box<dyn Write + Send>;

/// The serial port and, on the same console, the debug port.
pub struct SerialPort(Mutex<Serial<NoInterrupt, NoEvents, Console>>);

impl SerialPort {
    /// A port that writes to `console` at once, byte by byte.
    pub fn new(console: Console) -> Self {
        Self(Mutex::new(Serial::new(NoInterrupt, console)))
    }

    /// A byte access to a register of the port.
    pub fn io(&self, offset: u8, write: Option<u8>) -> u8 {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match write {
            Some(value) => {
                // A console that is gone is no reason to stop the machine: the byte is lost, as on a cable that nobody reads.
                let _ = port.write(offset, value);
                0
            }
            None => port.read(offset),
        }
    }

    /// A byte access to the debug port.
    pub fn debug(&self, write: Option<u8>) -> u8 {
        if let Some(value) = write {
            let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // As above.
            let _ = port.writer_mut().write_all(&[value]);
        }
        DEBUG_PRESENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_sent_appears_and_the_line_is_always_free() {
        let text = Text::default();
        let port = SerialPort::new(Box::new(text.clone()));
        for byte in b"hi\n" {
            assert_eq!(port.io(5, None) & 0x60, 0x60);
            port.io(0, Some(*byte));
        }
        port.debug(Some(b'!'));
        assert_eq!(*text.0.lock().unwrap(), b"hi\n!");
        assert_eq!(port.debug(None), DEBUG_PRESENT);
    }

    #[test]
    fn the_divisor_is_not_output() {
        let text = Text::default();
        let port = SerialPort::new(Box::new(text.clone()));
        port.io(3, Some(0x83));
        port.io(0, Some(1));
        assert_eq!(port.io(0, None), 1);
        assert!(text.0.lock().unwrap().is_empty());
    }
}
