//! TDVMCALL RDMSR and WRMSR: the MSRs a VMM emulates for a TD (KVM `tdx_has_emulated_msr`; `tdx.md` 1.7).

use std::time::{Duration, Instant};

use super::HostStatus;
use crate::cpu::Cpu;
use crate::cpu::gpr::{R11, R12, R13};
use crate::cpuid;
use crate::td::Td;

const APIC_BASE: u32 = 0x1b;
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_CAP: u32 = 0xfe;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_ID: u32 = 0x802;
const X2APIC_VERSION: u32 = 0x803;
const X2APIC_LDR: u32 = 0x80d;
const X2APIC_SPURIOUS: u32 = 0x80f;
const X2APIC_ESR: u32 = 0x828;
const X2APIC_ICR: u32 = 0x830;
const X2APIC_LVT_TIMER: u32 = 0x832;
const X2APIC_TIMER_INITIAL: u32 = 0x838;
const X2APIC_TIMER_DIVIDE: u32 = 0x83e;

/// The LVT timer's mode, bits 18:17.
const TIMER_TSC_DEADLINE: u64 = 2 << 17;
/// KVM's APIC bus runs at 1 GHz.
const BUS_NANOSECONDS: u64 = 1;

/// R12 is the MSR; R11 gets its value.
pub fn read(cpu: &Cpu, td: &Td, host: &mut [u64; 16]) -> HostStatus {
    let apic = &td.apics.0[cpu.index as usize];
    let Ok(msr) = u32::try_from(host[R12]) else {
        return HostStatus::InvalidOperand;
    };
    host[R11] = match msr {
        // x2APIC enabled; the boot processor says so.
        APIC_BASE => 0xfee0_0c00 | if cpu.index == 0 { 1 << 8 } else { 0 },
        MISC_ENABLE => 1,
        // KVM: eight variable ranges, fixed ranges, write combining.
        MTRR_CAP => 0x508,
        MTRR_DEFAULT_TYPE => 0x806,
        0x200..=0x20f | 0x250 | 0x258 | 0x259 | 0x268..=0x26f => 0,
        X2APIC_ID => u64::from(cpu.index),
        X2APIC_VERSION => 0x0005_0014,
        X2APIC_LDR => u64::from(cpu.index >> 4 << 16 | 1 << (cpu.index & 15)),
        X2APIC_SPURIOUS => 0x1ff,
        X2APIC_ESR | TSC_DEADLINE => 0,
        X2APIC_LVT_TIMER => apic.timer(),
        0x82f | 0x833..=0x837 => 1 << 16,
        X2APIC_TIMER_INITIAL | 0x839 | X2APIC_TIMER_DIVIDE => 0,
        _ => return HostStatus::InvalidOperand,
    };
    HostStatus::Success
}

/// R12 is the MSR, R13 its new value.
pub fn write(cpu: &Cpu, td: &Td, host: &mut [u64; 16]) -> HostStatus {
    let apic = &td.apics.0[cpu.index as usize];
    let value = host[R13];
    let Ok(msr) = u32::try_from(host[R12]) else {
        return HostStatus::InvalidOperand;
    };
    match msr {
        X2APIC_ICR => td.apics.command(cpu.index, value),
        X2APIC_LVT_TIMER => apic.set_timer(value),
        TSC_DEADLINE if apic.timer() & 3 << 17 == TIMER_TSC_DEADLINE => {
            apic.set_deadline(deadline(value));
        }
        X2APIC_TIMER_INITIAL => {
            let after = Duration::from_nanos(value.saturating_mul(BUS_NANOSECONDS));
            apic.set_deadline((value != 0).then(|| Instant::now() + after));
        }
        APIC_BASE
        | MISC_ENABLE
        | 0x200..=0x20f
        | 0x250
        | 0x258
        | 0x259
        | 0x268..=0x26f
        | MTRR_DEFAULT_TYPE
        | TSC_DEADLINE
        | X2APIC_SPURIOUS
        | X2APIC_ESR
        | 0x82f
        | 0x833..=0x837
        | X2APIC_TIMER_DIVIDE => {}
        _ => return HostStatus::InvalidOperand,
    }
    HostStatus::Success
}

/// When the time stamp counter reaches `ticks`; zero disarms.
fn deadline(ticks: u64) -> Option<Instant> {
    if ticks == 0 {
        return None;
    }
    let ahead = ticks.saturating_sub(cpuid::time_stamp());
    let nanoseconds = u128::from(ahead) * 1_000_000_000 / u128::from(cpuid::tsc_frequency());
    Some(Instant::now() + Duration::from_nanos(nanoseconds.min(u128::from(u64::MAX)) as u64))
}
