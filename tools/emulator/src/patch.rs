//! Instructions that ring 3 executes without a trap but with another result than ring 0: where they are in a page of code.
//!
//! An INT3 over the first byte, in a private copy of the page, makes them trap; the guest's own memory, what it measures and what it reads
//! through other mappings stay as they are. Code is found by decoding from the start of the page. Pages of code may hold data, so a stretch
//! between two points where control cannot fall through counts only if all of it decodes to what compilers and firmware produce.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic as M, OpKind};

use crate::cpu::Mode;

/// Bytes decoded before the page, to get in step with the instructions.
pub const LEAD: usize = 64;

/// This many zero bytes are padding between functions.
const MIN_PADDING: usize = 2;

/// The addresses of the sites in `code`, whose first byte is at `start` and which begins with `lead` bytes that only serve to get in step.
/// `cpuid` says whether CPUID must be patched too.
pub fn sites(mode: Mode, start: u64, code: &[u8], lead: usize, cpuid: bool) -> Vec<u64> {
    let mut decoder = Decoder::with_ip(mode.bits(), code, start, DecoderOptions::NONE);
    let first = start + lead as u64;
    let (mut sites, mut stretch) = (Vec::new(), Vec::new());
    let mut plausible = true;
    while decoder.can_decode() {
        let position = decoder.position();
        let padding = code[position..].iter().take_while(|byte| **byte == 0);
        let padding = padding.count();
        let ends = if padding >= MIN_PADDING {
            // No instruction starts with zeros; the next one is behind them.
            let next = position + padding;
            decoder.set_ip(start + next as u64);
            // At the end of the code at most, which is a valid position.
            let _ = decoder.set_position(next);
            true
        } else {
            let instruction = decoder.decode();
            plausible &= !instruction.is_invalid() && !unlikely(&instruction);
            if is_sensitive(&instruction, cpuid) && instruction.ip() >= first {
                stretch.push(instruction.ip());
            }
            ends_stretch(&instruction)
        };
        if ends {
            if plausible {
                sites.append(&mut stretch);
            }
            stretch.clear();
            plausible = true;
        }
    }
    if plausible {
        sites.append(&mut stretch);
    }
    sites
}

fn ends_stretch(instruction: &Instruction) -> bool {
    instruction.is_invalid()
        || matches!(
            instruction.flow_control(),
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
        )
        || matches!(instruction.mnemonic(), M::Ud2 | M::Int3 | M::Hlt)
}

/// What decodes from data, and is not found in 32-bit or 64-bit code of ring 0.
fn unlikely(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        M::Insb
            | M::Insd
            | M::Insw
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Enter
            | M::Into
            | M::Bound
            | M::Arpl
            | M::Aaa
            | M::Aas
            | M::Aam
            | M::Aad
            | M::Daa
            | M::Das
            | M::Les
            | M::Lds
            | M::Loopne
            | M::Loope
            | M::Salc
            | M::Int1
            | M::Xlatb
            | M::Jcxz
    )
}

fn is_sensitive(instruction: &Instruction, cpuid: bool) -> bool {
    let moves_segment = |operand| {
        instruction.op_kind(operand) == OpKind::Register
            && instruction.op_register(operand).is_segment_register()
    };
    match instruction.mnemonic() {
        M::Pushf | M::Pushfd | M::Pushfq | M::Popf | M::Popfd | M::Popfq => true,
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw | M::Xgetbv | M::Rdpid => true,
        M::Vmcall | M::Vmmcall | M::Sysenter => true,
        M::Cpuid => cpuid,
        M::Mov => moves_segment(1),
        M::Push => moves_segment(0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &[u8]) -> Vec<u64> {
        sites(Mode::Long, 0x1000, code, 0, false)
    }

    #[test]
    fn sensitive_instructions_are_found() {
        let table: [(&str, &[u8]); 12] = [
            ("pushfq", &[0x9c]),
            ("popfq", &[0x9d]),
            ("sgdt [rax]", &[0x0f, 0x01, 0x00]),
            ("sidt [rax]", &[0x0f, 0x01, 0x08]),
            ("sldt eax", &[0x0f, 0x00, 0xc0]),
            ("str eax", &[0x0f, 0x00, 0xc8]),
            ("smsw eax", &[0x0f, 0x01, 0xe0]),
            ("xgetbv", &[0x0f, 0x01, 0xd0]),
            ("vmcall", &[0x0f, 0x01, 0xc1]),
            ("rdpid rax", &[0xf3, 0x0f, 0xc7, 0xf8]),
            ("mov eax, cs", &[0x8c, 0xc8]),
            ("push fs", &[0x0f, 0xa0]),
        ];
        for (name, code) in table {
            assert_eq!(found(code), [0x1000], "{name}");
        }
        let cpuid = [0x0f, 0xa2];
        assert!(found(&cpuid).is_empty());
        assert_eq!(sites(Mode::Long, 0, &cpuid, 0, true), [0]);
    }

    #[test]
    fn bytes_inside_other_instructions_are_not() {
        // mov eax, 0x9d9c9c9c; ret
        assert!(found(&[0xb8, 0x9c, 0x9c, 0x9c, 0x9d, 0xc3]).is_empty());
    }

    #[test]
    fn data_between_code_is_left_alone() {
        // ret; insb, pushf, outsd; jmp: text, not code. Then pushfq; pop rax; ret.
        let code = [0xc3, 0x6c, 0x9c, 0x6f, 0xeb, 0x00, 0x9c, 0x58, 0xc3];
        assert_eq!(found(&code), [0x1006]);
    }

    #[test]
    fn code_behind_padding_is_found() {
        // Text, zeros of odd length, then sidt [rsp+6]; ret.
        let code = [0x6c, 0x6f, 0, 0, 0, 0x0f, 0x01, 0x4c, 0x24, 0x06, 0xc3];
        assert_eq!(found(&code), [0x1005]);
    }

    #[test]
    fn the_lead_is_not_patched() {
        let code = [0x9c, 0x9c, 0x9c];
        assert_eq!(sites(Mode::Long, 0x1000, &code, 2, false), [0x1002]);
    }
}
