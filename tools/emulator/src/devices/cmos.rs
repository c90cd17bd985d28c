//! The battery clock with its memory (MC146818), ports 0x70 and 0x71: the wall clock, and where firmware looks for the size of memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use time::OffsetDateTime;

use crate::hostile::{Attack, Host, Target};

/// The port that selects a register; the next one accesses it.
pub const INDEX_PORT: u16 = 0x70;
pub const DATA_PORT: u16 = 0x71;

/// Bit 7 of the index port masks the NMI (ICH9 datasheet, RTC_INDEX).
const INDEX: u8 = 0x7f;
/// Registers A, B and D (MC146818 datasheet).
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;
/// 32.768 kHz crystal, 1024 Hz.
const STATUS_A_VALUE: u8 = 0x26;
/// Hours count to 24, values are decimal coded.
const STATUS_B_VALUE: u8 = 0x02;
/// The battery is good.
const STATUS_D_VALUE: u8 = 0x80;
/// Where PCs keep the century (QEMU `RTC_CENTURY`).
const CENTURY: u8 = 0x32;

const MIB: u64 = 1 << 20;
const SMALL_UNIT: u64 = 1 << 10;
const LARGE_UNIT: u64 = 64 << 10;

/// The clock.
pub struct Cmos {
    state: Mutex<State>,
    now: Now,
    host: Arc<Host>,
}

/// What time it is.
pub type Now = Box<dyn Fn() -> SystemTime + Send + Sync>;

struct State {
    index: u8,
    memory: [u8; 128],
}

impl Cmos {
    /// A clock of a machine with `below_4g` and `above_4g` bytes of memory and `cpus` processors. `now` is the time it shows.
    pub fn new(below_4g: u64, above_4g: u64, cpus: u8, now: Now, host: Arc<Host>) -> Self {
        let mut memory = [0; 128];
        let mut put = |offset: usize, bytes: &[u8]| {
            memory[offset..offset + bytes.len()].copy_from_slice(bytes)
        };
        // Sizes of memory below 640 KiB, from 1 MiB (twice), from 16 MiB, from 4 GiB, and the number of processors but one (QEMU
        // `hw/i386/pc.c`, `pc_cmos_init`).
        put(0x15, &640u16.to_le_bytes());
        let kib_above_1m = (below_4g.saturating_sub(MIB) / SMALL_UNIT).min(63 << 10) as u16;
        put(0x17, &kib_above_1m.to_le_bytes());
        put(0x30, &kib_above_1m.to_le_bytes());
        let above_16m =
            (below_4g.saturating_sub(16 * MIB) / LARGE_UNIT).min(u16::MAX.into()) as u16;
        put(0x34, &above_16m.to_le_bytes());
        put(0x5b, &(above_4g / LARGE_UNIT).to_le_bytes()[..3]);
        put(0x5f, &[cpus.saturating_sub(1)]);
        Self {
            state: Mutex::new(State { index: 0, memory }),
            now,
            host,
        }
    }

    /// A byte access to one of the two ports.
    pub fn io(&self, port: u16, write: Option<u8>) -> u8 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (port, write) {
            (INDEX_PORT, Some(index)) => {
                state.index = index & INDEX;
                0
            }
            // The index cannot be read back.
            (INDEX_PORT, None) => 0xff,
            (_, None)
                if self.host.is_hostile()
                    && self.host.strikes(Attack::ClockNonsense, Target::Platform) =>
            {
                // Always idle, or reading it would deny service.
                self.host.below(128) as u8
            }
            (_, None) => self.register(&state),
            (_, Some(value)) => {
                // The clock is the host's and cannot be set.
                let index = usize::from(state.index);
                if state.index > STATUS_D && state.index != CENTURY {
                    state.memory[index] = value;
                }
                0
            }
        }
    }

    fn register(&self, state: &State) -> u8 {
        let now = OffsetDateTime::from((self.now)());
        let coded = |value: u8| ((value / 10) << 4) | (value % 10);
        let year = now.year().unsigned_abs();
        match state.index {
            // MC146818 datasheet: time, calendar and alarm locations.
            0x00 => coded(now.second()),
            0x02 => coded(now.minute()),
            0x04 => coded(now.hour()),
            0x06 => now.weekday().number_from_sunday(),
            0x07 => coded(now.day()),
            0x08 => coded(now.month().into()),
            0x09 => coded((year % 100) as u8),
            CENTURY => coded((year / 100 % 100) as u8),
            STATUS_A => STATUS_A_VALUE,
            STATUS_B => STATUS_B_VALUE,
            STATUS_D => STATUS_D_VALUE,
            index => state.memory[usize::from(index)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn honest() -> Arc<Host> {
        Arc::new(Host::honest())
    }

    fn read(cmos: &Cmos, index: u8) -> u8 {
        cmos.io(INDEX_PORT, Some(index));
        cmos.io(DATA_PORT, None)
    }

    #[test]
    fn the_date_is_decimal_coded() {
        // 2028-02-29 12:34:56 UTC, a Tuesday
        let cmos = Cmos::new(
            0,
            0,
            1,
            Box::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_835_440_496)),
            honest(),
        );
        let registers = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32];
        let shown = registers.map(|index| read(&cmos, index));
        assert_eq!(shown, [0x56, 0x34, 0x12, 3, 0x29, 0x02, 0x28, 0x20]);
        cmos.io(DATA_PORT, Some(0x99));
        assert_eq!(read(&cmos, 0x32), 0x20, "the clock cannot be set");
    }

    #[test]
    fn memory_sizes_are_where_firmware_looks() {
        let cmos = Cmos::new(2 << 30, 6 << 30, 4, Box::new(SystemTime::now), honest());
        let word = |low| u32::from(read(&cmos, low)) | u32::from(read(&cmos, low + 1)) << 8;
        assert_eq!(u64::from(word(0x34)) * LARGE_UNIT + 16 * MIB, 2 << 30);
        assert_eq!(
            u64::from(word(0x5b) | u32::from(read(&cmos, 0x5d)) << 16) * LARGE_UNIT,
            6 << 30
        );
        assert_eq!(read(&cmos, 0x5f), 3);
        assert_eq!(word(0x30), 63 << 10);
    }

    #[test]
    fn the_rest_is_memory() {
        let cmos = Cmos::new(0, 0, 1, Box::new(SystemTime::now), honest());
        cmos.io(INDEX_PORT, Some(0x80 | 0x40));
        cmos.io(DATA_PORT, Some(0xa5));
        assert_eq!(read(&cmos, 0x40), 0xa5);
    }
}
