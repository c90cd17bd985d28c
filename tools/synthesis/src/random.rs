//! Weights from a counter: a value depends on the seed, its tensor's name and its place in the tensor, on nothing else.
//!
//! So any part can be made on its own, on any thread, and the same tensor in two formats rounds the same values. Integer
//! arithmetic and one multiplication: every machine gives the same bits.

/// One tensor's values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    key: u64,
    scale: f32,
}

/// The sum of four uniform 16-bit numbers has this mean and this standard deviation (in units of 1).
const SUM_MEAN: i32 = 2 * 0xffff;
const SUM_DEVIATION: f32 = 37_837.1;

impl Values {
    /// Values with mean 0 and the given standard deviation, bell-shaped and bounded by 3.5 deviations.
    pub fn new(seed: u64, tensor: &str, deviation: f32) -> Self {
        // FNV-1a: the name only has to tell tensors apart.
        let name = tensor
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self {
            key: mix(seed ^ mix(name)),
            scale: deviation / SUM_DEVIATION,
        }
    }

    /// The value at a place.
    pub fn at(&self, index: u64) -> f32 {
        let bits = mix(self
            .key
            .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let part = |shift: u32| ((bits >> shift) & 0xffff) as i32;
        let sum = part(0) + part(16) + part(32) + part(48);
        // Exact: the difference fits in 18 bits.
        (sum - SUM_MEAN) as f32 * self.scale
    }
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_moments_it_claims() {
        let values = Values::new(1, "blk.0.attn_q.weight", 0.25);
        let n = 1_000_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for index in 0..n {
            let value = f64::from(values.at(index));
            assert!(value.abs() <= 0.25 * 3.5);
            sum += value;
            squares += value * value;
        }
        assert!((sum / n as f64).abs() < 0.001);
        assert!(((squares / n as f64).sqrt() - 0.25).abs() < 0.001);
    }

    #[test]
    fn seed_name_and_place_all_count() {
        let value = |seed, name, index| Values::new(seed, name, 1.0).at(index);
        let first = value(1, "a", 0);
        assert_eq!(first, value(1, "a", 0));
        assert_ne!(first, value(2, "a", 0));
        assert_ne!(first, value(1, "b", 0));
        assert_ne!(first, value(1, "a", 1));
    }
}
