//! The local APIC of each CPU: signals between CPUs and the one-shot timer.
//!
//! x2APIC (registers as MSRs) where CPUID offers it, the memory-mapped xAPIC otherwise; the choice is the same on every CPU.

use core::arch::x86_64::__cpuid;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use crate::clock;
use crate::cpu::{read_msr, write_msr};
use crate::interrupts::{SPURIOUS_VECTOR, TIMER_VECTOR};
use crate::port::out8;

const APIC_BASE: u32 = 0x1b;
const ENABLE: u64 = 1 << 11;
const ENABLE_X2APIC: u64 = 1 << 10;
/// Where the registers are in xAPIC mode; the loader maps this page uncached.
const REGISTERS: usize = 0xfee0_0000;
/// In x2APIC mode the register at offset `o` is the MSR `X2APIC + o / 16`.
const X2APIC: u32 = 0x800;

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const COMMAND: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const TIMER: u32 = 0x320;
const LINT0: u32 = 0x350;
const LINT1: u32 = 0x360;
const ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_16: u32 = 0b0011;
const SEND_PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const ALL_BUT_SELF: u32 = 0b11 << 18;
const NMI: u32 = 0b100 << 8;
const INIT: u32 = 0b101 << 8;
const START: u32 = 0b110 << 8;

/// A command that is not taken within this many looks is given up; real hardware needs a few.
const SEND_POLLS: u32 = 1_000_000;
/// How long the timer's frequency is measured.
const CALIBRATION: Duration = Duration::from_millis(5);

static USE_X2APIC: AtomicBool = AtomicBool::new(false);
static OTHERS_STARTED: AtomicBool = AtomicBool::new(false);
/// Timer ticks per second.
static TIMER_FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// On the boot processor, once: chooses the mode, silences the old interrupt controllers, and measures the timer.
pub fn init() {
    const MASTER_MASK: u16 = 0x21;
    const SLAVE_MASK: u16 = 0xa1;
    USE_X2APIC.store(__cpuid(1).ecx & 1 << 21 != 0, Ordering::Relaxed);
    // SAFETY: masks every line of the two 8259 controllers, which nothing here uses.
    unsafe {
        out8(MASTER_MASK, 0xff);
        out8(SLAVE_MASK, 0xff);
    }
    init_cpu();
    write(TIMER_INITIAL, u32::MAX);
    clock::delay(CALIBRATION);
    let ticks = u64::from(u32::MAX - read(TIMER_CURRENT));
    write(TIMER_INITIAL, 0);
    TIMER_FREQUENCY.store(
        ticks * 1000 / CALIBRATION.as_millis() as u64,
        Ordering::Relaxed,
    );
}

/// On every CPU: switches its APIC on, with only the timer able to raise anything.
pub fn init_cpu() {
    let mode = if USE_X2APIC.load(Ordering::Relaxed) {
        ENABLE | ENABLE_X2APIC
    } else {
        ENABLE
    };
    // SAFETY: every x86-64 has this register; the base stays where it is, and x2APIC mode is offered by CPUID if it is asked for.
    unsafe { write_msr(APIC_BASE, read_msr(APIC_BASE) | mode) }
    for register in [LINT0, LINT1, ERROR] {
        write(register, MASKED);
    }
    write(TASK_PRIORITY, 0);
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(TIMER, u32::from(TIMER_VECTOR));
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
}

/// The APIC's number, by which other CPUs address this one.
pub fn id() -> u32 {
    let id = read(ID);
    if USE_X2APIC.load(Ordering::Relaxed) {
        id
    } else {
        id >> 24
    }
}

/// Acknowledges the interrupt being handled.
pub fn acknowledge() {
    write(END_OF_INTERRUPT, 0);
}

/// Raises `vector` on the CPU whose APIC is number `id`.
pub fn send(id: u32, vector: u8) {
    command(id, ASSERT | u32::from(vector));
}

/// Raises an NMI on all other CPUs, if they were started: one that still waits for its start must not be woken into nothing.
pub fn send_nmi_to_others() {
    if OTHERS_STARTED.load(Ordering::SeqCst) {
        command(0, ALL_BUT_SELF | ASSERT | NMI);
    }
}

/// Starts all other CPUs in real mode at `page`, a page below 1 MiB: the INIT, wait, start, start sequence of the processor manuals.
pub fn start_others(page: u64) {
    OTHERS_STARTED.store(true, Ordering::SeqCst);
    let start = ALL_BUT_SELF | ASSERT | START | (page >> 12) as u32 & 0xff;
    command(0, ALL_BUT_SELF | ASSERT | INIT);
    clock::delay(Duration::from_millis(10));
    command(0, start);
    clock::delay(Duration::from_micros(200));
    command(0, start);
}

/// Lets the timer interrupt this CPU once, `time` from now; long times are cut short to what the timer can count.
pub fn set_timer(time: Duration) {
    let ticks = time
        .as_nanos()
        .saturating_mul(u128::from(TIMER_FREQUENCY.load(Ordering::Relaxed)))
        / 1_000_000_000;
    write(
        TIMER_INITIAL,
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
    );
}

/// Takes the timer back.
pub fn clear_timer() {
    write(TIMER_INITIAL, 0);
}

fn command(id: u32, command: u32) {
    if USE_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, and the interrupt command register takes any of our commands in one write.
        unsafe {
            write_msr(
                X2APIC + COMMAND / 16,
                u64::from(id) << 32 | u64::from(command),
            )
        }
        return;
    }
    write(COMMAND_HIGH, id << 24);
    write(COMMAND, command);
    for _ in 0..SEND_POLLS {
        if read(COMMAND) & SEND_PENDING == 0 {
            break;
        }
        spin_loop();
    }
}

fn read(register: u32) -> u32 {
    if USE_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, and the offsets above name registers that exist in it.
        return unsafe { read_msr(X2APIC + register / 16) } as u32;
    }
    // SAFETY: the loader maps the APIC's page; reading these registers has no effect.
    unsafe { register_address(register).read_volatile() }
}

fn write(register: u32, value: u32) {
    if USE_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, and the offsets above name registers that exist in it.
        return unsafe { write_msr(X2APIC + register / 16, u64::from(value)) };
    }
    // SAFETY: the loader maps the APIC's page; the values only steer interrupts of this CPU and signals to others.
    unsafe { register_address(register).write_volatile(value) }
}

fn register_address(register: u32) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(REGISTERS + register as usize)
}
