//! Control and debug registers, XCR0 (`tdx.md` 1.3: `cr_write` and `xsetbv` handlers of the TDX module).

use iced_x86::{Mnemonic, OpKind, Register};

use super::{Effect, Step, reason};
use crate::cpu::{control::*, gpr};
use crate::event::{Event, Exception, vector};

/// Bits of CR4 that raise #GP here (`tdx.md` 1.3: those that neither XFAM nor ATTRIBUTES allow): 5-level paging, SMX, PCID, Key Locker, protection
/// keys, CET.
const CR4_REFUSED: u64 =
    CR4_LA57 | CR4_SMXE | CR4_PCIDE | CR4_KL | CR4_PKE | CR4_CET | CR4_PKS | CR4_RESERVED;
/// Bit 15, and all above PKS (SDM vol. 3, 2.5).
const CR4_RESERVED: u64 = 1 << 15 | !0x1ff_ffff;
/// PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG (SDM vol. 3, 2.5).
const CR0_KNOWN: u64 = 0xe005_003f;
/// The task priority register, which CR8 shows (SDM vol. 3, APIC chapter: x2APIC register address space, task priority in IA-32e mode).
const TASK_PRIORITY: u32 = 0x808;

impl Step<'_> {
    pub(super) fn move_control(&mut self) -> Result<Effect, Event> {
        let (to, from) = (
            self.instruction.op0_register(),
            self.instruction.op1_register(),
        );
        if from.is_cr() || from.is_dr() {
            let value = self.read_control(from)?;
            self.set_register(to, value);
            return Ok(Effect::Continue);
        }
        let value = self.register(from);
        match to {
            Register::CR0 => self.write_cr0(value),
            Register::CR2 => {
                self.cpu.cr2 = value;
                Ok(Effect::Continue)
            }
            Register::CR3 => {
                if value >> 52 != 0 {
                    return Err(Exception::general_protection(0).into());
                }
                self.cpu.cr3 = value;
                Ok(Effect::Flush)
            }
            Register::CR4 => self.write_cr4(value),
            Register::CR8 => {
                let apic = &self.td.apics.0[self.cpu.index as usize];
                // It takes every priority there is.
                apic.write(TASK_PRIORITY, (value & 15) << 4);
                Ok(Effect::Continue)
            }
            register if register.is_dr() => {
                self.cpu.debug[register.number() & 7] = value;
                Ok(Effect::Continue)
            }
            _ => Err(Exception::new(vector::INVALID_OPCODE).into()),
        }
    }

    fn read_control(&self, register: Register) -> Result<u64, Event> {
        Ok(match register {
            Register::CR0 => self.cpu.cr0,
            Register::CR2 => self.cpu.cr2,
            Register::CR3 => self.cpu.cr3,
            Register::CR4 => self.cpu.cr4,
            Register::CR8 => {
                let apic = &self.td.apics.0[self.cpu.index as usize];
                apic.read(TASK_PRIORITY).unwrap_or(0) >> 4
            }
            register if register.is_dr() => self.cpu.debug[register.number() & 7],
            _ => return Err(Exception::new(vector::INVALID_OPCODE).into()),
        })
    }

    /// PE and NE are fixed to one: clearing them raises #VE, as setting CD or NW does. Natively wrong combinations raise #GP first.
    fn write_cr0(&mut self, value: u64) -> Result<Effect, Event> {
        let refused = value & !CR0_KNOWN & !0xffff_ffff != 0
            || value & CR0_PG != 0 && value & CR0_PE == 0
            || value & CR0_NW != 0 && value & CR0_CD == 0;
        let long = self.cpu.efer & EFER_LME != 0;
        let turned_on = value & !self.cpu.cr0 & CR0_PG != 0;
        let turned_off = self.cpu.cr0 & !value & CR0_PG != 0;
        if refused
            || turned_on && long && self.cpu.cr4 & CR4_PAE == 0
            || turned_off && self.cpu.code64
        {
            return Err(Exception::general_protection(0).into());
        }
        if value & (CR0_PE | CR0_NE) != CR0_PE | CR0_NE || value & (CR0_CD | CR0_NW) != 0 {
            return Err(self.cr_access(0));
        }
        let changed = self.cpu.cr0 ^ value;
        self.cpu.cr0 = value & CR0_KNOWN | CR0_ET;
        if turned_on && long {
            self.cpu.efer |= EFER_LMA;
        } else if turned_off {
            self.cpu.efer &= !EFER_LMA;
        }
        Ok(if changed & (CR0_PG | CR0_WP) != 0 {
            Effect::Flush
        } else {
            Effect::Continue
        })
    }

    /// #VE for a write to a control register: its number in bits 3:0; what it is in bits 5:4, 0 for MOV to it and 3 for LMSW; the register that
    /// MOV takes the value from in bits 11:8, or LMSW's value in bits 31:16 (SDM vol. 3, 29.2.1: exit qualification for control-register accesses).
    fn cr_access(&self, number: u64) -> Event {
        let instruction = &self.instruction;
        let details = if instruction.mnemonic() == Mnemonic::Lmsw {
            let value = self.operand_16().unwrap_or(0);
            let in_memory = u64::from(instruction.op0_kind() == OpKind::Memory);
            3 << 4 | in_memory << 6 | u64::from(value) << 16
        } else {
            (instruction.op1_register().number() as u64) << 8
        };
        self.ve(reason::CR_ACCESS, number | details)
    }

    /// MCE is fixed to one (clearing raises #VE), VMXE is shadowed.
    fn write_cr4(&mut self, value: u64) -> Result<Effect, Event> {
        let long = self.cpu.efer & EFER_LMA != 0;
        if value & CR4_REFUSED != 0 || long && value & CR4_PAE == 0 {
            return Err(Exception::general_protection(0).into());
        }
        if value & CR4_MCE == 0 {
            return Err(self.cr_access(4));
        }
        let changed = self.cpu.cr4 ^ value;
        self.cpu.cr4 = value | CR4_VMXE;
        Ok(if changed & (CR4_PAE | CR4_PGE) != 0 {
            Effect::Flush
        } else {
            Effect::Continue
        })
    }

    pub(super) fn control(&mut self) -> Result<Effect, Event> {
        match self.instruction.mnemonic() {
            Mnemonic::Clts => self.cpu.cr0 &= !CR0_TS,
            Mnemonic::Lmsw => {
                let value = self.operand_16()?;
                let low = self.cpu.cr0 & !0xe | u64::from(value) & 0xf;
                return self.write_cr0(low);
            }
            Mnemonic::Smsw => {
                let value = self.cpu.cr0;
                self.store(value)?;
            }
            // XCR0, or XINUSE: that everything is in use is always right.
            Mnemonic::Xgetbv => self.set_pair(self.cpu.xcr0),
            _ => return self.xsetbv(),
        }
        Ok(Effect::Continue)
    }

    fn set_pair(&mut self, value: u64) {
        self.cpu.registers.gpr[gpr::RAX] = value & 0xffff_ffff;
        self.cpu.registers.gpr[gpr::RDX] = value >> 32;
    }

    /// Within XFAM, and in combinations that the processor knows (Intel SDM vol. 1, 13.3).
    fn xsetbv(&mut self) -> Result<Effect, Event> {
        if self.cpu.cr4 & CR4_OSXSAVE == 0 {
            return Err(Exception::new(vector::INVALID_OPCODE).into());
        }
        let gpr = &self.cpu.registers.gpr;
        let value = gpr[gpr::RAX] & 0xffff_ffff | gpr[gpr::RDX] << 32;
        const X87: u64 = 1 << 0;
        const SSE: u64 = 1 << 1;
        const AVX: u64 = 1 << 2;
        const AVX512: u64 = 0xe0;
        const AMX: u64 = 0x6_0000;
        let all_or_none = |mask: u64| value & mask == 0 || value & mask == mask;
        let valid = gpr[gpr::RCX] as u32 == 0
            && value & X87 != 0
            && value & !self.td.identity().xfam() == 0
            && (value & AVX == 0 || value & SSE != 0)
            && all_or_none(AVX512)
            && (value & AVX512 == 0 || value & AVX != 0)
            && all_or_none(AMX);
        if !valid {
            return Err(Exception::general_protection(0).into());
        }
        self.cpu.xcr0 = value;
        Ok(Effect::Continue)
    }
}
