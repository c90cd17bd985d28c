//! The whole machine: builds the TD, runs its virtual CPUs on threads of their own, and says how it ended.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::apic::Apics;
use crate::bus::{Bus, Interrupts};
use crate::cpu::Cpu;
use crate::cpuid;
use crate::event::Death;
use crate::hostile::{Attack, Host, Target, launch};
use crate::memory::{Layout, Memory, MemoryError};
use crate::ptrace::Tracee;
use crate::quoting::QuotingService;
use crate::report::Identity;
use crate::symbols::Symbols;
use crate::td::{End, Equipment, Parameters, Td};
use crate::tdvf::{Launch, LaunchError};
use crate::trace::Trace;
use crate::vcpu::Vcpu;
use crate::vmcall::Quoting;

/// What to run.
pub struct Configuration {
    /// The image's bytes.
    pub image: Vec<u8>,
    /// Bytes of RAM.
    pub memory: u64,
    pub parameters: Parameters,
    /// What signs quotes.
    pub quoting: QuotingService,
    /// Names for addresses, besides those in the image.
    pub symbols: Symbols,
    /// How the host behaves.
    pub host: Arc<Host>,
    pub trace: Trace,
}

/// Why there is no machine.
#[derive(Debug)]
pub enum MachineError {
    Launch(LaunchError),
    Memory(MemoryError),
    Devices(io::Error),
}

impl std::fmt::Display for MachineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Launch(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Devices(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MachineError {}

/// How long a hostile host lets other processors run before the first.
const HEAD_START: Duration = Duration::from_millis(300);

/// A TD that is ready to start.
pub struct Machine {
    td: Arc<Td>,
    hob: u64,
}

/// How it went.
pub struct Outcome {
    pub end: End,
    pub mrtd: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    /// How often each vCPU left the guest.
    pub exits: Vec<u64>,
    /// Huge pages of this machine behind the TD's memory.
    pub huge_pages: u64,
}

/// The local APICs as devices see them.
struct Messages(Arc<Apics>);

impl Interrupts for Messages {
    fn msi(&self, address: u64, data: u32) {
        self.0.message(address, data);
    }
}

impl Machine {
    /// Builds the TD. `devices` makes the bus from the shared memory and the interrupt sink.
    ///
    /// # Errors
    /// [`MachineError`] if the image or the memory does not do.
    pub fn new<B: Bus + 'static>(
        configuration: Configuration,
        devices: impl FnOnce(&Memory, Arc<dyn Interrupts>) -> io::Result<B>,
    ) -> Result<Self, MachineError> {
        let Configuration {
            image,
            memory,
            parameters,
            quoting,
            mut symbols,
            host,
            trace,
        } = configuration;
        symbols.add_from_image(&image);
        let layout = Layout::new(memory, image.len() as u64);
        let plan = Launch::plan(&image, &layout).map_err(MachineError::Launch)?;
        let memory = Memory::new(layout).map_err(MachineError::Memory)?;
        plan.add_pages(&image, &memory, &host)
            .map_err(MachineError::Launch)?;
        let identity = Identity::new(
            quoting.platform(),
            *quoting.report_key(),
            launch::xfam(&host, cpuid::xfam()),
            plan.mrtd(&image, parameters.host.page_order()),
        );
        let apics = Arc::new(Apics::new(parameters.vcpus));
        let bus =
            devices(&memory, Arc::new(Messages(apics.clone()))).map_err(MachineError::Devices)?;
        let equipment = Equipment {
            apics,
            bus: Arc::new(bus),
            quoting: Quoting::new(quoting),
            symbols,
            host,
            trace,
        };
        Ok(Self {
            hob: plan.hob_address(),
            td: Arc::new(Td::new(parameters, memory, identity, equipment)),
        })
    }

    /// The TD, to be stopped from elsewhere.
    pub fn td(&self) -> &Arc<Td> {
        &self.td
    }

    /// Runs it to its end.
    pub fn run(&self) -> Outcome {
        let exits = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.td.parameters.vcpus)
                .map(|index| scope.spawn(move || self.run_vcpu(index)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(0))
                .collect()
        });
        self.td.trace.flush();
        let identity = self.td.identity();
        Outcome {
            end: self.td.end().cloned().unwrap_or(End::Stopped),
            mrtd: identity.mrtd(),
            rtmr: identity.rtmr(),
            exits,
            huge_pages: self.td.memory.huge_pages(),
        }
    }

    /// Whether the host never runs a processor; it may also make one wait here.
    fn is_withheld(&self, index: u32) -> bool {
        let host = &self.td.host;
        let strikes = |attack| host.is_hostile() && host.strikes(attack, Target::Launch);
        if index == 0 && strikes(Attack::ProcessorsFirst) {
            thread::sleep(HEAD_START);
        }
        index > 0 && strikes(Attack::ProcessorsWithheld)
    }

    /// What the host says of where the hand-off block is.
    fn hob(&self) -> u64 {
        let host = &self.td.host;
        let lies = host.is_hostile() && host.strikes(Attack::MemoryPointer, Target::Launch);
        if lies { host.below(1 << 47) } else { self.hob }
    }

    fn run_vcpu(&self, index: u32) -> u64 {
        pin(index as usize);
        if self.is_withheld(index) {
            return 0;
        }
        let memory = &self.td.memory;
        match Tracee::start(memory.file(false), memory.file(true)) {
            Ok(tracee) => {
                let gpaw = self.td.parameters.gpaw;
                let cpu = Cpu::reset(index, gpaw, self.hob(), cpuid::signature());
                Vcpu::new(cpu, &self.td, tracee).run()
            }
            Err(error) => {
                let death = Death::Host(format!(
                    "no traced process can be started ({error}); tracing one's own children must be allowed (ptrace, seccomp)"
                ));
                self.td.finish(End::Killed { vcpu: index, death });
                0
            }
        }
    }
}

/// Pins this thread, and with it its tracee, to one of the processors it may use: a switch between the two is then cheap.
fn pin(index: usize) {
    let this = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else {
        return;
    };
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let mut one = CpuSet::new();
    if let Some(cpu) = cpus.get(index % cpus.len().max(1))
        && one.set(*cpu).is_ok()
    {
        // Only speed depends on it.
        let _ = sched_setaffinity(this, &one);
    }
}
