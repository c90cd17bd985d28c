//! Q4_K and Q6_K for AVX-512: one row unpacked once for several tokens.
//!
//! Every function here may run only on a processor with these instructions; `Kernels::for_isa` checks that.
//!
//! A block's integer sums are exact, and are folded to the eight lanes in which ggml's AVX2 kernels keep them before the first
//! float operation. From there the operations are the same, so both give the same bits.

use core::arch::x86_64::*;

use super::avx2::{add_eight_lanes, half_at};
use crate::formats::{Activation, Format, SUPER_BLOCK};
use crate::product::GroupDot;

/// Eight tokens' accumulators and a block's weights and scales fill the registers.
const GROUP: usize = 8;

/// A block of activations: scale, 256 bytes, 16 sums.
struct Token(*const u8);

impl Token {
    /// # Safety
    /// Block `block` of `token` exists.
    #[inline(always)]
    unsafe fn block(token: &[u8], block: usize) -> Token {
        // SAFETY: the caller's promise.
        Token(unsafe { token.as_ptr().add(block * Activation::Q8K.block_bytes()) })
    }

    #[inline(always)]
    fn scale(&self) -> f32 {
        // SAFETY: a block starts with four bytes of scale.
        unsafe { self.0.cast::<f32>().read_unaligned() }
    }

    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
    )]
    fn bytes(&self, group: usize) -> __m512i {
        debug_assert!(group < 4);
        // SAFETY: 256 bytes follow the scale.
        unsafe { _mm512_loadu_si512(self.0.add(4 + 64 * group).cast()) }
    }

    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
    )]
    fn sums(&self) -> __m256i {
        // SAFETY: the block ends with sixteen sums of two bytes.
        unsafe { _mm256_loadu_si256(self.0.add(260).cast()) }
    }
}

/// A block of weights as four groups of 64 unsigned bytes, and as many 16-bit scales as the products of neighbours need.
struct Unpacked {
    quants: [__m512i; 4],
    scales: [__m512i; 4],
}

impl Unpacked {
    /// `sum(scale * quant * byte)` in eight lanes: lane i has the elements 4 i to 4 i + 3 of every 32.
    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
    )]
    fn multiply(&self, token: &Token) -> __m256i {
        let mut sum = _mm512_setzero_si512();
        for group in 0..4 {
            let pairs = _mm512_maddubs_epi16(self.quants[group], token.bytes(group));
            sum = _mm512_dpwssd_epi32(sum, self.scales[group], pairs);
        }
        _mm256_add_epi32(
            _mm512_castsi512_si256(sum),
            _mm512_extracti64x4_epi64::<1>(sum),
        )
    }
}

/// Two halves of a register.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
)]
fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

pub(super) struct Q4K;

impl GroupDot for Q4K {
    const GROUP: usize = GROUP;

    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
    )]
    unsafe fn dots<const G: usize>(n: usize, row: &[u8], tokens: [&[u8]; G]) -> [f32; G] {
        let mut products = [_mm256_setzero_ps(); G];
        let mut minima = [_mm_setzero_ps(); G];
        for block in 0..n / SUPER_BLOCK {
            // SAFETY: row and tokens hold n / 256 blocks.
            let (weights, tokens) = unsafe {
                let weights = row.as_ptr().add(block * Format::Q4K.block_bytes());
                (weights, tokens.map(|token| Token::block(token, block)))
            };
            // SAFETY: a block of weights is 144 bytes.
            let (d, dmin, mins, unpacked) = unsafe {
                let (mins, unpacked) = q4_k(weights);
                (half_at(weights), half_at(weights.add(2)), mins, unpacked)
            };
            for ((token, products), minima) in tokens.iter().zip(&mut products).zip(&mut minima) {
                let scale = token.scale();
                let product = _mm256_cvtepi32_ps(unpacked.multiply(token));
                *products = _mm256_fmadd_ps(_mm256_set1_ps(scale * d), product, *products);

                // Sums of 32 bytes, two to a lane.
                let sums = token.sums();
                let sums = _mm_hadd_epi16(
                    _mm256_castsi256_si128(sums),
                    _mm256_extracti128_si256::<1>(sums),
                );
                let minimum = _mm_cvtepi32_ps(_mm_madd_epi16(mins, sums));
                *minima = _mm_fmadd_ps(_mm_set1_ps(-scale * dmin), minimum, *minima);
            }
        }
        core::array::from_fn(|token| {
            let pair = _mm_add_ps(minima[token], _mm_movehl_ps(minima[token], minima[token]));
            let minimum = _mm_add_ss(pair, _mm_movehdup_ps(pair));
            add_eight_lanes(products[token]) + _mm_cvtss_f32(minimum)
        })
    }
}

/// The minima of the eight sub-blocks as 16-bit integers, and the rest.
///
/// # Safety
/// 144 bytes can be read at `block`; layout as in `scalar::k_quants`.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
)]
unsafe fn q4_k(block: *const u8) -> (__m128i, Unpacked) {
    // SAFETY: bytes 4 to 15 are the packed scales and minima.
    let packed: [u32; 3] = unsafe { block.add(4).cast::<[u32; 3]>().read_unaligned() };
    const LOW_SIX: u32 = 0x3f3f_3f3f;
    const LOW_FOUR: u32 = 0x0f0f_0f0f;
    const UPPER_TWO: u32 = 0x3030_3030;
    let scales = [
        packed[0] & LOW_SIX,
        packed[2] & LOW_FOUR | packed[0] >> 2 & UPPER_TWO,
    ];
    let mins = [
        packed[1] & LOW_SIX,
        packed[2] >> 4 & LOW_FOUR | packed[1] >> 2 & UPPER_TWO,
    ];
    let words = |pair: [u32; 2]| {
        let bytes = i64::from(pair[0]) | i64::from(pair[1]) << 32;
        _mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes))
    };
    let scales = _mm512_castsi128_si512(words(scales));
    // Sixteen products of neighbours share a scale.
    let first = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(1));
    let low_nibbles = _mm256_set1_epi8(15);
    let unpacked = Unpacked {
        quants: core::array::from_fn(|group| {
            // SAFETY: 128 bytes of quants from byte 16 on.
            let bytes = unsafe { _mm256_loadu_si256(block.add(16 + 32 * group).cast()) };
            join(
                _mm256_and_si256(bytes, low_nibbles),
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_nibbles),
            )
        }),
        scales: core::array::from_fn(|group| {
            let index = _mm512_add_epi16(first, _mm512_set1_epi16(2 * group as i16));
            _mm512_permutexvar_epi16(index, scales)
        }),
    };
    (words(mins), unpacked)
}

pub(super) struct Q6K;

impl GroupDot for Q6K {
    const GROUP: usize = GROUP;

    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
    )]
    unsafe fn dots<const G: usize>(n: usize, row: &[u8], tokens: [&[u8]; G]) -> [f32; G] {
        let mut products = [_mm256_setzero_ps(); G];
        for block in 0..n / SUPER_BLOCK {
            // SAFETY: row and tokens hold n / 256 blocks.
            let (weights, tokens) = unsafe {
                let weights = row.as_ptr().add(block * Format::Q6K.block_bytes());
                (weights, tokens.map(|token| Token::block(token, block)))
            };
            // SAFETY: a block of weights is 210 bytes.
            let (d, scales, unpacked) = unsafe {
                let (scales, unpacked) = q6_k(weights);
                (half_at(weights.add(208)), scales, unpacked)
            };
            for (token, products) in tokens.iter().zip(&mut products) {
                // Quants are 32 too large: take 32 times the scaled sums of the bytes off.
                let excess = _mm256_slli_epi32::<5>(_mm256_madd_epi16(token.sums(), scales));
                let sum = _mm256_sub_epi32(unpacked.multiply(token), excess);
                let scale = _mm256_set1_ps(token.scale() * d);
                *products = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), *products);
            }
        }
        core::array::from_fn(|token| add_eight_lanes(products[token]))
    }
}

/// The sixteen scales as 16-bit integers, and the rest.
///
/// # Safety
/// 210 bytes can be read at `block`; layout as in `scalar::k_quants`.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,bmi1,bmi2,f16c,fma,lzcnt,movbe"
)]
unsafe fn q6_k(block: *const u8) -> (__m256i, Unpacked) {
    // SAFETY: sixteen scales from byte 192 on.
    let scales = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(block.add(192).cast()) });
    // Eight products of neighbours share a scale.
    let quarters = _mm512_set_epi64(
        0x0003_0003_0003_0003,
        0x0003_0003_0003_0003,
        0x0002_0002_0002_0002,
        0x0002_0002_0002_0002,
        0x0001_0001_0001_0001,
        0x0001_0001_0001_0001,
        0,
        0,
    );
    let nibble = _mm512_set1_epi8(15);
    let pair = _mm512_set1_epi8(0x30);
    let unpacked = Unpacked {
        quants: core::array::from_fn(|group| {
            let half = group / 2;
            // SAFETY: 128 bytes of low nibbles, then 64 of upper bit pairs.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_si512(block.add(64 * half).cast()),
                    _mm256_loadu_si256(block.add(128 + 32 * half).cast()),
                )
            };
            // Elements 0 to 63 of the half have the low nibbles and bit pairs 0 and 1, the other 64 the rest.
            let (low, high) = if group % 2 == 0 {
                (
                    low,
                    join(_mm256_slli_epi16::<4>(high), _mm256_slli_epi16::<2>(high)),
                )
            } else {
                (
                    _mm512_srli_epi16::<4>(low),
                    join(high, _mm256_srli_epi16::<2>(high)),
                )
            };
            _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(high, pair))
        }),
        scales: core::array::from_fn(|group| {
            let index = _mm512_add_epi16(quarters, _mm512_set1_epi16(4 * group as i16));
            _mm512_permutexvar_epi16(index, _mm512_castsi256_si512(scales))
        }),
    };
    (scales, unpacked)
}
