//! Blocks of 32 elements with one f16 scale `d`, some with an f16 offset `m`.
//!
//! Nibble formats keep element `i` in the low and element `i + 16` in the high half of byte `i`; the five-bit formats keep the
//! fifth bits of all 32 elements in one word.

use super::half_at;
use crate::formats::BLOCK;

/// `d * q`: d, then 32 signed bytes.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; BLOCK]) {
    let d = half_at(block, 0);
    for (y, byte) in out.iter_mut().zip(&block[2..]) {
        *y = d * f32::from(*byte as i8);
    }
}

/// `d * (q - 8)`: d, then 16 bytes of nibbles.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; BLOCK]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], out, |q, _| d * (f32::from(q) - 8.0));
}

/// `d * q + m`: d, m, then 16 bytes of nibbles.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; BLOCK]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..], out, |q, _| d * f32::from(q) + m);
}

/// `d * (q - 16)`: d, the fifth bits, then 16 bytes of nibbles.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; BLOCK]) {
    let d = half_at(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    nibbles(&block[6..], out, |q, i| {
        d * (f32::from(q | fifth_bit(high, i)) - 16.0)
    });
}

/// `d * q + m`: d, m, the fifth bits, then 16 bytes of nibbles.
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; BLOCK]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    nibbles(&block[8..], out, |q, i| {
        d * f32::from(q | fifth_bit(high, i)) + m
    });
}

#[inline(always)]
fn fifth_bit(high: u32, i: usize) -> u8 {
    ((high >> i & 1) << 4) as u8
}

/// Hands every nibble and its element number to `value`.
#[inline(always)]
fn nibbles(bytes: &[u8], out: &mut [f32; BLOCK], value: impl Fn(u8, usize) -> f32) {
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for (i, ((byte, low), high)) in bytes.iter().zip(low).zip(high).enumerate() {
        *low = value(byte & 15, i);
        *high = value(byte >> 4, i + BLOCK / 2);
    }
}
