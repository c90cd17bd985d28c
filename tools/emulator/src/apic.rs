//! The local APICs, in x2APIC mode as every TD has them, and the messages that reach them.
//!
//! The registers of the virtual APIC page that the TD reads and writes directly (TPR, PPR, EOI, ISR, TMR, IRR, SELF_IPI) belong to the vCPU;
//! ICR and the timer are the host's side, reached by TDVMCALL (`tdx.md` 1.7). Other threads only ever set a request bit and wake the vCPU.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// First x2APIC register, as an MSR.
const X2APIC: u32 = 0x800;

/// Vectors below this are exceptions; a local APIC does not take them.
const FIRST_VECTOR: u8 = 16;

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
            let masked = timer & 1 << 16 != 0;
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

    /// The local vector table's timer entry.
    pub fn timer(&self) -> u64 {
        self.timer.load(Ordering::SeqCst)
    }

    /// Reads a register that a TD reads without the host; none for others.
    pub fn read(&self, msr: u32) -> Option<u64> {
        Some(match msr.checked_sub(X2APIC)? {
            0x08 => self.task_priority.load(Ordering::SeqCst),
            0x0a => u64::from(self.processor_priority()),
            index @ 0x10..=0x17 => self.in_service.register(index - 0x10),
            0x18..=0x1f => 0,
            index @ 0x20..=0x27 => self.requested.register(index - 0x20),
            _ => return None,
        })
    }

    /// Writes a register that a TD writes without the host. `Some(false)` is a value the processor refuses.
    pub fn write(&self, msr: u32, value: u64) -> Option<bool> {
        match msr.checked_sub(X2APIC)? {
            0x08 if value <= 0xff => self.task_priority.store(value, Ordering::SeqCst),
            0x0b if value == 0 => {
                if let Some(vector) = self.in_service.highest() {
                    self.in_service.clear(vector);
                }
            }
            0x3f if value <= 0xff => self.post(value as u8),
            0x08 | 0x0b | 0x3f => return Some(false),
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

    /// A write to the interrupt command register, x2APIC form (Intel SDM vol. 3, 11.12.9), by vCPU `from`.
    pub fn command(&self, from: u32, value: u64) {
        let (vector, mode) = (value as u8, value >> 8 & 7);
        let destination = (value >> 32) as u32;
        for (index, apic) in self.0.iter().enumerate() {
            let index = index as u32;
            let addressed = match value >> 18 & 3 {
                0 if destination == u32::MAX => true,
                0 if value & 1 << 11 != 0 => logical(destination, index),
                0 => destination == index,
                1 => index == from,
                2 => true,
                _ => index != from,
            };
            if addressed {
                send(apic, mode, vector);
            }
        }
    }

    /// A message-signalled interrupt (Intel SDM vol. 3, 11.11).
    pub fn message(&self, address: u64, data: u32) {
        if address >> 20 != 0xfee {
            return;
        }
        let destination = (address >> 12 & 0xff) as u32;
        for (index, apic) in self.0.iter().enumerate() {
            if destination == 0xff || destination == index as u32 {
                send(apic, u64::from(data >> 8 & 7), data as u8);
            }
        }
    }
}

/// Logical x2APIC destinations: 16 processors in a cluster.
fn logical(destination: u32, index: u32) -> bool {
    destination >> 16 == index >> 4 && destination & 1 << (index & 15) != 0
}

fn send(apic: &LocalApic, mode: u64, vector: u8) {
    match mode {
        // Fixed and lowest priority.
        0 | 1 => apic.post(vector),
        4 => apic.post_nmi(),
        // INIT and SIPI do not exist in a TD, SMI neither.
        _ => {}
    }
}
