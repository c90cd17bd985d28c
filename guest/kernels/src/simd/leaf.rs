//! Products by ggml's dot products, one row and one token at a time.

use core::ffi::c_int;

use ggml_sys::{DotProducts, VecDot};

use crate::formats::Format;
use crate::product::Product;

/// ggml's dot product of `format` with its activation; `None` for the formats that are plain floats.
pub(super) fn dot_product(variant: &DotProducts, format: Format) -> Option<VecDot> {
    Some(match format {
        Format::F32 | Format::F16 | Format::Bf16 => return None,
        Format::Q8_0 => variant.q8_0_q8_0,
        Format::Q4_0 => variant.q4_0_q8_0,
        Format::Q4_1 => variant.q4_1_q8_1,
        Format::Q5_0 => variant.q5_0_q8_0,
        Format::Q5_1 => variant.q5_1_q8_1,
        Format::Q2K => variant.q2_k_q8_k,
        Format::Q3K => variant.q3_k_q8_k,
        Format::Q4K => variant.q4_k_q8_k,
        Format::Q5K => variant.q5_k_q8_k,
        Format::Q6K => variant.q6_k_q8_k,
        Format::Iq4Nl => variant.iq4_nl_q8_0,
        Format::Iq4Xs => variant.iq4_xs_q8_k,
    })
}

/// # Safety
/// `dot` takes the product's formats and runs on this processor.
pub(super) unsafe fn rows(dot: VecDot, product: Product<'_>) {
    // `Kernels::rows` bounds n by i32::MAX.
    let n = product.n as c_int;
    product.each_pair(|row, token| {
        let mut result = 0.0;
        // SAFETY: row and token hold n elements each; the rest is the caller's promise.
        unsafe {
            dot(
                n,
                &mut result,
                0,
                row.as_ptr().cast(),
                0,
                token.as_ptr().cast(),
                0,
                1,
            );
        }
        result
    });
}
