//! Virtio devices on PCI, the modern interface only (virtio 1.2, 4.1).
//!
//! [`VirtioFunction`] is the transport: configuration space, register blocks, interrupts. What the device does is its [`Backend`], which
//! runs on a thread of its own and sees its queues, its configuration and shared memory, but neither registers nor the guest's processors.

pub mod blk;
pub mod net;
mod registers;
mod ring;
mod tamper;
pub mod vsock;
mod worker;

pub use ring::{Chain, Ring};
pub use worker::Backend;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pci::Function;
use super::pci::header::{Header, Identity};
use super::pci::msix::MsiX;
use crate::bus::{Interrupts, SharedMemory};
use crate::hostile::{Attack, Host, Target};
use registers::{Effect, Registers};
use ring::RingInterrupt;
use tamper::Tamper;
use worker::Worker;

/// Vendor, and device identifier of type 0 (virtio 1.2, 4.1.2).
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// As QEMU numbers its modern devices' subsystems (`include/hw/pci/pci.h`, `PCI_SUBDEVICE_ID_QEMU`).
const SUBSYSTEM: u16 = 0x1100;

/// Memory registers: messages in one, everything else in the other.
const MSIX_BAR: u8 = 1;
const BLOCKS_BAR: u8 = 4;
const BLOCKS_LENGTH: u64 = 0x4000;
/// Capability identifier (PCI Local Bus 3.0, appendix H; virtio 1.2, 4.1.4).
const VENDOR_SPECIFIC: u8 = 0x09;
/// Bytes between the doorbells of two queues: `notify_off_multiplier` (virtio 1.2, 4.1.4.4).
const DOORBELL_STEP: u32 = 4;

/// A register block: its type (`cfg_type`; virtio 1.2, 4.1.4), where it is, and what of it is used.
#[derive(Clone, Copy)]
enum Block {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
}

impl Block {
    const ALL: [Self; 4] = [Self::Common, Self::Isr, Self::Device, Self::Notify];
    const LENGTH: u64 = 0x1000;

    const fn start(self) -> u64 {
        match self {
            Self::Common => 0,
            Self::Isr => Self::LENGTH,
            Self::Device => 2 * Self::LENGTH,
            Self::Notify => 3 * Self::LENGTH,
        }
    }

    fn at(offset: u64) -> Option<(Self, u64)> {
        let block = Self::ALL
            .into_iter()
            .find(|block| offset / Self::LENGTH == block.start() / Self::LENGTH)?;
        Some((block, offset % Self::LENGTH))
    }
}

/// What every device gets from its machine.
#[derive(Clone)]
pub struct Surroundings {
    /// The memory it may touch.
    pub memory: Arc<SharedMemory>,
    /// Where its messages go.
    pub interrupts: Arc<dyn Interrupts>,
    /// Whether and how its host misbehaves.
    pub host: Arc<Host>,
}

/// A virtio device as a PCI function.
pub struct VirtioFunction {
    header: Mutex<Header>,
    registers: Mutex<Registers>,
    config: Vec<u8>,
    isr: Arc<AtomicU8>,
    msix: Arc<MsiX>,
    worker: Worker,
    surroundings: Surroundings,
    target: Target,
    gone: AtomicBool,
}

impl VirtioFunction {
    /// Starts a device.
    ///
    /// # Errors
    /// As for any thread and descriptor: there are no more of them.
    pub fn start(
        target: Target,
        backend: impl Backend,
        surroundings: Surroundings,
    ) -> io::Result<Self> {
        let device = FIRST_DEVICE + backend.device_type();
        let queues = backend.queues();
        let mut header = Header::new(Identity {
            vendor: VENDOR,
            device,
            revision: 1,
            class: backend.class(),
            subsystem: [VENDOR, SUBSYSTEM],
        });
        // One for each queue, one for changes of the configuration.
        let vectors = queues.len() as u16 + 1;
        let msix = MsiX::add(
            &mut header,
            MSIX_BAR,
            vectors,
            surroundings.interrupts.clone(),
        );
        header.add_wide_bar(BLOCKS_BAR, BLOCKS_LENGTH);
        if let Some((register, value)) = tamper::preset(&surroundings.host, target) {
            header.set(register, &value.to_le_bytes());
        }
        let config = backend.config();
        for block in Block::ALL {
            let length = match block {
                Block::Common => registers::LENGTH,
                Block::Notify => DOORBELL_STEP * queues.len() as u32,
                Block::Isr => 1,
                Block::Device => config.len() as u32,
            };
            add_block(&mut header, block, length);
        }
        let host = surroundings.host.clone();
        let hostile = host.is_hostile();
        let withheld = host.clone();
        let idle = move || hostile && withheld.strikes(Attack::Idle, target);
        Ok(Self {
            header: Mutex::new(header),
            registers: Mutex::new(Registers::new(
                backend.features(),
                tamper::required(&host, target),
                queues,
                vectors,
            )),
            config,
            isr: Arc::new(AtomicU8::new(0)),
            msix: Arc::new(msix),
            worker: Worker::start(target.name(), backend, hostile, idle)?,
            surroundings,
            target,
            gone: AtomicBool::new(false),
        })
    }

    fn common(&self, offset: u64, size: u8, write: Option<u64>) -> u64 {
        let mut registers = lock(&self.registers);
        let Some(value) = write else {
            let value = registers.read(offset, size);
            return tamper::common(&self.surroundings.host, self.target, offset, value);
        };
        match registers.write(offset, size, value) {
            Effect::None => {}
            Effect::Reset => {
                self.worker.link().reset();
                self.isr.store(0, Ordering::Release);
            }
            Effect::Start => self.begin(&mut registers),
        }
        0
    }

    fn begin(&self, registers: &mut Registers) {
        let memory = &self.surroundings.memory;
        let reachable = |(queue, _): &(virtio_queue::Queue, u16)| ring::is_reachable(queue, memory);
        let queues = registers
            .enabled_queues()
            .filter(|queues| queues.iter().all(reachable));
        let Some(queues) = queues else {
            registers.need_reset();
            self.msix.raise(registers.config_vector());
            return;
        };
        let rings = (0u16..).zip(queues).map(|(index, (queue, vector))| {
            let interrupt = RingInterrupt {
                msix: self.msix.clone(),
                vector,
                status: self.isr.clone(),
            };
            let tamper = Tamper::new(&self.surroundings.host, self.target, index);
            Ring::new(queue, memory.clone(), interrupt, tamper)
        });
        self.worker.link().start(rings.collect());
    }

    fn device(&self, offset: u64, size: u8) -> u64 {
        let start = (offset as usize).min(self.config.len());
        let wanted = self.config[start..].iter().take(size.into());
        let value = wanted
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        tamper::device(&self.surroundings.host, self.target, offset, value)
    }

    /// Whether the host has taken the device away: a disk at any access, others when they are at work.
    fn is_gone(&self, notified: bool) -> bool {
        let occasion = notified || self.target == Target::Disk;
        if occasion && self.surroundings.host.strikes(Attack::Vanish, self.target) {
            self.gone.store(true, Ordering::Relaxed);
            self.worker.link().reset();
        }
        self.gone.load(Ordering::Relaxed)
    }
}

impl Function for VirtioFunction {
    fn read_config(&self, offset: u8, size: u8) -> u32 {
        if self.gone.load(Ordering::Relaxed) {
            return u32::MAX;
        }
        let value = lock(&self.header).read(offset, size);
        tamper::configuration(&self.surroundings.host, self.target, offset, value)
    }

    fn write_config(&self, offset: u8, size: u8, value: u32) {
        let mut header = lock(&self.header);
        header.write(offset, size, value);
        self.msix.follow(&header);
    }

    fn memory(&self, address: u64, size: u8, write: Option<u64>) -> Option<u64> {
        let (bar, offset) = lock(&self.header).decode(address)?;
        let notified = bar == BLOCKS_BAR && offset >= Block::Notify.start();
        if self.is_gone(notified) {
            return None;
        }
        if bar == MSIX_BAR {
            return Some(self.msix.access(offset, size, write));
        }
        let (block, offset) = Block::at(offset)?;
        Some(match (block, write) {
            (Block::Common, _) => self.common(offset, size, write),
            (Block::Isr, None) => self.isr.swap(0, Ordering::AcqRel).into(),
            (Block::Device, None) => self.device(offset, size),
            (Block::Notify, Some(_)) => {
                self.worker.link().ring();
                0
            }
            _ => 0,
        })
    }
}

/// Adds the capability that describes a register block (virtio 1.2, 4.1.4).
fn add_block(header: &mut Header, block: Block, length: u32) {
    let notify = matches!(block, Block::Notify);
    let capability_length = if notify { 20 } else { 16 };
    let mut body = vec![capability_length, block as u8, BLOCKS_BAR, 0, 0, 0];
    body.extend((block.start() as u32).to_le_bytes());
    body.extend(length.to_le_bytes());
    if notify {
        body.extend(DOORBELL_STEP.to_le_bytes());
    }
    header.add_capability(VENDOR_SPECIFIC, &body);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
