//! The host's side of TDG.VP.VMCALL: what a VMM answers (GHCI; `tdx.md` 1.6, from KVM and QEMU).

mod map_gpa;
mod msr;
mod quote;

pub use quote::Quoting;

use std::fmt;

use crate::cpu::Cpu;
use crate::cpu::gpr::{R8, R9, R10, R11, R12, R13, R14, R15};
use crate::cpu::gpr::{RAX, RBP, RBX, RCX, RDI, RDX, RSI};
use crate::cpuid;
use crate::emulate::Effect;
use crate::event::{Death, Event};
use crate::hostile::{Attack, Target};
use crate::module::{Operand, Status};
use crate::td::{End, HostStack, Td};

/// Sub-functions (R11; `tdx.md` 1.6: GHCI, in Linux `arch/x86/include/asm/shared/tdx.h` and `uapi/asm/vmx.h`).
mod leaf {
    pub const CPUID: u64 = 10;
    pub const HLT: u64 = 12;
    pub const IO: u64 = 30;
    pub const RDMSR: u64 = 31;
    pub const WRMSR: u64 = 32;
    pub const MMIO: u64 = 48;
    pub const GET_TD_VM_CALL_INFO: u64 = 0x1_0000;
    pub const MAP_GPA: u64 = 0x1_0001;
    pub const GET_QUOTE: u64 = 0x1_0002;
    pub const REPORT_FATAL_ERROR: u64 = 0x1_0003;
    pub const SETUP_EVENT_NOTIFY_INTERRUPT: u64 = 0x1_0004;
}

/// R10 on return (`tdx.md` 1.6; Linux `arch/x86/include/asm/shared/tdx.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStatus {
    Success,
    Retry,
    InvalidOperand,
    AlignError,
    Unsupported,
}

impl HostStatus {
    /// As R10 shows it.
    pub fn word(self) -> u64 {
        match self {
            Self::Success => 0,
            Self::Retry => 1,
            Self::InvalidOperand => 0x8000_0000_0000_0000,
            Self::AlignError => 0x8000_0000_0000_0002,
            Self::Unsupported => 0x8000_0000_0000_0003,
        }
    }
}

/// Bits of the mask by register number: RAX, RCX and RSP never reach the host (`tdx.md` 1.6).
const NEVER_EXPOSED: u64 = 1 << 0 | 1 << 1 | 1 << 4;
const EXPOSED_RBP: u64 = 1 << RBP;

/// Bits of ReportFatalError's code that must be zero (QEMU `tdx_handle_report_fatal_error`; `tdx.md` 1.6).
const FATAL_ERROR_RESERVED: u64 = 0xffff;

/// What a call did.
struct Answer {
    status: HostStatus,
    effect: Effect,
}

impl From<HostStatus> for Answer {
    fn from(status: HostStatus) -> Self {
        Self {
            status,
            effect: Effect::Continue,
        }
    }
}

/// Executes TDG.VP.VMCALL.
///
/// # Errors
/// The end of the TD, if its memory cannot be used as it wants.
pub fn call(cpu: &mut Cpu, td: &Td) -> Result<Effect, Event> {
    let exposed = cpu.registers.gpr[RCX];
    let refused = match td.parameters.host {
        HostStack::Mainline => NEVER_EXPOSED | EXPOSED_RBP,
        HostStack::OutOfTree => NEVER_EXPOSED,
    };
    if exposed >> 32 != 0 || exposed & refused != 0 {
        cpu.registers.gpr[RAX] = Status::OperandInvalid(Operand::Rcx).word();
        td.trace.line(
            cpu.index,
            format_args!("TDVMCALL with mask {exposed:#x}: refused by the module"),
        );
        return Ok(Effect::Continue);
    }
    td.count_host_call();
    let mut host = [0; 16];
    for (register, value) in cpu.registers.gpr.iter().enumerate() {
        if exposed & 1 << register != 0 {
            host[register] = *value;
        }
    }
    let before = host;
    let answer = answer(cpu, td, &mut host)?;
    if td.host.is_hostile() && td.host.strikes(Attack::RegistersRandom, Target::Launch) {
        randomize(td, &before, answer.status, &mut host);
    }
    host[R10] = answer.status.word();
    for (register, value) in host.into_iter().enumerate() {
        if exposed & 1 << register != 0 {
            cpu.registers.gpr[register] = value;
        }
    }
    cpu.registers.gpr[RAX] = Status::Success.word();
    if td.trace.is_on() {
        td.trace.line(
            cpu.index,
            format_args!(
                "TDVMCALL {} r12={:#x} r13={:#x} r14={:#x} r15={:#x}{} -> {:?} r11={:#x}",
                name(before[R11]),
                before[R12],
                before[R13],
                before[R14],
                before[R15],
                Others(exposed, &before),
                answer.status,
                host[R11]
            ),
        );
    }
    Ok(answer.effect)
}

/// Fills the registers that carry no answer with random values, and what an answer does not fill of its own.
fn randomize(td: &Td, call: &[u64; 16], status: HostStatus, host: &mut [u64; 16]) {
    let random = || td.host.below(u64::MAX);
    let reads = call[R13] == 0;
    let answers = match call[R11] {
        leaf::CPUID => R12..R15 + 1,
        leaf::GET_TD_VM_CALL_INFO => R11..R14 + 1,
        leaf::RDMSR => R11..R12,
        leaf::IO | leaf::MMIO if reads => R11..R12,
        leaf::MAP_GPA if status == HostStatus::Retry => R11..R12,
        _ => 0..0,
    };
    for register in (0..host.len()).filter(|register| !answers.contains(register)) {
        host[register] = random();
    }
    if matches!(call[R11], leaf::IO | leaf::MMIO) && reads && call[R12] < 8 {
        host[R11] |= random() << (8 * call[R12]);
    }
}

/// The registers that a call exposes besides R10 to R15, for the trace.
struct Others<'a>(u64, &'a [u64; 16]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(usize, &str); 7] = [
            (RDX, "rdx"),
            (RBX, "rbx"),
            (RBP, "rbp"),
            (RSI, "rsi"),
            (RDI, "rdi"),
            (R8, "r8"),
            (R9, "r9"),
        ];
        NAMES
            .iter()
            .filter(|(register, _)| self.0 & 1 << register != 0)
            .try_for_each(|(register, name)| write!(f, " {name}={:#x}", self.1[*register]))
    }
}

/// A sub-function's name, for the trace.
fn name(leaf: u64) -> String {
    match leaf {
        leaf::CPUID => "CPUID",
        leaf::HLT => "HLT",
        leaf::IO => "IO",
        leaf::RDMSR => "RDMSR",
        leaf::WRMSR => "WRMSR",
        leaf::MMIO => "MMIO",
        leaf::GET_TD_VM_CALL_INFO => "GetTdVmCallInfo",
        leaf::MAP_GPA => "MapGPA",
        leaf::GET_QUOTE => "GetQuote",
        leaf::REPORT_FATAL_ERROR => "ReportFatalError",
        leaf::SETUP_EVENT_NOTIFY_INTERRUPT => "SetupEventNotifyInterrupt",
        other => return format!("{other:#x}"),
    }
    .to_owned()
}

fn answer(cpu: &Cpu, td: &Td, host: &mut [u64; 16]) -> Result<Answer, Event> {
    if host[R10] != 0 {
        return Ok(HostStatus::Unsupported.into());
    }
    let strikes = |attack| td.host.is_hostile() && td.host.strikes(attack, Target::Launch);
    Ok(match std::mem::take(&mut host[R11]) {
        leaf::CPUID => {
            let [eax, ebx, ecx, edx] =
                cpuid::of_host(host[R12] as u32, host[R13] as u32).map(u64::from);
            [host[R12], host[R13], host[R14], host[R15]] = [eax, ebx, ecx, edx];
            HostStatus::Success.into()
        }
        leaf::HLT if strikes(Attack::HaltReturns) => HostStatus::Success.into(),
        leaf::HLT => Answer {
            status: HostStatus::Success,
            effect: Effect::Halt {
                blocked: host[R12] != 0,
            },
        },
        leaf::IO => port(td, host).into(),
        leaf::RDMSR => msr::read(cpu, td, host).into(),
        leaf::WRMSR => msr::write(cpu, td, host).into(),
        leaf::MMIO => registers(td, host).into(),
        leaf::GET_TD_VM_CALL_INFO if host[R12] == 0 => {
            host[R11..=R14].fill(0);
            HostStatus::Success.into()
        }
        leaf::MAP_GPA => map_gpa::call(td, host),
        leaf::GET_QUOTE => quote::get_quote(td, host).into(),
        leaf::SETUP_EVENT_NOTIFY_INTERRUPT => {
            quote::set_notification(td, cpu.index, host[R12]).into()
        }
        leaf::REPORT_FATAL_ERROR if host[R12] & FATAL_ERROR_RESERVED != 0 => {
            return Err(Death::Forbidden(
                "ReportFatalError with an error code whose bits 15:0 are not zero: QEMU does not take it and stops the TD",
            )
            .into());
        }
        leaf::REPORT_FATAL_ERROR => {
            td.finish(fatal_error(host));
            HostStatus::Success.into()
        }
        _ => HostStatus::Unsupported.into(),
    })
}

fn port(td: &Td, host: &mut [u64; 16]) -> HostStatus {
    let (size, port) = (host[R12], host[R14]);
    if !matches!(size, 1 | 2 | 4) || host[R13] > 1 || port > 0xffff {
        return HostStatus::InvalidOperand;
    }
    let write = (host[R13] == 1).then_some(host[R15] as u32);
    let value = td.bus.io(port as u16, size as u8, write);
    if write.is_none() {
        host[R11] = u64::from(value) & (u64::MAX >> (64 - 8 * size));
    }
    HostStatus::Success
}

fn registers(td: &Td, host: &mut [u64; 16]) -> HostStatus {
    let (size, address) = (host[R12], host[R14]);
    let gpa = address & !td.shared_bit();
    let valid = matches!(size, 1 | 2 | 4 | 8) && host[R13] <= 1 && address & td.shared_bit() != 0;
    if !valid || td.memory.state(gpa).is_some() {
        return HostStatus::InvalidOperand;
    }
    let write = (host[R13] == 1).then_some(host[R15]);
    let value = td.bus.mmio(gpa, size as u8, write);
    if write.is_none() {
        host[R11] = value & (u64::MAX >> (64 - 8 * size));
    }
    HostStatus::Success
}

/// The code in R12; the message in these registers, in this order.
fn fatal_error(host: &[u64; 16]) -> End {
    let message: Vec<u8> = [R14, R15, RBX, RDI, RSI, R8, R9, RDX]
        .iter()
        .flat_map(|register| host[*register].to_le_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    End::FatalError {
        code: host[R12],
        message: String::from_utf8_lossy(&message).into_owned(),
    }
}
