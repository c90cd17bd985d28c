//! The table of the reference kernels: no instructions beyond the baseline.

use crate::formats::Format;
use crate::half;
use crate::isa::Isa;
use crate::product::Product;
use crate::scalar;

table!(Isa::Scalar);

fn rows(format: Format, product: Product<'_>) {
    scalar::rows(format, product);
}

fn weighted_sum(format: Format, factors: &[f32], rows: &[u8], out: &mut [f32]) {
    super::weighted_sum_by_unpacking(format, factors, rows, out);
}

fn f32_to_f16(x: &[f32], out: &mut [u8]) {
    for (bytes, value) in out.as_chunks_mut().0.iter_mut().zip(x) {
        *bytes = half::f32_to_f16(*value).to_le_bytes();
    }
}
