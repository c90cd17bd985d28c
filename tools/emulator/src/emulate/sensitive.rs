//! PUSHF and POPF, which ring 3 executes without a trap but without the interrupt flag: they are patched.

use iced_x86::Mnemonic as M;

use super::{Effect, Step};
use crate::cpu::gpr;
use crate::event::Event;

impl Step<'_> {
    pub(super) fn flags(&mut self) -> Result<Effect, Event> {
        let size = match self.instruction.mnemonic() {
            M::Pushf | M::Popf => 2,
            M::Pushfd | M::Popfd => 4,
            _ => 8,
        };
        if matches!(
            self.instruction.mnemonic(),
            M::Pushf | M::Pushfd | M::Pushfq
        ) {
            let flags = self.cpu.flags();
            self.push(flags, size)?;
            return Ok(Effect::Continue);
        }
        let value = self.view.number(self.cpu.registers.gpr[gpr::RSP], size)?;
        let kept = if size == 2 {
            self.cpu.flags() & !0xffff
        } else {
            0
        };
        self.cpu.set_flags(kept | value);
        self.add_to_stack(size as u64);
        Ok(Effect::Continue)
    }
}
