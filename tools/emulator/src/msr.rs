//! RDMSR and WRMSR as a TD executes them: MSRs that are the TD's own, and MSRs that raise #VE (`tdx.md` 1.7, from the module's MSR tables).

use crate::apic::LocalApic;
use crate::cpu::Cpu;

/// What an MSR access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; a read has this value.
    Value(u64),
    GeneralProtection,
    Virtualization,
}

// MSRs by their numbers (SDM vol. 4, table 2-2).
const TSC: u32 = 0x10;
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const ARCH_CAPABILITIES: u32 = 0x10a;
const FLUSH_CMD: u32 = 0x10b;
const SYSENTER: std::ops::RangeInclusive<u32> = 0x174..=0x176;
const PAT: u32 = 0x277;
const XFD: u32 = 0x1c4;
const XFD_ERR: u32 = 0x1c5;
const XSS: u32 = 0xda0;
const EFER: u32 = 0xc000_0080;
const SYSCALL: std::ops::RangeInclusive<u32> = 0xc000_0081..=0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
pub const TSC_AUX: u32 = 0xc000_0103;

/// The PAT after reset (SDM vol. 3, 13.12.4; `tdx.md` 1.3).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// RDMSR.
pub fn read(cpu: &Cpu, apic: &LocalApic, msr: u32) -> Outcome {
    Outcome::Value(match msr {
        TSC => crate::cpuid::time_stamp(),
        EFER => cpu.efer,
        FS_BASE => cpu.registers.fs_base,
        GS_BASE => cpu.registers.gs_base,
        KERNEL_GS_BASE => cpu.kernel_gs_base,
        PAT => cpu.msrs.get(&PAT).copied().unwrap_or(PAT_RESET),
        XSS | ARCH_CAPABILITIES => 0,
        PRED_CMD | FLUSH_CMD => return Outcome::GeneralProtection,
        msr if kept(msr) => cpu.msrs.get(&msr).copied().unwrap_or(0),
        msr => {
            return apic
                .read(msr)
                .map_or(Outcome::Virtualization, Outcome::Value);
        }
    })
}

/// WRMSR.
pub fn write(cpu: &mut Cpu, apic: &LocalApic, msr: u32, value: u64) -> Outcome {
    let canonical = (value as i64) << 16 >> 16 == value as i64;
    match msr {
        TSC | EFER => return Outcome::Virtualization,
        FS_BASE | GS_BASE | KERNEL_GS_BASE if !canonical => return Outcome::GeneralProtection,
        FS_BASE => cpu.registers.fs_base = value,
        GS_BASE => cpu.registers.gs_base = value,
        KERNEL_GS_BASE => cpu.kernel_gs_base = value,
        PAT if !valid_pat(value) => return Outcome::GeneralProtection,
        PRED_CMD | FLUSH_CMD => {}
        XSS if value == 0 => {}
        XSS | ARCH_CAPABILITIES => return Outcome::GeneralProtection,
        PAT => {
            cpu.msrs.insert(PAT, value);
        }
        msr if kept(msr) => {
            cpu.msrs.insert(msr, value);
        }
        msr => match apic.write(msr, value) {
            Some(true) => {}
            Some(false) => return Outcome::GeneralProtection,
            None => return Outcome::Virtualization,
        },
    }
    Outcome::Value(0)
}

/// MSRs of the TD's own (`tdx.md` 1.7) that only keep what is written to them, as far as the emulator goes.
fn kept(msr: u32) -> bool {
    matches!(msr, SPEC_CTRL | XFD | XFD_ERR | TSC_AUX)
        || SYSENTER.contains(&msr)
        || SYSCALL.contains(&msr)
}

/// Eight memory types, each one of those that exist (Intel SDM vol. 3, 13.12.2).
fn valid_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSR, does reading raise #VE, does writing zero raise #VE.
    #[test]
    fn msrs_raise_ve_as_the_module_says() {
        let table = [
            ("TSC", TSC, false, true),
            ("APIC_BASE", 0x1b, true, true),
            ("SPEC_CTRL", SPEC_CTRL, false, false),
            ("MTRR_CAP", 0xfe, true, true),
            ("SYSENTER_CS", 0x174, false, false),
            ("MISC_ENABLE", 0x1a0, true, true),
            ("MTRR_DEF_TYPE", 0x2ff, true, true),
            ("PAT", PAT, false, false),
            ("TSC_DEADLINE", 0x6e0, true, true),
            ("x2APIC ID", 0x802, true, true),
            ("x2APIC TPR", 0x808, false, false),
            ("x2APIC PPR (read)", 0x80a, false, true),
            ("x2APIC EOI (write)", 0x80b, true, false),
            ("x2APIC ISR", 0x810, false, true),
            ("x2APIC TMR", 0x818, false, true),
            ("x2APIC IRR", 0x820, false, true),
            ("x2APIC ICR", 0x830, true, true),
            ("x2APIC LVT timer", 0x832, true, true),
            ("x2APIC SELF_IPI (write)", 0x83f, true, false),
            ("XSS", XSS, false, false),
            ("EFER", EFER, false, true),
            ("LSTAR", 0xc000_0082, false, false),
            ("FS_BASE", FS_BASE, false, false),
            ("KERNEL_GS_BASE", KERNEL_GS_BASE, false, false),
            ("TSC_AUX", TSC_AUX, false, false),
            ("an unknown one", 0xdead, true, true),
        ];
        let apic = LocalApic::default();
        for (name, msr, read_ve, write_ve) in table {
            let mut cpu = Cpu::reset(0, 48, 0, 0);
            let reads = read(&cpu, &apic, msr) == Outcome::Virtualization;
            let writes = write(&mut cpu, &apic, msr, 0) == Outcome::Virtualization;
            assert_eq!((reads, writes), (read_ve, write_ve), "{name}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        let apic = LocalApic::default();
        let mut cpu = Cpu::reset(0, 48, 0, 0);
        for (msr, value) in [
            (FS_BASE, 1 << 48),
            (PAT, 2),
            (XSS, 1),
            (0x808, 0x100),
            (0x80b, 1),
        ] {
            assert_eq!(
                write(&mut cpu, &apic, msr, value),
                Outcome::GeneralProtection,
                "{msr:#x}"
            );
        }
    }
}
