//! Random numbers by counting: number `index` of a seed is computed directly, without those before it.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): the output function over a Weyl sequence. The seed goes through the output
//! function first, so that neighbouring seeds start far apart.

/// The sequence's step: 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `0.0..1.0`, in steps of 2^-53.
pub(super) fn uniform(seed: u64, index: u64) -> f64 {
    let state = mix(seed.wrapping_add(STEP)).wrapping_add(index.wrapping_add(1).wrapping_mul(STEP));
    (mix(state) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_function_is_splitmix64() {
        // First outputs of the published generator for seed 1234567.
        let outputs = [
            6457827717110365317u64,
            3203168211198807973,
            9817491932198370423,
        ];
        for (output, count) in outputs.into_iter().zip(1u64..) {
            assert_eq!(
                mix(1234567u64.wrapping_add(count.wrapping_mul(STEP))),
                output
            );
        }
    }

    #[test]
    fn numbers_are_spread_evenly() {
        for seed in [0, 1, u64::MAX] {
            let mean = (0..10_000).map(|index| uniform(seed, index)).sum::<f64>() / 10_000.0;
            assert!((mean - 0.5).abs() < 0.01, "{mean}");
        }
        assert_ne!(uniform(1, 0), uniform(0, 1));
    }
}
