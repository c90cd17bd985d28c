//! CPUID as a TD sees it: leaves that the TDX module answers, and leaves that raise #VE and become a question to the host (`tdx.md` 1.7, from the
//! module's CPUID tables, 1.5.01).
//!
//! The answers start from this machine's own CPUID. What the emulator cannot carry out, or no TD has, is taken away.

use std::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cpu::{Cpu, control};

/// Leaves that raise #VE.
pub fn raises_ve(leaf: u32) -> bool {
    matches!(
        leaf,
        2 | 6 | 9 | 0xb | 0x16 | 0x18 | 0x1a | 0x1f | 0x4000_0000..=0x4fff_ffff | 0x8000_0002..=0x8000_0006
    )
}

/// EAX, EBX, ECX, EDX.
pub type Answer = [u32; 4];

const NOTHING: Answer = [0; 4];
/// The highest basic leaf of a TD.
const MAX_LEAF: u32 = 0x23;
const MAX_EXTENDED_LEAF: u32 = 0x8000_0008;

/// Bits taken away: what needs ring 0 of the host, page attributes the shadow mappings do not have, or hardware that a TD never sees.
/// Leaf 1 ECX: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, SDBG, PDCM.
const LEAF_1_ECX_OFF: u32 =
    1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 15;
/// Leaf 1 ECX: x2APIC, TSC deadline, hypervisor.
const LEAF_1_ECX_ON: u32 = 1 << 21 | 1 << 24 | 1 << 31;
const OSXSAVE: u32 = 1 << 27;
/// Leaf 1 EDX: DS, ACPI, TM, PBE.
const LEAF_1_EDX_OFF: u32 = 1 << 21 | 1 << 22 | 1 << 29 | 1 << 31;
/// Leaf 1 EDX: MCE, APIC, MTRR, MCA, PAT.
const LEAF_1_EDX_ON: u32 = 1 << 7 | 1 << 9 | 1 << 12 | 1 << 14 | 1 << 16;
/// Leaf 7 EBX: TSC_ADJUST, SGX, HLE, RTM, RDT-M, MPX, RDT-A, PT.
const LEAF_7_EBX_OFF: u32 =
    1 << 1 | 1 << 2 | 1 << 4 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 25;
/// Leaf 7 ECX: PKU, OSPKE, WAITPKG, CET_SS, TME, LA57, KL, ENQCMD, SGX_LC, PKS.
const LEAF_7_ECX_OFF: u32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 13 | 1 << 16 | 1 << 23 | 1 << 29 | 1 << 30 | 1 << 31;
/// Leaf 7 EDX: UINTR, PCONFIG, LBR, IBT.
const LEAF_7_EDX_OFF: u32 = 1 << 5 | 1 << 18 | 1 << 19 | 1 << 20;
/// Leaf 0x80000001 ECX: SVM.
const EXTENDED_1_ECX_OFF: u32 = 1 << 2;

/// State components that can be context-switched here and that a TD may have: x87, SSE, AVX, AVX-512, AMX.
const XFAM_POSSIBLE: u64 = 0x6_00e7;

/// The extended features of TDs on this machine.
pub fn xfam() -> u64 {
    let [low, _, _, high] = raw(0xd, 0);
    (u64::from(high) << 32 | u64::from(low)) & XFAM_POSSIBLE
}

/// CPUID(1).EAX of this machine.
pub fn signature() -> u32 {
    raw(1, 0)[0]
}

/// A leaf that the TDX module answers.
pub fn of_module(cpu: &Cpu, leaf: u32, subleaf: u32, vcpus: u32) -> Answer {
    let [eax, ebx, ecx, edx] = raw(leaf, subleaf);
    match leaf {
        0 => [MAX_LEAF, ebx, ecx, edx],
        1 => {
            let os = if cpu.cr4 & control::CR4_OSXSAVE != 0 {
                OSXSAVE
            } else {
                0
            };
            let topology = cpu.index << 24 | vcpus.min(255) << 16;
            [
                eax,
                ebx & 0xffff | topology,
                ecx & !(LEAF_1_ECX_OFF | OSXSAVE) | LEAF_1_ECX_ON | os,
                edx & !LEAF_1_EDX_OFF | LEAF_1_EDX_ON,
            ]
        }
        4 => [eax & 0x3fff, ebx, ecx, edx],
        7 if subleaf == 0 => [
            eax,
            ebx & !LEAF_7_EBX_OFF,
            ecx & !LEAF_7_ECX_OFF,
            edx & !LEAF_7_EDX_OFF,
        ],
        7 => [eax, 0, 0, edx & !(1 << 18)],
        0xd => extended_state(cpu.xcr0, subleaf, [eax, ebx, ecx, edx]),
        0x15 => time_stamp_ratio(),
        0x1d | 0x1e if xfam() >> 17 & 3 == 3 => [eax, ebx, ecx, edx],
        0x21 if subleaf == 0 => {
            let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
            [0, word(b"Inte"), word(b"    "), word(b"lTDX")]
        }
        0x8000_0000 => [MAX_EXTENDED_LEAF, 0, 0, 0],
        0x8000_0001 => [eax, ebx, ecx & !EXTENDED_1_ECX_OFF, edx],
        // Invariant TSC.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        // 52 bits of physical and 48 of linear addresses, as on the processors that have TDX.
        0x8000_0008 => [52 | 48 << 8, ebx & 1 << 9, 0, 0],
        _ => NOTHING,
    }
}

/// Leaf 0xD: sizes for what is enabled now, and for all a TD may enable.
fn extended_state(xcr0: u64, subleaf: u32, host: Answer) -> Answer {
    let size = |features: u64| {
        (2..63)
            .filter(|component| features & 1 << component != 0)
            .map(|component| {
                let [size, offset, ..] = raw(0xd, component);
                size + offset
            })
            .fold(512 + 64, u32::max)
    };
    let xfam = xfam();
    match subleaf {
        0 => [xfam as u32, size(xcr0), size(xfam), (xfam >> 32) as u32],
        // XSAVEOPT, XSAVEC, XGETBV(1); XSAVES would need ring 0.
        1 => [host[0] & 0b0111 | host[0] & 1 << 4, 0, 0, 0],
        2..63 if xfam & 1 << subleaf != 0 => host,
        _ => NOTHING,
    }
}

/// Leaf 0x15: the crystal of a TD runs at 25 MHz.
fn time_stamp_ratio() -> Answer {
    const CRYSTAL: u64 = 25_000_000;
    const DENOMINATOR: u64 = 100_000;
    let numerator = (tsc_frequency() * DENOMINATOR + CRYSTAL / 2) / CRYSTAL;
    [DENOMINATOR as u32, numerator as u32, CRYSTAL as u32, 0]
}

/// A leaf that the VMM answers on request: QEMU with KVM.
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
        let [eax, ebx, ecx, edx] = of_module(&cpu, 0x21, 0, 2);
        let name: Vec<u8> = [ebx, edx, ecx]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!((eax, name.as_slice()), (0, &b"IntelTDX    "[..]));
        let [_, ebx, ecx, _] = of_module(&cpu, 1, 0, 2);
        assert_eq!(ebx >> 24, 1);
        assert_eq!(ecx & (1 << 5), 0, "no VMX in a TD");
        assert_eq!(ecx & OSXSAVE, 0, "CR4.OSXSAVE is clear");
    }

    #[test]
    fn the_clock_rate_is_exact_to_one_in_ten_thousand() {
        let [denominator, numerator, crystal, _] = time_stamp_ratio().map(u64::from);
        let frequency = crystal * numerator / denominator;
        assert!(frequency.abs_diff(tsc_frequency()) * 10_000 < tsc_frequency());
    }
}
