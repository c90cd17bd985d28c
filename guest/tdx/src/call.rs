//! The TDCALL instruction: one stub for calls to the TDX module, one for calls to the host through it.
//!
//! TDCALL works in 64-bit mode only; outside a TD it raises an invalid-opcode exception.

use crate::status::Status;

/// The registers of a call to the TDX module: inputs, then outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafRegisters {
    /// In: the leaf number. Out: the status word.
    pub rax: u64,
    /// Operand.
    pub rcx: u64,
    /// Operand.
    pub rdx: u64,
    /// Operand.
    pub r8: u64,
    /// Operand.
    pub r9: u64,
    /// Operand.
    pub r10: u64,
    /// Operand.
    pub r11: u64,
}

/// The registers of a call to the host (TDG.VP.VMCALL). Those that `exposed` names reach the host and come back with values of its choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HostRegisters {
    /// RCX: a bit for every register that the host sees and may change, by register number. Bits 0, 1, 4 and 5 must be clear.
    pub exposed: u64,
    /// Not a register: if not zero, interrupts are on from the instruction before the call to the instruction behind it.
    pub interruptible: u64,
    /// RDX.
    pub rdx: u64,
    /// RBX.
    pub rbx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8.
    pub r8: u64,
    /// R9.
    pub r9: u64,
    /// R10: 0 for the calls of the GHCI specification; out: the host's status.
    pub r10: u64,
    /// R11: which call; out: the host's answer.
    pub r11: u64,
    /// R12.
    pub r12: u64,
    /// R13.
    pub r13: u64,
    /// R14.
    pub r14: u64,
    /// R15.
    pub r15: u64,
}

/// Who answers TDCALLs: the processor, or in tests something that pretends to.
pub trait Tdcall {
    /// Calls the TDX module.
    ///
    /// # Safety
    /// Leaves read and write the memory that their operands name, and change what memory is there at all.
    unsafe fn module(&self, registers: LeafRegisters) -> LeafRegisters;

    /// Calls the host. The status is the module's: whether the host was called at all.
    ///
    /// # Safety
    /// The host may be asked to take memory away or to let a device write to it.
    unsafe fn host(&self, registers: &mut HostRegisters) -> Status;
}

/// The processor, in a TD.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

#[cfg(target_arch = "x86_64")]
impl Hardware {
    /// The right to execute TDCALL.
    ///
    /// # Safety
    /// The program must run in ring 0 of a TD, with its private memory mapped at virtual addresses equal to the physical ones.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Tdcall for Hardware {
    unsafe fn module(&self, mut registers: LeafRegisters) -> LeafRegisters {
        // SAFETY: this is a TD by the promise of `Hardware::new`; the caller vouches for the operands. No leaf changes other registers.
        unsafe {
            core::arch::asm!(
                "tdcall",
                inout("rax") registers.rax,
                inout("rcx") registers.rcx,
                inout("rdx") registers.rdx,
                inout("r8") registers.r8,
                inout("r9") registers.r9,
                inout("r10") registers.r10,
                inout("r11") registers.r11,
                options(nostack),
            );
        }
        registers
    }

    unsafe fn host(&self, registers: &mut HostRegisters) -> Status {
        // SAFETY: this is a TD by the promise of `Hardware::new`; the caller vouches for what the host is asked to do.
        Status(unsafe { tdvmcall(registers) })
    }
}

/// Loads the registers, executes TDCALL with leaf 0, and stores the registers. Returns RAX.
///
/// Interrupts, if they are wanted, come on by an STI right before the TDCALL, which takes effect behind it: an interrupt that arrived any
/// time before is still pending when the host looks, and none is handled before the call.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "sysv64" fn tdvmcall(registers: &mut HostRegisters) -> u64 {
    use core::mem::offset_of;

    core::arch::naked_asm!(
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "mov rcx, [rdi + {exposed}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rbx, [rdi + {rbx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "xor eax, eax",
        "cmp rax, [rdi + {interruptible}]",
        "mov rdi, [rdi + {rdi}]",
        "je 2f",
        "sti",
        "2:",
        "tdcall",
        "xchg rdi, [rsp]",
        "cmp qword ptr [rdi + {interruptible}], 0",
        "je 3f",
        "cli",
        "3:",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rsi}], rsi",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "pop rcx",
        "mov [rdi + {rdi}], rcx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "ret",
        exposed = const offset_of!(HostRegisters, exposed),
        interruptible = const offset_of!(HostRegisters, interruptible),
        rdx = const offset_of!(HostRegisters, rdx),
        rbx = const offset_of!(HostRegisters, rbx),
        rsi = const offset_of!(HostRegisters, rsi),
        rdi = const offset_of!(HostRegisters, rdi),
        r8 = const offset_of!(HostRegisters, r8),
        r9 = const offset_of!(HostRegisters, r9),
        r10 = const offset_of!(HostRegisters, r10),
        r11 = const offset_of!(HostRegisters, r11),
        r12 = const offset_of!(HostRegisters, r12),
        r13 = const offset_of!(HostRegisters, r13),
        r14 = const offset_of!(HostRegisters, r14),
        r15 = const offset_of!(HostRegisters, r15),
    )
}
