//! Which instruction sets there are kernels for, and which of them this processor can run.
//!
//! An instruction set counts only if the operating system keeps its registers as well: CPUID says what the processor
//! has, XCR0 what is saved and restored (Intel SDM volume 1, §13.3 and §15.2). In a trust domain the leaves read here (0, 1,
//! 7, 0x8000_0001) and XGETBV come from the TDX module or the processor without an exit. Ask after the vector state was enabled.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use core::fmt;
use core::str::FromStr;

/// A set of instructions the kernels are compiled for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the reference the others are tested against.
    Scalar,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The best instruction set this processor and its operating system support.
    pub fn detect() -> Isa {
        let leaf1 = __cpuid(1);
        const OSXSAVE: u32 = 1 << 27;
        if leaf1.ecx & OSXSAVE == 0 || __cpuid(0).eax < 7 {
            return Isa::Scalar;
        }
        // SAFETY: OSXSAVE says that XGETBV is enabled.
        let xcr0 = unsafe { xcr0() };
        classify(
            leaf1.ecx,
            __cpuid_count(7, 0),
            xcr0,
            __cpuid(0x8000_0001).ecx,
        )
    }

    /// Whether kernels of this instruction set can run here.
    pub fn is_supported(self) -> bool {
        self <= Isa::detect()
    }
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 exists wherever XGETBV does.
    unsafe { _xgetbv(0) }
}

/// The decision of [`Isa::detect`] over the register values it reads.
fn classify(
    leaf1_ecx: u32,
    leaf7: core::arch::x86_64::CpuidResult,
    xcr0: u64,
    extended_ecx: u32,
) -> Isa {
    const FMA: u32 = 1 << 12;
    const MOVBE: u32 = 1 << 22;
    const AVX: u32 = 1 << 28;
    const F16C: u32 = 1 << 29;
    const LZCNT: u32 = 1 << 5;
    const BMI1: u32 = 1 << 3;
    const AVX2: u32 = 1 << 5;
    const BMI2: u32 = 1 << 8;
    const AVX512_FOUNDATION: u32 = 1 << 16;
    const AVX512_DQ: u32 = 1 << 17;
    const AVX512_CD: u32 = 1 << 28;
    const AVX512_BW: u32 = 1 << 30;
    const AVX512_VL: u32 = 1 << 31;
    const AVX512_VNNI: u32 = 1 << 11;
    const XMM_YMM_STATE: u64 = 0b110;
    const ZMM_STATE: u64 = 0b1110_0000;

    let has = |register: u32, bits: u32| register & bits == bits;
    let avx2 = has(leaf1_ecx, FMA | MOVBE | AVX | F16C)
        && has(leaf7.ebx, BMI1 | AVX2 | BMI2)
        && has(extended_ecx, LZCNT)
        && xcr0 & XMM_YMM_STATE == XMM_YMM_STATE;
    let avx512 =
        avx2 && has(
            leaf7.ebx,
            AVX512_FOUNDATION | AVX512_DQ | AVX512_CD | AVX512_BW | AVX512_VL,
        ) && has(leaf7.ecx, AVX512_VNNI)
            && xcr0 & ZMM_STATE == ZMM_STATE;
    if avx512 {
        Isa::Avx512
    } else if avx2 {
        Isa::Avx2
    } else {
        Isa::Scalar
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}

/// The name is not one of `scalar`, `avx2`, `avx512`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIsaError;

impl fmt::Display for ParseIsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown instruction set; choose scalar, avx2 or avx512")
    }
}

impl core::error::Error for ParseIsaError {}

impl FromStr for Isa {
    type Err = ParseIsaError;

    fn from_str(name: &str) -> Result<Isa, ParseIsaError> {
        match name {
            "scalar" => Ok(Isa::Scalar),
            "avx2" => Ok(Isa::Avx2),
            "avx512" => Ok(Isa::Avx512),
            _ => Err(ParseIsaError),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::arch::x86_64::CpuidResult;
    use std::string::ToString;

    const LEAF1: u32 = (1 << 12) | (1 << 22) | (1 << 28) | (1 << 29);
    const LEAF7: CpuidResult = CpuidResult {
        eax: 0,
        ebx: (1 << 3)
            | (1 << 5)
            | (1 << 8)
            | (1 << 16)
            | (1 << 17)
            | (1 << 28)
            | (1 << 30)
            | (1 << 31),
        ecx: 1 << 11,
        edx: 0,
    };

    #[test]
    fn state_that_is_not_saved_does_not_count() {
        assert_eq!(classify(LEAF1, LEAF7, 0xe7, 1 << 5), Isa::Avx512);
        assert_eq!(classify(LEAF1, LEAF7, 0x07, 1 << 5), Isa::Avx2);
        assert_eq!(classify(LEAF1, LEAF7, 0x67, 1 << 5), Isa::Avx2);
        assert_eq!(classify(LEAF1, LEAF7, 0x03, 1 << 5), Isa::Scalar);
    }

    #[test]
    fn every_feature_is_needed() {
        for bit in 0..32 {
            let mut leaf7 = LEAF7;
            leaf7.ebx &= !(1 << bit);
            let isa = classify(LEAF1, leaf7, 0xe7, 1 << 5);
            assert_eq!(isa == Isa::Avx512, LEAF7.ebx & (1 << bit) == 0);
        }
        let without_vnni = CpuidResult { ecx: 0, ..LEAF7 };
        assert_eq!(classify(LEAF1, without_vnni, 0xe7, 1 << 5), Isa::Avx2);
        assert_eq!(
            classify(LEAF1 & !(1 << 29), LEAF7, 0xe7, 1 << 5),
            Isa::Scalar
        );
    }

    #[test]
    fn agrees_with_the_standard_library() {
        let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("f16c");
        assert_eq!(Isa::Avx2.is_supported(), avx2);
        assert_eq!(
            Isa::Avx512.is_supported(),
            avx2 && std::is_x86_feature_detected!("avx512vnni")
        );
    }

    #[test]
    fn names_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert_eq!("AVX2".parse::<Isa>(), Err(ParseIsaError));
    }
}
