//! The reference: every format unpacked to floats, and dot products over the unpacked values.
//!
//! Written to be read against the format's definition. Unpacking is also what every instruction set uses for whole rows
//! (`simd` compiles the same code once more for each); dot products are only for tests and processors without AVX2.

mod iq4;
mod k_quants;
mod legacy;

use crate::formats::{Activation, BLOCK, Format, SUPER_BLOCK};
use crate::half::{bf16_to_f32, f16_to_f32};
use crate::product::Product;

/// Unpacks a row; lengths fit (`Kernels::dequantize` checks).
#[inline(always)]
pub(crate) fn dequantize(format: Format, row: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => blocks(row, out, |bytes, [y]| *y = f32::from_le_bytes(*bytes)),
        Format::F16 => blocks(row, out, |bytes, [y]| {
            *y = f16_to_f32(u16::from_le_bytes(*bytes));
        }),
        Format::Bf16 => blocks(row, out, |bytes, [y]| {
            *y = bf16_to_f32(u16::from_le_bytes(*bytes));
        }),
        Format::Q8_0 => blocks(row, out, legacy::q8_0),
        Format::Q4_0 => blocks(row, out, legacy::q4_0),
        Format::Q4_1 => blocks(row, out, legacy::q4_1),
        Format::Q5_0 => blocks(row, out, legacy::q5_0),
        Format::Q5_1 => blocks(row, out, legacy::q5_1),
        Format::Q2K => blocks(row, out, k_quants::q2_k),
        Format::Q3K => blocks(row, out, k_quants::q3_k),
        Format::Q4K => blocks(row, out, k_quants::q4_k),
        Format::Q5K => blocks(row, out, k_quants::q5_k),
        Format::Q6K => blocks(row, out, k_quants::q6_k),
        Format::Iq4Nl => blocks(row, out, iq4::iq4_nl),
        Format::Iq4Xs => blocks(row, out, iq4::iq4_xs),
    }
}

/// Applies `unpack` to every block of `BYTES` bytes and its `LEN` elements.
#[inline(always)]
fn blocks<const BYTES: usize, const LEN: usize>(
    row: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, out) in row
        .as_chunks()
        .0
        .iter()
        .zip(out.as_chunks_mut().0.iter_mut())
    {
        unpack(block, out);
    }
}

/// The f16 at `at`.
#[inline(always)]
fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// `rows` by unpacking: sums in f64, so the result is the true value to float rounding.
pub(crate) fn rows(format: Format, product: Product<'_>) {
    product.each_pair(|row, token| dot(format, row, token));
}

fn dot(format: Format, row: &[u8], token: &[u8]) -> f32 {
    let activation = format.activation();
    let mut sum = 0.0f64;
    let mut weights = [0.0; SUPER_BLOCK];
    let mut values = [0.0; SUPER_BLOCK];
    // Formats with blocks of one element are taken a handful at a time.
    let step = format.block_len().max(BLOCK);
    let row_step = step / format.block_len() * format.block_bytes();
    let token_step = step / activation.block_len() * activation.block_bytes();
    for (block, token) in row.chunks(row_step).zip(token.chunks(token_step)) {
        let count = block.len() / format.block_bytes() * format.block_len();
        dequantize(format, block, &mut weights[..count]);
        unpack_activation(activation, token, &mut values[..count]);
        for (w, x) in weights[..count].iter().zip(&values) {
            sum += f64::from(*w) * f64::from(*x);
        }
        if activation == Activation::Q8_1 {
            sum += stored_sum_correction(block, token, &values[..count]);
        }
    }
    sum as f32
}

/// A Q8_1 block carries its own sum, rounded to f16, and the offset of a Q4_1 or Q5_1 block multiplies that one.
fn stored_sum_correction(block: &[u8], token: &[u8], values: &[f32]) -> f64 {
    let (Some(offset), Some(stored)) = (
        block.get(2..).and_then(<[u8]>::first_chunk),
        token.get(2..).and_then(<[u8]>::first_chunk),
    ) else {
        return 0.0;
    };
    let offset = f64::from(f16_to_f32(u16::from_le_bytes(*offset)));
    let stored = f64::from(f16_to_f32(u16::from_le_bytes(*stored)));
    let exact: f64 = values.iter().map(|&value| f64::from(value)).sum();
    offset * (stored - exact)
}

fn unpack_activation(activation: Activation, token: &[u8], out: &mut [f32]) {
    match activation {
        Activation::F32 => dequantize(Format::F32, token, out),
        Activation::Q8_0 => dequantize(Format::Q8_0, token, out),
        Activation::Q8_1 => blocks(token, out, |block: &[u8; 36], out: &mut [f32; BLOCK]| {
            let scale = half_at(block, 0);
            for (y, byte) in out.iter_mut().zip(&block[4..]) {
                *y = scale * f32::from(*byte as i8);
            }
        }),
        Activation::Q8K => blocks(
            token,
            out,
            |block: &[u8; 292], out: &mut [f32; SUPER_BLOCK]| {
                let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
                for (y, byte) in out.iter_mut().zip(&block[4..260]) {
                    *y = scale * f32::from(*byte as i8);
                }
            },
        ),
    }
}
