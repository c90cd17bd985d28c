//! The window between a guest's last look for work and its halt: an interrupt that arrives there must end the halt.

use std::time::Duration;

use emulator::td::End;
use iced_x86::code_asm::*;

use crate::calls::{handle, host_call};
use crate::common::{Machine, Part};

const VECTOR: u64 = 0x40;
/// A few milliseconds on every machine, in ticks of its time stamp counter.
const SLEEP: i32 = 10_000_000;
/// Many times that.
const LIMIT: Duration = Duration::from_secs(3);

/// Lets the timer interrupt it once, and halts until then; with `gap`, one instruction lies between the one that enables interrupts and the
/// halt.
fn sleep(gap: bool) -> impl Fn(&mut CodeAssembler) -> Part {
    move |asm| {
        handle(asm, VECTOR, acknowledge)?;
        // The timer: TSC-deadline mode.
        host_call(32, [0x832, 2 << 17 | VECTOR, 0, 0])(asm)?;
        asm.rdtsc()?;
        asm.shl(rdx, 32)?;
        asm.or(rdx, rax)?;
        asm.add(rdx, SLEEP)?;
        asm.mov(r13, rdx)?;
        asm.mov(r12, 0x6e0_u64)?;
        call(asm, 32)?;
        asm.tdcall()?;
        asm.xor(r12d, r12d)?;
        call(asm, 12)?;
        asm.sti()?;
        if gap {
            asm.nop()?;
        }
        asm.tdcall()?;
        asm.cli()?;
        asm.mov(r12d, 1)
    }
}

/// The registers of a call to the host but for its operands.
fn call(asm: &mut CodeAssembler, leaf: u64) -> Part {
    asm.xor(eax, eax)?;
    asm.mov(rcx, 0xfc00_u64)?;
    asm.xor(r10d, r10d)?;
    asm.mov(r11, leaf)
}

/// The handler: end of interrupt, and no more.
fn acknowledge(asm: &mut CodeAssembler) -> Part {
    asm.push(rax)?;
    asm.push(rcx)?;
    asm.push(rdx)?;
    asm.mov(ecx, 0x80b)?;
    asm.xor(eax, eax)?;
    asm.xor(edx, edx)?;
    asm.wrmsr()?;
    asm.pop(rdx)?;
    asm.pop(rcx)?;
    asm.pop(rax)?;
    asm.iretq()
}

#[test]
fn a_halt_ends_with_the_interrupt_it_waits_for() {
    assert_eq!(Machine::default().result(sleep(false)), 1);
}

#[test]
fn an_interrupt_right_before_the_halt_ends_it() {
    let machine = Machine {
        hostile: Some("interrupts-before-halt"),
        ..Machine::default()
    };
    assert_eq!(machine.result(sleep(false)), 1);
}

/// What the test above would look like for a guest that loses wake-ups.
#[test]
fn a_guest_with_an_open_window_never_wakes() {
    let machine = Machine {
        hostile: Some("interrupts-before-halt"),
        limit: LIMIT,
        ..Machine::default()
    };
    let seen = machine.watch(sleep(true));
    assert_eq!((seen.end, seen.result), (End::Stopped, None));
}
