//! TDVMCALL RDMSR and WRMSR: the MSRs a VMM emulates for a TD (KVM `tdx_has_emulated_msr`; `tdx.md` 1.7).

use std::time::{Duration, Instant};

use super::HostStatus;
use crate::cpu::Cpu;
use crate::cpu::gpr::{R11, R12, R13};
use crate::cpuid;
use crate::hostile::{Attack, Target, launch};
use crate::td::Td;

/// MSRs by their numbers: SDM vol. 4, table 2-2; from 0x800 on, SDM vol. 3, APIC chapter: x2APIC register address space.
const APIC_BASE: u32 = 0x1b;
const MTRR_CAP: u32 = 0xfe;
const TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_ID: u32 = 0x802;
const X2APIC_VERSION: u32 = 0x803;
const X2APIC_LDR: u32 = 0x80d;
const X2APIC_ICR: u32 = 0x830;
const X2APIC_LVT_TIMER: u32 = 0x832;
const X2APIC_TIMER_INITIAL: u32 = 0x838;
const X2APIC_TIMER_COUNT: u32 = 0x839;
const X2APIC_TIMER_DIVIDE: u32 = 0x83e;

/// MSRs that always read as the same and forget what is written: first, last, value. Sources: SDM is Intel's manual, vol. 3
/// unless said otherwise; KVM is `arch/x86/kvm` of Linux 6.16.
#[rustfmt::skip]
static FIXED: &[(u32, u32, u64)] = &[
    // MISC_ENABLE: fast strings (SDM vol. 4, table 2-2).
    (0x1a0, 0x1a0, 1),
    // MTRR ranges, variable and fixed: none in use (SDM, MTRRs; KVM mtrr.c).
    (0x200, 0x20f, 0),
    (0x250, 0x250, 0),
    (0x258, 0x259, 0),
    (0x268, 0x26f, 0),
    // MTRR_DEF_TYPE: write-back, MTRRs off. Firmware that finds them on changes them, which takes CR0.CD, which no TD can set (edk2 #5874).
    (0x2ff, 0x2ff, 0x006),
    // Spurious vector: APIC on (SDM, local APIC: spurious interrupt).
    (0x80f, 0x80f, 0x1ff),
    // Error status: none (SDM, local APIC: error handling).
    (0x828, 0x828, 0),
    // LVT: CMCI, thermal, performance, LINT0, LINT1, error, all masked (SDM, local vector table).
    (0x82f, 0x82f, 1 << 16),
    (0x833, 0x837, 1 << 16),
];

/// The LVT timer's mode, bits 18:17 (SDM vol. 3, APIC chapter: local vector table).
const TIMER_MODE: u64 = 3 << 17;
const TIMER_TSC_DEADLINE: u64 = 2 << 17;
/// KVM's APIC bus runs at 1 GHz (Linux `arch/x86/kvm/lapic.h`, `APIC_BUS_CYCLE_NS_DEFAULT`); the timer counts that divided.
const BUS_NANOSECONDS: u64 = 1;

/// R12 is the MSR; R11 gets its value.
pub fn read(cpu: &Cpu, td: &Td, host: &mut [u64; 16]) -> HostStatus {
    let apic = &td.apics.0[cpu.index as usize];
    let Ok(msr) = u32::try_from(host[R12]) else {
        return HostStatus::InvalidOperand;
    };
    host[R11] = match msr {
        // x2APIC on; the boot processor says so (SDM, x2APIC: detecting and enabling).
        APIC_BASE => 0xfee0_0c00 | if cpu.index == 0 { 1 << 8 } else { 0 },
        // Eight variable ranges, fixed ranges, write combining (KVM mtrr.c).
        MTRR_CAP => 0x508,
        X2APIC_ID => launch::apic_id(&td.host, cpu.index),
        // Six LVT entries, version 0x14 (KVM lapic.c).
        X2APIC_VERSION => 0x0005_0014,
        // Cluster and position in it (SDM, x2APIC: logical identifier).
        X2APIC_LDR => u64::from(cpu.index >> 4 << 16 | 1 << (cpu.index & 15)),
        X2APIC_LVT_TIMER => apic.timer(),
        X2APIC_TIMER_DIVIDE => apic.divide(),
        TSC_DEADLINE | X2APIC_TIMER_INITIAL | X2APIC_TIMER_COUNT => 0,
        _ => match fixed(msr) {
            Some(value) => value,
            None => return HostStatus::InvalidOperand,
        },
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
        X2APIC_ICR
            if td.host.is_hostile() && td.host.strikes(Attack::SignalLost, Target::Launch) => {}
        X2APIC_ICR => td.apics.command(cpu.index, value),
        X2APIC_LVT_TIMER => apic.set_timer(value),
        X2APIC_TIMER_DIVIDE => apic.set_divide(value),
        TSC_DEADLINE if apic.timer() & TIMER_MODE == TIMER_TSC_DEADLINE => {
            apic.set_deadline(deadline(value));
        }
        X2APIC_TIMER_INITIAL => {
            let period = BUS_NANOSECONDS * u64::from(apic.divisor());
            let after = Duration::from_nanos(u64::from(value as u32) * period);
            apic.set_deadline((value != 0).then(|| Instant::now() + after));
        }
        APIC_BASE | TSC_DEADLINE => {}
        _ if fixed(msr).is_some() => {}
        _ => return HostStatus::InvalidOperand,
    }
    HostStatus::Success
}

fn fixed(msr: u32) -> Option<u64> {
    let row = FIXED
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&msr));
    row.map(|(.., value)| *value)
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
