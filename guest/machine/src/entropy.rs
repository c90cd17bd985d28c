//! Random bytes from the processor: RDSEED, or RDRAND where there is no RDSEED. Checked in CPUID, retried, and tested before use.
//!
//! The tests are the two of NIST SP 800-90B, 4.4, on raw output at start-up: repetition count and adaptive proportion. They do not
//! prove quality; they catch a source that is stuck or grossly biased, such as the processors whose RDRAND returned all ones.

use core::arch::x86_64::{__cpuid, __cpuid_count, _rdrand64_step, _rdseed64_step};
use core::fmt;
use core::hint::spin_loop;

/// RDSEED may be exhausted by other CPUs for a while; RDRAND practically never is.
const TRIES: u32 = 10_000;

/// Words drawn for the start-up test.
const TEST_WORDS: usize = 512;
/// Equal bytes in a row that fail the repetition count test: 1 + 30 / H, for a false alarm rate of 2^-30 and an entropy H of 4 bits per
/// byte, which is half of what the source claims.
const REPETITIONS: usize = 9;
/// Window of the adaptive proportion test, in bytes, and how often a window's first byte may come again in it at the same rate and entropy:
/// the first point at which the tail of Binomial(512, 2^-4) is below 2^-30.
const WINDOW: usize = 512;
const PROPORTION: usize = 71;

/// Why there are no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntropyError {
    /// The processor has neither RDSEED nor RDRAND.
    Unsupported,
    /// The processor's generator delivered nothing in all tries.
    Exhausted,
    /// The start-up test found too many equal values in a row.
    Repetition,
    /// The start-up test found one value far too often.
    Proportion,
}

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "the processor has no RDSEED and no RDRAND",
            Self::Exhausted => "the processor's random number generator gives nothing",
            Self::Repetition => "the processor's random number generator repeats itself",
            Self::Proportion => "the processor's random number generator is biased",
        })
    }
}

impl core::error::Error for EntropyError {}

/// Tests the source. Keys may be made only after this succeeded.
///
/// # Errors
/// [`EntropyError`] if the source is missing, silent or unfit.
pub fn init() -> Result<(), EntropyError> {
    let mut samples = [0; TEST_WORDS * 8];
    fill(&mut samples)?;
    healthy(&samples)
}

/// Fills `bytes` with random bytes.
///
/// # Errors
/// [`EntropyError::Unsupported`] or [`EntropyError::Exhausted`]; the contents of `bytes` are unspecified then.
pub fn fill(bytes: &mut [u8]) -> Result<(), EntropyError> {
    let source = Source::detect().ok_or(EntropyError::Unsupported)?;
    for chunk in bytes.chunks_mut(8) {
        let word = source.word().ok_or(EntropyError::Exhausted)?.to_ne_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Source {
    Rdseed,
    Rdrand,
}

impl Source {
    fn detect() -> Option<Self> {
        if __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & 1 << 18 != 0 {
            return Some(Self::Rdseed);
        }
        (__cpuid(1).ecx & 1 << 30 != 0).then_some(Self::Rdrand)
    }

    fn word(self) -> Option<u64> {
        (0..TRIES).find_map(|_| {
            // SAFETY: `detect` found the instruction in CPUID.
            let word = unsafe {
                match self {
                    Self::Rdseed => rdseed(),
                    Self::Rdrand => rdrand(),
                }
            };
            if word.is_none() {
                spin_loop();
            }
            word
        })
    }
}

#[target_feature(enable = "rdseed")]
fn rdseed() -> Option<u64> {
    let mut word = 0;
    (_rdseed64_step(&mut word) == 1).then_some(word)
}

#[target_feature(enable = "rdrand")]
fn rdrand() -> Option<u64> {
    let mut word = 0;
    (_rdrand64_step(&mut word) == 1).then_some(word)
}

/// The two health tests on raw samples.
fn healthy(samples: &[u8]) -> Result<(), EntropyError> {
    if samples
        .chunk_by(|a, b| a == b)
        .any(|run| run.len() >= REPETITIONS)
    {
        return Err(EntropyError::Repetition);
    }
    let biased =
        |window: &[u8]| window.iter().filter(|sample| **sample == window[0]).count() >= PROPORTION;
    if samples.chunks_exact(WINDOW).any(biased) {
        return Err(EntropyError::Proportion);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn this_processor_passes() {
        assert_eq!(init(), Ok(()));
        let (mut a, mut b) = ([0; 33], [0; 33]);
        assert_eq!((fill(&mut a), fill(&mut b)), (Ok(()), Ok(())));
        assert_ne!(a, b);
    }

    #[test]
    fn stuck_sources_fail() {
        assert_eq!(healthy(&[0xff; 4096]), Err(EntropyError::Repetition));
        let mut samples: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert_eq!(healthy(&samples), Ok(()));
        samples[100..100 + REPETITIONS - 1].fill(7);
        assert_eq!(healthy(&samples), Ok(()));
        samples[100..100 + REPETITIONS].fill(7);
        assert_eq!(healthy(&samples), Err(EntropyError::Repetition));
    }

    #[test]
    fn biased_sources_fail() {
        // Every fifth byte the same: 103 in a window.
        let samples: Vec<u8> = (0..4096)
            .map(|i| if i % 5 == 0 { 1 } else { (i * 7 % 251) as u8 })
            .collect();
        assert_eq!(healthy(&samples), Err(EntropyError::Proportion));
    }
}
