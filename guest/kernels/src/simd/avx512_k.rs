//! Q4_K and Q6_K for AVX-512: one row unpacked once for several tokens.
//!
//! Every function here may run only on a processor with these instructions; `Kernels::for_isa` checks that.
//!
//! A block's integer sums are exact, and are folded to the eight lanes in which ggml's AVX2 kernels keep them before the first
//! float operation. From there the operations are the same, so both give the same bits.

use core::arch::x86_64::*;

use super::avx2::{add_eight_lanes, half};
use crate::product::GroupDot;

/// Eight tokens' accumulators and a block's weights and scales fill the registers.
const GROUP: usize = 8;

/// A block of activations: scale, 256 bytes, 16 sums.
struct Token<'a>(&'a [u8; 292]);

impl Token<'_> {
    #[inline(always)]
    fn scale(&self) -> f32 {
        f32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn bytes(&self, group: usize) -> __m512i {
        let bytes: &[u8; 64] = &self.0[4..260].as_chunks().0[group];
        // SAFETY: 64 bytes.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn sums(&self) -> __m256i {
        // SAFETY: 32 bytes end the block.
        unsafe { _mm256_loadu_si256(self.0[260..].as_ptr().cast()) }
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
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn multiply(&self, token: &Token<'_>) -> __m256i {
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

pub(super) struct Q4K;

impl GroupDot for Q4K {
    const GROUP: usize = GROUP;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn dots<const G: usize>(row: &[u8], tokens: [&[u8]; G]) -> [f32; G] {
        let mut products = [_mm256_setzero_ps(); G];
        let mut minima = [_mm_setzero_ps(); G];
        let tokens = tokens.map(|token| token.as_chunks().0);
        for (index, block) in row.as_chunks().0.iter().enumerate() {
            let (mins, unpacked) = q4_k(block);
            let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
            for ((token, products), minima) in tokens.iter().zip(&mut products).zip(&mut minima) {
                let token = &Token(&token[index]);
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
/// Layout as in `scalar::k_quants`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn q4_k(block: &[u8; 144]) -> (__m128i, Unpacked) {
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let packed = [word(4), word(8), word(12)];
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
            let bytes: &[u8; 32] = &block[16..].as_chunks().0[group];
            // SAFETY: 32 bytes.
            let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
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
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn dots<const G: usize>(row: &[u8], tokens: [&[u8]; G]) -> [f32; G] {
        let mut products = [_mm256_setzero_ps(); G];
        let tokens = tokens.map(|token| token.as_chunks().0);
        for (index, block) in row.as_chunks().0.iter().enumerate() {
            let (scales, unpacked) = q6_k(block);
            let d = half([block[208], block[209]]);
            for (token, products) in tokens.iter().zip(&mut products) {
                let token = &Token(&token[index]);
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
/// Layout as in `scalar::k_quants`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn q6_k(block: &[u8; 210]) -> (__m256i, Unpacked) {
    // SAFETY: 16 bytes.
    let scales = _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(block[192..208].as_ptr().cast()) });
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
            let low: &[u8; 64] = &block[..128].as_chunks().0[group / 2];
            let high: &[u8; 32] = &block[128..192].as_chunks().0[group / 2];
            // SAFETY: 64 and 32 bytes.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_si512(low.as_ptr().cast()),
                    _mm256_loadu_si256(high.as_ptr().cast()),
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
