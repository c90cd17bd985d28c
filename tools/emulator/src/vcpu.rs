//! One virtual CPU: runs the guest's code in its tracee until something traps, and does what the processor, the TDX module or the VMM would do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use iced_x86::{InstructionInfoFactory, OpAccess};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::apic::{LocalApic, Wake};
use crate::cpu::{Cpu, Mode};
use crate::delivery;
use crate::emulate::{self, Effect};
use crate::event::{Access, Death, Event, Exception, vector};
use crate::fault;
use crate::memory::{LARGE_PAGE, PAGE};
use crate::paging::{Run, View};
use crate::patch;
use crate::ptrace::{KICK, STUB_ADDRESS, Tracee, Trap};
use crate::td::{End, Td};

/// A fault that repeats this often without progress is a mistake of the emulator.
const MAX_REPEATS: u32 = 16;
const GIGABYTE: u64 = 1 << 30;

/// See the module.
pub struct Vcpu<'a> {
    cpu: Cpu,
    td: &'a Td,
    tracee: Tracee,
    /// The waker's view: the thread waits for an interrupt, outside the guest.
    halted: Arc<AtomicBool>,
    /// Addresses that hold our INT3.
    patched: BTreeSet<u64>,
    /// Writable pages that are mapped executable: their address, and whether they are patched copies.
    code_pages: BTreeMap<u64, bool>,
    /// The largest translation that was mapped.
    largest: u64,
    last_fault: (u64, u64),
    repeats: u32,
    /// How often the guest was left.
    exits: u64,
}

/// Wakes a vCPU wherever its thread is.
struct Waker {
    tracee: Pid,
    thread: Thread,
    halted: Arc<AtomicBool>,
}

impl Wake for Waker {
    fn wake(&self) {
        if self.halted.load(Ordering::SeqCst) {
            self.thread.unpark();
        } else {
            // A tracee that has just died needs no waking.
            let _ = kill(self.tracee, KICK);
        }
    }
}

impl<'a> Vcpu<'a> {
    /// A vCPU in its reset state, to be run by the calling thread, whose tracee this is.
    pub fn new(cpu: Cpu, td: &'a Td, tracee: Tracee) -> Self {
        let halted = Arc::new(AtomicBool::new(false));
        td.apics.0[cpu.index as usize].set_waker(Box::new(Waker {
            tracee: tracee.pid(),
            thread: std::thread::current(),
            halted: halted.clone(),
        }));
        Self {
            cpu,
            td,
            tracee,
            halted,
            patched: BTreeSet::new(),
            code_pages: BTreeMap::new(),
            largest: PAGE,
            last_fault: (0, 0),
            repeats: 0,
            exits: 0,
        }
    }

    /// Runs until the TD ends; how often the guest was left.
    pub fn run(mut self) -> u64 {
        while !self.td.is_ending() {
            if let Err(death) = self.round() {
                self.tell(&format!("the TD ends ({}): {death}", death.name()));
                self.td.finish(End::Killed {
                    vcpu: self.cpu.index,
                    death,
                });
            }
        }
        self.exits
    }

    fn apic(&self) -> &'a LocalApic {
        &self.td.apics.0[self.cpu.index as usize]
    }

    fn view(&self) -> Result<View<'a>, Death> {
        View::new(&self.cpu, &self.td.memory, self.td.parameters.gpaw)
    }

    /// Into the guest once, and what it left for.
    fn round(&mut self) -> Result<(), Death> {
        self.interrupt()?;
        while !self.td.enter_guest(self.cpu.index) {
            let state = self.td.flush_wanted();
            self.flush()?;
            self.td.flushed(self.cpu.index, state);
        }
        self.apic().entering();
        let before = self.cpu.registers.rip;
        // In the shadow of STI, one instruction still comes before the interrupt.
        let step = self.cpu.interrupt_shadow && self.apic().deliverable().is_some();
        let mode = self.cpu.mode();
        let trap = self
            .tracee
            .run(&mut self.cpu.registers, mode, step)
            .map_err(host)?;
        self.td.leave_guest(self.cpu.index);
        self.exits += 1;
        if self.cpu.registers.rip != before {
            self.cpu.interrupt_shadow = false;
        }
        match self.handle(trap, step) {
            Ok(effect) => self.apply(effect),
            Err(Event::Death(death)) => Err(death),
            Err(Event::Exception(exception)) => self.deliver(exception),
            Err(Event::Virtualization(info)) => {
                self.td.trace.line(
                    self.cpu.index,
                    format_args!(
                        "#VE reason {} qualification {:#x} gpa {:#x}",
                        info.reason, info.qualification, info.gpa
                    ),
                );
                let vector = match self.cpu.ve.replace(info) {
                    None => Exception::new(vector::VIRTUALIZATION),
                    // The first one was never read: VEINFO still holds it.
                    Some(first) => {
                        self.cpu.ve = Some(first);
                        Exception {
                            vector: vector::DOUBLE_FAULT,
                            error: Some(0),
                            address: None,
                        }
                    }
                };
                self.deliver(vector)
            }
        }
    }

    fn tell(&self, what: &str) {
        let view = self.view().ok();
        let (cpu, td) = (&self.cpu, self.td);
        td.report_fault(cpu.index, || {
            fault::report(cpu, view.as_ref(), &td.symbols, what)
        });
    }

    fn deliver(&mut self, exception: Exception) -> Result<(), Death> {
        if exception.is_fault() {
            self.tell(&format!("{exception} for the TD's own handler"));
        }
        self.td.trace.line(
            self.cpu.index,
            format_args!("deliver {exception}, rip {:#x}", self.cpu.registers.rip),
        );
        let view = self.view()?;
        delivery::deliver(&mut self.cpu, &view, exception)
    }

    /// Delivers what waits, if the guest takes it now.
    fn interrupt(&mut self) -> Result<(), Death> {
        if self.cpu.interrupt_shadow {
            return Ok(());
        }
        if self.apic().take_nmi() {
            return self.deliver(Exception::new(vector::NMI));
        }
        if self.cpu.interrupts
            && let Some(vector) = self.apic().acknowledge()
        {
            return self.deliver(Exception::new(vector));
        }
        Ok(())
    }

    fn handle(&mut self, trap: Trap, step: bool) -> Result<Effect, Event> {
        let exception = match trap {
            Trap::Kick => return Ok(Effect::Jumped),
            Trap::Debug if step => return Ok(Effect::Jumped),
            Trap::PageFault(address) => return self.page_fault(address),
            Trap::GeneralProtection => {
                return self.execute(Exception::general_protection(0));
            }
            Trap::InvalidOpcode => {
                return self.execute(Exception::new(vector::INVALID_OPCODE));
            }
            Trap::Breakpoint if self.patched.contains(&(self.cpu.registers.rip - 1)) => {
                self.cpu.registers.rip -= 1;
                return self.execute(Exception::new(vector::INVALID_OPCODE));
            }
            Trap::SystemCall => {
                return Err(Death::Unsupported(format!(
                    "a system call instruction before {:#x}",
                    self.cpu.registers.rip
                ))
                .into());
            }
            Trap::OutOfMemory(address) => {
                return Err(Death::Host(format!(
                    "this machine has no memory left for the TD (at {address:#x})"
                ))
                .into());
            }
            Trap::Breakpoint => Exception::new(vector::BREAKPOINT),
            Trap::Debug => Exception::new(vector::DEBUG),
            Trap::Divide => Exception::new(vector::DIVIDE),
            Trap::Simd => Exception::new(vector::SIMD),
            Trap::Alignment => Exception {
                vector: vector::ALIGNMENT,
                error: Some(0),
                address: None,
            },
            Trap::Stack => Exception {
                vector: vector::STACK,
                error: Some(0),
                address: None,
            },
        };
        Err(exception.into())
    }

    fn execute(&mut self, fault: Exception) -> Result<Effect, Event> {
        let view = self.view()?;
        let effect = emulate::execute(&mut self.cpu, self.td, view, fault)?;
        Ok(effect)
    }

    fn apply(&mut self, effect: Effect) -> Result<(), Death> {
        match effect {
            Effect::Continue | Effect::Jumped => Ok(()),
            Effect::Flush => self.flush(),
            Effect::FlushPage(address) => {
                let size = if self.largest > LARGE_PAGE {
                    GIGABYTE
                } else {
                    LARGE_PAGE
                };
                let start = address & !(size - 1);
                self.forget(start, size);
                self.tracee.unmap(start, size).map_err(host)
            }
            Effect::FlushEverywhere => {
                self.flush()?;
                self.td.flush_all(self.cpu.index);
                Ok(())
            }
            Effect::Halt { blocked } => {
                self.halt(blocked);
                Ok(())
            }
        }
    }

    /// Waits as the VMM does for a halted TD: until something is posted, or at once if something that the TD would take is there already.
    fn halt(&mut self, blocked: bool) {
        let apic = self.apic();
        self.halted.store(true, Ordering::SeqCst);
        while !self.td.is_ending() {
            let deliverable = apic.deliverable().is_some() && !blocked;
            if apic.was_posted() || deliverable {
                break;
            }
            match apic.until_deadline() {
                Some(time) => std::thread::park_timeout(time),
                None => std::thread::park(),
            }
        }
        self.halted.store(false, Ordering::SeqCst);
    }

    fn flush(&mut self) -> Result<(), Death> {
        self.patched.clear();
        self.code_pages.clear();
        self.largest = PAGE;
        self.tracee.clear().map_err(host)
    }

    /// Drops what is known of a range that is about to be mapped anew or not at all.
    fn forget(&mut self, start: u64, length: u64) {
        let sites: Vec<u64> = self.patched.range(start..start + length).copied().collect();
        for site in sites {
            self.patched.remove(&site);
        }
        let pages: Vec<u64> = self
            .code_pages
            .range(start..start + length)
            .map(|(page, _)| *page)
            .collect();
        for page in pages {
            self.code_pages.remove(&page);
        }
    }

    fn page_fault(&mut self, address: u64) -> Result<Effect, Event> {
        let view = self.view()?;
        let fault = (self.cpu.registers.rip, address);
        self.repeats = if fault == self.last_fault {
            self.repeats + 1
        } else {
            0
        };
        self.last_fault = fault;
        if self.repeats > MAX_REPEATS {
            return Err(Death::Unsupported(format!(
                "the access to {address:#x} at {:#x}",
                fault.0
            ))
            .into());
        }
        let access = match self.access(&view, address) {
            // What could be read can be read now; so it was a write.
            Access::Read if self.repeats > 0 => Access::Write,
            access => access,
        };
        let leaf = view.translate(address, access)?;
        let run = view.run(address, leaf);
        if run.start + run.length > STUB_ADDRESS {
            return Err(Death::Unsupported(format!("linear address {address:#x}")).into());
        }
        self.largest = self.largest.max(run.leaf);
        self.map(run, address, access).map_err(host)?;
        Ok(Effect::Jumped)
    }

    /// How the instruction that faulted touches `address`.
    fn access(&self, view: &View<'_>, address: u64) -> Access {
        let rip = self.cpu.registers.rip;
        let Ok(instruction) = emulate::fetch(&self.cpu, view) else {
            return Access::Execute;
        };
        if (rip..rip + instruction.len().max(1) as u64).contains(&address)
            || instruction.is_invalid()
        {
            return Access::Execute;
        }
        let mut factory = InstructionInfoFactory::new();
        let writes = factory.info(&instruction).used_memory().iter().any(|used| {
            let start = used.virtual_address(0, |register, _, _| {
                Some(emulate::register_value(&self.cpu, register))
            });
            let size = used.memory_size().size().max(1) as u64;
            let inside = start.is_none_or(|start| address.wrapping_sub(start) < size);
            inside
                && matches!(
                    used.access(),
                    OpAccess::Write
                        | OpAccess::ReadWrite
                        | OpAccess::CondWrite
                        | OpAccess::ReadCondWrite
                )
        });
        if writes { Access::Write } else { Access::Read }
    }

    /// Maps a run, or the part of it that has one set of rights in the tracee.
    fn map(&mut self, run: Run, address: u64, access: Access) -> std::io::Result<()> {
        let page = address & !(PAGE - 1);
        if !run.executable {
            return self.map_part(run, run.writable, false);
        }
        if !run.writable {
            return self.map_code(clip(run, LARGE_PAGE, address), false, true);
        }
        // Writable code: data at first, code where it is executed, both where that must be.
        let one = clip(run, PAGE, address);
        match (access, self.code_pages.get(&page)) {
            (Access::Execute, _) => self.map_code(one, true, true),
            (_, Some(true)) => {
                self.td.trace.line(
                    self.cpu.index,
                    format_args!("page {page:#x} is written and executed: patches are off in it"),
                );
                self.map_code(one, true, false)
            }
            _ => {
                let part = self.without_code(run, page);
                let data = Run {
                    executable: false,
                    ..part
                };
                self.map_part(data, true, false)
            }
        }
    }

    fn map_part(&mut self, run: Run, writable: bool, copy: bool) -> std::io::Result<()> {
        self.td.trace.line(
            self.cpu.index,
            format_args!(
                "map {:#x} +{:#x} -> {} {:#x} r{}{}",
                run.start,
                run.length,
                if run.shared { "shared" } else { "private" },
                run.gpa,
                if writable { "w" } else { "-" },
                if run.executable { "x" } else { "-" },
            ),
        );
        self.forget(run.start, run.length);
        if self.td.parameters.huge_pages && !run.shared && writable && run.leaf >= LARGE_PAGE {
            self.td.memory.use_huge_pages(run.gpa, run.length);
        }
        let offset = self
            .td
            .memory
            .layout()
            .offset(run.gpa)
            .expect("a run is memory");
        self.tracee.map(&run, offset, writable, copy)
    }

    /// Maps code and patches it. Pages with patches are private copies, and not writable.
    fn map_code(&mut self, run: Run, writable: bool, patches: bool) -> std::io::Result<()> {
        let sites = if patches {
            self.sites(&run)
        } else {
            Vec::new()
        };
        let copy = !sites.is_empty();
        self.map_part(run, writable && !copy, copy)?;
        for site in sites {
            self.tracee.patch(site, 0xcc)?;
            self.patched.insert(site);
        }
        if writable {
            self.code_pages.insert(run.start, copy);
        }
        Ok(())
    }

    fn sites(&self, run: &Run) -> Vec<u64> {
        let lead = patch::LEAD.min(run.gpa as usize % LARGE_PAGE as usize);
        let mut code = vec![0; lead + run.length as usize];
        let start = run.gpa - lead as u64;
        if self.td.memory.read(start, &mut code).is_err() {
            return Vec::new();
        }
        let mode: Mode = self.cpu.mode();
        let cpuid = !self.tracee.cpuid_faults();
        patch::sites(mode, run.start - lead as u64, &code, lead, cpuid)
    }

    /// The part of a run around `page` in which no page is mapped as code.
    fn without_code(&self, run: Run, page: u64) -> Run {
        let below = self.code_pages.range(..page).next_back();
        let above = self.code_pages.range(page + 1..).next();
        let start = below.map_or(run.start, |(code, _)| run.start.max(code + PAGE));
        let end = run.start + run.length;
        let end = above.map_or(end, |(code, _)| end.min(*code));
        Run {
            start,
            length: end - start,
            gpa: run.gpa + (start - run.start),
            ..run
        }
    }
}

/// The part of a run within the aligned block of `size` bytes around `address`.
fn clip(run: Run, size: u64, address: u64) -> Run {
    let block = address & !(size - 1);
    let start = run.start.max(block);
    let end = (run.start + run.length).min(block + size);
    Run {
        start,
        length: end - start,
        gpa: run.gpa + (start - run.start),
        ..run
    }
}

fn host(error: std::io::Error) -> Death {
    Death::Host(format!("the emulator cannot go on: {error}"))
}
