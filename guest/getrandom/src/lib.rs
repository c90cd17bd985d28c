//! The `getrandom` 0.2 interface over the processor's own generator.
//!
//! `ring` draws its keys through this crate. RDSEED (conditioned noise) comes first; RDRAND (a generator seeded from the same noise) steps in
//! while RDSEED is exhausted. Both are checked in CPUID and retried as often as Intel advises (Software Developer's Manual, volume 1,
//! 7.3.17); after that the request fails, and with it whatever needed the bytes. The guest tests the source before it gets here.
#![no_std]

use core::arch::x86_64::{__cpuid, __cpuid_count, _rdrand64_step, _rdseed64_step};
use core::fmt;
use core::hint::spin_loop;
use core::num::NonZeroU32;

/// RDSEED may be exhausted by other CPUs for a while; RDRAND practically never is.
const RDSEED_TRIES: u32 = 128;
const RDRAND_TRIES: u32 = 10;

/// Why there are no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(NonZeroU32);

impl Error {
    /// The processor has neither instruction.
    pub const UNSUPPORTED: Self = Self(NonZeroU32::MIN);
    /// The processor's generator delivered nothing in all tries.
    pub const FAILED_RDRAND: Self = Self(NonZeroU32::MIN.saturating_add(1));

    /// A number for the error.
    pub const fn code(self) -> NonZeroU32 {
        self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::UNSUPPORTED => "the processor has no RDSEED and no RDRAND",
            _ => "the processor's random number generator gives nothing",
        })
    }
}

impl core::error::Error for Error {}

/// Fills `bytes` with random bytes.
///
/// # Errors
/// [`Error`]; the contents of `bytes` are unspecified then.
pub fn getrandom(bytes: &mut [u8]) -> Result<(), Error> {
    let (rdseed, rdrand) = (has_rdseed(), has_rdrand());
    if !rdseed && !rdrand {
        return Err(Error::UNSUPPORTED);
    }
    for chunk in bytes.chunks_mut(8) {
        // SAFETY: CPUID says that the processor has the instruction.
        let seed = rdseed.then(|| unsafe { seed_word() }).flatten();
        // SAFETY: CPUID says that the processor has the instruction.
        let word = seed.or_else(|| rdrand.then(|| unsafe { random_word() }).flatten());
        let word = word.ok_or(Error::FAILED_RDRAND)?.to_ne_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    Ok(())
}

fn has_rdrand() -> bool {
    __cpuid(1).ecx & 1 << 30 != 0
}

fn has_rdseed() -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & 1 << 18 != 0
}

#[target_feature(enable = "rdseed")]
fn seed_word() -> Option<u64> {
    let mut word = 0;
    for _ in 0..RDSEED_TRIES {
        if _rdseed64_step(&mut word) == 1 {
            return Some(word);
        }
        spin_loop();
    }
    None
}

#[target_feature(enable = "rdrand")]
fn random_word() -> Option<u64> {
    let mut word = 0;
    for _ in 0..RDRAND_TRIES {
        if _rdrand64_step(&mut word) == 1 {
            return Some(word);
        }
        spin_loop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_every_length_differently() {
        for length in [0, 1, 7, 8, 9, 64] {
            let (mut first, mut second) = ([0; 64], [0; 64]);
            getrandom(&mut first[..length]).expect("the test machine has RDRAND");
            getrandom(&mut second[..length]).expect("the test machine has RDRAND");
            assert!(length < 8 || first != second);
            assert!(first[length..].iter().all(|byte| *byte == 0));
        }
    }
}
