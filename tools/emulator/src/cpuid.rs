//! CPUID as a TD sees it: leaves that the TDX module answers, and leaves that raise #VE and become a question to the host (`tdx.md` 1.7, from the
//! module's CPUID tables, 1.5.01).
//!
//! The answers start from this machine's own CPUID. What the emulator cannot carry out, or no TD has, is taken away.

use std::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cpu::{Cpu, control};

/// Leaves that raise #VE: first, last (`tdx.md` 1.7, from the module's CPUID tables).
#[rustfmt::skip]
static RAISE_VE: &[(u32, u32)] = &[
    (0x2, 0x2), (0x6, 0x6), (0x9, 0x9), (0xb, 0xb), (0x16, 0x16), (0x18, 0x18), (0x1a, 0x1a), (0x1f, 0x1f),
    // Hypervisors' own.
    (0x4000_0000, 0x4fff_ffff),
    (0x8000_0002, 0x8000_0006),
];

/// Whether a leaf raises #VE.
pub fn raises_ve(leaf: u32) -> bool {
    RAISE_VE
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&leaf))
}

/// EAX, EBX, ECX, EDX.
pub type Answer = [u32; 4];

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

const NOTHING: Answer = [0; 4];
/// The highest leaves of a TD (`tdx.md` 1.7: the last ones that the module answers).
const MAX_LEAF: u32 = 0x23;
const MAX_EXTENDED_LEAF: u32 = 0x8000_0008;

/// When a TD sees a bit of the processor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Whatever the processor has.
    Always,
    /// It needs ring 0 of the host, page attributes that the shadow mappings do not have, or hardware that no TD has.
    Never,
    /// With AVX-512 state.
    WithAvx512,
    /// With AMX state.
    WithAmx,
}

/// Where a TD's features differ from the processor's: leaf, sub-leaf, register, bits. The bits are those of Intel SDM vol. 2A, CPUID, at the
/// leaf; what no TD has is in the TDX module's CPUID tables, what needs which state in SDM vol. 1, 13.1.
#[rustfmt::skip]
static FEATURES: &[(u32, u32, usize, u32, Seen)] = &[
    // DTES64, MONITOR, DS-CPL.
    (1, 0, ECX, 1 << 2 | 1 << 3 | 1 << 4, Seen::Never),
    // VMX, SMX, Enhanced SpeedStep, TM2.
    (1, 0, ECX, 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8, Seen::Never),
    // SDBG, PDCM.
    (1, 0, ECX, 1 << 11 | 1 << 15, Seen::Never),
    // x2APIC, TSC deadline, hypervisor.
    (1, 0, ECX, 1 << 21 | 1 << 24 | 1 << 31, Seen::Always),
    // DS, ACPI, TM, PBE.
    (1, 0, EDX, 1 << 21 | 1 << 22 | 1 << 29 | 1 << 31, Seen::Never),
    // MCE, APIC, MTRR, MCA, PAT.
    (1, 0, EDX, 1 << 7 | 1 << 9 | 1 << 12 | 1 << 14 | 1 << 16, Seen::Always),
    // TSC_ADJUST, SGX, HLE, RTM.
    (7, 0, EBX, 1 << 1 | 1 << 2 | 1 << 4 | 1 << 11, Seen::Never),
    // RDT-M, MPX, RDT-A, PT.
    (7, 0, EBX, 1 << 12 | 1 << 14 | 1 << 15 | 1 << 25, Seen::Never),
    // AVX-512 F, DQ, IFMA, CD, BW, VL.
    (7, 0, EBX, 1 << 16 | 1 << 17 | 1 << 21 | 1 << 28 | 1 << 30 | 1 << 31, Seen::WithAvx512),
    // PKU, OSPKE, WAITPKG, CET_SS.
    (7, 0, ECX, 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7, Seen::Never),
    // TME, LA57, Key Locker, ENQCMD, SGX_LC, PKS.
    (7, 0, ECX, 1 << 13 | 1 << 16 | 1 << 23 | 1 << 29 | 1 << 30 | 1 << 31, Seen::Never),
    // AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ.
    (7, 0, ECX, 1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14, Seen::WithAvx512),
    // UINTR, PCONFIG, LBR, CET_IBT.
    (7, 0, EDX, 1 << 5 | 1 << 18 | 1 << 19 | 1 << 20, Seen::Never),
    // AVX-512 4VNNIW, 4FMAPS, VP2INTERSECT, FP16.
    (7, 0, EDX, 1 << 2 | 1 << 3 | 1 << 8 | 1 << 23, Seen::WithAvx512),
    // AMX-BF16, AMX-TILE, AMX-INT8.
    (7, 0, EDX, 1 << 22 | 1 << 24 | 1 << 25, Seen::WithAmx),
    // AVX-512 BF16.
    (7, 1, EAX, 1 << 5, Seen::WithAvx512),
    // AMX-FP16.
    (7, 1, EAX, 1 << 21, Seen::WithAmx),
    // CET_SSS.
    (7, 1, EDX, 1 << 18, Seen::Never),
    // SVM: of AMD's processors (AMD64 manual vol. 3, CPUID Fn8000_0001).
    (0x8000_0001, 0, ECX, 1 << 2, Seen::Never),
];

/// Leaf 1, ECX: OSXSAVE, which shows CR4.OSXSAVE (SDM vol. 2A, CPUID).
const OSXSAVE: u32 = 1 << 27;

/// AVX-512: opmask, ZMM_Hi256, Hi16_ZMM; AMX: TILECFG, TILEDATA (SDM vol. 1, 13.1).
const XFAM_AVX512: u64 = 0xe0;
const XFAM_AMX: u64 = 0x6_0000;
/// State components that can be context-switched here and that a TD may have: x87, SSE, AVX, AVX-512, AMX (SDM vol. 1, 13.1).
const XFAM_POSSIBLE: u64 = 7 | XFAM_AVX512 | XFAM_AMX;

/// The extended features of TDs on this machine.
pub fn xfam() -> u64 {
    let [low, _, _, high] = raw(0xd, 0);
    (u64::from(high) << 32 | u64::from(low)) & XFAM_POSSIBLE
}

/// CPUID(1).EAX of this machine.
pub fn signature() -> u32 {
    raw(1, 0)[0]
}

/// The processor's features without those that a TD does not see, and with those that it always does.
fn features(leaf: u32, subleaf: u32, xfam: u64) -> Answer {
    let mut answer = raw(leaf, subleaf);
    let rows = FEATURES
        .iter()
        .filter(|row| (row.0, row.1) == (leaf, subleaf));
    for (_, _, register, bits, seen) in rows {
        let kept = match seen {
            Seen::Always => {
                answer[*register] |= bits;
                true
            }
            Seen::Never => false,
            Seen::WithAvx512 => xfam & XFAM_AVX512 == XFAM_AVX512,
            Seen::WithAmx => xfam & XFAM_AMX == XFAM_AMX,
        };
        if !kept {
            answer[*register] &= !bits;
        }
    }
    answer
}

/// A leaf that the TDX module answers a TD of `vcpus` processors with these extended features.
pub fn of_module(cpu: &Cpu, leaf: u32, subleaf: u32, vcpus: u32, xfam: u64) -> Answer {
    let [eax, ebx, ecx, edx] = features(leaf, subleaf, xfam);
    match leaf {
        0 => [MAX_LEAF, ebx, ecx, edx],
        1 => {
            let os = if cpu.cr4 & control::CR4_OSXSAVE != 0 {
                OSXSAVE
            } else {
                0
            };
            // Initial APIC identifier, and how many there can be.
            let topology = cpu.index << 24 | vcpus.min(255) << 16;
            [eax, ebx & 0xffff | topology, ecx & !OSXSAVE | os, edx]
        }
        // Without the host's topology in 31:14.
        4 => [eax & 0x3fff, ebx, ecx, edx],
        7 if subleaf == 0 => [eax, ebx, ecx, edx],
        7 => [eax, 0, 0, edx],
        0xd => extended_state(cpu.xcr0, xfam, subleaf, [eax, ebx, ecx, edx]),
        0x15 => time_stamp_ratio(),
        0x1d | 0x1e if xfam & XFAM_AMX == XFAM_AMX => [eax, ebx, ecx, edx],
        // The module's name (`tdx.md` 1.3).
        0x21 if subleaf == 0 => {
            let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
            [0, word(b"Inte"), word(b"    "), word(b"lTDX")]
        }
        0x8000_0000 => [MAX_EXTENDED_LEAF, 0, 0, 0],
        0x8000_0001 => [eax, ebx, ecx, edx],
        // Invariant TSC.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        // 52 bits of physical and 48 of linear addresses, as on the processors that have TDX; WBNOINVD.
        0x8000_0008 => [52 | 48 << 8, ebx & 1 << 9, 0, 0],
        _ => NOTHING,
    }
}

/// Leaf 0xD: sizes for what is enabled now, and for all a TD may enable.
fn extended_state(xcr0: u64, xfam: u64, subleaf: u32, host: Answer) -> Answer {
    let size = |features: u64| {
        (2..63)
            .filter(|component| features & 1 << component != 0)
            .map(|component| {
                let [size, offset, ..] = raw(0xd, component);
                size + offset
            })
            // The legacy region and the header (SDM vol. 1, 13.4).
            .fold(512 + 64, u32::max)
    };
    match subleaf {
        0 => [xfam as u32, size(xcr0), size(xfam), (xfam >> 32) as u32],
        // XSAVEOPT, XSAVEC, XGETBV(1), XFD (SDM vol. 2A, CPUID, leaf 0DH); XSAVES would need ring 0.
        1 => [host[0] & 0b0111 | host[0] & 1 << 4, 0, 0, 0],
        2..63 if xfam & 1 << subleaf != 0 => host,
        _ => NOTHING,
    }
}

/// Leaf 0x15: the crystal of a TD runs at 25 MHz (`tdx.md` 1.2: TSC frequencies are multiples of it).
fn time_stamp_ratio() -> Answer {
    const CRYSTAL: u64 = 25_000_000;
    const DENOMINATOR: u64 = 100_000;
    let numerator = (tsc_frequency() * DENOMINATOR + CRYSTAL / 2) / CRYSTAL;
    [DENOMINATOR as u32, numerator as u32, CRYSTAL as u32, 0]
}

/// A leaf that the VMM answers on request: QEMU with KVM (Linux `Documentation/virt/kvm/x86/cpuid.rst` for 0x40000000).
pub fn of_host(leaf: u32, subleaf: u32) -> Answer {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    match leaf {
        0x8000_0002..=0x8000_0004 => raw(leaf, subleaf),
        0x4000_0000 => [0x4000_0001, word(b"KVMK"), word(b"VMKV"), word(b"M\0\0\0")],
        _ => NOTHING,
    }
}

/// This machine's own answer; nothing for leaves it does not have.
fn raw(leaf: u32, subleaf: u32) -> Answer {
    if leaf > __cpuid(leaf & 0x8000_0000).eax {
        return NOTHING;
    }
    let answer = __cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// The time stamp counter, which guests read natively.
pub fn time_stamp() -> u64 {
    // SAFETY: every processor with AVX has the instruction, and Linux lets programs use it.
    unsafe { _rdtsc() }
}

/// Its frequency in Hz: from CPUID if the processor or the hypervisor around us says it, else measured to a MHz.
pub fn tsc_frequency() -> u64 {
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    *FREQUENCY.get_or_init(|| {
        let [denominator, numerator, crystal, _] = raw(0x15, 0).map(u64::from);
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return crystal * numerator / denominator;
        }
        let (start, ticks) = (Instant::now(), time_stamp());
        std::thread::sleep(Duration::from_millis(100));
        let (time, ticks) = (start.elapsed(), time_stamp() - ticks);
        let mhz = u128::from(ticks) * 1000 / time.as_nanos().max(1);
        mhz as u64 * 1_000_000
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_raise_ve_as_the_module_says() {
        for leaf in [
            0,
            1,
            3,
            4,
            5,
            7,
            8,
            0xa,
            0xd,
            0xe,
            0x11,
            0x15,
            0x19,
            0x1c,
            0x1e,
            0x20,
            0x23,
            0x8000_0000,
            0x8000_0001,
            0x8000_0007,
            0x8000_0008,
        ] {
            assert!(!raises_ve(leaf), "{leaf:#x}");
        }
        for leaf in [
            2,
            6,
            9,
            0xb,
            0x16,
            0x18,
            0x1a,
            0x1f,
            0x4000_0000,
            0x4000_0001,
            0x8000_0002,
            0x8000_0006,
        ] {
            assert!(raises_ve(leaf), "{leaf:#x}");
        }
    }

    #[test]
    fn a_td_knows_that_it_is_one() {
        let cpu = Cpu::reset(1, 48, 0, signature());
        let [eax, ebx, ecx, edx] = of_module(&cpu, 0x21, 0, 2, xfam());
        let name: Vec<u8> = [ebx, edx, ecx]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!((eax, name.as_slice()), (0, &b"IntelTDX    "[..]));
        let [_, ebx, ecx, _] = of_module(&cpu, 1, 0, 2, xfam());
        assert_eq!(ebx >> 24, 1);
        assert_eq!(ecx & (1 << 5), 0, "no VMX in a TD");
        assert_eq!(ecx & OSXSAVE, 0, "CR4.OSXSAVE is clear");
    }

    #[test]
    fn a_td_without_state_lacks_what_needs_it() {
        let cpu = Cpu::reset(0, 48, 0, signature());
        let seven = |xfam| of_module(&cpu, 7, 0, 1, xfam);
        let (all, avx) = (seven(XFAM_POSSIBLE), seven(7));
        let raw = raw(7, 0);
        assert_eq!(all[EBX] & 1 << 16, raw[EBX] & 1 << 16, "AVX-512 F as here");
        assert_eq!(avx[EBX] & 1 << 16, 0, "no AVX-512 F");
        assert_eq!(avx[EDX] & 1 << 24, 0, "no AMX-TILE");
        assert_eq!(avx[EBX] & 1 << 5, raw[EBX] & 1 << 5, "AVX2 as here");
        assert_eq!(of_module(&cpu, 0xd, 0, 1, 7)[EAX], 7);
    }

    #[test]
    fn the_clock_rate_is_exact_to_one_in_ten_thousand() {
        let [denominator, numerator, crystal, _] = time_stamp_ratio().map(u64::from);
        let frequency = crystal * numerator / denominator;
        assert!(frequency.abs_diff(tsc_frequency()) * 10_000 < tsc_frequency());
    }
}
