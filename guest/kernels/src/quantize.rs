//! Activations to blocks of signed bytes.
//!
//! The arithmetic is elementwise or over exact maxima and integer sums, written once and compiled for every instruction
//! set (`simd`), so the bytes are the same everywhere. A block whose largest magnitude is below [`NEGLIGIBLE`] becomes zero;
//! NaN and infinity give some bytes.

use crate::formats::{Activation, BLOCK, SUPER_BLOCK};
use crate::half::f32_to_f16;
use crate::math::round_to_i32;

/// Below this the reciprocal of a block's scale would overflow.
const NEGLIGIBLE: f32 = 1e-36;

/// Quantises `x` to `out`; lengths fit (`Kernels::quantize` checks).
#[inline(always)]
pub(crate) fn quantize(activation: Activation, x: &[f32], out: &mut [u8]) {
    match activation {
        Activation::F32 => {
            for (bytes, value) in out.as_chunks_mut().0.iter_mut().zip(x) {
                *bytes = value.to_le_bytes();
            }
        }
        Activation::Q8_0 => {
            for (x, block) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                q8_0(x, block);
            }
        }
        Activation::Q8_1 => {
            for (x, block) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                q8_1(x, block);
            }
        }
        Activation::Q8K => {
            for (x, block) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                q8_k(x, block);
            }
        }
    }
}

#[inline(always)]
fn q8_0(x: &[f32; BLOCK], block: &mut [u8; 34]) {
    let (scale, bytes) = scale_and_bytes(x);
    block[..2].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
    store(&bytes, &mut block[2..]);
}

#[inline(always)]
fn q8_1(x: &[f32; BLOCK], block: &mut [u8; 36]) {
    let (scale, bytes) = scale_and_bytes(x);
    let sum: i32 = bytes.iter().map(|&byte| i32::from(byte)).sum();
    block[..2].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
    block[2..4].copy_from_slice(&f32_to_f16(scale * sum as f32).to_le_bytes());
    store(&bytes, &mut block[4..]);
}

#[inline(always)]
fn q8_k(x: &[f32; SUPER_BLOCK], block: &mut [u8; 292]) {
    let (scale, bytes) = scale_and_bytes(x);
    block[..4].copy_from_slice(&scale.to_le_bytes());
    store(&bytes, &mut block[4..260]);
    for (group, sum) in bytes
        .as_chunks::<16>()
        .0
        .iter()
        .zip(block[260..].as_chunks_mut::<2>().0)
    {
        let total: i16 = group.iter().map(|&byte| i16::from(byte)).sum();
        *sum = total.to_le_bytes();
    }
}

/// The scale that maps the largest magnitude to 127, and the rounded quotients.
#[inline(always)]
fn scale_and_bytes<const N: usize>(x: &[f32; N]) -> (f32, [i8; N]) {
    let largest = largest_magnitude(x);
    if largest < NEGLIGIBLE {
        return (0.0, [0; N]);
    }
    let inverse = 127.0 / largest;
    let mut bytes = [0; N];
    for (byte, value) in bytes.iter_mut().zip(x) {
        *byte = round_to_i32(value * inverse).1 as i8;
    }
    (largest / 127.0, bytes)
}

/// Sixteen running maxima: the shape of a vector register, and exact in any order.
#[inline(always)]
fn largest_magnitude<const N: usize>(x: &[f32; N]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for group in x.as_chunks::<16>().0 {
        for (lane, value) in lanes.iter_mut().zip(group) {
            let magnitude = value.abs();
            *lane = if magnitude > *lane { magnitude } else { *lane };
        }
    }
    lanes
        .iter()
        .fold(0.0, |max, &lane| if lane > max { lane } else { max })
}

#[inline(always)]
fn store(bytes: &[i8], out: &mut [u8]) {
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_scaled_to_its_largest_magnitude() {
        let mut x = [0.0; BLOCK];
        x[3] = -2.54;
        x[4] = 1.27;
        let mut block = [0; 36];
        quantize(Activation::Q8_1, &x, &mut block);
        let scale = f32_to_f16(0.02).to_le_bytes();
        assert_eq!(block[..2], scale);
        assert_eq!(block[2..4], f32_to_f16(-63.0 * 0.02).to_le_bytes());
        assert_eq!(block[7] as i8, -127);
        assert_eq!(block[8], 64);
    }

    #[test]
    fn sums_of_sixteen_follow_the_bytes() {
        let mut x = [0.0; SUPER_BLOCK];
        for (i, value) in x.iter_mut().enumerate() {
            *value = i as f32 - 100.0;
        }
        let mut block = [0; 292];
        quantize(Activation::Q8K, &x, &mut block);
        for group in 0..16 {
            let sum: i32 = (0..16)
                .map(|i| i32::from(block[4 + 16 * group + i] as i8))
                .sum();
            let at = 260 + 2 * group;
            assert_eq!(
                i32::from(i16::from_le_bytes([block[at], block[at + 1]])),
                sum
            );
        }
    }

    #[test]
    fn tiny_infinite_and_undefined_values_do_no_harm() {
        for value in [0.0, -0.0, 1e-40, f32::INFINITY, f32::NAN, f32::MAX] {
            let x = [value; SUPER_BLOCK];
            for activation in [Activation::Q8_0, Activation::Q8_1, Activation::Q8K] {
                let mut out = [0; 36 * 8];
                let length = activation.row_bytes(SUPER_BLOCK);
                if let Some(out) = length.and_then(|length| out.get_mut(..length)) {
                    quantize(activation, &x, out);
                }
            }
        }
        let mut block = [1; 34];
        quantize(Activation::Q8_0, &[1e-40; BLOCK], &mut block);
        assert_eq!(block, [0; 34]);
    }
}
