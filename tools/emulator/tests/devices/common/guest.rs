//! A guest of drivers only: reads its disk, then answers on both networks with what it was sent.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use embedded_io::{Read, ReadReady, Write};
use emulator::bus::{Bus, SharedMemory};
use machine::net::{ListenConfig, Network, Stream};
use machine::pci::{Function, MmioWindow};
use machine::virtio::blk::Disk;
use machine::virtio::net::NetDevice;
use machine::virtio::vsock::VsockDevice;
use machine::virtio::{DeviceAddress, SharedArena};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend};

use super::transport::BusTransport;
use super::{MEMORY, Machine, PORT, Ports, functions};

const NO_VECTOR: u16 = 0xffff;

/// What the guest has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// The whole contents of its disk, or why there are none, in the words of the real guest.
    Model(Result<Vec<u8>, String>),
    /// A device that it does without, and why, in the words of the real guest.
    Lost(String),
    /// It listens.
    Serving,
}

/// A running guest. It ends with this value.
pub struct Guest {
    pub reports: Receiver<Report>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Starts the drivers on a thread of their own.
    pub fn start(machine: &Machine) -> Self {
        let (sender, reports) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (bus, memory, stopping) = (machine.board.clone(), machine.memory.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let report = |report| drop(sender.send(report));
            let mut drivers = Drivers::default();
            drivers.start(&(bus as Arc<dyn Bus>), &memory, &report);
            drivers.serve(&stopping, &report);
        });
        Self {
            reports,
            stop,
            thread: Some(thread),
        }
    }

    /// The next thing the guest says.
    pub fn next(&self) -> Report {
        self.reports
            .recv_timeout(Duration::from_secs(60))
            .expect("the guest says something")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the guest panicked");
        }
    }
}

fn clock() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[derive(Default)]
struct Drivers {
    card: Option<NetDevice>,
    vsock: Option<VsockDevice>,
}

impl Drivers {
    /// Starts a driver for every device and reads the disk.
    fn start(&mut self, bus: &Arc<dyn Bus>, memory: &Arc<SharedMemory>, report: &impl Fn(Report)) {
        let base = memory.get_host_address(GuestAddress(0)).unwrap();
        // The arena is not at address zero, so that an address that was never set is nobody's buffer.
        let start = GuestAddress(1 << 20);
        let arena_base = NonNull::new(base.wrapping_add(start.raw_value() as usize)).unwrap();
        let device = DeviceAddress(start.raw_value());
        // SAFETY: the memory is mapped as long as the machine, which outlives the guest, and nothing else of this process refers to it.
        let arena = unsafe { SharedArena::new(arena_base, device, MEMORY - (1 << 20)) };
        let arena = RefCell::new(arena);
        let mut window = MmioWindow::new();
        let mut model = None;
        for function in functions(&mut Ports(bus.clone())) {
            let Some(transport) = BusTransport::new(bus, function.address, &mut window, NO_VECTOR)
            else {
                if function.device == 0x1042 {
                    model.get_or_insert(Err(
                        "there is no usable model disk: no registers".to_owned()
                    ));
                }
                report(Report::Lost(format!(
                    "left out: {}: no registers",
                    name(function)
                )));
                continue;
            };
            let transport = Box::new(transport);
            let arena = &mut *arena.borrow_mut();
            let lost = match function.device {
                0x1042 => {
                    match Disk::open(transport, arena, clock) {
                        Ok(Some(disk)) => model = Some(read(disk)),
                        Ok(None) => {}
                        Err(error) => {
                            model = Some(Err(format!("there is no usable model disk: {error}")))
                        }
                    }
                    None
                }
                0x1041 => NetDevice::new(transport, arena, clock)
                    .map(|card| self.card = Some(card))
                    .err(),
                _ => VsockDevice::new(transport, arena, clock)
                    .map(|vsock| self.vsock = Some(vsock))
                    .err(),
            };
            if let Some(reason) = lost {
                report(Report::Lost(format!(
                    "left out: {}: {reason}",
                    name(function)
                )));
            }
        }
        report(Report::Model(
            model.unwrap_or_else(|| Err("there is no model".to_owned())),
        ));
    }

    /// Sends back what comes in, on both networks.
    fn serve(self, stop: &AtomicBool, report: &impl Fn(Report)) {
        let listen = ListenConfig {
            tcp: Some(PORT),
            vsock: Some(PORT.into()),
            address: None,
        };
        let mut network = Network::new(&listen, self.card, self.vsock, 1, clock());
        report(Report::Serving);
        let mut streams: Vec<Stream> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let mut busy = network.poll(clock());
            while let Some((stream, _)) = network.accept() {
                streams.push(stream);
            }
            streams.retain_mut(|stream| echo(stream, &mut busy));
            while let Some((kind, error)) = network.take_failure() {
                report(Report::Lost(format!("{kind} shut down: {error}")));
            }
            if !busy {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

fn name(function: Function) -> &'static str {
    match function.device {
        0x1041 => "virtio-net",
        0x1042 => "virtio-blk",
        _ => "virtio-vsock",
    }
}

/// Reads a disk to its end.
fn read(mut disk: Disk) -> Result<Vec<u8>, String> {
    let mut contents = vec![0; disk.label().length as usize];
    let mut filled = 0;
    while filled < contents.len() {
        match disk.read(&mut contents[filled..]) {
            Ok(0) => thread::yield_now(),
            Ok(count) => filled += count,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(contents)
}

/// Sends back what a stream brings. False when it is over.
fn echo(stream: &mut Stream, busy: &mut bool) -> bool {
    let mut block = [0; 4096];
    while stream.read_ready() == Ok(true) {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return false,
            Ok(count) => {
                *busy = true;
                let mut rest = &block[..count];
                while !rest.is_empty() {
                    match stream.write(rest) {
                        // More than this service buffers is not sent in these tests.
                        Ok(0) | Err(_) => return false,
                        Ok(sent) => rest = &rest[sent..],
                    }
                }
            }
        }
    }
    true
}
