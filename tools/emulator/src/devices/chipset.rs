//! The old ports of a PC that firmware still touches: timers that run, interrupt controllers that never interrupt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use super::pci::IsaBridge;

/// Of the 8254 timer: a twelfth of the PC's 14.31818 MHz (Intel 8254 datasheet; QEMU `PIT_FREQ`).
const TIMER_FREQUENCY: u64 = 1_193_182;
/// Of the ACPI timer (ACPI 6.5, 4.8.2.1; QEMU `PM_TIMER_FREQUENCY`).
const ACPI_TIMER_FREQUENCY: u64 = 3_579_545;
/// The ACPI timer counts 24 bits (the same); its port lies 8 behind the first of the block (ICH9 datasheet, PM1_TMR).
const ACPI_TIMER: u32 = 0x00ff_ffff;
const ACPI_TIMER_AT: u8 = 8;
/// The timer's output as port 0x61 shows it, and memory refresh, which toggles every 15 µs (ICH9 datasheet, NMI_SC).
const TIMER_OUTPUT: u8 = 1 << 5;
const REFRESH: u8 = 1 << 4;
/// A20 is always open (ICH9 datasheet, PORT92).
const A20: u8 = 1 << 1;

/// The ports of the chipset.
pub struct Chipset {
    isa: Arc<IsaBridge>,
    started: Instant,
    /// The masks of the two interrupt controllers: remembered, without effect.
    masks: [AtomicU8; 2],
    /// Which byte of the timer's count is read next.
    low_byte: AtomicU8,
}

impl Chipset {
    /// Timers start now.
    pub fn new(isa: Arc<IsaBridge>) -> Self {
        Self {
            isa,
            started: Instant::now(),
            masks: [const { AtomicU8::new(0xff) }; 2],
            low_byte: AtomicU8::new(0),
        }
    }

    /// An access to a port of the chipset; None if the port is nobody's.
    pub fn io(&self, port: u16, size: u8, write: Option<u32>) -> Option<u32> {
        if let Some(offset) = self.isa.power_management(port) {
            let timer = offset == ACPI_TIMER_AT && size == 4;
            return Some(if timer {
                self.ticks(ACPI_TIMER_FREQUENCY) as u32 & ACPI_TIMER
            } else {
                0
            });
        }
        // Interrupt controllers 0x20, 0x21, 0xa0, 0xa1; timer 0x40 to 0x43; NMI status 0x61; POST code 0x80; fast A20 0x92 (ICH9 datasheet, fixed I/O
        // ranges).
        let value = match (port, write) {
            (0x21, _) => self.mask(0, write),
            (0xa1, _) => self.mask(1, write),
            // Commands to the interrupt controllers; nothing is ever pending.
            (0x20 | 0xa0, _) => 0,
            (0x40..=0x42, None) => self.count(),
            (0x40..=0x43, Some(_)) => {
                self.low_byte.store(0, Ordering::Relaxed);
                0
            }
            (0x61, None) => self.gate(),
            (0x61 | 0x80, Some(_)) => 0,
            (0x92, _) => A20,
            _ => return None,
        };
        Some(value.into())
    }

    fn mask(&self, controller: usize, write: Option<u32>) -> u8 {
        if let Some(value) = write {
            self.masks[controller].store(value as u8, Ordering::Relaxed);
        }
        self.masks[controller].load(Ordering::Relaxed)
    }

    /// The count of every channel, which runs down from 65536, one byte at a time.
    fn count(&self) -> u8 {
        let count = (self.ticks(TIMER_FREQUENCY) as u16).wrapping_neg();
        let byte = usize::from(self.low_byte.fetch_xor(1, Ordering::Relaxed) & 1);
        count.to_le_bytes()[byte]
    }

    fn gate(&self) -> u8 {
        let ticks = self.ticks(TIMER_FREQUENCY);
        let mut value = 0;
        if ticks & 1 << 15 != 0 {
            value |= TIMER_OUTPUT;
        }
        if ticks & 1 << 4 != 0 {
            value |= REFRESH;
        }
        value
    }

    fn ticks(&self, frequency: u64) -> u64 {
        (self.started.elapsed().as_nanos() * u128::from(frequency) / 1_000_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::pci::Function;
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn the_acpi_timer_runs_once_it_is_placed() {
        let isa = Arc::new(IsaBridge::new());
        let chipset = Chipset::new(isa.clone());
        assert_eq!(chipset.io(0x608, 4, None), None);
        isa.write_config(0x40, 4, 0x600);
        isa.write_config(0x44, 1, 0x80);
        let before = chipset.io(0x608, 4, None).unwrap();
        sleep(Duration::from_millis(5));
        let elapsed = chipset.io(0x608, 4, None).unwrap() - before;
        assert!(elapsed >= 17_000, "{elapsed}");
        assert_eq!(chipset.io(0x604, 2, None), Some(0));
    }

    #[test]
    fn masks_are_remembered_and_unknown_ports_are_nobodys() {
        let chipset = Chipset::new(Arc::new(IsaBridge::new()));
        chipset.io(0x21, 1, Some(0xfb));
        assert_eq!(chipset.io(0x21, 1, None), Some(0xfb));
        assert_eq!(chipset.io(0xa1, 1, None), Some(0xff));
        assert_eq!(chipset.io(0x1234, 1, None), None);
    }
}
