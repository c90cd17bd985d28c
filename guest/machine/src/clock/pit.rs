//! The TSC's frequency, measured against channel 2 of the 8254 timer (PIT), which every PC has.
//!
//! The counter is read between two readings of the TSC, several times at both ends of the interval, and the tightest pair counts: a host that takes
//! the CPU away during a reading, or between the ends, cannot falsify the result.

use core::hint::spin_loop;

use super::ticks;
use crate::port::{in8, out8};

const FREQUENCY: u64 = 1_193_182;
/// Counts in the interval: 15 ms.
const INTERVAL: u16 = 17_898;
/// Readings at each end.
const READINGS: usize = 8;
/// A run in which the CPU was away for so long that the counter passed zero is repeated.
const RUNS: usize = 20;
/// Looks at the counter before a timer that does not count is given up.
const POLLS: u32 = 1_000_000;

const CHANNEL_2: u16 = 0x42;
const COMMAND: u16 = 0x43;
const GATE: u16 = 0x61;
const GATE_ON: u8 = 1;
const SPEAKER: u8 = 2;
const OUTPUT: u8 = 1 << 5;
/// Channel 2, low byte then high byte, mode 0 (counts down once, the output rises at zero), binary.
const COUNT_DOWN: u8 = 0b1011_0000;
/// Holds channel 2's count until both bytes are read.
const LATCH: u8 = 0b1000_0000;

/// The counter at a moment of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    before: u64,
    after: u64,
    count: u16,
}

/// TSC ticks per second, or `None` if the timer does not count.
pub fn measure() -> Option<u64> {
    (0..RUNS).find_map(|_| run())
}

fn run() -> Option<u64> {
    start();
    let first = tightest();
    for _ in 0..POLLS {
        if first.count.wrapping_sub(read().count) >= INTERVAL {
            let last = tightest();
            return if wrapped() {
                None
            } else {
                frequency(first, last)
            };
        }
        spin_loop();
    }
    None
}

/// Between the middles of two readings.
fn frequency(first: Reading, last: Reading) -> Option<u64> {
    let counts = first.count.checked_sub(last.count)?;
    let middle =
        |reading: Reading| reading.before + reading.after.saturating_sub(reading.before) / 2;
    let elapsed = middle(last).checked_sub(middle(first))?;
    elapsed
        .checked_mul(FREQUENCY)?
        .checked_div(u64::from(counts))
        .filter(|frequency| *frequency > 0)
}

fn tightest() -> Reading {
    let mut best = read();
    for _ in 1..READINGS {
        let next = read();
        if next.after - next.before < best.after - best.before {
            best = next;
        }
    }
    best
}

/// Lets the counter run down from its largest value.
fn start() {
    // SAFETY: channel 2 of the timer drives nothing but the speaker, which stays off.
    unsafe {
        out8(GATE, in8(GATE) & !SPEAKER | GATE_ON);
        out8(COMMAND, COUNT_DOWN);
        out8(CHANNEL_2, 0xff);
        out8(CHANNEL_2, 0xff);
    }
}

fn read() -> Reading {
    let before = ticks();
    // SAFETY: reading the count changes nothing.
    let count = unsafe {
        out8(COMMAND, LATCH);
        u16::from_le_bytes([in8(CHANNEL_2), in8(CHANNEL_2)])
    };
    Reading {
        before,
        after: ticks().max(before),
        count,
    }
}

fn wrapped() -> bool {
    // SAFETY: reading the gate's port changes nothing.
    unsafe { in8(GATE) & OUTPUT != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middles_of_the_readings_count() {
        let first = Reading {
            before: 1000,
            after: 3000,
            count: 0xfff0,
        };
        let last = Reading {
            before: 2_000_000_000,
            after: 2_000_004_000,
            count: 0xfff0 - 59_659,
        };
        // 59 659 counts are 50 ms, in which 2 000 000 000 ticks went by.
        let frequency = frequency(first, last).expect("a frequency");
        assert!(
            frequency.abs_diff(40_000_000_000) < 2_000_000,
            "{frequency}"
        );
    }

    #[test]
    fn impossible_readings_give_nothing() {
        let reading = Reading {
            before: 10,
            after: 20,
            count: 5,
        };
        assert_eq!(frequency(reading, reading), None);
        assert_eq!(
            frequency(
                reading,
                Reading {
                    count: 6,
                    ..reading
                }
            ),
            None
        );
        assert_eq!(
            frequency(
                reading,
                Reading {
                    before: 0,
                    after: 0,
                    count: 1
                }
            ),
            None
        );
        assert_eq!(
            frequency(
                reading,
                Reading {
                    before: u64::MAX - 1,
                    after: u64::MAX,
                    count: 1
                }
            ),
            None
        );
    }
}
