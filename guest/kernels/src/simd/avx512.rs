//! AVX-512 F, BW, CD, DQ, VL and VNNI.
//!
//! Every function here may run only on a processor with these instructions; `Kernels::for_isa` checks that.
//!
//! Dot products of floats add in the order described in `avx2`, two registers instead of four.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::avx2::{add_eight_lanes, half};
use super::{avx512_k, leaf, padded};
use crate::formats::{BLOCK, Format};
use crate::half::f32_to_f16 as round_to_f16;
use crate::isa::Isa;
use crate::product::{GroupDot, Product};

table!(
    Isa::Avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn rows(format: Format, product: Product<'_>) {
    match format {
        // SAFETY: the formats are named; this function may only run where their instructions exist.
        Format::F32 => unsafe { product.each_group::<FloatDot<F32>>() },
        // SAFETY: as above.
        Format::F16 => unsafe { product.each_group::<FloatDot<F16>>() },
        // SAFETY: as above.
        Format::Bf16 => unsafe { product.each_group::<FloatDot<Bf16>>() },
        // SAFETY: as above.
        Format::Q4K => unsafe { product.each_group::<avx512_k::Q4K>() },
        // SAFETY: as above.
        Format::Q6K => unsafe { product.each_group::<avx512_k::Q6K>() },
        _ => {
            if let Some(dot) = leaf::dot_product(&ggml_sys::AVX512, format) {
                // SAFETY: the dot product is the format's, and needs no more than this function does.
                unsafe { leaf::rows(dot, product) }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn weighted_sum(format: Format, factors: &[f32], rows: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => accumulate::<F32>(factors, rows, out),
        Format::F16 => accumulate::<F16>(factors, rows, out),
        Format::Bf16 => accumulate::<Bf16>(factors, rows, out),
        Format::Q8_0 => accumulate::<Q8_0>(factors, rows, out),
        _ => super::weighted_sum_by_unpacking(format, factors, rows, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn f32_to_f16(x: &[f32], out: &mut [u8]) {
    let (groups, rest) = x.as_chunks::<16>();
    let (packed, rest_out) = out.as_chunks_mut::<32>();
    for (group, packed) in groups.iter().zip(packed) {
        // SAFETY: sixteen floats are read, 32 bytes written.
        unsafe {
            let halves =
                _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(group.as_ptr()));
            _mm256_storeu_si256(packed.as_mut_ptr().cast(), halves);
        }
    }
    for (bytes, value) in rest_out.as_chunks_mut().0.iter_mut().zip(rest) {
        *bytes = round_to_f16(*value).to_le_bytes();
    }
}

/// Weights of a float format times floats.
struct FloatDot<W>(PhantomData<W>);

impl<W: Lanes> GroupDot for FloatDot<W> {
    // Four tokens at once: eight accumulators, enough to hide the latency of their chains.
    const GROUP: usize = 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn dots<const G: usize>(row: &[u8], tokens: [&[u8]; G]) -> [f32; G] {
        let mut sums = [[_mm512_setzero_ps(); 2]; G];
        let n = tokens.first().map_or(0, |token| token.len() / 4);
        let whole = n / BLOCK;
        for block in 0..whole {
            // SAFETY: block is below n / 32 of either.
            unsafe {
                let weights = W::load(row.as_ptr().add(block * W::BYTES));
                for (sums, token) in sums.iter_mut().zip(tokens) {
                    let x = F32::load(token.as_ptr().add(block * F32::BYTES));
                    *sums = multiply_add(weights, x, *sums);
                }
            }
        }
        if !n.is_multiple_of(BLOCK) {
            // SAFETY: 32 elements of any format fit a padded buffer.
            unsafe {
                let weights = W::load(padded(&row[whole * W::BYTES..]).as_ptr());
                for (sums, token) in sums.iter_mut().zip(tokens) {
                    let x = F32::load(padded(&token[whole * F32::BYTES..]).as_ptr());
                    *sums = multiply_add(weights, x, *sums);
                }
            }
        }
        core::array::from_fn(|token| add_lanes(sums[token]))
    }
}

/// `out += factors[i] * rows[i]`, 32 columns at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn accumulate<V: Lanes>(factors: &[f32], rows: &[u8], out: &mut [f32]) {
    let rows = rows.chunks_exact(rows.len() / factors.len());
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    let whole = blocks.len();
    for (block, out) in blocks.iter_mut().enumerate() {
        // SAFETY: out is 32 floats, and block is below n / 32 of every row.
        unsafe {
            let mut sums = F32::load(out.as_ptr().cast());
            for (factor, row) in factors.iter().zip(rows.clone()) {
                let values = V::load(row.as_ptr().add(block * V::BYTES));
                sums = multiply_add([_mm512_set1_ps(*factor); 2], values, sums);
            }
            store(sums, out);
        }
    }
    if !rest.is_empty() {
        let mut last = [0.0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: 32 elements of any format fit a padded buffer.
        unsafe {
            let mut sums = F32::load(last.as_ptr().cast());
            for (factor, row) in factors.iter().zip(rows) {
                let values = V::load(padded(&row[whole * V::BYTES..]).as_ptr());
                sums = multiply_add([_mm512_set1_ps(*factor); 2], values, sums);
            }
            store(sums, &mut last);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn multiply_add(a: [__m512; 2], b: [__m512; 2], sums: [__m512; 2]) -> [__m512; 2] {
    core::array::from_fn(|i| _mm512_fmadd_ps(a[i], b[i], sums[i]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn add_lanes(sums: [__m512; 2]) -> f32 {
    let sum16 = _mm512_add_ps(sums[0], sums[1]);
    let upper = _mm512_extractf32x8_ps::<1>(sum16);
    add_eight_lanes(_mm256_add_ps(_mm512_castps512_ps256(sum16), upper))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn store(values: [__m512; 2], out: &mut [f32; BLOCK]) {
    for (part, value) in out.as_chunks_mut::<16>().0.iter_mut().zip(values) {
        // SAFETY: a part is sixteen floats.
        unsafe { _mm512_storeu_ps(part.as_mut_ptr(), value) };
    }
}

/// Thirty-two elements of a format, as floats.
trait Lanes {
    /// Bytes of 32 elements.
    const BYTES: usize;

    /// # Safety
    /// `BYTES` bytes can be read at `at`, and this module's instructions exist.
    unsafe fn load(at: *const u8) -> [__m512; 2];
}

struct F32;

impl Lanes for F32 {
    const BYTES: usize = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn load(at: *const u8) -> [__m512; 2] {
        // SAFETY: twice 64 bytes.
        core::array::from_fn(|i| unsafe { _mm512_loadu_ps(at.add(64 * i).cast()) })
    }
}

struct F16;

impl Lanes for F16 {
    const BYTES: usize = 64;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn load(at: *const u8) -> [__m512; 2] {
        // SAFETY: twice 32 bytes.
        core::array::from_fn(|i| unsafe {
            _mm512_cvtph_ps(_mm256_loadu_si256(at.add(32 * i).cast()))
        })
    }
}

struct Bf16;

impl Lanes for Bf16 {
    const BYTES: usize = 64;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn load(at: *const u8) -> [__m512; 2] {
        core::array::from_fn(|i| {
            // SAFETY: twice 32 bytes.
            let words = unsafe { _mm256_loadu_si256(at.add(32 * i).cast()) };
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
        })
    }
}

struct Q8_0;

impl Lanes for Q8_0 {
    const BYTES: usize = 34;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn load(at: *const u8) -> [__m512; 2] {
        // SAFETY: two bytes of scale, then twice 16 bytes.
        unsafe {
            let scale = half(at.cast::<[u8; 2]>().read());
            core::array::from_fn(|i| {
                let bytes = _mm_loadu_si128(at.add(2 + 16 * i).cast());
                let values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
                _mm512_mul_ps(_mm512_set1_ps(scale), values)
            })
        }
    }
}
