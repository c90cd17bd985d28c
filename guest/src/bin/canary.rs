//! A guest that comes to a bad end with secrets everywhere: in registers, on its stack, in the heap, in the message of a panic. A test boots it and
//! looks for the secrets in what the host can see. It is built from the same machine crate as the guest, and is never part of its image.
//!
//! How it ends is chosen by the number of CPUs: 1, a page fault; 2, a panic; 3, an instruction that a TD may not use; more, a fault of another CPU.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../../loader/src/mem.rs"]
mod mem;

use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr::{self, NonNull};

use loader::handoff::Handoff;
use loader::memory::Use;
use machine::virtio::SharedArena;
use machine::{apic, clock, console, cpu, fatal, heap, interrupts, platform, println, smp};

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

/// What nobody may see, as a number and as text. The test knows both.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
const SECRET_TEXT: &str = "swordfish-swordfish";
/// What everybody may see, so that the test knows that it would see a secret: it is written to shared memory.
const PUBLIC_TEXT: &str = "glasshouse-glasshouse";

/// Where every CPU enters.
///
/// # Safety
/// Called by the loader alone, in the state that `loader::handoff` describes.
#[unsafe(no_mangle)]
unsafe extern "sysv64" fn guest_entry(handoff: &'static Handoff, cpu: u32) -> ! {
    if cpu != 0 {
        smp::join()
    }
    // SAFETY: the loader says how it was entered.
    if unsafe { platform::init(handoff.mode) }.is_err() {
        fatal::halt();
    }
    console::init();
    for range in handoff.memory().into_iter().flatten() {
        let start = NonNull::new(ptr::with_exposed_provenance_mut(range.span.start as usize));
        if let (Use::Free, Some(start)) = (range.usage, start) {
            // SAFETY: the loader maps free RAM writable, and nothing uses it.
            unsafe { heap::add(start, range.span.length as usize) }
        }
    }
    interrupts::init(0);
    cpu::init();
    // No date is needed here.
    let _ = clock::init(handoff.boot_ticks);
    apic::init();
    let cpus = platform::trust_domain()
        .and_then(|domain| domain.info().ok())
        .map_or(1, |info| info.vcpus as usize);
    let team = smp::start(&handoff.mailbox, cpus);
    let heap: Vec<u64> = (0..1 << 16).map(|_| black_box(SECRET)).collect();
    let text: Vec<u8> = SECRET_TEXT.bytes().cycle().take(1 << 16).collect();
    // SAFETY: this is the machine that the loader made, and nobody else asks.
    let mut arena = unsafe { SharedArena::of_machine() };
    if let Ok(mut buffer) = arena.allocate(PUBLIC_TEXT.len(), 64) {
        buffer.copy_in(0, PUBLIC_TEXT.as_bytes());
    }
    println!("vitrine: {cpus} CPUs, about to end");
    match cpus {
        1 => page_fault(),
        2 => panic!(
            "{} {:#x} {}",
            black_box(SECRET_TEXT),
            black_box(SECRET),
            text.len() + heap.len()
        ),
        3 => forbidden(),
        _ => team.run(&|index| {
            if index != 0 {
                page_fault()
            }
        }),
    }
    fatal::halt()
}

/// Touches an address that is not mapped, with the secret in every register and around the stack pointer.
#[inline(never)]
fn page_fault() -> ! {
    black_box([SECRET; 64]);
    // SAFETY: the access faults, and the fault ends the machine.
    unsafe {
        asm!(
            "mov rbp, rax",
            "mov rbx, rax",
            "mov byte ptr [0x10], al",
            in("rax") SECRET, in("rcx") SECRET, in("rdx") SECRET, in("rsi") SECRET, in("rdi") SECRET,
            in("r8") SECRET, in("r9") SECRET, in("r10") SECRET, in("r11") SECRET,
            in("r12") SECRET, in("r13") SECRET, in("r14") SECRET, in("r15") SECRET,
            options(noreturn),
        )
    }
}

/// Reads a port by instruction, which is a virtualization exception in a TD, with the secret in registers.
fn forbidden() {
    black_box([SECRET; 64]);
    // SAFETY: the port is that of the real-time clock, which reading does not change; in a TD it is not even reached.
    unsafe {
        asm!("in al, 0x71", inout("rax") SECRET => _, in("rcx") SECRET, in("rsi") SECRET, in("r8") SECRET, in("r15") SECRET)
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fatal::panicked(info)
}
