//! Instructions of ring 0, executed on behalf of the guest: what traps in ring 3, and what was patched because it does not.

mod control;
mod segments;
mod sensitive;
mod touch;
mod transfer;

use std::thread;
use std::time::Duration;

pub use touch::touched;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::cpu::{Cpu, Mode, VeInfo, gpr};
use crate::cpuid;
use crate::event::{Access, Death, Event, Exception, vector};
use crate::hostile::{Attack, Target};
use crate::module;
use crate::msr;
use crate::paging::View;
use crate::td::Td;

/// What is left to do after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// On to the next instruction.
    Continue,
    /// As Continue; the instruction pointer is set already.
    Jumped,
    /// Drop this CPU's translations.
    Flush,
    /// Drop this CPU's translations of one page, of whatever size.
    FlushPage(u64),
    /// Drop every CPU's translations.
    FlushEverywhere,
    /// Wait for an interrupt. `blocked` is the guest's word that it has interrupts off.
    Halt { blocked: bool },
}

/// VMX exit reasons (Intel SDM vol. 3, appendix C), in what VEINFO.GET tells.
mod reason {
    pub const CPUID: u32 = 10;
    pub const HLT: u32 = 12;
    pub const INVD: u32 = 13;
    pub const VMCALL: u32 = 18;
    pub const CR_ACCESS: u32 = 28;
    pub const IO: u32 = 30;
    pub const RDMSR: u32 = 31;
    pub const WRMSR: u32 = 32;
    pub const MWAIT: u32 = 36;
    pub const MONITOR: u32 = 39;
    pub const WBINVD: u32 = 54;
    pub const PCONFIG: u32 = 65;
}

/// One instruction in progress.
struct Step<'a> {
    cpu: &'a mut Cpu,
    td: &'a Td,
    view: View<'a>,
    instruction: Instruction,
}

/// How often a processor that a hostile host has stopped looks for an interrupt.
const LOOK: Duration = Duration::from_micros(100);
/// The longest instruction (SDM vol. 2A, 2.3.11).
const MAX_LENGTH: usize = 15;
/// The instruction's bytes (`tdx.md` 1.5).
const TDCALL: [u8; 4] = [0x66, 0x0f, 0x01, 0xcc];

/// The instruction at the instruction pointer, from the guest's memory, without patches.
///
/// # Errors
/// As the processor's own fetch.
pub fn fetch(cpu: &Cpu, view: &View<'_>) -> Result<Instruction, Event> {
    let mut bytes = [0; MAX_LENGTH];
    let length = fetch_bytes(cpu, view, &mut bytes)?;
    Ok(decode(cpu.mode(), cpu.registers.rip, &bytes[..length]))
}

/// As many bytes as can be fetched; the first one must be.
fn fetch_bytes(cpu: &Cpu, view: &View<'_>, bytes: &mut [u8; MAX_LENGTH]) -> Result<usize, Event> {
    let rip = cpu.registers.rip;
    let in_page = MAX_LENGTH.min(4096 - (rip % 4096) as usize);
    view.read(rip, &mut bytes[..in_page], Access::Execute)?;
    let rest = &mut bytes[in_page..];
    let next = rip.wrapping_add(in_page as u64);
    match rest.is_empty() || view.read(next, rest, Access::Execute).is_err() {
        true => Ok(in_page),
        false => Ok(MAX_LENGTH),
    }
}

/// Decodes one instruction.
pub fn decode(mode: Mode, rip: u64, bytes: &[u8]) -> Instruction {
    Decoder::with_ip(mode.bits(), bytes, rip, DecoderOptions::NONE).decode()
}

/// Executes the instruction at the instruction pointer, which trapped or was patched.
///
/// # Errors
/// What the instruction causes instead of its effect; the instruction pointer is still at it. `fault` if nothing here explains the trap.
pub fn execute(cpu: &mut Cpu, td: &Td, view: View<'_>, fault: Exception) -> Result<Effect, Event> {
    let mut bytes = [0; MAX_LENGTH];
    let length = fetch_bytes(cpu, &view, &mut bytes)?;
    if bytes.starts_with(&TDCALL) {
        let effect = module::tdcall(cpu, td)?;
        cpu.registers.rip += TDCALL.len() as u64;
        return Ok(effect);
    }
    let rip = cpu.registers.rip;
    let instruction = decode(cpu.mode(), rip, &bytes[..length]);
    if td.trace.is_on() {
        td.trace
            .line(cpu.index, format_args!("{rip:#x} {}", text(&instruction)));
    }
    let mut step = Step {
        cpu,
        td,
        view,
        instruction,
    };
    let effect = step.execute(fault)?;
    if effect != Effect::Jumped {
        cpu.registers.rip = instruction.next_ip();
    }
    Ok(effect)
}

/// An instruction as an assembler writes it.
pub fn text(instruction: &Instruction) -> String {
    use iced_x86::{Formatter, IntelFormatter};
    let mut text = String::new();
    IntelFormatter::new().format(instruction, &mut text);
    text
}

impl Step<'_> {
    /// Where a hostile host stops a processor until an interrupt has come for it: a TD that takes the interrupt before its halt, and not to end
    /// the halt, never wakes again.
    fn stop_before_halt(&self) {
        let host = &self.td.host;
        let strikes =
            || host.is_hostile() && host.strikes(Attack::InterruptBeforeHalt, Target::Launch);
        if self.cpu.interrupts || !strikes() {
            return;
        }
        let apic = &self.td.apics.0[self.cpu.index as usize];
        while apic.deliverable().is_none() && !apic.was_posted() && !self.td.is_ending() {
            thread::sleep(LOOK);
        }
    }

    fn execute(&mut self, fault: Exception) -> Result<Effect, Event> {
        use Mnemonic as M;
        match self.instruction.mnemonic() {
            M::Cpuid => self.cpuid(),
            M::Rdmsr => self.rdmsr(),
            M::Wrmsr => self.wrmsr(),
            M::Cli => {
                self.cpu.interrupts = false;
                Ok(Effect::Continue)
            }
            M::Sti => {
                self.stop_before_halt();
                self.cpu.interrupt_shadow = !self.cpu.interrupts;
                self.cpu.interrupts = true;
                Ok(Effect::Continue)
            }
            M::Hlt => Err(self.ve(reason::HLT, 0)),
            M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => {
                Err(self.port())
            }
            M::Invd => Err(self.ve(reason::INVD, 0)),
            M::Wbinvd | M::Wbnoinvd => Err(self.ve(reason::WBINVD, 0)),
            M::Vmcall => Err(self.ve(reason::VMCALL, 0)),
            M::Pconfig => Err(self.ve(reason::PCONFIG, 0)),
            M::Monitor => Err(self.ve(reason::MONITOR, 0)),
            M::Mwait => Err(self.ve(reason::MWAIT, 0)),
            M::Mov if self.has(|register| register.is_cr() || register.is_dr()) => {
                self.move_control()
            }
            M::Clts | M::Lmsw | M::Smsw | M::Xsetbv | M::Xgetbv => self.control(),
            M::Invlpg => {
                let address = self.address(0)?;
                Ok(Effect::FlushPage(address))
            }
            M::Invpcid => Ok(Effect::Flush),
            M::Stac | M::Clac => Ok(Effect::Continue),
            M::Lgdt | M::Lidt | M::Lldt | M::Ltr | M::Swapgs => self.tables(),
            M::Sgdt | M::Sidt | M::Sldt | M::Str => self.store_tables(),
            M::Mov | M::Push | M::Pop if self.has(|register| register.is_segment_register()) => {
                self.move_segment()
            }
            M::Pushf | M::Pushfd | M::Pushfq | M::Popf | M::Popfd | M::Popfq => self.flags(),
            M::Rdpid => {
                let value = self.cpu.msrs.get(&msr::TSC_AUX).copied().unwrap_or(0);
                self.set_register(self.instruction.op0_register(), value);
                Ok(Effect::Continue)
            }
            M::Jmp | M::Call | M::Retf | M::Iret | M::Iretd | M::Iretq if self.is_far() => {
                self.transfer(fault)
            }
            M::Int => self.interrupt(),
            M::Sysenter | M::Sysexit | M::Sysexitq | M::Sysret | M::Sysretq => {
                Err(Death::Unsupported(format!("{} (ring 3)", text(&self.instruction))).into())
            }
            _ => Err(fault.into()),
        }
    }

    fn trace(&self, what: std::fmt::Arguments<'_>) {
        self.td.trace.line(self.cpu.index, what);
    }

    /// A virtualization exception for this instruction.
    fn ve(&self, reason: u32, qualification: u64) -> Event {
        Event::Virtualization(VeInfo {
            reason,
            qualification,
            gla: 0,
            gpa: 0,
            length: self.instruction.len() as u32,
        })
    }

    /// IN, OUT and their string forms: qualification as for the VMX exit (Intel SDM vol. 3, table 29-5).
    fn port(&self) -> Event {
        use Mnemonic as M;
        let instruction = &self.instruction;
        let (input, string) = match instruction.mnemonic() {
            M::In => (true, false),
            M::Out => (false, false),
            M::Insb | M::Insw | M::Insd => (true, true),
            _ => (false, true),
        };
        let size = match (input, string) {
            (_, true) => instruction.memory_size().size() as u64,
            (true, _) => instruction.op0_register().size() as u64,
            (false, _) => instruction.op1_register().size() as u64,
        };
        let immediate = !string
            && (instruction.op0_kind() == OpKind::Immediate8
                || instruction.op1_kind() == OpKind::Immediate8);
        let port = if immediate {
            u64::from(instruction.immediate8())
        } else {
            self.cpu.registers.gpr[gpr::RDX] & 0xffff
        };
        let qualification = (size - 1)
            | u64::from(input) << 3
            | u64::from(string) << 4
            | u64::from(instruction.has_rep_prefix()) << 5
            | u64::from(immediate) << 6
            | port << 16;
        self.ve(reason::IO, qualification)
    }

    fn cpuid(&mut self) -> Result<Effect, Event> {
        let (leaf, subleaf) = (
            self.cpu.registers.gpr[gpr::RAX] as u32,
            self.cpu.registers.gpr[gpr::RCX] as u32,
        );
        if self.cpu.cpuid_ve || cpuid::raises_ve(leaf) {
            return Err(self.ve(reason::CPUID, 0));
        }
        let vcpus = self.td.parameters.vcpus;
        let xfam = self.td.identity().xfam();
        let answer = cpuid::of_module(self.cpu, leaf, subleaf, vcpus, xfam);
        let [eax, ebx, ecx, edx] = answer.map(u64::from);
        self.trace(format_args!(
            "CPUID {leaf:#x}.{subleaf:#x} -> {eax:#x} {ebx:#x} {ecx:#x} {edx:#x}"
        ));
        let gpr = &mut self.cpu.registers.gpr;
        [gpr[gpr::RAX], gpr[gpr::RBX], gpr[gpr::RCX], gpr[gpr::RDX]] = [eax, ebx, ecx, edx];
        Ok(Effect::Continue)
    }

    fn rdmsr(&mut self) -> Result<Effect, Event> {
        let msr = self.cpu.registers.gpr[gpr::RCX] as u32;
        let apic = &self.td.apics.0[self.cpu.index as usize];
        match msr::read(self.cpu, apic, msr) {
            msr::Outcome::Value(value) => {
                self.trace(format_args!("RDMSR {msr:#x} -> {value:#x}"));
                let gpr = &mut self.cpu.registers.gpr;
                gpr[gpr::RAX] = value & 0xffff_ffff;
                gpr[gpr::RDX] = value >> 32;
                Ok(Effect::Continue)
            }
            msr::Outcome::GeneralProtection => Err(Exception::general_protection(0).into()),
            msr::Outcome::Virtualization => Err(self.ve(reason::RDMSR, 0)),
        }
    }

    fn wrmsr(&mut self) -> Result<Effect, Event> {
        let gpr = &self.cpu.registers.gpr;
        let msr = gpr[gpr::RCX] as u32;
        let value = gpr[gpr::RAX] & 0xffff_ffff | gpr[gpr::RDX] << 32;
        let apic = &self.td.apics.0[self.cpu.index as usize];
        match msr::write(self.cpu, apic, msr, value) {
            msr::Outcome::Value(_) => {
                self.trace(format_args!("WRMSR {msr:#x} = {value:#x}"));
                Ok(Effect::Continue)
            }
            msr::Outcome::GeneralProtection => Err(Exception::general_protection(0).into()),
            msr::Outcome::Virtualization => Err(self.ve(reason::WRMSR, 0)),
        }
    }

    /// `int n`, which traps for its vector's descriptor: the return address is behind the instruction.
    fn interrupt(&mut self) -> Result<Effect, Event> {
        let vector = self.instruction.immediate8();
        self.cpu.registers.rip = self.instruction.next_ip();
        Err(Exception::new(vector).into())
    }

    /// Whether one of the first two operands is such a register.
    fn has(&self, kind: impl Fn(Register) -> bool) -> bool {
        let instruction = &self.instruction;
        (instruction.op0_kind() == OpKind::Register && kind(instruction.op0_register()))
            || (instruction.op_count() > 1
                && instruction.op1_kind() == OpKind::Register
                && kind(instruction.op1_register()))
    }

    /// The value of a general-purpose register, in its size.
    fn register(&self, register: Register) -> u64 {
        let full = self.cpu.registers.gpr[register.full_register().number()];
        match register.size() {
            8 => full,
            4 => full & 0xffff_ffff,
            2 => full & 0xffff,
            _ if is_high_byte(register) => full >> 8 & 0xff,
            _ => full & 0xff,
        }
    }

    /// Sets a general-purpose register of 16, 32 or 64 bits, as instructions do.
    fn set_register(&mut self, register: Register, value: u64) {
        let full = &mut self.cpu.registers.gpr[register.full_register().number()];
        *full = match register.size() {
            2 => *full & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    /// The linear address of a memory operand.
    fn address(&self, operand: u32) -> Result<u64, Event> {
        linear_address(self.cpu, &self.instruction, operand)
            .ok_or_else(|| Exception::new(vector::INVALID_OPCODE).into())
    }

    /// Whether the instruction changes CS.
    fn is_far(&self) -> bool {
        !matches!(self.instruction.mnemonic(), Mnemonic::Jmp | Mnemonic::Call)
            || self.instruction.is_jmp_far()
            || self.instruction.is_call_far()
            || self.instruction.is_jmp_far_indirect()
            || self.instruction.is_call_far_indirect()
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}

/// The linear address of an operand, with the CPU's registers.
fn linear_address(cpu: &Cpu, instruction: &Instruction, operand: u32) -> Option<u64> {
    let value = |register, _, _| Some(register_value(cpu, register));
    let address = instruction.virtual_address(operand, 0, value)?;
    Some(match cpu.mode() {
        Mode::Long => address,
        Mode::Protected => address & 0xffff_ffff,
    })
}

/// What a register contributes to an address: segments are flat but for FS and GS.
pub fn register_value(cpu: &Cpu, register: Register) -> u64 {
    match register {
        Register::FS => cpu.registers.fs_base,
        Register::GS => cpu.registers.gs_base,
        register if register.is_segment_register() => 0,
        register => {
            let full = cpu.registers.gpr[register.full_register().number()];
            match register.size() {
                8 => full,
                4 => full & 0xffff_ffff,
                _ => full & 0xffff,
            }
        }
    }
}
