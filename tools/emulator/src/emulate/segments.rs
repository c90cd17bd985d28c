//! Descriptor tables and segment registers. Segments are flat: only FS and GS have a base, which MSRs and WRFSBASE set.

use iced_x86::{Mnemonic, OpKind};

use super::{Effect, Step};
use crate::cpu::{DescriptorTable, Mode, gpr, segment};
use crate::event::{Access, Event, Exception};

impl Step<'_> {
    pub(super) fn tables(&mut self) -> Result<Effect, Event> {
        match self.instruction.mnemonic() {
            Mnemonic::Swapgs => {
                std::mem::swap(
                    &mut self.cpu.registers.gs_base,
                    &mut self.cpu.kernel_gs_base,
                );
            }
            Mnemonic::Lgdt => self.cpu.gdtr = self.load_table()?,
            Mnemonic::Lidt => self.cpu.idtr = self.load_table()?,
            // No local descriptor table is ever used; a null selector is all that can be loaded.
            Mnemonic::Lldt => {
                let selector = self.operand_16()?;
                if selector & !3 != 0 {
                    return Err(Exception::general_protection(u32::from(selector)).into());
                }
            }
            _ => self.load_task()?,
        }
        Ok(Effect::Continue)
    }

    fn load_table(&self) -> Result<DescriptorTable, Event> {
        let address = self.address(0)?;
        let length = match self.cpu.mode() {
            Mode::Long => 10,
            Mode::Protected => 6,
        };
        let mut bytes = [0; 16];
        self.view
            .read(address, &mut bytes[..length], Access::Read)?;
        let number = u128::from_le_bytes(bytes);
        Ok(DescriptorTable {
            base: (number >> 16) as u64,
            limit: number as u16,
        })
    }

    /// LTR: an available 64-bit TSS, which becomes busy (SDM vol. 3, 3.5 and task management chapter: TSS descriptor in 64-bit mode).
    fn load_task(&mut self) -> Result<(), Event> {
        let selector = self.operand_16()?;
        let fault = Exception::general_protection(u32::from(selector & !3));
        if selector & !3 == 0 || selector & 4 != 0 || (selector | 15) > self.cpu.gdtr.limit {
            return Err(fault.into());
        }
        let place = self.cpu.gdtr.base + u64::from(selector & !7);
        let (low, high) = (self.view.number(place, 8)?, self.view.number(place + 8, 8)?);
        if !matches!(low >> 40 & 0x9f, 0x89) {
            return Err(fault.into());
        }
        let base = low >> 16 & 0xff_ffff | low >> 32 & 0xff00_0000 | high << 32;
        self.view.write(place, &(low | 1 << 41).to_le_bytes())?;
        self.cpu.task = (selector, base);
        Ok(())
    }

    pub(super) fn store_tables(&mut self) -> Result<Effect, Event> {
        let table = match self.instruction.mnemonic() {
            Mnemonic::Sgdt => self.cpu.gdtr,
            Mnemonic::Sidt => self.cpu.idtr,
            Mnemonic::Str => {
                let selector = u64::from(self.cpu.task.0);
                self.store(selector)?;
                return Ok(Effect::Continue);
            }
            _ => {
                self.store(0)?;
                return Ok(Effect::Continue);
            }
        };
        let bytes = (u128::from(table.base) << 16 | u128::from(table.limit)).to_le_bytes();
        let length = match self.cpu.mode() {
            Mode::Long => 10,
            Mode::Protected => 6,
        };
        self.view.write(self.address(0)?, &bytes[..length])?;
        Ok(Effect::Continue)
    }

    /// MOV, PUSH and POP of a segment register.
    pub(super) fn move_segment(&mut self) -> Result<Effect, Event> {
        let instruction = self.instruction;
        let size = match (self.cpu.mode(), instruction.stack_pointer_increment().abs()) {
            (_, 2) => 2,
            (Mode::Long, _) => 8,
            (Mode::Protected, _) => 4,
        };
        match instruction.mnemonic() {
            Mnemonic::Push => {
                let selector = self.cpu.selectors[instruction.op0_register().number()];
                self.push(u64::from(selector), size)?;
            }
            Mnemonic::Pop => {
                let value = self.view.number(self.cpu.registers.gpr[gpr::RSP], size)?;
                self.load_segment(instruction.op0_register().number(), value as u16)?;
                self.add_to_stack(size as u64);
            }
            _ if instruction.op0_register().is_segment_register() => {
                let selector = self.source_16(1)?;
                self.load_segment(instruction.op0_register().number(), selector)?;
            }
            _ => {
                let selector = self.cpu.selectors[instruction.op1_register().number()];
                self.store(u64::from(selector))?;
            }
        }
        Ok(Effect::Continue)
    }

    /// A data segment: flat, or null where that is allowed.
    fn load_segment(&mut self, register: usize, selector: u16) -> Result<(), Event> {
        // Present, not a system segment (SDM vol. 3, 3.4.5).
        const DATA_PRESENT: u64 = 0b1001_0000 << 40;
        const DATA_PRESENT_MASK: u64 = 0b1001_0000 << 40;
        let fault = Exception::general_protection(u32::from(selector & !3));
        if register == segment::CS {
            return Err(Exception::new(crate::event::vector::INVALID_OPCODE).into());
        }
        let index = selector & !7;
        if selector & !3 != 0 {
            if selector & 4 != 0 || index | 7 > self.cpu.gdtr.limit {
                return Err(fault.into());
            }
            let place = self.cpu.gdtr.base + u64::from(index);
            let descriptor = self.view.number(place, 8)?;
            if descriptor & DATA_PRESENT_MASK != DATA_PRESENT {
                return Err(fault.into());
            }
        } else if register == segment::SS && self.cpu.mode() == Mode::Protected {
            return Err(fault.into());
        }
        self.cpu.selectors[register] = selector;
        self.cpu.interrupt_shadow |= register == segment::SS;
        match register {
            segment::FS => self.cpu.registers.fs_base = 0,
            segment::GS => self.cpu.registers.gs_base = 0,
            _ => {}
        }
        Ok(())
    }

    /// The first operand, 16 bits of it.
    pub(super) fn operand_16(&self) -> Result<u16, Event> {
        self.source_16(0)
    }

    fn source_16(&self, operand: u32) -> Result<u16, Event> {
        if self.instruction.op_kind(operand) == OpKind::Register {
            return Ok(self.register(self.instruction.op_register(operand)) as u16);
        }
        Ok(self.view.number(self.address(operand)?, 2)? as u16)
    }

    /// Stores to the first operand: a register in its size, or 16 bits of memory.
    pub(super) fn store(&mut self, value: u64) -> Result<(), Event> {
        if self.instruction.op0_kind() == OpKind::Register {
            self.set_register(self.instruction.op0_register(), value);
            return Ok(());
        }
        self.view
            .write(self.address(0)?, &(value as u16).to_le_bytes())
    }

    /// Pushes `size` bytes.
    pub(super) fn push(&mut self, value: u64, size: usize) -> Result<(), Event> {
        let top = self.stack_minus(size as u64);
        self.view.write(top, &value.to_le_bytes()[..size])?;
        self.cpu.registers.gpr[gpr::RSP] = top;
        Ok(())
    }

    fn stack_minus(&self, bytes: u64) -> u64 {
        let top = self.cpu.registers.gpr[gpr::RSP].wrapping_sub(bytes);
        match self.cpu.mode() {
            Mode::Long => top,
            Mode::Protected => top & 0xffff_ffff,
        }
    }

    /// Pops `bytes` bytes.
    pub(super) fn add_to_stack(&mut self, bytes: u64) {
        let top = &mut self.cpu.registers.gpr[gpr::RSP];
        *top = top.wrapping_add(bytes);
    }
}
