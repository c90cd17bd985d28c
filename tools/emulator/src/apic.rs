//! The local APICs, in x2APIC mode as every TD has them, and the messages that reach them.
//!
//! The registers of the virtual APIC page that the TD reads and writes directly (TPR, PPR, EOI, ISR, TMR, IRR, SELF_IPI) belong to the vCPU;
//! ICR and the timer are the host's side, reached by TDVMCALL (`tdx.md` 1.7). Other threads only ever set a request bit and wake the vCPU.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// First x2APIC register, as an MSR (SDM vol. 3, APIC chapter: x2APIC register address space).
const X2APIC: u32 = 0x800;
/// Registers by their offset from it (the same).
mod register {
    pub const TASK_PRIORITY: u32 = 0x08;
    pub const PROCESSOR_PRIORITY: u32 = 0x0a;
    pub const END_OF_INTERRUPT: u32 = 0x0b;
    pub const IN_SERVICE: u32 = 0x10;
    pub const IN_SERVICE_LAST: u32 = 0x17;
    pub const TRIGGER_MODE: u32 = 0x18;
    pub const TRIGGER_MODE_LAST: u32 = 0x1f;
    pub const REQUESTED: u32 = 0x20;
    pub const REQUESTED_LAST: u32 = 0x27;
    pub const SELF_IPI: u32 = 0x3f;
}

/// A local APIC does not take vectors below this (SDM vol. 3, APIC chapter: valid interrupt vectors).
const FIRST_VECTOR: u8 = 16;
/// Bit of an entry of the local vector table: masked (SDM vol. 3, APIC chapter: local vector table).
const MASKED: u64 = 1 << 16;

/// Bits 3, 1 and 0 of the timer's divide configuration (SDM vol. 3, APIC chapter: APIC timer).
const DIVIDE_BITS: u64 = 0b1011;

/// Fields of the interrupt command register (SDM vol. 3, APIC chapter: interrupt command register, and x2APIC's form of it).
mod command {
    /// Bits 10:8: delivery mode. A message's data has it in the same place (the same chapter: message data register format).
    pub const MODE_SHIFT: u32 = 8;
    pub const FIXED: u64 = 0;
    pub const LOWEST_PRIORITY: u64 = 1;
    pub const NMI: u64 = 4;
    /// Bit 11: the destination is a logical one.
    pub const LOGICAL: u64 = 1 << 11;
    /// Bits 19:18: destination shorthand.
    pub const SHORTHAND_SHIFT: u32 = 18;
    pub const NO_SHORTHAND: u64 = 0;
    pub const SELF: u64 = 1;
    pub const ALL: u64 = 2;
    /// Bits 63:32: destination.
    pub const DESTINATION_SHIFT: u32 = 32;
    pub const EVERYBODY: u32 = u32::MAX;
}

/// A message's address: bits 31:20 say that it is one, bits 19:12 its destination (SDM vol. 3, APIC chapter: message address register format).
const MESSAGES: u64 = 0xfee;
const MESSAGE_TO_ALL: u32 = 0xff;

/// A set of vectors.
#[derive(Debug, Default)]
struct Vectors([AtomicU64; 4]);

impl Vectors {
    fn set(&self, vector: u8) {
        self.0[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::SeqCst);
    }

    fn clear(&self, vector: u8) {
        self.0[usize::from(vector >> 6)].fetch_and(!(1 << (vector & 63)), Ordering::SeqCst);
    }

    fn highest(&self) -> Option<u8> {
        (0..4u8).rev().find_map(|word| {
            let bits = self.0[usize::from(word)].load(Ordering::SeqCst);
            (bits != 0).then(|| word * 64 + (63 - bits.leading_zeros() as u8))
        })
    }

    /// 32 of them, as a register shows them.
    fn register(&self, index: u32) -> u64 {
        self.0[(index / 2) as usize].load(Ordering::SeqCst) >> (32 * (index % 2)) & 0xffff_ffff
    }
}

/// How to interrupt the thread of a vCPU, wherever it is.
pub trait Wake: Send {
    /// Makes the vCPU look at its APIC soon: ends its time in the guest or its halt.
    fn wake(&self);
}

/// One local APIC.
#[derive(Default)]
pub struct LocalApic {
    requested: Vectors,
    in_service: Vectors,
    /// A non-maskable interrupt waits.
    nmi: AtomicBool,
    /// Something came since the vCPU last entered the guest: the posted-interrupt descriptor of real hardware.
    posted: AtomicBool,
    task_priority: AtomicU64,
    deadline: Mutex<Option<Instant>>,
    timer: AtomicU64,
    divide: AtomicU64,
    waker: Mutex<Option<Box<dyn Wake>>>,
}

impl LocalApic {
    /// Says how to wake the vCPU.
    pub fn set_waker(&self, waker: Box<dyn Wake>) {
        *self.waker.lock().unwrap_or_else(|lock| lock.into_inner()) = Some(waker);
    }

    /// Interrupts the vCPU's thread without an interrupt of the guest.
    pub fn kick(&self) {
        let waker = self.waker.lock().unwrap_or_else(|lock| lock.into_inner());
        if let Some(waker) = waker.as_ref() {
            waker.wake();
        }
    }

    /// Requests a fixed interrupt. Vectors that exceptions use are dropped.
    pub fn post(&self, vector: u8) {
        if vector >= FIRST_VECTOR {
            self.requested.set(vector);
            self.posted.store(true, Ordering::SeqCst);
            self.kick();
        }
    }

    /// Requests a non-maskable interrupt.
    pub fn post_nmi(&self) {
        self.nmi.store(true, Ordering::SeqCst);
        self.posted.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Takes a waiting non-maskable interrupt.
    pub fn take_nmi(&self) -> bool {
        self.nmi.swap(false, Ordering::SeqCst)
    }

    /// The vCPU is about to enter the guest: what was posted is in the request register by now.
    pub fn entering(&self) {
        self.posted.store(false, Ordering::SeqCst);
    }

    /// Whether something was posted since the last entry.
    pub fn was_posted(&self) -> bool {
        self.posted.load(Ordering::SeqCst)
    }

    fn processor_priority(&self) -> u8 {
        let task = self.task_priority.load(Ordering::SeqCst) as u8;
        let service = self.in_service.highest().unwrap_or(0);
        if task >> 4 >= service >> 4 {
            task
        } else {
            service & 0xf0
        }
    }

    /// The vector that would be delivered now, were interrupts on.
    pub fn deliverable(&self) -> Option<u8> {
        self.expire(Instant::now());
        self.requested
            .highest()
            .filter(|vector| vector >> 4 > self.processor_priority() >> 4)
    }

    /// Takes the vector that is deliverable: it moves from requested to in service.
    pub fn acknowledge(&self) -> Option<u8> {
        let vector = self.deliverable()?;
        self.requested.clear(vector);
        self.in_service.set(vector);
        Some(vector)
    }

    /// Sets the moment at which the timer's interrupt comes.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        *self
            .deadline
            .lock()
            .unwrap_or_else(|lock| lock.into_inner()) = deadline;
    }

    /// How long until the timer's interrupt.
    pub fn until_deadline(&self) -> Option<Duration> {
        let deadline = *self
            .deadline
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn expire(&self, now: Instant) {
        let mut deadline = self
            .deadline
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        if deadline.is_some_and(|deadline| deadline <= now) {
            *deadline = None;
            let timer = self.timer.load(Ordering::SeqCst);
            let masked = timer & MASKED != 0;
            if !masked && timer as u8 >= FIRST_VECTOR {
                self.requested.set(timer as u8);
                self.posted.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Sets the local vector table's timer entry.
    pub fn set_timer(&self, entry: u64) {
        self.timer.store(entry, Ordering::SeqCst);
    }

    /// Sets the timer's divide configuration.
    pub fn set_divide(&self, configuration: u64) {
        self.divide
            .store(configuration & DIVIDE_BITS, Ordering::SeqCst);
    }

    /// The timer's divide configuration.
    pub fn divide(&self) -> u64 {
        self.divide.load(Ordering::SeqCst)
    }

    /// How many periods of the bus make one of the timer: 2, 4, 8 and so on to 128, and 1 for 7.
    pub fn divisor(&self) -> u32 {
        let bits = self.divide();
        1 << (((bits & 3 | bits >> 1 & 4) + 1) & 7)
    }

    /// The local vector table's timer entry.
    pub fn timer(&self) -> u64 {
        self.timer.load(Ordering::SeqCst)
    }

    /// Reads a register that a TD reads without the host; none for others.
    pub fn read(&self, msr: u32) -> Option<u64> {
        Some(match msr.checked_sub(X2APIC)? {
            register::TASK_PRIORITY => self.task_priority.load(Ordering::SeqCst),
            register::PROCESSOR_PRIORITY => u64::from(self.processor_priority()),
            index @ register::IN_SERVICE..=register::IN_SERVICE_LAST => {
                self.in_service.register(index - register::IN_SERVICE)
            }
            // Nothing is level-triggered.
            register::TRIGGER_MODE..=register::TRIGGER_MODE_LAST => 0,
            index @ register::REQUESTED..=register::REQUESTED_LAST => {
                self.requested.register(index - register::REQUESTED)
            }
            _ => return None,
        })
    }

    /// Writes a register that a TD writes without the host. `Some(false)` is a value the processor refuses.
    pub fn write(&self, msr: u32, value: u64) -> Option<bool> {
        match msr.checked_sub(X2APIC)? {
            register::TASK_PRIORITY if value <= 0xff => {
                self.task_priority.store(value, Ordering::SeqCst)
            }
            register::END_OF_INTERRUPT if value == 0 => {
                if let Some(vector) = self.in_service.highest() {
                    self.in_service.clear(vector);
                }
            }
            register::SELF_IPI if value <= 0xff => self.post(value as u8),
            register::TASK_PRIORITY | register::END_OF_INTERRUPT | register::SELF_IPI => {
                return Some(false);
            }
            _ => return None,
        }
        Some(true)
    }
}

/// All local APICs of the machine.
pub struct Apics(pub Vec<LocalApic>);

impl Apics {
    /// As many as there are vCPUs; the identifier is the vCPU's index.
    pub fn new(count: u32) -> Self {
        Self((0..count).map(|_| LocalApic::default()).collect())
    }

    /// A write to the interrupt command register, x2APIC form, by vCPU `from`.
    pub fn command(&self, from: u32, value: u64) {
        let (vector, mode) = (value as u8, value >> command::MODE_SHIFT & 7);
        let destination = (value >> command::DESTINATION_SHIFT) as u32;
        for (index, apic) in self.0.iter().enumerate() {
            let index = index as u32;
            let addressed = match value >> command::SHORTHAND_SHIFT & 3 {
                command::NO_SHORTHAND if destination == command::EVERYBODY => true,
                command::NO_SHORTHAND if value & command::LOGICAL != 0 => {
                    logical(destination, index)
                }
                command::NO_SHORTHAND => destination == index,
                command::SELF => index == from,
                command::ALL => true,
                // All but this one.
                _ => index != from,
            };
            if addressed {
                send(apic, mode, vector);
            }
        }
    }

    /// A message-signalled interrupt.
    pub fn message(&self, address: u64, data: u32) {
        if address >> 20 != MESSAGES {
            return;
        }
        let destination = (address >> 12 & 0xff) as u32;
        for (index, apic) in self.0.iter().enumerate() {
            if destination == MESSAGE_TO_ALL || destination == index as u32 {
                send(apic, u64::from(data >> command::MODE_SHIFT & 7), data as u8);
            }
        }
    }
}

/// Logical x2APIC destinations: cluster in bits 31:16, one bit for each of its 16 processors (SDM vol. 3, APIC chapter: logical destination mode
/// in x2APIC mode).
fn logical(destination: u32, index: u32) -> bool {
    destination >> 16 == index >> 4 && destination & 1 << (index & 15) != 0
}

fn send(apic: &LocalApic, mode: u64, vector: u8) {
    match mode {
        command::FIXED | command::LOWEST_PRIORITY => apic.post(vector),
        command::NMI => apic.post_nmi(),
        // INIT and SIPI do not exist in a TD, SMI neither.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Configuration and divisor, from the manual's figure.
    #[test]
    fn the_timer_is_divided_as_configured() {
        let table = [
            (0b0000, 2),
            (0b0001, 4),
            (0b0010, 8),
            (0b0011, 16),
            (0b1000, 32),
            (0b1001, 64),
            (0b1010, 128),
            (0b1011, 1),
        ];
        let apic = LocalApic::default();
        for (configuration, divisor) in table {
            apic.set_divide(configuration);
            assert_eq!((apic.divide(), apic.divisor()), (configuration, divisor));
        }
    }
}
