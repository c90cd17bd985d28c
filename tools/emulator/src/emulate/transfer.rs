//! Far jumps, calls and returns, and IRET: they change the code segment, and with it the mode.

use iced_x86::{Mnemonic as M, OpKind};

use super::{Effect, Step};
use crate::cpu::{Mode, control::EFER_LMA, gpr, segment};
use crate::delivery::code_segment;
use crate::event::{Event, Exception};

impl Step<'_> {
    /// `fault` if the instruction is none that can be carried out.
    pub(super) fn transfer(&mut self, fault: Exception) -> Result<Effect, Event> {
        match self.instruction.mnemonic() {
            M::Jmp => {
                let (selector, offset) = self.far_target(fault)?;
                self.enter(selector, offset)?;
            }
            M::Call => {
                let (selector, offset) = self.far_target(fault)?;
                let size = self.operand_size();
                code_segment(self.cpu, &self.view, selector)?;
                let old = u64::from(self.cpu.selectors[segment::CS]);
                self.push(old, size)?;
                self.push(self.instruction.next_ip(), size)?;
                self.enter(selector, offset)?;
            }
            M::Retf => {
                let size = self.operand_size() as u64;
                let top = self.cpu.registers.gpr[gpr::RSP];
                let offset = self.view.number(top, size as usize)?;
                let selector = self.view.number(top + size, size as usize)? as u16;
                let extra = match self.instruction.op_count() {
                    0 => 0,
                    _ => u64::from(self.instruction.immediate16()),
                };
                self.enter(selector, offset)?;
                self.add_to_stack(2 * size + extra);
            }
            _ => self.interrupt_return()?,
        }
        Ok(Effect::Jumped)
    }

    fn far_target(&self, fault: Exception) -> Result<(u16, u64), Event> {
        let instruction = &self.instruction;
        match instruction.op0_kind() {
            OpKind::FarBranch16 => Ok((
                instruction.far_branch_selector(),
                u64::from(instruction.far_branch16()),
            )),
            OpKind::FarBranch32 => Ok((
                instruction.far_branch_selector(),
                u64::from(instruction.far_branch32()),
            )),
            OpKind::Memory => {
                let address = self.address(0)?;
                let size = instruction.memory_size().size() - 2;
                let offset = self.view.number(address, size)?;
                let selector = self.view.number(address + size as u64, 2)? as u16;
                Ok((selector, offset))
            }
            _ => Err(fault.into()),
        }
    }

    /// Bytes of an offset on the stack.
    fn operand_size(&self) -> usize {
        use iced_x86::Code;
        match self.instruction.code() {
            Code::Retfq | Code::Retfq_imm16 | Code::Call_m1664 => 8,
            Code::Retfw | Code::Retfw_imm16 | Code::Call_m1616 | Code::Call_ptr1616 => 2,
            _ => 4,
        }
    }

    fn enter(&mut self, selector: u16, offset: u64) -> Result<(), Event> {
        let long = code_segment(self.cpu, &self.view, selector)?;
        self.cpu.selectors[segment::CS] = selector;
        self.cpu.code64 = long;
        self.cpu.registers.rip = if long { offset } else { offset & 0xffff_ffff };
        Ok(())
    }

    /// IRET within ring 0. In 64-bit mode it always pops the stack pointer.
    fn interrupt_return(&mut self) -> Result<(), Event> {
        let size = match self.instruction.mnemonic() {
            M::Iret => 2,
            M::Iretd => 4,
            _ => 8,
        };
        let top = self.cpu.registers.gpr[gpr::RSP];
        let word = |index: u64| self.view.number(top + index * size, size as usize);
        let (offset, selector, flags) = (word(0)?, word(1)? as u16, word(2)?);
        let was_long = self.cpu.mode() == Mode::Long;
        let stack = if was_long {
            Some((word(3)?, word(4)? as u16))
        } else {
            None
        };
        if selector & 3 != 0 && self.cpu.efer & EFER_LMA != 0 {
            return Err(crate::event::Death::Unsupported("IRET to ring 3".to_owned()).into());
        }
        self.enter(selector, offset)?;
        self.cpu.set_flags(flags);
        self.cpu.interrupt_shadow = false;
        match stack {
            Some((pointer, selector)) => {
                self.cpu.registers.gpr[gpr::RSP] = pointer;
                self.cpu.selectors[segment::SS] = selector;
            }
            None => self.add_to_stack(3 * size),
        }
        Ok(())
    }
}
