//! An image of 64 KiB around a piece of code, and a machine that runs it.

use emulator::bus::Bus;
use emulator::hostile::Host;
use emulator::machine::{Configuration, Machine as Emulated};
use emulator::quoting::QuotingService;
use emulator::symbols::Symbols;
use emulator::td::{End, HostStack, Parameters, Sept};
use emulator::trace::Trace;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::io::Write;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// What assembling gives.
pub type Part = Result<(), IcedError>;

const SIZE: usize = 64 << 10;
const BASE: u64 = (1 << 32) - SIZE as u64;
/// In the image: page tables, descriptors, a counter of processors that came by, code.
const TABLES: usize = 0;
const DESCRIPTORS: usize = 0x4000;
const COUNT: usize = 0x4100;
const CODE: usize = 0x5000;
const METADATA: usize = SIZE - 0x400;
/// How many processors came by.
pub const COUNTER: u64 = BASE + COUNT as u64;

/// A machine to run code in.
pub struct Machine {
    pub cpus: u32,
    pub sept: Sept,
    pub host: HostStack,
    pub strict: bool,
    /// The attack of a hostile host.
    pub hostile: Option<&'static str>,
    /// How long it may run.
    pub limit: Duration,
}

/// What was to be seen of a machine.
pub struct Seen {
    pub end: End,
    /// What the code wrote to [`RESULT`], if it got there.
    pub result: Option<u64>,
    /// RTMR 0 to 3.
    pub rtmr: [[u8; 48]; 4],
    /// Of all processors together.
    pub exits: u64,
    /// Lines of the trace.
    pub trace: Vec<String>,
    /// What the emulator's user is told.
    pub notes: String,
}

/// Where the emulator writes to.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpus: 1,
            sept: Sept::Small,
            host: HostStack::Mainline,
            strict: false,
            hostile: None,
            limit: Duration::from_secs(60),
        }
    }
}

/// The port that takes the code's result, lower half first.
const RESULT: u16 = 0x80;

/// No devices but one that takes the result.
#[derive(Clone, Default)]
struct Nothing(Arc<Mutex<Vec<u32>>>);

impl Bus for Nothing {
    fn io(&self, port: u16, _size: u8, write: Option<u32>) -> u32 {
        if port == RESULT {
            self.0.lock().unwrap().extend(write);
        }
        u32::MAX
    }

    fn mmio(&self, _gpa: u64, _size: u8, _write: Option<u64>) -> u64 {
        u64::MAX
    }
}

impl Machine {
    /// Runs `body` on the boot processor in 64-bit mode; behind it, R12 is the result, and a fatal error is reported.
    pub fn run(&self, body: impl Fn(&mut CodeAssembler) -> Part) -> End {
        self.watch(body).end
    }

    /// What `body` leaves in R12.
    pub fn result(&self, body: impl Fn(&mut CodeAssembler) -> Part) -> u64 {
        let seen = self.watch(body);
        match seen.result {
            Some(result) => result,
            None => panic!("{:?}", seen.end),
        }
    }

    /// As [`Machine::run`], with all that is to be seen.
    pub fn watch(&self, body: impl Fn(&mut CodeAssembler) -> Part) -> Seen {
        self.start(image(body, nothing))
    }

    /// As [`Machine::watch`], with `body` in 32-bit mode, before paging is on; its result is never seen.
    pub fn watch_32(&self, body: impl Fn(&mut CodeAssembler) -> Part) -> Seen {
        self.start(image(nothing, body))
    }

    fn start(&self, image: Vec<u8>) -> Seen {
        let (trace, notes) = (Buffer::default(), Buffer::default());
        let configuration = Configuration {
            image,
            memory: 64 << 20,
            parameters: Parameters {
                vcpus: self.cpus,
                gpaw: 48,
                sept: self.sept,
                host: self.host,
                huge_pages: false,
                strict: self.strict,
            },
            quoting: QuotingService::forgotten().expect("a test root"),
            symbols: Symbols::default(),
            host: Arc::new(
                self.hostile
                    .map_or_else(Host::honest, |name| Host::parse(name).expect("an attack")),
            ),
            trace: Trace::new(Some(Box::new(trace.clone())), Box::new(notes.clone())),
        };
        let results = Nothing::default();
        let machine = Emulated::new(configuration, |_, _| Ok(results.clone())).expect("a machine");
        let (ended, end) = mpsc::channel();
        let outcome = thread::scope(|scope| {
            let (td, limit) = (machine.td(), self.limit);
            scope.spawn(move || {
                if end.recv_timeout(limit).is_err() {
                    td.finish(End::Stopped);
                }
            });
            let outcome = machine.run();
            let _ = ended.send(());
            outcome
        });
        let result = match results.0.lock().unwrap()[..] {
            [low, high] => Some(u64::from(high) << 32 | u64::from(low)),
            _ => None,
        };
        Seen {
            end: outcome.end,
            result,
            rtmr: outcome.rtmr,
            exits: outcome.exits.iter().sum(),
            trace: trace.text().lines().map(str::to_owned).collect(),
            notes: notes.text(),
        }
    }
}

fn nothing(_: &mut CodeAssembler) -> Part {
    Ok(())
}

fn image(
    body: impl Fn(&mut CodeAssembler) -> Part,
    body_32: impl Fn(&mut CodeAssembler) -> Part,
) -> Vec<u8> {
    let mut image = vec![0; SIZE];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    // 1 GiB of private memory, the same through the shared bit, nothing, the image: all writable and executable.
    let table = BASE + TABLES as u64;
    let entries = [
        (TABLES, table + 0x1000 + 3),
        (TABLES + 0x1000, table + 0x2000 + 3),
        (TABLES + 0x1008, 1 << 47 | 0x83),
        (TABLES + 0x1018, table + 0x3000 + 3),
        (TABLES + 0x3000 + 511 * 8, 0xffe0_0083),
    ];
    for (place, entry) in entries {
        put(place, &u64::to_le_bytes(entry));
    }
    for index in 0..512 {
        let entry = (index as u64) << 21 | 0x83;
        put(TABLES + 0x2000 + index * 8, &entry.to_le_bytes());
    }
    put(DESCRIPTORS + 8, &0x00af_9b00_0000_ffff_u64.to_le_bytes());
    let pointer = [
        &15u16.to_le_bytes()[..],
        &((BASE + DESCRIPTORS as u64) as u32).to_le_bytes(),
    ];
    put(DESCRIPTORS + 0x20, &pointer.concat());
    let start = assemble(32, CODE, |asm| {
        body_32(asm)?;
        asm.lgdt(fword_ptr(DESCRIPTORS as i32 + 0x20 + BASE as i32))?;
        asm.mov(eax, cr4)?;
        asm.or(eax, 0x20)?;
        asm.mov(cr4, eax)?;
        asm.mov(eax, table as u32)?;
        asm.mov(cr3, eax)?;
        asm.mov(eax, cr0)?;
        asm.or(eax, 0x8000_0000_u32 as i32)?;
        asm.mov(cr0, eax)
    });
    put(CODE, &start);
    let far_jump = CODE + start.len();
    let target = CODE + 0x100;
    put(far_jump, &[0xea]);
    put(far_jump + 1, &((BASE + target as u64) as u32).to_le_bytes());
    put(far_jump + 5, &8u16.to_le_bytes());
    let main = assemble(64, target, |asm| {
        let mut park = asm.create_label();
        let mut boot = asm.create_label();
        asm.mov(rbx, COUNTER)?;
        asm.lock().inc(dword_ptr(rbx))?;
        asm.test(esi, esi)?;
        asm.je(boot)?;
        asm.set_label(&mut park)?;
        asm.pause()?;
        asm.jmp(park)?;
        asm.set_label(&mut boot)?;
        body(asm)?;
        asm.mov(rbx, r12)?;
        for _ in 0..2 {
            asm.xor(eax, eax)?;
            asm.mov(rcx, 0xfc00_u64)?;
            asm.xor(r10d, r10d)?;
            asm.mov(r11, 30_u64)?;
            asm.mov(r12, 4_u64)?;
            asm.mov(r13, 1_u64)?;
            asm.mov(r14, u64::from(RESULT))?;
            asm.mov(r15d, ebx)?;
            asm.tdcall()?;
            asm.shr(rbx, 32)?;
        }
        asm.xor(eax, eax)?;
        asm.mov(rcx, 0xffcc_u64)?;
        asm.xor(r10d, r10d)?;
        asm.mov(r11, 0x1_0003_u64)?;
        asm.xor(r12d, r12d)?;
        asm.xor(r14d, r14d)?;
        asm.tdcall()?;
        asm.ud2()
    });
    put(target, &main);
    // The reset vector: a jump back.
    let distance = (CODE as i32) - (SIZE as i32 - 16 + 5);
    put(SIZE - 16, &[0xe9]);
    put(SIZE - 15, &distance.to_le_bytes());
    put_metadata(&mut put);
    image
}

fn assemble(bits: u32, at: usize, body: impl FnOnce(&mut CodeAssembler) -> Part) -> Vec<u8> {
    let mut asm = CodeAssembler::new(bits).expect("a number of bits");
    body(&mut asm).expect("instructions");
    asm.assemble(BASE + at as u64).expect("code")
}

/// The TDVF descriptor with two sections, and the GUID table that leads to it.
fn put_metadata(put: &mut impl FnMut(usize, &[u8])) {
    let section = |offset: u32, raw: u32, address: u64, size: u64, kind: u32, attributes: u32| {
        let numbers = [
            &offset.to_le_bytes()[..],
            &raw.to_le_bytes(),
            &address.to_le_bytes(),
        ];
        let rest = [
            &size.to_le_bytes()[..],
            &kind.to_le_bytes(),
            &attributes.to_le_bytes(),
        ];
        [numbers.concat(), rest.concat()].concat()
    };
    let head = [
        *b"TDVF",
        80u32.to_le_bytes(),
        1u32.to_le_bytes(),
        2u32.to_le_bytes(),
    ]
    .concat();
    let code = section(0, SIZE as u32, BASE, SIZE as u64, 0, 1);
    let hob = section(0, 0, 0x80_0000, 0x2000, 2, 0);
    put(METADATA, &[head, code, hob].concat());
    let entry = [
        0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e,
        0xc2,
    ];
    let footer = [
        0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08,
        0x2d,
    ];
    let distance = ((SIZE - METADATA) as u32).to_le_bytes();
    let table = [&distance[..], &[22, 0], &entry, &[40, 0], &footer].concat();
    put(SIZE - 32 - table.len(), &table);
}
