//! AVX2 with FMA and F16C.
//!
//! Every function here may run only on a processor with these instructions; `Kernels::for_isa` checks that.
//!
//! A dot product of floats has 32 lanes, element `i` in lane `i % 32`, each a chain of fused multiply-adds; the lanes are then
//! added as a tree (16, 8, 4, 2, 1 apart). `avx512` does the same, so the two agree bit for bit.

use core::arch::x86_64::*;
use core::marker::PhantomData;

use super::{leaf, padded};
use crate::formats::{BLOCK, Format};
use crate::half::f32_to_f16 as round_to_f16;
use crate::isa::Isa;
use crate::product::{GroupDot, Product};

table!(
    Isa::Avx2,
    #[target_feature(enable = "avx2,f16c,fma")]
);

#[target_feature(enable = "avx2,f16c,fma")]
fn rows(format: Format, product: Product<'_>) {
    match format {
        // SAFETY: the formats are named; this function may only run where their instructions exist.
        Format::F32 => unsafe { product.each_group::<FloatDot<F32>>() },
        // SAFETY: as above.
        Format::F16 => unsafe { product.each_group::<FloatDot<F16>>() },
        // SAFETY: as above.
        Format::Bf16 => unsafe { product.each_group::<FloatDot<Bf16>>() },
        _ => {
            if let Some(dot) = leaf::dot_product(&ggml_sys::AVX2, format) {
                // SAFETY: the dot product is the format's, and needs no more than this function does.
                unsafe { leaf::rows(dot, product) }
            }
        }
    }
}

#[target_feature(enable = "avx2,f16c,fma")]
fn weighted_sum(format: Format, factors: &[f32], rows: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => accumulate::<F32>(factors, rows, out),
        Format::F16 => accumulate::<F16>(factors, rows, out),
        Format::Bf16 => accumulate::<Bf16>(factors, rows, out),
        Format::Q8_0 => accumulate::<Q8_0>(factors, rows, out),
        _ => super::weighted_sum_by_unpacking(format, factors, rows, out),
    }
}

#[target_feature(enable = "avx2,f16c,fma")]
fn f32_to_f16(x: &[f32], out: &mut [u8]) {
    let (groups, rest) = x.as_chunks::<8>();
    let (packed, rest_out) = out.as_chunks_mut::<16>();
    for (group, packed) in groups.iter().zip(packed) {
        // SAFETY: eight floats are read, sixteen bytes written.
        unsafe {
            let halves =
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(group.as_ptr()));
            _mm_storeu_si128(packed.as_mut_ptr().cast(), halves);
        }
    }
    for (bytes, value) in rest_out.as_chunks_mut().0.iter_mut().zip(rest) {
        *bytes = round_to_f16(*value).to_le_bytes();
    }
}

/// Weights of a float format times floats.
struct FloatDot<W>(PhantomData<W>);

impl<W: Lanes> GroupDot for FloatDot<W> {
    // Two tokens at once: eight accumulators, half of the registers.
    const GROUP: usize = 2;

    #[target_feature(enable = "avx2,f16c,fma")]
    #[inline]
    unsafe fn dots<const G: usize>(row: &[u8], tokens: [&[u8]; G]) -> [f32; G] {
        let mut sums = [[_mm256_setzero_ps(); 4]; G];
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
#[target_feature(enable = "avx2,f16c,fma")]
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
                sums = multiply_add([_mm256_set1_ps(*factor); 4], values, sums);
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
                sums = multiply_add([_mm256_set1_ps(*factor); 4], values, sums);
            }
            store(sums, &mut last);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
fn multiply_add(a: [__m256; 4], b: [__m256; 4], sums: [__m256; 4]) -> [__m256; 4] {
    core::array::from_fn(|i| _mm256_fmadd_ps(a[i], b[i], sums[i]))
}

#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
fn add_lanes(sums: [__m256; 4]) -> f32 {
    let sum16 = [
        _mm256_add_ps(sums[0], sums[2]),
        _mm256_add_ps(sums[1], sums[3]),
    ];
    add_eight_lanes(_mm256_add_ps(sum16[0], sum16[1]))
}

/// The last three steps of the tree.
#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
pub(super) fn add_eight_lanes(sum8: __m256) -> f32 {
    let sum4 = _mm_add_ps(
        _mm256_castps256_ps128(sum8),
        _mm256_extractf128_ps::<1>(sum8),
    );
    let sum2 = _mm_add_ps(sum4, _mm_movehl_ps(sum4, sum4));
    _mm_cvtss_f32(_mm_add_ss(sum2, _mm_movehdup_ps(sum2)))
}

/// A half float.
#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    let bits = u16::from_le_bytes(bytes);
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
fn store(values: [__m256; 4], out: &mut [f32; BLOCK]) {
    for (part, value) in out.as_chunks_mut::<8>().0.iter_mut().zip(values) {
        // SAFETY: a part is eight floats.
        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), value) };
    }
}

/// Thirty-two elements of a format, as floats.
trait Lanes {
    /// Bytes of 32 elements.
    const BYTES: usize;

    /// # Safety
    /// `BYTES` bytes can be read at `at`, and this module's instructions exist.
    unsafe fn load(at: *const u8) -> [__m256; 4];
}

struct F32;

impl Lanes for F32 {
    const BYTES: usize = 128;

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn load(at: *const u8) -> [__m256; 4] {
        // SAFETY: four times 32 bytes.
        core::array::from_fn(|i| unsafe { _mm256_loadu_ps(at.add(32 * i).cast()) })
    }
}

struct F16;

impl Lanes for F16 {
    const BYTES: usize = 64;

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn load(at: *const u8) -> [__m256; 4] {
        // SAFETY: four times 16 bytes.
        core::array::from_fn(|i| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.add(16 * i).cast())) })
    }
}

struct Bf16;

impl Lanes for Bf16 {
    const BYTES: usize = 64;

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn load(at: *const u8) -> [__m256; 4] {
        core::array::from_fn(|i| {
            // SAFETY: four times 16 bytes.
            let words = unsafe { _mm_loadu_si128(at.add(16 * i).cast()) };
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(words)))
        })
    }
}

struct Q8_0;

impl Lanes for Q8_0 {
    const BYTES: usize = 34;

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn load(at: *const u8) -> [__m256; 4] {
        // SAFETY: two bytes of scale, then four times 8 bytes.
        unsafe {
            let scale = half(at.cast::<[u8; 2]>().read());
            core::array::from_fn(|i| {
                let bytes = _mm_loadl_epi64(at.add(2 + 8 * i).cast());
                let values = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                _mm256_mul_ps(_mm256_set1_ps(scale), values)
            })
        }
    }
}
