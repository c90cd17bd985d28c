//! Four-bit formats whose codes stand for sixteen unevenly spaced values.

use super::half_at;
use crate::formats::{BLOCK, SUPER_BLOCK};

/// What the codes 0–15 stand for.
const VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// `d * value`: d, then 16 bytes of nibbles.
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; BLOCK]) {
    lookup(half_at(block, 0), &block[2..], out);
}

/// Eight blocks of 32 with 6-bit scales: `d * (scale - 32) * value`.
///
/// d, a word of the scales' upper bit pairs, four bytes of their low nibbles, then 16 bytes a block.
#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; SUPER_BLOCK]) {
    let d = half_at(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    for (group, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
        let upper = (upper >> (2 * group) & 3) as u8;
        let scale = d * (f32::from(low | upper << 4) - 32.0);
        lookup(scale, &block[8 + 16 * group..][..16], out);
    }
}

#[inline(always)]
fn lookup(scale: f32, codes: &[u8], out: &mut [f32; BLOCK]) {
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((byte, low), high) in codes.iter().zip(low).zip(high) {
        *low = scale * f32::from(VALUES[usize::from(byte & 15)]);
        *high = scale * f32::from(VALUES[usize::from(byte >> 4)]);
    }
}
