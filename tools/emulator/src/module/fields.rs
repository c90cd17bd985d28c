//! TDG.VM.RD and TDG.VM.WR: the TD-scope metadata fields a guest reads (`tdx.md` 1.5, from Linux `arch/x86/include/asm/shared/tdx.h`).

use super::{Operand, Status};
use crate::cpu::Cpu;
use crate::cpu::gpr::{R8, R9, RDX};
use crate::td::Td;

const CONFIG_FLAGS: u64 = 0x1110_0003_0000_0016;
const TD_CTLS: u64 = 0x1110_0003_0000_0017;
const NOTIFY_ENABLES: u64 = 0x9100_0000_0000_0010;
const TOPOLOGY_ENUM_CONFIGURED: u64 = 0x9100_0000_0000_0019;

/// The fields: identifier, and which of its bits the guest may write.
const FIELDS: [(u64, u64); 4] = [
    (CONFIG_FLAGS, 0),
    (TD_CTLS, TD_CTLS_WRITABLE),
    (NOTIFY_ENABLES, 1),
    (TOPOLOGY_ENUM_CONFIGURED, 0),
];

/// PENDING_VE_DISABLE and LOCK; this TD has none of the other controls.
const TD_CTLS_WRITABLE: u64 = 1 | LOCK;
const LOCK: u64 = 1 << 63;

/// The fields that a TD can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writable {
    controls: u64,
    notify: u64,
}

impl Writable {
    fn get(self, field: u64) -> u64 {
        match field {
            TD_CTLS => self.controls,
            NOTIFY_ENABLES => self.notify,
            // CONFIG_FLAGS: no FLEXIBLE_PENDING_VE, the attribute SEPT_VE_DISABLE decides alone. No topology either.
            _ => 0,
        }
    }
}

/// VM.RD: RDX names the field, R8 gets its value.
pub fn read(cpu: &mut Cpu, td: &Td) -> Status {
    let field = cpu.registers.gpr[RDX];
    if !FIELDS.iter().any(|(known, _)| *known == field) {
        return Status::OperandInvalid(Operand::Rdx);
    }
    cpu.registers.gpr[R8] = td.fields().get(field);
    Status::Success
}

/// VM.WR: RDX names the field, R8 the value, R9 the bits to write; R8 gets the old value.
pub fn write(cpu: &mut Cpu, td: &Td) -> Status {
    let gpr = &cpu.registers.gpr;
    let (field, value, mask) = (gpr[RDX], gpr[R8], gpr[R9]);
    let Some((_, writable)) = FIELDS.iter().find(|(known, _)| *known == field) else {
        return Status::OperandInvalid(Operand::Rdx);
    };
    let mut fields = td.fields();
    let old = fields.get(field);
    let locked = field == TD_CTLS && old & LOCK != 0;
    if mask & !writable != 0 || locked {
        return Status::OperandInvalid(Operand::R8);
    }
    let new = old & !mask | value & mask;
    match field {
        TD_CTLS => fields.controls = new,
        _ => fields.notify = new,
    }
    cpu.registers.gpr[R8] = old;
    Status::Success
}
