//! ggml's dot products between a row of quantised weights and a vector of quantised activations, in two variants.
//!
//! The C sources come from a package of the Rust registry pinned by version and checksum (`build.rs`), compiled without libc.
//! Block layouts are ggml's; the `kernels` crate documents them.
//!
//! What holds for every function here, and what a caller must hold up:
//! - `x` points to the `n / block` weight blocks, `y` to the activation blocks of as many elements; `n` is a whole
//!   number of blocks of both. Nothing beyond them is read. Neither pointer need be aligned. Block contents may be anything.
//! - One float is written to `result`. The three strides are unused and `count` must be 1.
//! - [`AVX2`] runs on x86-64-v3, [`AVX512`] on x86-64-v4 with VNNI, with that register state enabled.
#![no_std]

use core::ffi::{c_int, c_void};

/// `result = dot(x, y)`; see the crate's documentation for the contract.
pub type VecDot = unsafe extern "C" fn(
    n: c_int,
    result: *mut f32,
    result_stride: usize,
    x: *const c_void,
    x_stride: usize,
    y: *const c_void,
    y_stride: usize,
    count: c_int,
);

macro_rules! dot_products {
    ($($field:ident: $avx2:ident, $avx512:ident;)*) => {
        unsafe extern "C" {
            $(
                fn $avx2(
                    n: c_int, result: *mut f32, result_stride: usize,
                    x: *const c_void, x_stride: usize,
                    y: *const c_void, y_stride: usize, count: c_int,
                );
                fn $avx512(
                    n: c_int, result: *mut f32, result_stride: usize,
                    x: *const c_void, x_stride: usize,
                    y: *const c_void, y_stride: usize, count: c_int,
                );
            )*
        }

        /// The dot products of one variant, named by weight and activation format.
        pub struct DotProducts {
            $(#[doc = concat!("`", stringify!($field), "`, weights first.")] pub $field: VecDot,)*
        }

        /// For x86-64-v3.
        pub static AVX2: DotProducts = DotProducts { $($field: $avx2,)* };
        /// For x86-64-v4 with VNNI.
        pub static AVX512: DotProducts = DotProducts { $($field: $avx512,)* };
    };
}

dot_products! {
    q4_0_q8_0: avx2_ggml_vec_dot_q4_0_q8_0, avx512_ggml_vec_dot_q4_0_q8_0;
    q4_1_q8_1: avx2_ggml_vec_dot_q4_1_q8_1, avx512_ggml_vec_dot_q4_1_q8_1;
    q5_0_q8_0: avx2_ggml_vec_dot_q5_0_q8_0, avx512_ggml_vec_dot_q5_0_q8_0;
    q5_1_q8_1: avx2_ggml_vec_dot_q5_1_q8_1, avx512_ggml_vec_dot_q5_1_q8_1;
    q8_0_q8_0: avx2_ggml_vec_dot_q8_0_q8_0, avx512_ggml_vec_dot_q8_0_q8_0;
    q2_k_q8_k: avx2_ggml_vec_dot_q2_K_q8_K, avx512_ggml_vec_dot_q2_K_q8_K;
    q3_k_q8_k: avx2_ggml_vec_dot_q3_K_q8_K, avx512_ggml_vec_dot_q3_K_q8_K;
    q4_k_q8_k: avx2_ggml_vec_dot_q4_K_q8_K, avx512_ggml_vec_dot_q4_K_q8_K;
    q5_k_q8_k: avx2_ggml_vec_dot_q5_K_q8_K, avx512_ggml_vec_dot_q5_K_q8_K;
    q6_k_q8_k: avx2_ggml_vec_dot_q6_K_q8_K, avx512_ggml_vec_dot_q6_K_q8_K;
    iq4_nl_q8_0: avx2_ggml_vec_dot_iq4_nl_q8_0, avx512_ggml_vec_dot_iq4_nl_q8_0;
    iq4_xs_q8_k: avx2_ggml_vec_dot_iq4_xs_q8_K, avx512_ggml_vec_dot_iq4_xs_q8_K;
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// Scale 1 (f16), then the bytes 0 to 31; the sum of their squares is 10416.
    #[test]
    fn both_variants_multiply_a_block_with_itself() {
        let mut block = [0u8; 34];
        block[1] = 0x3c;
        for (i, byte) in block[2..].iter_mut().enumerate() {
            *byte = i as u8;
        }
        for (name, variant, supported) in [
            ("AVX2", &AVX2, std::is_x86_feature_detected!("avx2")),
            (
                "AVX-512",
                &AVX512,
                std::is_x86_feature_detected!("avx512vnni"),
            ),
        ] {
            if !supported {
                std::eprintln!("SKIPPED: this processor has no {name}");
                continue;
            }
            let mut result = 0.0;
            let at = block.as_ptr().cast();
            // SAFETY: one block of 32 elements on either side, and the processor was asked.
            unsafe { (variant.q8_0_q8_0)(32, &mut result, 0, at, 0, at, 0, 1) };
            assert_eq!(result, 10416.0);
        }
    }
}
