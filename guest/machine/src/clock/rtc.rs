//! The battery clock of the PC (MC146818, CMOS ports 0x70 and 0x71), read once.

use core::fmt;

use crate::port::{in8, out8};

const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;
/// An update takes 2 ms at most; a port access about 1 µs.
const UPDATE_POLLS: u32 = 100_000;
/// Two equal readings in a row are needed; an update falls between two readings at most once in a second.
const READINGS: u32 = 8;

/// The RTC gave no usable date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcError {
    /// It never stopped updating, or never showed the same time twice.
    Busy,
    /// What it shows is not a date between 2024 and 2099.
    NotADate,
}

impl fmt::Display for RtcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the real-time clock never settles",
            Self::NotADate => "the real-time clock shows no valid date",
        })
    }
}

impl core::error::Error for RtcError {}

/// The clock's registers as they are: second, minute, hour, day, month, year of the century, and the format in status B.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Registers {
    second: u8,
    minute: u8,
    hour: u8,
    day: u8,
    month: u8,
    year: u8,
    status_b: u8,
}

/// Seconds since 1970-01-01 UTC.
pub fn read() -> Result<u64, RtcError> {
    let mut previous = settled()?;
    for _ in 0..READINGS {
        let current = settled()?;
        if current == previous {
            return current.unix_seconds().ok_or(RtcError::NotADate);
        }
        previous = current;
    }
    Err(RtcError::Busy)
}

fn settled() -> Result<Registers, RtcError> {
    for _ in 0..UPDATE_POLLS {
        if register(STATUS_A) & UPDATE_IN_PROGRESS == 0 {
            return Ok(Registers {
                second: register(0),
                minute: register(2),
                hour: register(4),
                day: register(7),
                month: register(8),
                year: register(9),
                status_b: register(STATUS_B),
            });
        }
    }
    Err(RtcError::Busy)
}

fn register(index: u8) -> u8 {
    // SAFETY: selecting and reading a clock register changes nothing we rely on.
    unsafe {
        out8(0x70, index);
        in8(0x71)
    }
}

impl Registers {
    fn unix_seconds(self) -> Option<u64> {
        let decode = |value: u8| match self.status_b & BINARY {
            0 => (value >> 4 <= 9 && value & 15 <= 9).then_some((value >> 4) * 10 + (value & 15)),
            _ => Some(value),
        };
        let mut hour = decode(self.hour & !PM)?;
        if self.status_b & HOURS_24 == 0 {
            if !(1..=12).contains(&hour) {
                return None;
            }
            hour = hour % 12 + if self.hour & PM != 0 { 12 } else { 0 };
        } else if self.hour & PM != 0 {
            return None;
        }
        let (second, minute) = (decode(self.second)?, decode(self.minute)?);
        let (day, month, year) = (decode(self.day)?, decode(self.month)?, decode(self.year)?);
        let year = 2000 + u64::from(year);
        if second > 59 || minute > 59 || hour > 23 || !(2024..2100).contains(&year) {
            return None;
        }
        let days = days_since_1970(year, month, day)?;
        Some(((days * 24 + u64::from(hour)) * 60 + u64::from(minute)) * 60 + u64::from(second))
    }
}

/// Valid for 1970 to 2099, where every fourth year is a leap year.
fn days_since_1970(year: u64, month: u8, day: u8) -> Option<u64> {
    const DAYS: [u8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year.is_multiple_of(4);
    let month = usize::from(month).checked_sub(1)?;
    let length = *DAYS.get(month)? + u8::from(leap && month == 1);
    if !(1..=length).contains(&day) {
        return None;
    }
    let before: u64 = DAYS[..month].iter().copied().map(u64::from).sum();
    let leap_days = (year - 1969) / 4 + u64::from(leap && month > 1);
    Some((year - 1970) * 365 + leap_days + before + u64::from(day) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Registers = Registers {
        second: 0x56,
        minute: 0x34,
        hour: 0x12,
        day: 0x29,
        month: 0x02,
        year: 0x28,
        status_b: HOURS_24,
    };

    #[test]
    fn decodes_every_format() {
        // 2028-02-29 12:34:56 UTC
        assert_eq!(NOON.unix_seconds(), Some(1_835_440_496));
        let twelve_hour = Registers {
            hour: 0x12 | PM,
            status_b: 0,
            ..NOON
        };
        assert_eq!(twelve_hour.unix_seconds(), Some(1_835_440_496));
        let midnight = Registers {
            hour: 0x12,
            status_b: 0,
            ..NOON
        };
        assert_eq!(midnight.unix_seconds(), Some(1_835_440_496 - 12 * 3600));
        let binary = Registers {
            second: 56,
            minute: 34,
            hour: 12,
            day: 29,
            month: 2,
            year: 28,
            status_b: HOURS_24 | BINARY,
        };
        assert_eq!(binary.unix_seconds(), Some(1_835_440_496));
    }

    #[test]
    fn refuses_what_is_no_date() {
        for bad in [
            Registers {
                second: 0x60,
                ..NOON
            },
            Registers {
                minute: 0x0a,
                ..NOON
            },
            Registers { hour: 0x24, ..NOON },
            Registers {
                hour: 0x13,
                status_b: 0,
                ..NOON
            },
            Registers { day: 0x30, ..NOON },
            Registers { day: 0, ..NOON },
            Registers {
                month: 0x13,
                ..NOON
            },
            Registers { month: 0, ..NOON },
            Registers { year: 0x23, ..NOON },
        ] {
            assert_eq!(bad.unix_seconds(), None);
        }
    }

    proptest! {
        #[test]
        fn any_registers_give_a_date_of_this_century_or_none(raw: [u8; 7]) {
            let [second, minute, hour, day, month, year, status_b] = raw;
            let registers = Registers { second, minute, hour, day, month, year, status_b };
            if let Some(seconds) = registers.unix_seconds() {
                prop_assert!((1_704_067_200..4_102_444_800).contains(&seconds));
            }
        }
    }
}
