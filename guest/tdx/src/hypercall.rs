//! Calls that the module passes on to the host (TDG.VP.VMCALL, as the GHCI specification defines them).
//!
//! Every answer is the host's word. Registers that a call does not use are zero when the host sees them.

use core::fmt;

use crate::address::{PAGE, SharedAddress};
use crate::call::{HostRegisters, Tdcall};
use crate::status::Status;

const HLT: u64 = 12;
const IO: u64 = 30;
const RDMSR: u64 = 31;
const WRMSR: u64 = 32;
const MMIO: u64 = 48;
const MAP_GPA: u64 = 0x1_0001;
const GET_QUOTE: u64 = 0x1_0002;
const REPORT_FATAL_ERROR: u64 = 0x1_0003;

const READ: u64 = 0;
const WRITE: u64 = 1;

/// R10 to R15: what all calls but the report of a fatal error use.
const EXPOSED: u64 = 0xfc00;
/// RDX, RBX, RSI, RDI, R8 and R9 too: they carry the message.
const EXPOSED_WITH_MESSAGE: u64 = 0xffcc;

/// How often the host may ask for a retry without having converted a single page.
const STALLS: u32 = 8;

/// The host did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The call did not reach the host: the module refused it.
    Module(u32),
    /// The host wants the call again.
    Retry,
    /// The host calls an operand invalid.
    InvalidOperand,
    /// The host says that the address is in use.
    InUse,
    /// The host calls an address misaligned.
    Misaligned,
    /// The host does not know the call.
    Unsupported,
    /// The host gave a status that is not in the specification.
    Unknown(u64),
    /// MapGPA: the host wants to resume where it cannot, or never gets further.
    NoProgress,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(code) => write!(f, "the TDX module refused a call: {code:#010x}"),
            Self::Retry => f.write_str("the host is busy"),
            Self::InvalidOperand => f.write_str("the host calls an operand invalid"),
            Self::InUse => f.write_str("the host says the address is in use"),
            Self::Misaligned => f.write_str("the host calls the address misaligned"),
            Self::Unsupported => f.write_str("the host does not support the call"),
            Self::Unknown(status) => write!(f, "the host gave the unknown status {status:#x}"),
            Self::NoProgress => f.write_str("the host does not get on with sharing memory"),
        }
    }
}

impl core::error::Error for HostError {}

/// How many bytes an access to a port or register has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Double = 4,
    /// 64 bits; registers in memory only.
    Quad = 8,
}

impl Width {
    /// The bits of an answer that count: the host may have set others.
    const fn truncate(self, value: u64) -> u64 {
        match self {
            Self::Byte => value as u8 as u64,
            Self::Word => value as u16 as u64,
            Self::Double => value as u32 as u64,
            Self::Quad => value,
        }
    }
}

/// HLT: gives the processor up until an interrupt arrives, with interrupts on during the call. An interrupt that arrived before it was made,
/// while interrupts were off, ends it at once.
///
/// # Errors
/// [`HostError`]; also then interrupts were on for a moment.
///
/// # Safety
/// Interrupts must be off, and every handler must be fit to run now.
pub unsafe fn halt(tdcall: &impl Tdcall) -> Result<(), HostError> {
    let mut registers = HostRegisters {
        interruptible: 1,
        ..arguments(HLT, [0; 4])
    };
    // SAFETY: the host is not asked to change memory; the handlers are the caller's promise.
    let status = unsafe { tdcall.host(&mut registers) };
    check(status, &registers)
}

/// HLT with interrupts off: gives the processor up for good. Returns if the host does not comply.
pub fn halt_for_good(tdcall: &impl Tdcall) {
    const INTERRUPTS_BLOCKED: u64 = 1;
    // There is nobody left to tell of an error.
    let _ = call(tdcall, HLT, [INTERRUPTS_BLOCKED, 0, 0, 0]);
}

/// IN: reads a port.
///
/// # Errors
/// [`HostError`].
pub fn read_port(tdcall: &impl Tdcall, port: u16, width: Width) -> Result<u32, HostError> {
    let answer = call(tdcall, IO, [width as u64, READ, u64::from(port), 0])?;
    Ok(width.truncate(answer.r11) as u32)
}

/// OUT: writes a port. Devices reach shared memory only, so there is nothing they could do to this program's.
///
/// # Errors
/// [`HostError`].
pub fn write_port(
    tdcall: &impl Tdcall,
    port: u16,
    width: Width,
    value: u32,
) -> Result<(), HostError> {
    let value = width.truncate(u64::from(value));
    call(tdcall, IO, [width as u64, WRITE, u64::from(port), value]).map(drop)
}

/// RDMSR, for registers that the host emulates.
///
/// # Errors
/// [`HostError`].
pub fn read_msr(tdcall: &impl Tdcall, register: u32) -> Result<u64, HostError> {
    Ok(call(tdcall, RDMSR, [u64::from(register), 0, 0, 0])?.r11)
}

/// WRMSR, for registers that the host emulates: the processor's own are not among them.
///
/// # Errors
/// [`HostError`].
pub fn write_msr(tdcall: &impl Tdcall, register: u32, value: u64) -> Result<(), HostError> {
    call(tdcall, WRMSR, [u64::from(register), value, 0, 0]).map(drop)
}

/// Reads a device's register in memory.
///
/// # Errors
/// [`HostError`].
pub fn read_register(
    tdcall: &impl Tdcall,
    address: SharedAddress,
    width: Width,
) -> Result<u64, HostError> {
    let answer = call(tdcall, MMIO, [width as u64, READ, address.get(), 0])?;
    Ok(width.truncate(answer.r11))
}

/// Writes a device's register in memory.
///
/// # Errors
/// [`HostError`].
pub fn write_register(
    tdcall: &impl Tdcall,
    address: SharedAddress,
    width: Width,
    value: u64,
) -> Result<(), HostError> {
    let value = width.truncate(value);
    call(tdcall, MMIO, [width as u64, WRITE, address.get(), value]).map(drop)
}

/// MapGPA: has the host put its own memory behind `length` bytes of shared addresses from `start`. The private pages of the same addresses
/// are gone afterwards.
///
/// # Errors
/// [`HostError`]; some of the pages may be converted then.
///
/// # Safety
/// Nothing may use the private pages any more.
pub unsafe fn share(
    tdcall: &impl Tdcall,
    start: SharedAddress,
    length: u64,
) -> Result<(), HostError> {
    let end = start.get().saturating_add(length);
    let (mut position, mut stalls) = (start.get(), 0);
    while position < end {
        let mut registers = arguments(MAP_GPA, [position, end - position, 0, 0]);
        // SAFETY: the memory that is taken away is not used any more, by the caller's promise.
        let status = unsafe { tdcall.host(&mut registers) };
        match check(status, &registers) {
            Ok(()) => return Ok(()),
            Err(HostError::Retry) => {}
            Err(error) => return Err(error),
        }
        let next = registers.r11;
        if next == position && stalls < STALLS {
            stalls += 1;
        } else if next > position && next < end && next.is_multiple_of(PAGE) {
            (position, stalls) = (next, 0);
        } else {
            return Err(HostError::NoProgress);
        }
    }
    Ok(())
}

/// GetQuote: has the host start to turn the report in a shared buffer into a quote; see [`quote`](crate::quote).
///
/// # Errors
/// [`HostError`]; [`HostError::Retry`] if too many requests are being served.
pub fn get_quote(
    tdcall: &impl Tdcall,
    buffer: SharedAddress,
    length: u64,
) -> Result<(), HostError> {
    call(tdcall, GET_QUOTE, [buffer.get(), length, 0, 0]).map(drop)
}

/// Bytes of the message that goes with a fatal error.
pub const MESSAGE: usize = 64;

/// ReportFatalError: asks the host to end this TD and to show its owner up to [`MESSAGE`] bytes of text. The text is static on purpose: nothing
/// that a program learned may leave it this way. Returns if the host does not comply.
pub fn report_fatal_error(tdcall: &impl Tdcall, message: &'static str) {
    let mut words = [0; MESSAGE / 8];
    for (word, bytes) in words.iter_mut().zip(message.as_bytes().chunks(8)) {
        let mut buffer = [0; 8];
        buffer[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(buffer);
    }
    let [r14, r15, rbx, rdi, rsi, r8, r9, rdx] = words;
    let mut registers = HostRegisters {
        exposed: EXPOSED_WITH_MESSAGE,
        r11: REPORT_FATAL_ERROR,
        r14,
        r15,
        rbx,
        rdi,
        rsi,
        r8,
        r9,
        rdx,
        ..HostRegisters::default()
    };
    // SAFETY: the host is not asked to change memory.
    unsafe { tdcall.host(&mut registers) };
}

fn call(
    tdcall: &impl Tdcall,
    function: u64,
    operands: [u64; 4],
) -> Result<HostRegisters, HostError> {
    let mut registers = arguments(function, operands);
    // SAFETY: none of the calls that come through here makes the host change private memory.
    let status = unsafe { tdcall.host(&mut registers) };
    check(status, &registers)?;
    Ok(registers)
}

const fn arguments(function: u64, [r12, r13, r14, r15]: [u64; 4]) -> HostRegisters {
    HostRegisters {
        exposed: EXPOSED,
        interruptible: 0,
        rdx: 0,
        rbx: 0,
        rsi: 0,
        rdi: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: function,
        r12,
        r13,
        r14,
        r15,
    }
}

/// First the module's word on whether the host was called, then the host's status in R10.
fn check(status: Status, registers: &HostRegisters) -> Result<(), HostError> {
    if status.code() != 0 {
        return Err(HostError::Module(status.code()));
    }
    Err(match registers.r10 {
        0 => return Ok(()),
        1 => HostError::Retry,
        0x8000_0000_0000_0000 => HostError::InvalidOperand,
        0x8000_0000_0000_0001 => HostError::InUse,
        0x8000_0000_0000_0002 => HostError::Misaligned,
        0x8000_0000_0000_0003 => HostError::Unsupported,
        status => HostError::Unknown(status),
    })
}

#[cfg(test)]
mod tests;
