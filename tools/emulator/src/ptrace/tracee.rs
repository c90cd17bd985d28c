//! A process that is nothing but a guest's address space and the registers of one virtual CPU.
//!
//! The tracer maps memory into it by making it execute system calls at the stub, and lets it run otherwise with `PTRACE_SYSEMU`, under which a
//! system call instruction of the guest stops it and reaches no kernel. It dies with its tracer. Only the thread that started it may use it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::stub;
use crate::cpu::{Mode, Registers};
use crate::memory::PAGE;
use crate::paging::Run;

/// Linux's selectors for ring 3 (`arch/x86/include/asm/segment.h`).
const USER_CODE_32: u64 = 0x23;
const USER_DATA: u64 = 0x2b;
const USER_CODE_64: u64 = 0x33;

/// CF, PF, AF, ZF, SF, DF, OF, ID: what of RFLAGS the guest's code can see natively.
const NATIVE_FLAGS: u64 = 0x20_0cd5;
const INTERRUPT: u64 = 0x200;

/// `si_code` of a signal whose cause is an exception without an address.
const SI_KERNEL: i32 = 0x80;
/// `si_code` of SIGFPE for a division (`asm-generic/siginfo.h`).
const FPE_INTDIV: i32 = 1;
/// The signal that makes a tracee stop for its tracer's sake.
pub const KICK: Signal = Signal::SIGUSR1;

/// `arch_prctl` operations (`arch/x86/include/uapi/asm/prctl.h`).
const ARCH_SET_CPUID: u64 = 0x1012;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
/// The state component that AMX needs permission for.
const XFEATURE_TILE_DATA: u64 = 18;

/// How many instructions the processor can watch.
pub const WATCHED: usize = 4;

/// Why the guest's code stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Nothing is mapped at this address, or not with the needed right.
    PageFault(u64),
    /// #GP: above all, the instructions of ring 0.
    GeneralProtection,
    InvalidOpcode,
    /// An INT3 of the guest or of ours; the instruction pointer is behind it.
    Breakpoint,
    /// A single step is done, or a debug exception.
    Debug,
    Divide,
    Simd,
    Alignment,
    Stack,
    /// A system call instruction; the instruction pointer is behind it.
    SystemCall,
    /// Only the tracer wanted it.
    Kick,
    /// The memory file has no memory: the host is out of it.
    OutOfMemory(u64),
}

/// What a mapping can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    read: bool,
    write: bool,
    execute: bool,
}

impl Rights {
    /// Reading, writing, executing. What can be executed only can be read all the same on processors without protection keys.
    pub fn new(read: bool, write: bool, execute: bool) -> Self {
        Self {
            read,
            write,
            execute,
        }
    }

    fn bits(self) -> u64 {
        let bit = |right, bit| if right { bit } else { 0 };
        (bit(self.read, libc::PROT_READ)
            | bit(self.write, libc::PROT_WRITE)
            | bit(self.execute, libc::PROT_EXEC)) as u64
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(self.read, "r"), (self.write, "w"), (self.execute, "x")] {
            f.write_str(if right { letter } else { "-" })?;
        }
        Ok(())
    }
}

/// See the module.
pub struct Tracee {
    pid: Pid,
    /// As last read or written; `dirty` if the tracee has others.
    native: user_regs_struct,
    stub: u64,
    private: i32,
    shared: i32,
    cpuid_faults: bool,
    /// A kick arrived while the tracee worked for the tracer.
    kicked: bool,
}

impl Tracee {
    /// Starts a tracee that has both memories open and nothing mapped. It inherits the calling thread's CPU affinity.
    ///
    /// # Errors
    /// The kernel's; most likely that tracing is not allowed here.
    pub fn start(private: BorrowedFd<'_>, shared: BorrowedFd<'_>) -> io::Result<Self> {
        let file = stub::file()?;
        let inherited = [private.as_raw_fd(), shared.as_raw_fd(), file.as_raw_fd()];
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear();
        // SAFETY: between fork and exec only `fcntl` and `ptrace` are called, which are plain system calls.
        unsafe {
            command.pre_exec(move || {
                for fd in inherited {
                    if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(ptrace::traceme()?)
            });
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(child.id() as i32);
        wait(pid)?;
        ptrace::setoptions(pid, ptrace::Options::PTRACE_O_EXITKILL)?;
        let mut tracee = Self {
            pid,
            native: ptrace::getregs(pid)?,
            stub: stub::FIRST_ADDRESS,
            private: private.as_raw_fd(),
            shared: shared.as_raw_fd(),
            cpuid_faults: false,
            kicked: false,
        };
        let fixed = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let rights = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let stub_fd = file.as_raw_fd() as u64;
        tracee.call(
            libc::SYS_mmap,
            [stub::ADDRESS, 4096, rights, fixed, stub_fd, 0],
        )?;
        tracee.stub = stub::ADDRESS;
        tracee.clear()?;
        tracee.cpuid_faults = tracee
            .call(libc::SYS_arch_prctl, [ARCH_SET_CPUID, 0, 0, 0, 0, 0])
            .is_ok();
        // Processors and kernels without AMX refuse; the guest's CPUID then has none either.
        let _ = tracee.call(
            libc::SYS_arch_prctl,
            [ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA, 0, 0, 0, 0],
        );
        Ok(tracee)
    }

    /// The process, to be kicked.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether CPUID stops the guest; else it must be patched.
    pub fn cpuid_faults(&self) -> bool {
        self.cpuid_faults
    }

    /// Maps a run: a shared mapping of its file, or a private copy that can be patched without changing the guest's memory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(&mut self, run: &Run, offset: u64, rights: Rights, copy: bool) -> io::Result<()> {
        let kind = if copy {
            libc::MAP_PRIVATE
        } else {
            libc::MAP_SHARED
        };
        let fd = if run.shared {
            self.shared
        } else {
            self.private
        };
        let flags = (kind | libc::MAP_FIXED) as u64;
        let arguments = [
            run.start,
            run.length,
            rights.bits(),
            flags,
            fd as u64,
            offset,
        ];
        self.call(libc::SYS_mmap, arguments).map(|_| ())
    }

    /// Changes the rights of one page.
    ///
    /// # Errors
    /// The kernel's.
    pub fn protect(&mut self, page: u64, rights: Rights) -> io::Result<()> {
        let arguments = [page, PAGE, rights.bits(), 0, 0, 0];
        self.call(libc::SYS_mprotect, arguments).map(|_| ())
    }

    /// Unmaps a range.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unmap(&mut self, start: u64, length: u64) -> io::Result<()> {
        let end = (start + length).min(self.stub);
        if start >= end {
            return Ok(());
        }
        self.call(libc::SYS_munmap, [start, end - start, 0, 0, 0, 0])
            .map(|_| ())
    }

    /// Unmaps everything but the stub.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&mut self) -> io::Result<()> {
        self.unmap(0, self.stub)
    }

    /// Writes one byte of code, whatever the rights of its page, which must be a private copy. Returns the byte that was there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn patch(&mut self, address: u64, byte: u8) -> io::Result<u8> {
        let aligned = address & !7;
        let mut word = ptrace::read(self.pid, aligned as *mut _)?.to_le_bytes();
        let old = std::mem::replace(&mut word[(address - aligned) as usize], byte);
        ptrace::write(self.pid, aligned as *mut _, i64::from_le_bytes(word))?;
        Ok(old)
    }

    /// Has the processor stop before the instructions at these addresses, which need no patch then; at most [`WATCHED`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch(&mut self, addresses: &[u64]) -> io::Result<()> {
        /// Enables an execution breakpoint of this process (Intel SDM vol. 3, 18.2.4).
        const LOCAL: i64 = 1;
        let register = |index: usize| {
            let offset = std::mem::offset_of!(libc::user, u_debugreg) + 8 * index;
            std::ptr::without_provenance_mut(offset)
        };
        const CONTROL: usize = 7;
        ptrace::write_user(self.pid, register(CONTROL), 0)?;
        let mut control = 0;
        for (index, address) in addresses.iter().take(WATCHED).enumerate() {
            ptrace::write_user(self.pid, register(index), *address as i64)?;
            control |= LOCAL << (2 * index);
        }
        ptrace::write_user(self.pid, register(CONTROL), control)?;
        Ok(())
    }

    /// Lets the guest's code run until something stops it, or for one instruction.
    ///
    /// # Errors
    /// The kernel's, or that the tracee is gone.
    pub fn run(&mut self, registers: &mut Registers, mode: Mode, step: bool) -> io::Result<Trap> {
        if std::mem::take(&mut self.kicked) {
            return Ok(Trap::Kick);
        }
        self.enter(registers, mode);
        ptrace::setregs(self.pid, self.native)?;
        if step {
            ptrace::sysemu_step(self.pid, None)?;
        } else {
            ptrace::sysemu(self.pid, None)?;
        }
        let signal = wait(self.pid)?;
        self.native = ptrace::getregs(self.pid)?;
        self.leave(registers);
        self.trap(signal)
    }

    /// Native registers for the guest's.
    fn enter(&mut self, registers: &Registers, mode: Mode) {
        let native = &mut self.native;
        let gpr = &registers.gpr;
        [native.rax, native.rcx, native.rdx, native.rbx] = [gpr[0], gpr[1], gpr[2], gpr[3]];
        [native.rsp, native.rbp, native.rsi, native.rdi] = [gpr[4], gpr[5], gpr[6], gpr[7]];
        [native.r8, native.r9, native.r10, native.r11] = [gpr[8], gpr[9], gpr[10], gpr[11]];
        [native.r12, native.r13, native.r14, native.r15] = [gpr[12], gpr[13], gpr[14], gpr[15]];
        native.rip = registers.rip;
        native.eflags = registers.flags & NATIVE_FLAGS | INTERRUPT | 2;
        [native.fs_base, native.gs_base] = [registers.fs_base, registers.gs_base];
        let long = mode == Mode::Long;
        native.cs = if long { USER_CODE_64 } else { USER_CODE_32 };
        native.ss = USER_DATA;
        native.ds = USER_DATA;
        native.es = USER_DATA;
        let flat = if long { 0 } else { USER_DATA };
        native.fs = flat;
        native.gs = flat;
        native.orig_rax = u64::MAX;
    }

    /// The guest's registers from native ones.
    fn leave(&self, registers: &mut Registers) {
        let native = &self.native;
        registers.gpr = [
            native.rax, native.rcx, native.rdx, native.rbx, native.rsp, native.rbp, native.rsi,
            native.rdi, native.r8, native.r9, native.r10, native.r11, native.r12, native.r13,
            native.r14, native.r15,
        ];
        registers.rip = native.rip;
        registers.flags = registers.flags & !NATIVE_FLAGS | native.eflags & NATIVE_FLAGS;
        registers.fs_base = native.fs_base;
        registers.gs_base = native.gs_base;
    }

    fn trap(&self, signal: Signal) -> io::Result<Trap> {
        // Signals from elsewhere are nothing to the guest either.
        let exceptions = [
            Signal::SIGSEGV,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGFPE,
            Signal::SIGBUS,
        ];
        if !exceptions.contains(&signal) {
            return Ok(Trap::Kick);
        }
        let info = ptrace::getsiginfo(self.pid)?;
        // SAFETY: the kernel filled the structure; for signals without an address the field is some other number, which is not used then.
        let address = unsafe { info.si_addr() } as u64;
        Ok(match (signal, info.si_code) {
            (Signal::SIGSEGV, SI_KERNEL) => Trap::GeneralProtection,
            (Signal::SIGSEGV, _) => Trap::PageFault(address),
            (Signal::SIGILL, _) => Trap::InvalidOpcode,
            (Signal::SIGTRAP, SI_KERNEL) => Trap::Breakpoint,
            (Signal::SIGTRAP, code) if code == Signal::SIGTRAP as i32 => Trap::SystemCall,
            (Signal::SIGTRAP, _) => Trap::Debug,
            (Signal::SIGFPE, FPE_INTDIV) => Trap::Divide,
            (Signal::SIGFPE, _) => Trap::Simd,
            (Signal::SIGBUS, libc::BUS_ADRALN) => Trap::Alignment,
            (Signal::SIGBUS, SI_KERNEL) => Trap::Stack,
            (Signal::SIGBUS, _) => Trap::OutOfMemory(address),
            (signal, code) => {
                return Err(io::Error::other(format!(
                    "the tracee got {signal} with code {code}"
                )));
            }
        })
    }

    /// Makes the tracee execute a system call at the stub.
    fn call(&mut self, number: i64, arguments: [u64; 6]) -> io::Result<u64> {
        let mut native = self.native;
        native.rip = self.stub + stub::CODE;
        native.cs = USER_CODE_64;
        native.ss = USER_DATA;
        native.eflags = INTERRUPT | 2;
        native.orig_rax = u64::MAX;
        native.rax = number as u64;
        [native.rdi, native.rsi, native.rdx] = [arguments[0], arguments[1], arguments[2]];
        [native.r10, native.r8, native.r9] = [arguments[3], arguments[4], arguments[5]];
        ptrace::setregs(self.pid, native)?;
        loop {
            ptrace::cont(self.pid, None)?;
            match wait(self.pid)? {
                KICK => self.kicked = true,
                Signal::SIGTRAP => break,
                signal => {
                    return Err(io::Error::other(format!(
                        "{signal} in the stub's system call {number}"
                    )));
                }
            }
        }
        let result = ptrace::getregs(self.pid)?.rax as i64;
        if (-4095..0).contains(&result) {
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
        Ok(result as u64)
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // It may have died before.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
    }
}

/// Waits until the tracee stops; the signal it stopped for.
fn wait(pid: Pid) -> io::Result<Signal> {
    match waitpid(pid, Some(WaitPidFlag::__WALL))? {
        WaitStatus::Stopped(_, signal) => Ok(signal),
        status => Err(io::Error::other(format!("the tracee ended: {status:?}"))),
    }
}
