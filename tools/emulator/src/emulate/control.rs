//! Control and debug registers, XCR0 (`tdx.md` 1.3: `cr_write` and `xsetbv` handlers of the TDX module).

use iced_x86::{Mnemonic, Register};

use super::{Effect, Step, reason};
use crate::cpu::{control::*, gpr};
use crate::cpuid;
use crate::event::{Event, Exception};

/// Bits of CR4 that a TD here cannot set: 5-level paging, VMX, SMX, PCID, CET and what is reserved.
const CR4_REFUSED: u64 = CR4_LA57 | CR4_SMXE | CR4_PCIDE | CR4_CET | !0x1ff_ffff;
const CR0_KNOWN: u64 = 0xe005_003f;

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
                // 0x808 takes every priority there is.
                apic.write(0x808, (value & 15) << 4);
                Ok(Effect::Continue)
            }
            register if register.is_dr() => {
                self.cpu.debug[register.number() & 7] = value;
                Ok(Effect::Continue)
            }
            _ => Err(Exception::new(crate::event::vector::INVALID_OPCODE).into()),
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
                apic.read(0x808).unwrap_or(0) >> 4
            }
            register if register.is_dr() => self.cpu.debug[register.number() & 7],
            _ => return Err(Exception::new(crate::event::vector::INVALID_OPCODE).into()),
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
            return Err(self.ve(reason::CR_ACCESS, 0));
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

    /// MCE is fixed to one (clearing raises #VE), VMXE is shadowed.
    fn write_cr4(&mut self, value: u64) -> Result<Effect, Event> {
        let long = self.cpu.efer & EFER_LMA != 0;
        if value & CR4_REFUSED != 0 || long && value & CR4_PAE == 0 {
            return Err(Exception::general_protection(0).into());
        }
        if value & CR4_MCE == 0 {
            return Err(self.ve(reason::CR_ACCESS, 4));
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
        let gpr = &self.cpu.registers.gpr;
        let value = gpr[gpr::RAX] & 0xffff_ffff | gpr[gpr::RDX] << 32;
        let all_or_none = |mask: u64| value & mask == 0 || value & mask == mask;
        let valid = gpr[gpr::RCX] as u32 == 0
            && self.cpu.cr4 & CR4_OSXSAVE != 0
            && value & 1 != 0
            && value & !cpuid::xfam() == 0
            && (value & 4 == 0 || value & 2 != 0)
            && all_or_none(0xe0)
            && (value & 0xe0 == 0 || value & 4 != 0)
            && all_or_none(0x6_0000);
        if !valid {
            return Err(Exception::general_protection(0).into());
        }
        self.cpu.xcr0 = value;
        Ok(Effect::Continue)
    }
}
