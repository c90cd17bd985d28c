//! Interrupts and exceptions: each CPU's own GDT, TSS and IDT.
//!
//! Interrupts are disabled everywhere except inside [`wait`], around the halt, so a handler never meets half-done work: all it does is
//! acknowledge. Compiled code uses the red zone below the stack pointer, hence every vector switches to a stack of the interrupt stack
//! table (IST). Vectors that can nest never share one:
//!
//! | stack | vectors | why alone |
//! |---|---|---|
//! | 1 | external interrupts, 32 to 255 | gates keep interrupts off, so they do not nest in each other |
//! | 2 | NMI | comes at any time; masked until it returns |
//! | 3 | double fault | comes while another exception is being delivered |
//! | 4 | machine check | comes at any time |
//! | 5 | virtualization exception | may come inside any other handler |
//! | 6 | page fault | may come inside any other handler |
//! | 7 | the other exceptions | the program's mistakes; the first one ends it |
//!
//! Every exception is fatal: it prints the registers and stops the machine. In a TD registers hold what the host must not see, so only vector,
//! error code and the place in the image are printed. A CPU that faults again while it reports a fault stops at once, so that the report's
//! stack being overwritten does no harm.

mod tables;

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use loader::layout::{GUEST, GUEST_END};

use crate::{apic, fatal, platform};

/// The vector of the one-shot timer.
pub const TIMER_VECTOR: u8 = 0x20;
/// The vector by which CPUs wake each other.
pub const WAKE_VECTOR: u8 = 0x21;
/// The vector of devices' message-signalled interrupts: it ends a [`wait`], nothing else.
pub const DEVICE_VECTOR: u8 = 0x22;
/// The local APIC's answer when an interrupt vanished before it was delivered. That need not be acknowledged, but a host can send this vector as
/// an ordinary interrupt, which without it would keep out all others. Handlers do not nest, so an acknowledgement too many ends nothing.
pub const SPURIOUS_VECTOR: u8 = 0xff;

const NMI: u64 = 2;
const PAGE_FAULT: u64 = 14;
const VIRTUALIZATION: u64 = 20;
const FIRST_EXTERNAL: u64 = 32;

/// Set when the machine stops: CPUs that get an NMI then halt in silence.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// CPUs that did.
static STOPPED: AtomicUsize = AtomicUsize::new(0);

/// Gives this CPU, the `index`th, its tables. From here on exceptions are reported.
pub fn init(index: u32) {
    tables::install(index);
}

/// Halts this CPU until an interrupt comes, at most. Call it again until what was waited for is there.
///
/// Interrupts are off before and after, and `sti` takes effect only after the following instruction: one that arrived since the caller last
/// looked is still pending and ends the halt at once. In a TD the halt is a hypercall, with `sti` right before it in the same way.
pub fn wait() {
    if let Some(domain) = platform::trust_domain() {
        // SAFETY: interrupts are off, and handlers may run: see below. A host that does not halt makes the caller spin, which costs only the host.
        let _ = unsafe { tdx::hypercall::halt(domain.tdcall()) };
        return;
    }
    // SAFETY: the handlers of external interrupts only acknowledge, on a stack of their own. They may change every register that a call may
    // change, vector registers included, which is what `clobber_abi` declares.
    unsafe { asm!("sti", "hlt", "cli", clobber_abi("sysv64")) }
}

/// Makes every other CPU halt for good.
pub fn stop_others() {
    STOPPING.store(true, Ordering::SeqCst);
    apic::send_nmi_to_others();
}

/// How many CPUs have halted for good because of [`stop_others`].
pub fn stopped() -> usize {
    STOPPED.load(Ordering::SeqCst)
}

/// Where the stubs lead: what the CPU pushed, and the registers below it.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "sysv64" fn handle(frame: &Frame) {
    match frame.vector {
        NMI if STOPPING.load(Ordering::SeqCst) => {
            STOPPED.fetch_add(1, Ordering::SeqCst);
            fatal::halt()
        }
        FIRST_EXTERNAL.. => apic::acknowledge(),
        _ => report(frame),
    }
}

/// Prints an exception and stops the machine.
fn report(frame: &Frame) -> ! {
    let cpu = tables::this_cpu();
    if cpu.faulted.swap(true, Ordering::Relaxed) {
        fatal::halt();
    }
    if let Some(domain) = platform::trust_domain() {
        report_in_trust_domain(frame, domain);
    }
    let address: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) }
    let name = NAMES
        .get(frame.vector as usize)
        .copied()
        .unwrap_or("exception");
    let Frame {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        rip,
        rflags,
        cs,
        error,
        vector,
        ..
    } = *frame;
    let Frame {
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        ..
    } = *frame;
    let at = if vector == PAGE_FAULT { address } else { 0 };
    fatal::stop(format_args!(
        "{name} (vector {vector}, error {error:#x}, address {at:#x}) on CPU {}\n\
         rip {rip:016x} rsp {rsp:016x} rbp {rbp:016x} flags {rflags:08x} cs {cs:x}\n\
         rax {rax:016x} rbx {rbx:016x} rcx {rcx:016x} rdx {rdx:016x}\n\
         rsi {rsi:016x} rdi {rdi:016x}  r8 {r8:016x}  r9 {r9:016x}\n\
         r10 {r10:016x} r11 {r11:016x} r12 {r12:016x} r13 {r13:016x}\n\
         r14 {r14:016x} r15 {r15:016x}",
        cpu.index,
    ))
}

/// Prints what the host may know of an exception, and stops the machine. The module's reason for a virtualization exception is taken first: the
/// hypercalls behind printing are none, but a second such exception before that would be a double fault.
fn report_in_trust_domain(frame: &Frame, domain: platform::TrustDomain) -> ! {
    let Frame { vector, error, .. } = *frame;
    let at = ImageOffset(frame.rip);
    if vector == VIRTUALIZATION {
        match tdx::leaf::ve_info(domain.tdcall()) {
            Ok(info) => fatal::stop(format_args!(
                "vector {vector}, error {error:#x}, {at}, exit reason {}",
                info.reason
            )),
            Err(status) => fatal::stop(format_args!(
                "vector {vector}, error {error:#x}, {at}: {status}"
            )),
        }
    }
    fatal::stop(format_args!("vector {vector}, error {error:#x}, {at}"))
}

/// An instruction's place in the guest's image. Other addresses are not shown: they are what a program made of its data.
struct ImageOffset(u64);

impl core::fmt::Display for ImageOffset {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            rip @ GUEST..GUEST_END => write!(f, "image offset {:#x}", rip - GUEST),
            _ => f.write_str("outside the image"),
        }
    }
}

const NAMES: [&str; 22] = [
    "divide error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection fault",
    "page fault",
    "reserved exception",
    "x87 exception",
    "alignment check",
    "machine check",
    "SIMD exception",
    "virtualization exception",
    "control protection exception",
];

// 256 stubs of 16 bytes each. The CPU pushes an error code for some exceptions; the stubs of the others push a zero in its place.
global_asm!(
    ".balign 16",
    ".globl interrupt_stubs",
    "interrupt_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp {common}",
    ".set vector, vector + 1",
    ".endr",
    common = sym common,
);

unsafe extern "C" {
    static interrupt_stubs: [u8; 16];
}

/// The second half of every stub: save the registers, handle, restore, return.
#[unsafe(naked)]
extern "C" fn common() {
    core::arch::naked_asm!(
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rsp",
        "mov rbp, rsp",
        "and rsp, -16",
        "call {handle}",
        "mov rsp, rbp",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        handle = sym handle,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn only_addresses_of_code_are_shown() {
        assert_eq!(
            ImageOffset(GUEST + 0x1234).to_string(),
            "image offset 0x1234"
        );
        for secret in [0, GUEST - 1, GUEST_END, 0xdead_beef_dead_beef] {
            assert_eq!(ImageOffset(secret).to_string(), "outside the image");
        }
    }
}
