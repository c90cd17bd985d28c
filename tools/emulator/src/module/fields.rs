//! Metadata fields that a guest reads and writes: VM.RD and VM.WR (`tdx.md` 1.5; `tdg_vm_rd_wr.c` and `md_td_write_element` of the module), SYS.RD
//! (`tdg_sys_rd.c`), VP.RD and VP.WR. Identifiers are those of Linux `arch/x86/include/asm/shared/tdx.h`.

use super::{Operand, Status};
use crate::cpu::Cpu;
use crate::cpu::gpr::{R8, R9, RCX, RDX};
use crate::td::Td;

/// Bit 1: FLEXIBLE_PENDING_VE, clear here: what the attribute SEPT_VE_DISABLE says stays so.
const CONFIG_FLAGS: u64 = 0x1110_0003_0000_0016;
const TD_CTLS: u64 = 0x1110_0003_0000_0017;
const NOTIFY_ENABLES: u64 = 0x9100_0000_0000_0010;
const TOPOLOGY_ENUM_CONFIGURED: u64 = 0x9100_0000_0000_0019;
/// Of the module: its optional features, none here.
const TDX_FEATURES0: u64 = 0x0a00_0003_0000_0008;
/// MD_FIELD_ID_NA: there is no next field.
const NO_FIELD: u64 = u64::MAX;

/// Bits of TD_CTLS (`tdx.md` 1.5).
const PENDING_VE_DISABLE: u64 = 1 << 0;
const ENUM_TOPOLOGY: u64 = 1 << 1;
const LOCK: u64 = 1 << 63;

/// The fields of the TD: identifier, and which of its bits the guest may write.
const FIELDS: [(u64, u64); 4] = [
    (CONFIG_FLAGS, 0),
    (TD_CTLS, PENDING_VE_DISABLE | ENUM_TOPOLOGY | LOCK),
    (NOTIFY_ENABLES, 1),
    (TOPOLOGY_ENUM_CONFIGURED, 0),
];

/// The fields that a TD can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writable {
    controls: u64,
    notify: u64,
}

impl Default for Writable {
    /// As the attribute SEPT_VE_DISABLE makes them.
    fn default() -> Self {
        Self {
            controls: PENDING_VE_DISABLE,
            notify: 0,
        }
    }
}

impl Writable {
    fn get(self, field: u64) -> u64 {
        match field {
            TD_CTLS => self.controls,
            NOTIFY_ENABLES => self.notify,
            // No flags, and no topology.
            _ => 0,
        }
    }
}

/// VM.RD: RDX names the field, R8 gets its value. RCX must be zero, for this TD.
pub fn read(cpu: &mut Cpu, td: &Td) -> Status {
    let (vm, field) = (cpu.registers.gpr[RCX], cpu.registers.gpr[RDX]);
    cpu.registers.gpr[R8] = 0;
    if vm != 0 {
        return Status::OperandInvalid(Operand::Rcx);
    }
    if !FIELDS.iter().any(|(known, _)| *known == field) {
        return Status::FieldUnknown;
    }
    cpu.registers.gpr[R8] = td.fields().get(field);
    Status::Success
}

/// VM.WR: RDX names the field, R8 the value, R9 the bits to write; R8 gets the old value. RCX must be zero, for this TD.
pub fn write(cpu: &mut Cpu, td: &Td) -> Status {
    let gpr = &mut cpu.registers.gpr;
    let (vm, field, value, mask) = (gpr[RCX], gpr[RDX], gpr[R8], gpr[R9]);
    gpr[R8] = 0;
    if vm != 0 {
        return Status::OperandInvalid(Operand::Rcx);
    }
    let Some((_, writable)) = FIELDS.iter().find(|(known, _)| *known == field) else {
        return Status::FieldUnknown;
    };
    if mask & writable == 0 {
        return Status::FieldNotWritable;
    }
    let mut fields = td.fields();
    let old = fields.get(field);
    let new = old & !mask | value & mask;
    let changed = old ^ new;
    // Nothing may change once it is locked, nor what cannot be written, nor what CONFIG_FLAGS and TOPOLOGY_ENUM_CONFIGURED do not allow.
    let fixed = PENDING_VE_DISABLE | ENUM_TOPOLOGY;
    let controls = field == TD_CTLS;
    if changed & !writable != 0 || controls && (changed & fixed != 0 || old & LOCK != 0) {
        return Status::FieldValueInvalid;
    }
    match field {
        TD_CTLS => fields.controls = new,
        _ => fields.notify = new,
    }
    gpr[R8] = old;
    Status::Success
}

/// VP.RD and VP.WR: the fields that the module lets a guest see of a vCPU belong to nested TDs, which there are none of here. RCX must be zero.
pub fn of_vcpu(cpu: &mut Cpu) -> Status {
    let gpr = &mut cpu.registers.gpr;
    gpr[R8] = 0;
    if gpr[RCX] != 0 {
        return Status::OperandInvalid(Operand::Rcx);
    }
    Status::FieldUnknown
}

/// SYS.RD: RDX names the field and gets the next one's name, R8 gets its value.
pub fn read_system(cpu: &mut Cpu) -> Status {
    let gpr = &mut cpu.registers.gpr;
    let field = std::mem::replace(&mut gpr[RDX], NO_FIELD);
    gpr[R8] = 0;
    if field == TDX_FEATURES0 {
        Status::Success
    } else {
        Status::FieldUnknown
    }
}
