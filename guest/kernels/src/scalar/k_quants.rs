//! Super-blocks of 256 elements whose sub-blocks have small integer scales, themselves scaled by one f16 `d` (and minima by
//! one f16 `dmin`).

use super::half_at;
use crate::formats::SUPER_BLOCK;

/// 16 sub-blocks of 16: `d * scale * q - dmin * min`, q of two bits.
///
/// 16 bytes of scale (low nibble) and min, 64 bytes of quants, d, dmin. Each half of 128 elements takes 32 bytes; two bits of
/// every byte are 32 consecutive elements.
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; SUPER_BLOCK]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[group] & 15);
        let min = dmin * f32::from(scales[group] >> 4);
        let shift = 2 * (group / 2 % 4);
        let quants = &quants[32 * (group / 8) + 16 * (group % 2)..][..16];
        for (y, byte) in out.iter_mut().zip(quants) {
            *y = scale * f32::from(byte >> shift & 3) - min;
        }
    }
}

/// 16 sub-blocks of 16: `d * (scale - 32) * q`, q of three bits less four.
///
/// 32 bytes of third bits (bit g of byte i is element 32 g + i), 64 bytes of low bits as in Q2_K, 12 bytes of 6-bit scales, d.
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; SUPER_BLOCK]) {
    let (high, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Low nibbles of eight bytes, then high nibbles of the same; the upper two bits packed four to a byte.
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let upper = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * (f32::from(low | upper << 4) - 32.0);
        let shift = 2 * (group / 2 % 4);
        let half = 16 * (group % 2);
        let quants = &quants[32 * (group / 8) + half..][..16];
        for ((y, byte), high) in out.iter_mut().zip(quants).zip(&high[half..]) {
            let third = high >> (group / 2) & 1;
            *y = scale * (f32::from((byte >> shift & 3) | third << 2) - 4.0);
        }
    }
}

/// Eight sub-blocks of 32: `d * scale * q - dmin * min`, q of four bits.
///
/// d, dmin, 12 bytes of 6-bit scales and minima, 128 bytes; the low nibbles of 32 bytes are one sub-block, the high
/// ones the next.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (group % 2);
        let quants = &block[16 + 32 * (group / 2)..][..32];
        for (y, byte) in out.iter_mut().zip(quants) {
            *y = scale * f32::from(byte >> shift & 15) - min;
        }
    }
}

/// As Q4_K with a fifth bit: 32 bytes after the scales, bit g of byte i for element i of sub-block g.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let high = &block[16..48];
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (group % 2);
        let quants = &block[48 + 32 * (group / 2)..][..32];
        for ((y, byte), high) in out.iter_mut().zip(quants).zip(high) {
            let fifth = high >> group & 1;
            *y = scale * f32::from((byte >> shift & 15) | fifth << 4) - min;
        }
    }
}

/// The 6-bit scale and minimum of sub-block `group`.
///
/// The first four scales and minima fill the low six bits of bytes 0–3 and 4–7; the last four have their low nibbles in bytes
/// 8–11 and their upper two bits in what is left of bytes 0–7.
#[inline(always)]
fn scale_and_min(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (
            (low & 15) | (packed[group - 4] >> 6) << 4,
            (low >> 4) | (packed[group] >> 6) << 4,
        )
    }
}

/// 16 sub-blocks of 16: `d * scale * (q - 32)`, q of six bits, scales signed bytes.
///
/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 scales, d. Each half of 128 elements takes 64 and 32 bytes; its four
/// quarters are low nibbles of the first and second 32 bytes, then their high nibbles.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; SUPER_BLOCK]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, quarter, part) = (group / 8, group / 2 % 4, 16 * (group % 2));
        let scale = d * f32::from(scales[group] as i8);
        let low = &low[64 * half + 32 * (quarter % 2) + part..][..16];
        let high = &high[32 * half + part..][..16];
        for ((y, low), high) in out.iter_mut().zip(low).zip(high) {
            let q = (low >> (4 * (quarter / 2)) & 15) | (high >> (2 * quarter) & 3) << 4;
            *y = scale * (f32::from(q) - 32.0);
        }
    }
}
