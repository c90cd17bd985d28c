//! What memory an instruction touches, and how: Linux tells a tracer the address of a fault but not the kind of access.

use std::ops::Range;

use iced_x86::{Instruction, InstructionInfoFactory, OpAccess, UsedMemory};

use super::{fetch, register_value};
use crate::cpu::{Cpu, flags, gpr};
use crate::event::Access;
use crate::paging::View;

/// How the instruction that faulted touches `address`, and the bytes it touches there.
pub fn touched(cpu: &Cpu, view: &View<'_>, address: u64) -> (Access, Range<u64>) {
    let rip = cpu.registers.rip;
    let fetched = (Access::Execute, address..address + 1);
    let Ok(instruction) = fetch(cpu, view) else {
        return fetched;
    };
    let length = instruction.len().max(1) as u64;
    if (rip..rip + length).contains(&address) || instruction.is_invalid() {
        return fetched;
    }
    let mut factory = InstructionInfoFactory::new();
    let touched: Vec<_> = factory
        .info(&instruction)
        .used_memory()
        .iter()
        .filter_map(|used| {
            let range = range(cpu, &instruction, used)?;
            range.contains(&address).then_some((used.access(), range))
        })
        .collect();
    let write = touched.iter().find(|(access, _)| {
        matches!(
            access,
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        )
    });
    match (write, touched.first()) {
        (Some((_, range)), _) => (Access::Write, range.clone()),
        (None, Some((_, range))) => (Access::Read, range.clone()),
        (None, None) => (Access::Read, address..address + 1),
    }
}

/// The bytes that an operand touches, all repetitions of the instruction included.
fn range(cpu: &Cpu, instruction: &Instruction, used: &UsedMemory) -> Option<Range<u64>> {
    let start = used.virtual_address(0, |register, _, _| Some(register_value(cpu, register)))?;
    let size = used.memory_size().size().max(1) as u64;
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if !instruction.is_string_instruction() || !repeats {
        return Some(start..start.saturating_add(size));
    }
    let length = cpu.registers.gpr[gpr::RCX].saturating_mul(size);
    Some(if cpu.registers.flags & flags::DIRECTION == 0 {
        start..start.saturating_add(length)
    } else {
        start.saturating_sub(length)..start.saturating_add(size)
    })
}
