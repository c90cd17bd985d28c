//! Time: the time stamp counter (TSC) as a monotonic clock, and the wall clock read once from the RTC.
//!
//! The TSC of every CPU we support runs at a constant rate. Its frequency comes from CPUID leaf 0x15 where that is filled in,
//! and is measured against the 8254 timer otherwise. In a TD the leaf is the TDX module's word, and there is no other way. The wall clock is
//! the host's word: nothing secret may depend on it.

mod pit;
mod rtc;

use core::arch::x86_64::{__cpuid, _rdtsc};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

pub use rtc::RtcError;

use crate::platform;

/// What is assumed of a processor that does not tell its frequency, in a machine without a working timer.
const FALLBACK: u64 = 2_000_000_000;

/// Ticks per second; 0 until [`init`].
static FREQUENCY: AtomicU64 = AtomicU64::new(0);
/// The TSC at [`init`]'s origin, which is time zero.
static ORIGIN: AtomicU64 = AtomicU64::new(0);
/// Seconds since 1970 at time zero; 0 if the RTC made no sense.
static WALL_ORIGIN: AtomicU64 = AtomicU64::new(0);

/// The time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 has a TSC, and reading it has no effect.
    unsafe { _rdtsc() }
}

/// Finds the TSC's frequency and reads the wall clock. Time counts from `origin`, the TSC at reset.
///
/// # Errors
/// [`RtcError`] if the RTC stays busy or shows no valid date; the monotonic clock runs nevertheless.
pub fn init(origin: u64) -> Result<(), RtcError> {
    ORIGIN.store(origin, Ordering::Relaxed);
    let frequency = match platform::trust_domain() {
        None => declared_frequency().or_else(pit::measure),
        Some(_) => declared_frequency(),
    };
    FREQUENCY.store(frequency.unwrap_or(FALLBACK), Ordering::Relaxed);
    let wall = rtc::read()?;
    WALL_ORIGIN.store(wall.saturating_sub(now().as_secs()), Ordering::Relaxed);
    Ok(())
}

/// TSC ticks per second; 0 before [`init`].
pub fn frequency() -> u64 {
    FREQUENCY.load(Ordering::Relaxed)
}

/// Time since reset. Never runs backwards on one CPU.
pub fn now() -> Duration {
    ticks_to_duration(
        ticks().saturating_sub(ORIGIN.load(Ordering::Relaxed)),
        frequency(),
    )
}

/// Seconds since 1970-01-01 UTC, or `None` if the RTC made no sense at boot.
pub fn unix_seconds() -> Option<u64> {
    match WALL_ORIGIN.load(Ordering::Relaxed) {
        0 => None,
        origin => Some(origin + now().as_secs()),
    }
}

/// Spins for `time`.
pub fn delay(time: Duration) {
    let start = ticks();
    let wait = duration_to_ticks(time, frequency());
    while ticks().wrapping_sub(start) < wait {
        spin_loop();
    }
}

/// TSC ticks in `time`, saturating.
pub fn ticks_in(time: Duration) -> u64 {
    duration_to_ticks(time, frequency())
}

fn ticks_to_duration(ticks: u64, frequency: u64) -> Duration {
    if frequency == 0 {
        return Duration::ZERO;
    }
    let nanoseconds = u128::from(ticks % frequency) * 1_000_000_000 / u128::from(frequency);
    Duration::new(ticks / frequency, nanoseconds as u32)
}

fn duration_to_ticks(time: Duration, frequency: u64) -> u64 {
    u64::try_from(time.as_nanos().saturating_mul(u128::from(frequency)) / 1_000_000_000)
        .unwrap_or(u64::MAX)
}

/// CPUID leaf 0x15: ratio of the TSC to a crystal and, if the processor knows it, the crystal's frequency.
fn declared_frequency() -> Option<u64> {
    const TSC_RATIO: u32 = 0x15;
    if __cpuid(0).eax < TSC_RATIO {
        return None;
    }
    let leaf = __cpuid(TSC_RATIO);
    frequency_from_ratio(leaf.eax, leaf.ebx, leaf.ecx)
}

fn frequency_from_ratio(denominator: u32, numerator: u32, crystal: u32) -> Option<u64> {
    let product = u64::from(crystal) * u64::from(numerator);
    product
        .checked_div(u64::from(denominator))
        .filter(|frequency| *frequency > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_durations_agree() {
        assert_eq!(
            ticks_to_duration(3_000_000_001, 3_000_000_000),
            Duration::new(1, 0)
        );
        assert_eq!(
            ticks_to_duration(1_500_000_000, 3_000_000_000),
            Duration::from_millis(500)
        );
        assert_eq!(
            ticks_to_duration(u64::MAX, 1),
            Duration::from_secs(u64::MAX)
        );
        assert_eq!(ticks_to_duration(5, 0), Duration::ZERO);
        assert_eq!(
            duration_to_ticks(Duration::from_millis(2), 2_500_000_000),
            5_000_000
        );
        assert_eq!(duration_to_ticks(Duration::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn frequency_needs_every_part() {
        assert_eq!(
            frequency_from_ratio(2, 200, 25_000_000),
            Some(2_500_000_000)
        );
        assert_eq!(frequency_from_ratio(0, 200, 25_000_000), None);
        assert_eq!(frequency_from_ratio(2, 200, 0), None);
    }
}
