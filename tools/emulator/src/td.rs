//! One trust domain: what its virtual CPUs have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use measurements::PageOrder;

use crate::apic::Apics;
use crate::bus::Bus;
use crate::event::Death;
use crate::hostile::Host;
use crate::memory::Memory;
use crate::module::Writable;
use crate::report::Identity;
use crate::symbols::Symbols;
use crate::trace::Trace;
use crate::vmcall::Quoting;

/// How the VMM backs private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sept {
    /// 4 KiB pages only, as mainline KVM does today: accepting 2 MiB fails with PAGE_SIZE_MISMATCH.
    Small,
    /// 2 MiB pages where the TD accepts them as such.
    Large,
}

/// The software that hosts the TD. Its generations differ in what a TD can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStack {
    /// Mainline Linux (6.16 and later) and QEMU: pages are measured one by one, and RBP never reaches the host (NO_RBP_MOD), so a TDVMCALL
    /// that exposes it is refused.
    Mainline,
    /// The stacks before it (Linux 5.15 and 6.2 with Intel's patches, QEMU 7 and 8): a section's pages are added first and measured then, and
    /// RBP may be exposed. Firmware of that time needs this.
    OutOfTree,
}

impl HostStack {
    /// In which order it adds and measures pages.
    pub fn page_order(self) -> PageOrder {
        match self {
            Self::Mainline => PageOrder::PageByPage,
            Self::OutOfTree => PageOrder::AddThenExtend,
        }
    }
}

/// What the VMM fixes when it creates the TD, apart from its contents.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    pub vcpus: u32,
    /// Width of guest-physical addresses: 48 or 52.
    pub gpaw: u8,
    pub sept: Sept,
    pub host: HostStack,
    /// Put huge pages of this machine behind the TD's memory where the TD maps large pages.
    pub huge_pages: bool,
    /// End the TD at an instruction that raises #VE, as Vitrine's own image never executes one.
    pub strict: bool,
}

/// How a TD ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It told the host of a fatal error (TDVMCALL ReportFatalError).
    FatalError { code: u64, message: String },
    /// It broke a rule, or met a limit of the emulator.
    Killed { vcpu: u32, death: Death },
    /// The user of the emulator stopped it.
    Stopped,
}

/// What surrounds the TD.
pub struct Equipment {
    pub apics: Arc<Apics>,
    pub bus: Arc<dyn Bus>,
    pub quoting: Quoting,
    pub symbols: Symbols,
    pub host: Arc<Host>,
    pub trace: Trace,
}

/// See the module.
pub struct Td {
    pub parameters: Parameters,
    pub memory: Memory,
    pub apics: Arc<Apics>,
    pub bus: Arc<dyn Bus>,
    pub quoting: Quoting,
    pub symbols: Symbols,
    pub host: Arc<Host>,
    pub trace: Trace,
    identity: Mutex<Identity>,
    fields: Mutex<Writable>,
    faults: AtomicU64,
    host_calls: AtomicU64,
    ending: AtomicBool,
    end: OnceLock<End>,
    flush: Flush,
}

/// The shoot-down of translations on all vCPUs, after pages changed their state.
struct Flush {
    wanted: AtomicU64,
    vcpus: Vec<Progress>,
}

#[derive(Default)]
struct Progress {
    in_guest: AtomicBool,
    done: AtomicU64,
}

impl Td {
    /// A TD that has not run.
    pub fn new(
        parameters: Parameters,
        memory: Memory,
        identity: Identity,
        equipment: Equipment,
    ) -> Self {
        let Equipment {
            apics,
            bus,
            quoting,
            symbols,
            host,
            trace,
        } = equipment;
        Self {
            parameters,
            memory,
            apics,
            bus,
            quoting,
            symbols,
            host,
            trace,
            identity: Mutex::new(identity),
            fields: Mutex::new(Writable::default()),
            faults: AtomicU64::new(0),
            host_calls: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            end: OnceLock::new(),
            flush: Flush {
                wanted: AtomicU64::new(0),
                vcpus: (0..parameters.vcpus).map(|_| Progress::default()).collect(),
            },
        }
    }

    /// The bit of a guest-physical address that makes it shared.
    pub fn shared_bit(&self) -> u64 {
        1 << (self.parameters.gpaw - 1)
    }

    /// Measurements and attributes.
    pub fn identity(&self) -> MutexGuard<'_, Identity> {
        lock(&self.identity)
    }

    /// The metadata fields that the TD can change.
    pub fn fields(&self) -> MutexGuard<'_, Writable> {
        lock(&self.fields)
    }

    /// Tells of a fault of the guest, unless it has had too many.
    pub fn report_fault(&self, vcpu: u32, report: impl FnOnce() -> String) {
        /// Enough to understand it; firmware that faults in its fault handler never stops.
        const MAX_FAULTS: u64 = 4;
        let count = self.faults.fetch_add(1, Ordering::Relaxed);
        if count < MAX_FAULTS {
            self.trace.note(vcpu, &report());
        }
    }

    /// Counts a call to the host (TDVMCALL): what is an exit on hardware too.
    pub fn count_host_call(&self) {
        self.host_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls to the host there were.
    pub fn host_calls(&self) -> u64 {
        self.host_calls.load(Ordering::Relaxed)
    }

    /// Ends the TD. The first reason counts.
    pub fn finish(&self, end: End) {
        // Only one thread gets to say why.
        let _ = self.end.set(end);
        self.ending.store(true, Ordering::SeqCst);
        for apic in &self.apics.0 {
            apic.kick();
        }
    }

    /// Whether vCPUs should stop.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// The vCPU is about to run guest code; `false` if it must drop its translations first ([`Td::flushed`]).
    pub fn enter_guest(&self, vcpu: u32) -> bool {
        let progress = &self.flush.vcpus[vcpu as usize];
        progress.in_guest.store(true, Ordering::SeqCst);
        let current = self.flush.wanted.load(Ordering::SeqCst);
        if progress.done.load(Ordering::SeqCst) == current {
            return true;
        }
        progress.in_guest.store(false, Ordering::SeqCst);
        false
    }

    /// The vCPU is out of guest code.
    pub fn leave_guest(&self, vcpu: u32) {
        self.flush.vcpus[vcpu as usize]
            .in_guest
            .store(false, Ordering::SeqCst);
    }

    /// The state that a vCPU reaches by dropping its translations now; pass it to [`Td::flushed`] when that is done.
    pub fn flush_wanted(&self) -> u64 {
        self.flush.wanted.load(Ordering::SeqCst)
    }

    /// The vCPU has dropped its translations.
    pub fn flushed(&self, vcpu: u32, state: u64) {
        self.flush.vcpus[vcpu as usize]
            .done
            .store(state, Ordering::SeqCst);
    }

    /// Makes every vCPU drop its translations before it runs guest code again, and waits until none runs with old ones.
    pub fn flush_all(&self, from: u32) {
        let wanted = self.flush.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        for (index, progress) in self.flush.vcpus.iter().enumerate() {
            while index != from as usize
                && progress.in_guest.load(Ordering::SeqCst)
                && progress.done.load(Ordering::SeqCst) < wanted
                && !self.is_ending()
            {
                self.apics.0[index].kick();
                std::thread::yield_now();
            }
        }
    }
}

/// Locks; what a thread left that panicked is whole, because every change here is one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
