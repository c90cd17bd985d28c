//! What is said when the guest faults: what happened, the instruction with its function, and the registers.

use std::fmt::Write;

use crate::cpu::{Cpu, gpr, segment};
use crate::emulate;
use crate::paging::View;
use crate::symbols::Symbols;

/// A report of several lines about `what` happened at the instruction pointer.
pub fn report(cpu: &Cpu, view: Option<&View<'_>>, symbols: &Symbols, what: &str) -> String {
    let rip = cpu.registers.rip;
    let mut text = format!("vCPU {}: {what}\n", cpu.index);
    // Writing to a string cannot fail.
    let _ = write!(text, "  at {rip:#x}");
    if let Some(place) = symbols.find(rip) {
        let _ = write!(text, " in {place}");
    }
    let instruction = view.and_then(|view| emulate::fetch(cpu, view).ok());
    if let Some(instruction) = instruction {
        let _ = write!(text, ": {}", emulate::text(&instruction));
    }
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8 ", "r9 ", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    for (index, (name, value)) in NAMES.iter().zip(cpu.registers.gpr).enumerate() {
        let start = if index % 4 == 0 { "\n  " } else { "  " };
        let _ = write!(text, "{start}{name} {value:016x}");
    }
    let _ = write!(
        text,
        "\n  cr0 {:x}  cr2 {:x}  cr3 {:x}  cr4 {:x}  efer {:x}  flags {:x}  cs {:x}  ss {:x}",
        cpu.cr0,
        cpu.cr2,
        cpu.cr3,
        cpu.cr4,
        cpu.efer,
        cpu.flags(),
        cpu.selectors[segment::CS],
        cpu.selectors[segment::SS],
    );
    if let Some(view) = view {
        write_stack(&mut text, cpu, view, symbols);
    }
    text
}

/// The top of the stack; words that may be return addresses with their functions.
fn write_stack(text: &mut String, cpu: &Cpu, view: &View<'_>, symbols: &Symbols) {
    const WORDS: u64 = 16;
    let width = u64::from(cpu.mode().bits() / 8);
    for index in 0..WORDS {
        let address = cpu.registers.gpr[gpr::RSP].wrapping_add(index * width);
        let Ok(word) = view.number(address, width as usize) else {
            break;
        };
        let start = if index % 4 == 0 { "\n  stack " } else { " " };
        let _ = write!(text, "{start}{word:016x}");
        if let Some(place) = symbols.find(word) {
            let _ = write!(text, " ({place})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_registers_even_without_memory() {
        let mut cpu = Cpu::reset(2, 48, 0x80_0000, 0);
        cpu.registers.gpr[15] = 0x1234_5678_9abc_def0;
        let text = report(&cpu, None, &Symbols::default(), "a test");
        for part in [
            "vCPU 2: a test",
            "at 0xfffffff0",
            "r15 123456789abcdef0",
            "cr4 2040",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_report_names_the_function() {
        use object::Object;
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut symbols = Symbols::default();
        symbols.add(&program);
        let mut cpu = Cpu::reset(0, 48, 0x80_0000, 0);
        let entry = object::File::parse(&*program).unwrap().entry();
        cpu.registers.rip = entry + 4;
        let text = report(&cpu, None, &symbols, "a test");
        let place = format!("at {:#x} in _start+0x4", entry + 4);
        assert!(text.contains(&place), "{place} in {text}");
    }
}
