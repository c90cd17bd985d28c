//! One virtual CPU: runs the guest's code in its tracee until something traps, and does what the processor, the TDX module or the VMM would do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::apic::{LocalApic, Wake};
use crate::cpu::Cpu;
use crate::delivery;
use crate::emulate::{self, Effect};
use crate::event::{Access, Death, Event, Exception, vector};
use crate::fault;
use crate::hostile::{Attack, Target};
use crate::paging::View;
use crate::ptrace::{KICK, STUB_ADDRESS, Tracee, Trap};
use crate::shadow::Shadow;
use crate::td::{End, Td};

/// A fault that repeats this often without progress is a mistake of the emulator.
const MAX_REPEATS: u32 = 16;

/// See the module.
pub struct Vcpu<'a> {
    cpu: Cpu,
    td: &'a Td,
    shadow: Shadow<'a>,
    /// The waker's view: the thread waits for an interrupt, outside the guest.
    halted: Arc<AtomicBool>,
    /// A page of code that the next instruction reads as data.
    open_page: Option<u64>,
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
            thread: thread::current(),
            halted: halted.clone(),
        }));
        let index = cpu.index;
        Self {
            cpu,
            td,
            shadow: Shadow::new(
                tracee,
                &td.memory,
                &td.trace,
                index,
                td.parameters.huge_pages,
            ),
            halted,
            open_page: None,
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
        self.wait_for_host();
        self.interrupt()?;
        let mode = self.cpu.mode();
        self.shadow.set_mode(mode).map_err(host)?;
        while !self.td.enter_guest(self.cpu.index) {
            let state = self.td.flush_wanted();
            self.shadow.flush().map_err(host)?;
            self.td.flushed(self.cpu.index, state);
            // It is gone with the rest.
            self.open_page = None;
            // With nothing mapped, the same access faults once more, however often that happens.
            self.repeats = 0;
        }
        self.apic().entering();
        let before = self.cpu.registers.rip;
        // In the shadow of STI, one instruction still comes before the interrupt.
        let shadowed = self.cpu.interrupt_shadow && self.apic().deliverable().is_some();
        let step = shadowed || self.open_page.is_some();
        let trap = self
            .shadow
            .tracee
            .run(&mut self.cpu.registers, mode, step)
            .map_err(host)?;
        self.td.leave_guest(self.cpu.index);
        if let Some(page) = self.open_page.take() {
            self.shadow.close(page).map_err(host)?;
        }
        self.exits += 1;
        if self.cpu.registers.rip != before {
            self.cpu.interrupt_shadow = false;
        }
        match self.handle(trap, step) {
            Ok(effect) => self.apply(effect),
            Err(Event::Death(death)) => Err(death),
            Err(Event::Exception(exception)) => self.deliver(exception),
            Err(Event::Virtualization(info)) => {
                self.trace(format_args!(
                    "#VE reason {} qualification {:#x} gpa {:#x}",
                    info.reason, info.qualification, info.gpa
                ));
                if self.td.parameters.strict {
                    return Err(Death::Virtualization {
                        reason: info.reason,
                    });
                }
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

    /// A hostile host may not run this processor for a while.
    fn wait_for_host(&self) {
        /// How often the host thinks about it.
        const PERIOD: Duration = Duration::from_millis(2);
        let host = &self.td.host;
        while host.is_hostile()
            && host.strikes(Attack::TimeWithheld, Target::Launch)
            && !self.td.is_ending()
        {
            thread::sleep(PERIOD);
        }
    }

    fn trace(&self, what: std::fmt::Arguments<'_>) {
        self.td.trace.line(self.cpu.index, what);
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
        self.trace(format_args!(
            "deliver {exception}, rip {:#x}",
            self.cpu.registers.rip
        ));
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
            Trap::Kick => {
                self.trace(format_args!("kick"));
                return Ok(Effect::Jumped);
            }
            // A breakpoint register stopped before the instruction.
            Trap::Debug if self.shadow.is_patched(self.cpu.registers.rip) => {
                return self.execute(Exception::new(vector::INVALID_OPCODE));
            }
            Trap::Debug if step => {
                self.trace(format_args!("step, to {:#x}", self.cpu.registers.rip));
                return Ok(Effect::Jumped);
            }
            Trap::PageFault(address) => return self.page_fault(address),
            Trap::GeneralProtection => {
                return self.execute(Exception::general_protection(0));
            }
            Trap::InvalidOpcode => {
                return self.execute(Exception::new(vector::INVALID_OPCODE));
            }
            Trap::Breakpoint if self.shadow.is_patched(self.cpu.registers.rip - 1) => {
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
            Effect::Flush => self.shadow.flush().map_err(host),
            Effect::FlushPage(address) => self.shadow.flush_page(address).map_err(host),
            Effect::FlushEverywhere => {
                self.shadow.flush().map_err(host)?;
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
                Some(time) => thread::park_timeout(time),
                None => thread::park(),
            }
        }
        self.halted.store(false, Ordering::SeqCst);
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
        let (access, _) = match emulate::touched(&self.cpu, &view, address) {
            (Access::Read, range) if self.shadow.is_execute_only(address) => {
                // A loop reads the same address again and again, with a fault each time.
                self.repeats = 0;
                self.trace(format_args!("read of code at {address:#x}"));
                if self.shadow.read_code(address, range).map_err(host)? {
                    self.open_page = Some(address);
                }
                return Ok(Effect::Jumped);
            }
            // What could be read can be read now; so it was a write.
            (Access::Read, range) if self.repeats > 0 => (Access::Write, range),
            access => access,
        };
        let leaf = view.translate(address, access)?;
        let run = view.run(address, leaf);
        if run.start + run.length > STUB_ADDRESS {
            return Err(Death::Unsupported(format!("linear address {address:#x}")).into());
        }
        let rip = self.cpu.registers.rip;
        if self.shadow.map(run, address, access, rip).map_err(host)? {
            self.open_page = Some(address);
        }
        Ok(Effect::Jumped)
    }
}

fn host(error: io::Error) -> Death {
    Death::Host(format!("the emulator cannot go on: {error}"))
}
