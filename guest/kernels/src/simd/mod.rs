//! One table of routines for each instruction set.
//!
//! Unsafe lives here for two reasons: a routine compiled for an instruction set may only run where it exists, which the caller
//! of every function in this module has checked (`Kernels::for_isa`); and vector loads take pointers.

/// Compiles the portable routines for one instruction set and builds its table.
///
/// The module that invokes this defines `rows`, `weighted_sum` and `f32_to_f16` itself.
macro_rules! table {
    ($isa:expr $(, #[$features:meta])?) => {
        /// The routines of this instruction set.
        pub(crate) static KERNELS: crate::Kernels = crate::Kernels {
            isa: $isa,
            quantize,
            rows,
            dequantize,
            weighted_sum,
            f32_to_f16,
            rms_norm,
            rms_norm_in_place,
            softmax,
            swiglu,
            rope,
            add,
            argmax,
        };

        $(#[$features])?
        fn quantize(activation: crate::Activation, x: &[f32], out: &mut [u8]) {
            crate::quantize::quantize(activation, x, out);
        }

        $(#[$features])?
        fn dequantize(format: crate::Format, row: &[u8], out: &mut [f32]) {
            crate::scalar::dequantize(format, row, out);
        }

        $(#[$features])?
        fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            crate::vector::rms_norm(x, weight, epsilon, out);
        }

        $(#[$features])?
        fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
            crate::vector::rms_norm_in_place(x, weight, epsilon);
        }

        $(#[$features])?
        fn softmax(x: &mut [f32], scale: f32) {
            crate::vector::softmax(x, scale);
        }

        $(#[$features])?
        fn swiglu(gate: &mut [f32], up: &[f32]) {
            crate::vector::swiglu(gate, up);
        }

        $(#[$features])?
        fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
            crate::vector::rope(x, cos, sin);
        }

        $(#[$features])?
        fn add(x: &mut [f32], y: &[f32]) {
            crate::vector::add(x, y);
        }

        $(#[$features])?
        fn argmax(x: &[f32]) -> usize {
            crate::vector::argmax(x)
        }
    };
}

pub(crate) mod avx2;
pub(crate) mod avx512;
mod avx512_k;
mod leaf;
pub(crate) mod scalar;

use crate::formats::{BLOCK, Format, SUPER_BLOCK};

/// `weighted_sum` for any format: row by row, a buffer of unpacked elements at a time.
#[inline(always)]
fn weighted_sum_by_unpacking(format: Format, factors: &[f32], rows: &[u8], out: &mut [f32]) {
    let mut buffer = [0.0; SUPER_BLOCK];
    let bytes = SUPER_BLOCK / format.block_len() * format.block_bytes();
    for (factor, row) in factors
        .iter()
        .zip(rows.chunks_exact(rows.len() / factors.len()))
    {
        for (packed, out) in row.chunks(bytes).zip(out.chunks_mut(SUPER_BLOCK)) {
            let values = &mut buffer[..out.len()];
            crate::scalar::dequantize(format, packed, values);
            for (y, value) in out.iter_mut().zip(values) {
                *y += factor * *value;
            }
        }
    }
}

/// The last few elements of a row, followed by zeros up to 32 elements of at most four bytes.
#[inline(always)]
fn padded(rest: &[u8]) -> [u8; 4 * BLOCK] {
    let mut buffer = [0; 4 * BLOCK];
    for (to, from) in buffer.iter_mut().zip(rest) {
        *to = *from;
    }
    buffer
}
