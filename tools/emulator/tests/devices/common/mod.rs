//! A machine without processors: the devices on one side, the guest's real drivers on the other, in one process.
//!
//! The drivers of `guest/machine` are the oracle: they reach the devices through the bus alone, and shared memory through its mapping, as in a
//! trust domain. Only the register access is this harness's own, because the guest's is made of hypercalls.

mod guest;
mod transport;

pub use guest::{Guest, Report};
pub use transport::{Ports, functions};

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use emulator::bus::{Interrupts, SharedMemory};
use emulator::devices::{Board, DiskOptions, Forward, Options, VsockOptions};
use emulator::hostile::Host;
use tempfile::TempDir;
use vm_memory::GuestAddress;

/// The port the guest listens at, on both networks.
pub const PORT: u16 = 8443;
pub const CID: u32 = 7;
/// Bytes of shared memory; the drivers' arena is all of it.
pub const MEMORY: usize = 16 << 20;
/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Interrupts that arrived.
#[derive(Default)]
pub struct Arrived(Mutex<Vec<(u64, u32)>>);

impl Arrived {
    pub fn take(&self) -> Vec<(u64, u32)> {
        core::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Interrupts for Arrived {
    fn msi(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

/// Console output, kept.
#[derive(Clone, Default)]
pub struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    pub fn take(&self) -> Vec<u8> {
        core::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The devices and what surrounds them.
pub struct Machine {
    pub board: Arc<Board>,
    pub memory: Arc<SharedMemory>,
    pub interrupts: Arc<Arrived>,
    pub console: Text,
    pub tcp: SocketAddr,
    pub socket: PathBuf,
    _folder: TempDir,
}

impl Machine {
    /// A machine with a model disk of these contents, a card and a vsock device.
    pub fn new(model: &[u8], host: Host) -> Self {
        let folder = TempDir::new().unwrap();
        let disk = folder.path().join("model");
        std::fs::write(&disk, model).unwrap();
        let serial = format!("model:{}", model.len());
        Self::with_disk(folder, &disk, serial, host)
    }

    /// As [`Self::new`], with a disk of one's own.
    pub fn with_disk(folder: TempDir, disk: &Path, serial: String, host: Host) -> Self {
        let memory = SharedMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let (memory, interrupts, console) = (
            Arc::new(memory),
            Arc::new(Arrived::default()),
            Text::default(),
        );
        // Free a moment ago; if somebody takes it in between, the test fails with the reason.
        let tcp = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = folder.path().join("vsock");
        let options = Options {
            below_4g: MEMORY as u64,
            cpus: 1,
            disks: vec![DiskOptions {
                path: disk.to_owned(),
                serial,
            }],
            card: Some(vec![Forward {
                host: tcp,
                guest: PORT,
            }]),
            vsock: Some(VsockOptions {
                cid: CID,
                path: socket.clone(),
            }),
            ..Options::default()
        };
        let board = Board::new(
            options,
            memory.clone(),
            interrupts.clone(),
            Box::new(console.clone()),
            Arc::new(host),
        );
        Self {
            board: Arc::new(board.unwrap()),
            memory,
            interrupts,
            console,
            tcp,
            socket,
            _folder: folder,
        }
    }

    /// A connection to the guest's vsock port.
    pub fn connect_vsock(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let mut reply = Vec::new();
        while reply.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            reply.extend(byte);
        }
        assert!(reply.starts_with(b"OK "));
        Ok(stream)
    }

    /// A connection to the guest's TCP port.
    pub fn connect_tcp(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.tcp)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Sends `data`, ends, and reads everything that comes back.
pub fn exchange(stream: &mut (impl Read + Write), data: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(data)?;
    let mut echo = vec![0; data.len()];
    stream.read_exact(&mut echo)?;
    Ok(echo)
}

/// Tries until it works or time is up.
pub fn eventually<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(_) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

/// Bytes that no other position has.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}
