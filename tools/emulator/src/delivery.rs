//! Exceptions and interrupts delivered through the guest's own IDT (Intel SDM vol. 3, 7.14: 64-bit mode, ring 0 throughout).

use crate::cpu::{Cpu, gpr, segment};
use crate::event::{Death, Event, Exception, vector};
use crate::paging::View;

/// Bytes of a gate of the IDT, and its bits (SDM vol. 3, 7.14.1: 64-bit mode IDT; types: 3.5, system-segment and gate-descriptor types).
const GATE: u64 = 16;
const GATE_PRESENT: u64 = 1 << 47;
const TYPE_INTERRUPT: u64 = 0xe;
const TYPE_TRAP: u64 = 0xf;
/// Offset of IST1 in the 64-bit TSS (SDM vol. 3, task management chapter: task management in 64-bit mode).
const IST: u64 = 0x24;

/// Makes the guest handle `exception`. A fault on the way becomes a double fault where the processor makes it one.
///
/// # Errors
/// The end of the TD: a fault while a double fault is delivered, or no usable IDT.
pub fn deliver(cpu: &mut Cpu, view: &View<'_>, exception: Exception) -> Result<(), Death> {
    if let Some(address) = exception.address {
        cpu.cr2 = address;
    }
    match enter(cpu, view, exception) {
        Ok(()) => Ok(()),
        Err(Event::Death(death)) => Err(death),
        Err(Event::Virtualization(_)) => Err(Death::Forbidden(
            "an exception frame or gate lies in device registers",
        )),
        Err(Event::Exception(second)) => {
            let first = format!(
                "{exception} at {:#x}, then {second} while delivering it",
                cpu.registers.rip
            );
            if exception.vector == vector::DOUBLE_FAULT {
                return Err(Death::TripleFault { first });
            }
            if let Some(address) = second.address {
                cpu.cr2 = address;
            }
            let next = if doubles(exception.vector, second.vector) {
                Exception {
                    vector: vector::DOUBLE_FAULT,
                    error: Some(0),
                    address: None,
                }
            } else {
                second
            };
            match enter(cpu, view, next) {
                Ok(()) => Ok(()),
                Err(Event::Death(death)) => Err(death),
                Err(_) => Err(Death::TripleFault { first }),
            }
        }
    }
}

/// Whether two exceptions make a double fault (Intel SDM vol. 3, table 7-5). #VE counts as a page fault.
fn doubles(first: u8, second: u8) -> bool {
    let contributory = |vector| matches!(vector, 0 | 10..=13);
    let page_fault = |vector| matches!(vector, vector::PAGE_FAULT | vector::VIRTUALIZATION);
    contributory(first) && contributory(second)
        || page_fault(first) && (contributory(second) || page_fault(second))
}

fn enter(cpu: &mut Cpu, view: &View<'_>, exception: Exception) -> Result<(), Event> {
    // The error code names the IDT's entry (SDM vol. 3, 7.13).
    let not_usable = Exception::general_protection(u32::from(exception.vector) * 8 + 2);
    let offset = u64::from(exception.vector) * GATE;
    if offset + GATE - 1 > u64::from(cpu.idtr.limit) {
        return Err(not_usable.into());
    }
    if cpu.efer & crate::cpu::control::EFER_LMA == 0 {
        return Err(Death::Unsupported(format!("{exception} in 32-bit mode")).into());
    }
    let low = view.number(cpu.idtr.base + offset, 8)?;
    let high = view.number(cpu.idtr.base + offset + 8, 8)?;
    let kind = low >> 40 & 15;
    if !matches!(kind, TYPE_INTERRUPT | TYPE_TRAP) || low & GATE_PRESENT == 0 {
        return Err(not_usable.into());
    }
    let stack = match low >> 32 & 7 {
        0 => cpu.registers.gpr[gpr::RSP],
        index => view.number(cpu.task.1 + IST + 8 * (index - 1), 8)?,
    };
    let error = exception.error.map(u64::from);
    let frame = [
        cpu.registers.rip,
        u64::from(cpu.selectors[segment::CS]),
        cpu.flags(),
        cpu.registers.gpr[gpr::RSP],
        u64::from(cpu.selectors[segment::SS]),
    ];
    let words: Vec<u64> = error.into_iter().chain(frame).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let top = (stack & !15).wrapping_sub(bytes.len() as u64);
    let selector = (low >> 16) as u16;
    let code64 = code_segment(cpu, view, selector)?;
    view.write(top, &bytes)?;
    cpu.registers.gpr[gpr::RSP] = top;
    cpu.registers.rip = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    cpu.selectors[segment::CS] = selector & !3;
    cpu.code64 = code64;
    cpu.registers.flags &= !(crate::cpu::flags::TRAP | crate::cpu::flags::NESTED_TASK);
    cpu.interrupt_shadow = false;
    if kind == TYPE_INTERRUPT {
        cpu.interrupts = false;
    }
    Ok(())
}

/// Checks the code segment that `selector` names; whether it is 64-bit.
///
/// # Errors
/// #GP with the selector if it is no code segment of ring 0 within the GDT.
pub fn code_segment(cpu: &Cpu, view: &View<'_>, selector: u16) -> Result<bool, Event> {
    // Present, DPL 0, a code segment; L and D/B (SDM vol. 3, 3.4.5).
    const CODE_PRESENT: u64 = 0b1001_1000 << 40;
    const CODE_PRESENT_MASK: u64 = 0b1111_1000 << 40;
    const LONG: u64 = 1 << 53;
    const DEFAULT_32: u64 = 1 << 54;
    let fault = Exception::general_protection(u32::from(selector & !3));
    let index = selector & !7;
    if index == 0 || selector & 4 != 0 || index | 7 > cpu.gdtr.limit || selector & 3 != 0 {
        return Err(fault.into());
    }
    let descriptor = view.number(cpu.gdtr.base + u64::from(index), 8)?;
    if descriptor & CODE_PRESENT_MASK != CODE_PRESENT {
        return Err(fault.into());
    }
    let long = descriptor & LONG != 0 && cpu.efer & crate::cpu::control::EFER_LMA != 0;
    if !long && descriptor & DEFAULT_32 == 0 {
        return Err(Death::Unsupported("16-bit code segments".to_owned()).into());
    }
    Ok(long)
}
