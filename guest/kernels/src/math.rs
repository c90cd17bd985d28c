//! Elementary functions of our own.
//!
//! The guest has no libm, and two libms need not agree in the last bit. Everything here is additions, multiplications and
//! divisions in a fixed order, without fused operations, so every build gives the same bits.

use core::arch::x86_64::{_mm_cvtss_f32, _mm_set_ss, _mm_sqrt_ss};
use core::f64::consts::{FRAC_2_PI, LOG2_E};

/// Square root, correctly rounded.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    // SAFETY: SSE is part of every x86-64 processor.
    unsafe { _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))) }
}

/// `e^x` to within 2 units in the last place; overflows to infinity, underflows through the subnormals to zero.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts; the first has so few bits that its product with any exponent is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these the result is infinite or zero anyway. Comparisons are false for NaN, which passes through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, exponent) = round_to_i32(x * core::f32::consts::LOG2_E);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Minimax polynomial for (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = (p * (r * r) + r) + 1.0;
    // 2^exponent in two factors, each of which is a normal number for every exponent from -151 to 129.
    let half = exponent >> 1;
    p * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// Nearest integer, ties to even, for |x| below 2^22: as a float and as an integer. Anything else gives some integer.
#[inline(always)]
pub(crate) fn round_to_i32(x: f32) -> (f32, i32) {
    // At 1.5 * 2^23 the spacing of floats is one, so the addition rounds and the low mantissa bits are the integer.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x + SHIFT;
    let integer = shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
    (shifted - SHIFT, integer)
}

#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// Sine of an angle in radians, to about 1e-15 for |x| up to 1.6e6; NaN if not finite or beyond 1e9.
pub fn sin(x: f64) -> f64 {
    let (r, quadrant) = reduce(x);
    match quadrant & 3 {
        0 => sin_near_zero(r),
        1 => cos_near_zero(r),
        2 => -sin_near_zero(r),
        _ => -cos_near_zero(r),
    }
}

/// Cosine of an angle in radians; accuracy and domain as of [`sin`].
pub fn cos(x: f64) -> f64 {
    let (r, quadrant) = reduce(x);
    match quadrant & 3 {
        0 => cos_near_zero(r),
        1 => -sin_near_zero(r),
        2 => -cos_near_zero(r),
        _ => sin_near_zero(r),
    }
}

/// `x` less the nearest multiple of pi/2, and which multiple.
fn reduce(x: f64) -> (f64, i64) {
    // pi/2 in parts of 33 bits: the products with multiples up to 2^20 are exact.
    const PART_1: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
    const PART_2: f64 = f64::from_bits(0x3dd0_b461_1a60_0000);
    const PART_3: f64 = f64::from_bits(0x3ba3_198a_2e03_7073);
    if x.is_nan() || x.abs() > 1e9 {
        return (f64::NAN, 0);
    }
    let (n, quadrant) = round_to_i64(x * FRAC_2_PI);
    (((x - n * PART_1) - n * PART_2) - n * PART_3, quadrant)
}

/// Nearest integer, ties to even, for |x| below 2^51: as a float and as an integer.
fn round_to_i64(x: f64) -> (f64, i64) {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let shifted = x + SHIFT;
    let integer = shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i64;
    (shifted - SHIFT, integer)
}

/// Taylor series of the sine to the 17th power: exact to rounding for |r| <= pi/4.
fn sin_near_zero(r: f64) -> f64 {
    let square = r * r;
    let mut sum = 1.0;
    for k in [16, 14, 12, 10, 8, 6, 4, 2] {
        sum = 1.0 - sum * square / f64::from(k * (k + 1));
    }
    r * sum
}

/// Taylor series of the cosine to the 18th power: exact to rounding for |r| <= pi/4.
fn cos_near_zero(r: f64) -> f64 {
    let square = r * r;
    let mut sum = 1.0;
    for k in [17, 15, 13, 11, 9, 7, 5, 3, 1] {
        sum = 1.0 - sum * square / f64::from(k * (k + 1));
    }
    sum
}

// ln 2 in two parts; the product of the first with any exponent of an f64 is exact.
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);

/// Natural logarithm to about 1e-15 relative; negative infinity for zero, NaN below.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    // Subnormals have no exponent of their own.
    let (x, offset) = if x < f64::MIN_POSITIVE {
        (x * 18_014_398_509_481_984.0, 54)
    } else {
        (x, 0)
    };
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023 - offset;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > core::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), with the argument at most 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for k in [23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3] {
        sum = (sum + 1.0 / f64::from(k)) * square;
    }
    let exponent = f64::from(exponent);
    exponent * LN2_HIGH + (2.0 * s + (2.0 * s * sum + exponent * LN2_LOW))
}

/// `base^exponent` for a positive base; NaN for a negative one. Relative error about 1e-15 times the result's logarithm.
pub fn pow(base: f64, exponent: f64) -> f64 {
    exp_f64(exponent * ln(base))
}

fn exp_f64(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 709.7 {
        return f64::INFINITY;
    }
    if x < -708.3 {
        return 0.0;
    }
    let (n, exponent) = round_to_i64(x * LOG2_E);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = 1.0;
    for k in (1..=14).rev() {
        sum = 1.0 + sum * r / f64::from(k);
    }
    // Exponents reach from -1022 to 1024: two factors, so that neither overflows.
    let half = exponent >> 1;
    let power = |e: i64| f64::from_bits(((e + 1023) as u64) << 52);
    sum * power(half) * power(exponent - half)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// Distance in units in the last place of the true value.
    fn ulps(value: f32, truth: f64) -> f64 {
        let nearest = truth as f32;
        let spacing = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
        (f64::from(value) - truth).abs() / spacing
    }

    #[test]
    fn exp_is_within_two_ulps_over_its_whole_range() {
        let mut worst: f64 = 0.0;
        for bits in (0..=u32::MAX).step_by(997) {
            let x = f32::from_bits(bits);
            if (-103.9..88.7).contains(&x) {
                worst = worst.max(ulps(exp(x), f64::from(x).exp()));
            }
        }
        assert!(worst <= 2.0, "{worst}");
    }

    #[test]
    fn exp_has_the_right_limits() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert_eq!(exp(-105.0), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sine_and_cosine_agree_with_the_platform() {
        let mut x: f64 = -1.6e6;
        while x < 1.6e6 {
            assert!((sin(x) - x.sin()).abs() < 2e-15, "sin {x}");
            assert!((cos(x) - x.cos()).abs() < 2e-15, "cos {x}");
            x += 17.123_456_7;
        }
        for x in [0.0, 1e-300, 0.785, 1.57, 3.0, -1e9, 1e9] {
            assert!((sin(x) - f64::sin(x)).abs() < 1e-7);
            assert!((cos(x) - f64::cos(x)).abs() < 1e-7);
        }
        assert!(sin(f64::INFINITY).is_nan() && cos(f64::NAN).is_nan());
    }

    #[test]
    fn logarithm_and_power_agree_with_the_platform() {
        let mut x = 2e-323;
        while x < 1e308 {
            let truth = f64::ln(x);
            assert!((ln(x) - truth).abs() <= 1e-15 * truth.abs().max(0.1), "{x}");
            x *= 1.37;
        }
        for base in [1e4, 1e6, 5e6] {
            for i in 0..64 {
                let exponent = -f64::from(i) / 64.0;
                let truth = f64::powf(base, exponent);
                assert!((pow(base, exponent) - truth).abs() <= 1e-14 * truth);
            }
        }
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert!(ln(-1.0).is_nan() && pow(-1.0, 0.5).is_nan());
        assert_eq!(pow(0.0, 1.0), 0.0);
        assert_eq!(pow(10.0, 400.0), f64::INFINITY);
    }

    #[test]
    fn square_roots_are_exact() {
        assert_eq!(sqrt(2.0), f32::sqrt(2.0));
        assert!(sqrt(-1.0).is_nan());
    }
}
