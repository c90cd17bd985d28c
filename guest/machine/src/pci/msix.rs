//! MSI-X: interrupts as messages, each a write that the function makes (PCI 3.0, §6.8.2). One message serves a whole function here, because all that
//! an interrupt has to do is to end a halt.

use super::{Address, Bars, ConfigSpace, capabilities};
use crate::mmio;

const MSI_X: u8 = 0x11;
/// Bits of the capability's first word.
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;
/// The second word: which base address register the table is in, and where.
const TABLE_BAR: u32 = 0b111;
/// Bytes of a table entry: address, data, and whether it is masked.
const ENTRY: u32 = 16;

/// The write that raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    address: u64,
    data: u32,
}

impl Message {
    /// Raises `vector` on the CPU whose local APIC is number `apic`. Only the first 256 can be named.
    pub const fn new(apic: u32, vector: u8) -> Option<Self> {
        const APICS: u64 = 0xfee0_0000;
        if apic > 0xff {
            return None;
        }
        Some(Self {
            address: APICS | (apic as u64) << 12,
            data: vector as u32,
        })
    }
}

/// Puts `message` into the first entry of a function's table and lets the function use it. Returns whether it can: functions without
/// MSI-X, or with a table outside their placed registers, have to be polled.
///
/// # Safety
/// The registers in `bars` are the function's alone.
pub unsafe fn enable(
    config: &mut dyn ConfigSpace,
    address: Address,
    bars: &Bars,
    message: Message,
) -> bool {
    let Some((capability, entry)) = first_entry(config, address, bars) else {
        return false;
    };
    // SAFETY: the entry lies in a register of the function, which is the caller's; the message reaches our own APIC.
    unsafe {
        mmio::write(entry, message.address as u32);
        mmio::write(entry + 4, (message.address >> 32) as u32);
        mmio::write(entry + 8, message.data);
        mmio::write(entry + 12, 0u32);
    }
    let control = config.read(address, capability);
    config.write(address, capability, (control | ENABLE) & !MASK_ALL);
    true
}

/// Where the capability and the first entry of the table are.
fn first_entry(config: &mut dyn ConfigSpace, address: Address, bars: &Bars) -> Option<(u8, u64)> {
    let capability = *capabilities(config, address, MSI_X).first()?;
    let table = config.read(address, capability.checked_add(4)?);
    let (bar, offset) = ((table & TABLE_BAR) as u8, table & !TABLE_BAR);
    let entry = bars.locate(bar, offset, ENTRY)?;
    entry.is_multiple_of(8).then_some((capability, entry))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeConfig, FakeFunction};
    use super::super::{MmioWindow, WINDOW_BASE};
    use super::*;

    const DEVICE: Address = Address {
        device: 3,
        function: 0,
    };

    /// A function with a 4 KiB register and an MSI-X capability whose second word is `table`.
    fn function(table: u32) -> (FakeConfig, Bars) {
        let mut function = FakeFunction::new(0x1af4, 0x1042);
        function.bar_sizes[1] = 0x1000;
        function.words[1] = 1 << 20;
        function.words[0x34 / 4] = 0x40;
        function.words[0x40 / 4] = 0x0002_0000 | u32::from(MSI_X);
        function.words[0x44 / 4] = table;
        let mut config = FakeConfig::default();
        config.functions.insert(DEVICE, function);
        let bars = Bars::place(&mut config, DEVICE, &mut MmioWindow::new()).expect("room");
        (config, bars)
    }

    #[test]
    fn messages_name_a_cpu_and_a_vector() {
        let message = Message::new(3, 0x22).expect("a message");
        assert_eq!((message.address, message.data), (0xfee0_3000, 0x22));
        assert_eq!(Message::new(256, 0x22), None);
    }

    #[test]
    fn the_table_must_lie_in_a_placed_register() {
        let (mut config, bars) = function(0x800 | 1);
        let found = first_entry(&mut config, DEVICE, &bars);
        assert_eq!(found, Some((0x40, WINDOW_BASE + 0x800)));
        for table in [0x1000 | 1, 0xff8 | 1, u32::MAX, 0x800, 0x800 | 7] {
            let (mut config, bars) = function(table);
            assert_eq!(first_entry(&mut config, DEVICE, &bars), None, "{table:#x}");
        }
    }

    #[test]
    fn functions_without_the_capability_are_polled() {
        let (mut config, bars) = function(1);
        if let Some(function) = config.functions.get_mut(&DEVICE) {
            function.words[0x40 / 4] = 0x05;
        }
        assert_eq!(first_entry(&mut config, DEVICE, &bars), None);
    }
}
