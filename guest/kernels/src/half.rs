//! Sixteen-bit floats in plain Rust, with the results the conversion instructions give.

/// IEEE binary16 to binary32: exact; a signalling NaN becomes quiet.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    let exponent = magnitude >> 10;
    let unsigned = match exponent {
        // A subnormal is its mantissa times 2^-24.
        0 => (magnitude as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 => {
            let quiet = if magnitude > 0x7c00 { 1 << 22 } else { 0 };
            0x7f80_0000 | quiet | ((magnitude & 0x3ff) << 13)
        }
        _ => (magnitude << 13) + ((127 - 15) << 23),
    };
    f32::from_bits(sign | unsigned)
}

/// IEEE binary32 to binary16, rounding to nearest, ties to even.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00 | ((magnitude >> 13) & 0x3ff)
    } else if magnitude >= 0x4780_0000 {
        // 65536 and above, infinity included.
        0x7c00
    } else if magnitude < 0x3880_0000 {
        // Below the smallest normal 2^-14: adding 2^-1 leaves the mantissa in units of 2^-24, rounded by the addition.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000
    } else {
        // Rebias, then round at bit 13; the carry runs into the exponent and, from 65520 on, to infinity.
        let odd = (magnitude >> 13) & 1;
        (magnitude - ((127 - 15) << 23) + 0xfff + odd) >> 13
    };
    sign | half as u16
}

/// bfloat16 to binary32: exact.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            if value.is_nan() {
                assert_eq!(f32_to_f16(value), bits | 0x200);
            } else {
                assert_eq!(f32_to_f16(value), bits);
            }
        }
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0x7bff), 65504.0);
        assert_eq!(f16_to_f32(0x0001), 1.0 / 16_777_216.0);
    }

    #[test]
    fn ties_go_to_even() {
        for (value, bits) in [
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (65519.9, 0x7bff),
            (65520.0, 0x7c00),
            (1.0 / 33_554_432.0, 0),
            (1.5 / 16_777_216.0, 2),
            (-0.0, 0x8000),
            (f32::NEG_INFINITY, 0xfc00),
        ] {
            assert_eq!(f32_to_f16(value), bits, "{value}");
        }
    }

    #[test]
    fn agrees_with_the_conversion_instructions() {
        extern crate std;
        if !std::is_x86_feature_detected!("f16c") {
            std::eprintln!("SKIPPED: no F16C");
            return;
        }
        use core::arch::x86_64::{_mm_cvtps_ph, _mm_cvtsi128_si32, _mm_set_ss};
        #[target_feature(enable = "f16c")]
        fn hardware(value: f32) -> u16 {
            _mm_cvtsi128_si32(_mm_cvtps_ph::<0>(_mm_set_ss(value))) as u16
        }
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x8000, 0xffff] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                // SAFETY: F16C was detected above.
                assert_eq!(f32_to_f16(value), unsafe { hardware(value) }, "{value:e}");
            }
        }
    }
}
