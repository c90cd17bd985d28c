//! The TDX module's guest side: what TDCALL does (`tdx.md` 1.5; `src/td_dispatcher` of the module, branch tdx_1.5).

mod accept;
mod fields;
mod status;

use std::fmt;

pub use fields::Writable;
pub use status::{Operand, Status};

use crate::cpu::gpr::{R8, R9, R10, R11, RAX, RCX, RDX};
use crate::cpu::{Cpu, Mode};
use crate::emulate::Effect;
use crate::event::{Access, Death, Event, Exception};
use crate::memory::PageState;
use crate::td::Td;
use crate::vmcall;
use tdx::report::{REPORT, ReportMac, TdReport};

/// Leaf numbers (`tdx_api_defs.h`).
mod leaf {
    pub const VP_VMCALL: u16 = 0;
    pub const VP_INFO: u16 = 1;
    pub const MR_RTMR_EXTEND: u16 = 2;
    pub const VP_VEINFO_GET: u16 = 3;
    pub const MR_REPORT: u16 = 4;
    pub const VP_CPUIDVE_SET: u16 = 5;
    pub const MEM_PAGE_ACCEPT: u16 = 6;
    pub const VM_RD: u16 = 7;
    pub const VM_WR: u16 = 8;
    pub const VP_RD: u16 = 9;
    pub const VP_WR: u16 = 10;
    pub const SYS_RD: u16 = 11;
    pub const MR_VERIFYREPORT: u16 = 22;
}

/// Executes a TDCALL; the instruction pointer is still at it.
///
/// # Errors
/// #GP(0) outside 64-bit mode, or the end of the TD.
pub fn tdcall(cpu: &mut Cpu, td: &Td) -> Result<Effect, Event> {
    if cpu.mode() != Mode::Long {
        return Err(Exception::general_protection(0).into());
    }
    let before = cpu.registers.gpr;
    let leaf = before[RAX] as u16;
    if before[RAX] == u64::from(leaf::VP_VMCALL) {
        return vmcall::call(cpu, td);
    }
    let status = match leaf {
        // Versions of leaves, in bits 23:16, came later; the rest is reserved.
        _ if before[RAX] >> 16 != 0 => Status::OperandInvalid(Operand::Rax),
        leaf::VP_INFO => info(cpu, td),
        leaf::MR_RTMR_EXTEND => extend(cpu, td)?,
        leaf::VP_VEINFO_GET => ve_info(cpu),
        leaf::MR_REPORT => report(cpu, td)?,
        leaf::VP_CPUIDVE_SET => {
            cpu.cpuid_ve = before[RCX] & 1 != 0;
            Status::Success
        }
        leaf::MEM_PAGE_ACCEPT => accept::accept(before[RCX], td)?,
        leaf::VM_RD => fields::read(cpu, td),
        leaf::VM_WR => fields::write(cpu, td),
        leaf::VP_RD | leaf::VP_WR => fields::of_vcpu(cpu),
        leaf::SYS_RD => fields::read_system(cpu),
        leaf::MR_VERIFYREPORT => verify(before[RCX], td)?,
        _ => Status::OperandInvalid(Operand::Rax),
    };
    cpu.registers.gpr[RAX] = status.word();
    td.trace.line(
        cpu.index,
        format_args!(
            "TDCALL {} rcx={:#x} rdx={:#x} -> {status:?}",
            Name(leaf),
            before[RCX],
            before[RDX]
        ),
    );
    Ok(Effect::Continue)
}

/// A leaf's name, for the trace.
struct Name(u16);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            leaf::VP_INFO => "VP.INFO",
            leaf::MR_RTMR_EXTEND => "MR.RTMR.EXTEND",
            leaf::VP_VEINFO_GET => "VP.VEINFO.GET",
            leaf::MR_REPORT => "MR.REPORT",
            leaf::VP_CPUIDVE_SET => "VP.CPUIDVE.SET",
            leaf::MEM_PAGE_ACCEPT => "MEM.PAGE.ACCEPT",
            leaf::VM_RD => "VM.RD",
            leaf::VM_WR => "VM.WR",
            leaf::VP_RD => "VP.RD",
            leaf::VP_WR => "VP.WR",
            leaf::SYS_RD => "SYS.RD",
            leaf::MR_VERIFYREPORT => "MR.VERIFYREPORT",
            other => return write!(f, "leaf {other}"),
        })
    }
}

fn info(cpu: &mut Cpu, td: &Td) -> Status {
    let vcpus = u64::from(td.parameters.vcpus);
    let attributes = td.identity().attributes();
    let gpr = &mut cpu.registers.gpr;
    gpr[RCX] = u64::from(td.parameters.gpaw);
    gpr[RDX] = attributes;
    gpr[R8] = vcpus | vcpus << 32;
    gpr[R9] = u64::from(cpu.index);
    // SYS.RD is there (`tdg_vp_info.c`).
    gpr[R10] = 1;
    gpr[R11] = 0;
    Status::Success
}

fn ve_info(cpu: &mut Cpu) -> Status {
    let Some(info) = cpu.ve.take() else {
        return Status::NoValidVeInfo;
    };
    let gpr = &mut cpu.registers.gpr;
    gpr[RCX] = u64::from(info.reason);
    gpr[RDX] = info.qualification;
    gpr[R8] = info.gla;
    gpr[R9] = info.gpa;
    gpr[R10] = u64::from(info.length);
    Status::Success
}

/// Checks a memory operand: aligned, and private memory in use.
///
/// # Errors
/// The inner error is a status for the TD, the outer one its end.
fn operand(
    td: &Td,
    gpa: u64,
    alignment: u64,
    operand: Operand,
    access: Access,
) -> Result<Result<(), Status>, Death> {
    if !gpa.is_multiple_of(alignment) || gpa >= td.shared_bit() {
        return Ok(Err(Status::OperandInvalid(operand)));
    }
    match td.memory.state(gpa) {
        Some(PageState::Private) => Ok(Ok(())),
        Some(_) => Err(Death::UnacceptedMemory { gpa, access }),
        None => Err(Death::NoPrivateMemory { gpa, access }),
    }
}

fn extend(cpu: &Cpu, td: &Td) -> Result<Status, Event> {
    let (gpa, index) = (cpu.registers.gpr[RCX], cpu.registers.gpr[RDX]);
    if index > 3 {
        return Ok(Status::OperandInvalid(Operand::Rdx));
    }
    if let Err(status) = operand(td, gpa, 64, Operand::Rcx, Access::Read)? {
        return Ok(status);
    }
    let mut digest = [0; 48];
    read(td, gpa, &mut digest)?;
    td.identity().extend(index as usize, &digest);
    Ok(Status::Success)
}

fn report(cpu: &Cpu, td: &Td) -> Result<Status, Event> {
    let gpr = &cpu.registers.gpr;
    if gpr[R8] & 0xff != 0 {
        return Ok(Status::OperandInvalid(Operand::R8));
    }
    for (gpa, alignment, name, access) in [
        (gpr[RCX], REPORT as u64, Operand::Rcx, Access::Write),
        (gpr[RDX], 64, Operand::Rdx, Access::Read),
    ] {
        if let Err(status) = operand(td, gpa, alignment, name, access)? {
            return Ok(status);
        }
    }
    let mut data = [0; 64];
    read(td, gpr[RDX], &mut data)?;
    let report = td.identity().report(&data);
    write(td, gpr[RCX], report.as_bytes())?;
    Ok(Status::Success)
}

/// RCX is the address of a REPORTMACSTRUCT, at a multiple of its size (`tdg_mr_verifyreport.c`).
fn verify(gpa: u64, td: &Td) -> Result<Status, Event> {
    let alignment = size_of::<ReportMac>() as u64;
    if let Err(status) = operand(td, gpa, alignment, Operand::Rcx, Access::Read)? {
        return Ok(status);
    }
    let mut report = [0; REPORT];
    read(td, gpa, &mut report[..size_of::<ReportMac>()])?;
    let authentic = td.identity().verify(&TdReport::from_bytes(&report).mac);
    Ok(if authentic {
        Status::Success
    } else {
        Status::ReportMacInvalid
    })
}

fn read(td: &Td, gpa: u64, bytes: &mut [u8]) -> Result<(), Death> {
    let access = Access::Read;
    td.memory
        .read(gpa, bytes)
        .map_err(|_| Death::NoPrivateMemory { gpa, access })
}

fn write(td: &Td, gpa: u64, bytes: &[u8]) -> Result<(), Death> {
    let access = Access::Write;
    td.memory
        .write(gpa, bytes)
        .map_err(|_| Death::NoPrivateMemory { gpa, access })
}
