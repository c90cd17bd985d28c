//! A hostile host's hand between devices and processors.

use std::sync::Arc;

use super::{Attack, Host, Target};
use crate::bus::Interrupts;

/// How often a repeated interrupt comes.
const REPEATED: usize = 4;
/// The first vector that is not an exception's or reserved (SDM vol. 3, table 7-1).
const FIRST_VECTOR: u64 = 32;
/// The vector before which all others have to wait (SDM vol. 3, APIC chapter: interrupt priority). Many systems take it for the APIC's own and do not acknowledge it.
const LAST_VECTOR: u32 = 255;

/// Passes interrupts on, or does not.
pub struct TamperedInterrupts {
    pub inner: Arc<dyn Interrupts>,
    pub host: Arc<Host>,
}

impl Interrupts for TamperedInterrupts {
    fn msi(&self, address: u64, data: u32) {
        let strikes = |attack| self.host.strikes(attack, Target::Platform);
        if strikes(Attack::InterruptLost) {
            return;
        }
        let times = if strikes(Attack::InterruptRepeated) {
            REPEATED
        } else {
            1
        };
        for _ in 0..times {
            self.inner.msi(address, data);
        }
        if strikes(Attack::InterruptSpurious) {
            let vector = FIRST_VECTOR + self.host.below(256 - FIRST_VECTOR);
            self.inner.msi(address, vector as u32);
        }
        if strikes(Attack::InterruptHighest) {
            self.inner.msi(address, LAST_VECTOR);
        }
    }
}
