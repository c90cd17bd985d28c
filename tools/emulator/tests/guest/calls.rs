//! Pieces of guest code: calls to the TDX module and to the host, handlers of interrupts.

use iced_x86::code_asm::*;

use crate::common::Part;

/// A page of RAM that nothing has accepted.
pub const PENDING: u64 = 0x20_0000;
/// The same page, through the mapping with the shared bit.
pub const SHARED: u64 = 0x4000_0000 + PENDING;
/// Of guest-physical addresses, with GPAW 48.
pub const SHARED_BIT: u64 = 1 << 47;

/// Memory of the hand-off block, for the guests' own use: descriptor table, its pointer, the end of the stack.
pub const TABLE: u64 = 0x80_0000;
const POINTER: u64 = 0x80_1000;
const STACK: u64 = 0x80_2000;

/// TDCALL `leaf` with RCX and RDX; RAX becomes the result.
pub fn leaf(leaf: u64, rcx_value: u64, rdx_value: u64) -> impl Fn(&mut CodeAssembler) -> Part {
    move |asm| {
        asm.mov(rax, leaf)?;
        asm.mov(rcx, rcx_value)?;
        asm.mov(rdx, rdx_value)?;
        asm.xor(r8d, r8d)?;
        asm.tdcall()?;
        asm.mov(r12, rax)
    }
}

/// TDVMCALL `leaf` with R12 to R15; R10 becomes the result.
pub fn host_call(leaf: u64, arguments: [u64; 4]) -> impl Fn(&mut CodeAssembler) -> Part {
    move |asm| {
        asm.xor(eax, eax)?;
        asm.mov(rcx, 0xfc00_u64)?;
        asm.xor(r10d, r10d)?;
        asm.mov(r11, leaf)?;
        for (register, value) in [r12, r13, r14, r15].into_iter().zip(arguments) {
            asm.mov(register, value)?;
        }
        asm.tdcall()?;
        asm.mov(r12, r10)
    }
}

/// Sets a stack up, and `handler` for `vector`.
pub fn handle(
    asm: &mut CodeAssembler,
    vector: u64,
    handler: impl Fn(&mut CodeAssembler) -> Part,
) -> Part {
    let (mut entry, mut over) = (asm.create_label(), asm.create_label());
    asm.jmp(over)?;
    asm.set_label(&mut entry)?;
    handler(asm)?;
    asm.set_label(&mut over)?;
    asm.mov(rsp, STACK)?;
    asm.lea(rax, ptr(entry))?;
    asm.mov(rbx, TABLE + 16 * vector)?;
    asm.mov(word_ptr(rbx), ax)?;
    asm.mov(word_ptr(rbx + 2), 8)?;
    // A present interrupt gate.
    asm.mov(dword_ptr(rbx + 4), 0x8e00)?;
    asm.shr(rax, 16)?;
    asm.mov(word_ptr(rbx + 6), ax)?;
    asm.shr(rax, 16)?;
    asm.mov(qword_ptr(rbx + 8), rax)?;
    asm.mov(rbx, POINTER)?;
    asm.mov(word_ptr(rbx), 0xfff)?;
    asm.mov(rax, TABLE)?;
    asm.mov(qword_ptr(rbx + 2), rax)?;
    asm.lidt(fword_ptr(rbx))
}
