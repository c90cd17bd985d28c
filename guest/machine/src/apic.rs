//! The local APIC of each CPU: signals between CPUs and the one-shot timer.
//!
//! x2APIC (registers as MSRs) where CPUID offers it, the memory-mapped xAPIC otherwise; the choice is the same on every CPU. A TD has an x2APIC
//! from reset on and nothing else; its timer is set by a deadline of the time stamp counter, so that nothing needs to be measured.

use core::arch::x86_64::__cpuid;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use crate::clock;
use crate::interrupts::{SPURIOUS_VECTOR, TIMER_VECTOR};
use crate::msr::{self, X2APIC};
use crate::platform;
use crate::port::out8;

const APIC_BASE: u32 = 0x1b;
const ENABLE: u64 = 1 << 11;
const ENABLE_X2APIC: u64 = 1 << 10;
/// Where the registers are in xAPIC mode; the loader maps this page uncached.
const REGISTERS: usize = 0xfee0_0000;
/// The time stamp counter at which the timer fires in deadline mode; 0 for never.
const DEADLINE: u32 = 0x6e0;

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
const DEADLINE_MODE: u32 = 0b10 << 17;
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
    if platform::trust_domain().is_some() {
        USE_X2APIC.store(true, Ordering::Relaxed);
        return init_cpu();
    }
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
    let is_trust_domain = platform::trust_domain().is_some();
    if !is_trust_domain {
        enable();
    }
    for register in [LINT0, LINT1, ERROR] {
        write(register, MASKED);
    }
    write(TASK_PRIORITY, 0);
    if is_trust_domain {
        write(TIMER, DEADLINE_MODE | u32::from(TIMER_VECTOR));
    } else {
        write(TIMER_DIVIDE, DIVIDE_BY_16);
        write(TIMER, u32::from(TIMER_VECTOR));
    }
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
}

/// Switches the APIC on, in the mode that [`init`] chose.
fn enable() {
    let mode = if USE_X2APIC.load(Ordering::Relaxed) {
        ENABLE | ENABLE_X2APIC
    } else {
        ENABLE
    };
    // SAFETY: every x86-64 has this register; the base stays where it is, and x2APIC mode is offered by CPUID if it is asked for.
    unsafe { msr::write(APIC_BASE, msr::read(APIC_BASE) | mode) }
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

/// Raises `vector` on all other CPUs.
pub fn send_to_others(vector: u8) {
    command(0, ALL_BUT_SELF | ASSERT | u32::from(vector));
}

/// Says that the other CPUs run: from here on an NMI reaches them.
pub fn others_have_started() {
    OTHERS_STARTED.store(true, Ordering::SeqCst);
}

/// Raises an NMI on all other CPUs, if they were started: one that still waits for its start must not be woken into nothing.
pub fn send_nmi_to_others() {
    if OTHERS_STARTED.load(Ordering::SeqCst) {
        command(0, ALL_BUT_SELF | ASSERT | NMI);
    }
}

/// Starts all other CPUs in real mode at `page`, a page below 1 MiB: the INIT, wait, start, start sequence of the processor manuals.
pub fn start_others(page: u64) {
    others_have_started();
    let start = ALL_BUT_SELF | ASSERT | START | (page >> 12) as u32 & 0xff;
    command(0, ALL_BUT_SELF | ASSERT | INIT);
    clock::delay(Duration::from_millis(10));
    command(0, start);
    clock::delay(Duration::from_micros(200));
    command(0, start);
}

/// Lets the timer interrupt this CPU once, `time` from now; long times are cut short to what the timer can count.
pub fn set_timer(time: Duration) {
    if platform::trust_domain().is_some() {
        let deadline = clock::ticks().saturating_add(clock::ticks_in(time));
        return write_deadline(deadline.max(1));
    }
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
    if platform::trust_domain().is_some() {
        return write_deadline(0);
    }
    write(TIMER_INITIAL, 0);
}

/// In a TD only.
fn write_deadline(ticks: u64) {
    // SAFETY: a TD has the register, and the timer is in deadline mode.
    unsafe { msr::write(DEADLINE, ticks) }
}

fn command(id: u32, command: u32) {
    if USE_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, and the interrupt command register takes any of our commands in one write.
        unsafe {
            msr::write(
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
        return unsafe { msr::read(X2APIC + register / 16) } as u32;
    }
    // SAFETY: the loader maps the APIC's page; reading these registers has no effect.
    unsafe { register_address(register).read_volatile() }
}

fn write(register: u32, value: u32) {
    if USE_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, and the offsets above name registers that exist in it.
        return unsafe { msr::write(X2APIC + register / 16, u64::from(value)) };
    }
    // SAFETY: the loader maps the APIC's page; the values only steer interrupts of this CPU and signals to others.
    unsafe { register_address(register).write_volatile(value) }
}

fn register_address(register: u32) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(REGISTERS + register as usize)
}
