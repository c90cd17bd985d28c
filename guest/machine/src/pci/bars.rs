//! Base address registers: sized by the device, placed by us.
//!
//! The window is a constant far above the largest low memory of a q35 machine (0xB000_0000), below the interrupt
//! controllers at 0xFEC0_0000 and below the image. A device chooses only how much of it it takes, within bounds.

use super::{Address, ConfigSpace, PciError, register};

/// First physical address given to devices. The page tables must map the window uncached or as the VMM likes, writable,
/// not executable.
pub const WINDOW_BASE: u64 = 0xe000_0000;
/// Bytes in the window.
pub const WINDOW_LENGTH: u64 = 0x0100_0000;

const BAR_COUNT: u8 = 6;
const PAGE: u64 = 4096;
/// The largest register a virtio device has any use for is some tens of KiB; a hostile one shall not take the window.
const LARGEST: u64 = 0x10_0000;

const KIND_PORT: u32 = 1;
const WIDTH_MASK: u32 = 0b110;
const WIDTH_64: u32 = 0b100;
const ADDRESS_MASK: u32 = !0xf;

/// Hands out addresses of the window in increasing order. Nothing is given back: devices are not unplugged.
pub struct MmioWindow {
    next: u64,
    end: u64,
}

impl MmioWindow {
    /// The whole window. Make one per machine.
    pub const fn new() -> Self {
        Self {
            next: WINDOW_BASE,
            end: WINDOW_BASE + WINDOW_LENGTH,
        }
    }

    fn take(&mut self, size: u64) -> Option<u64> {
        // A page at least, so that two devices never share one.
        let size = size.max(PAGE);
        let start = self.next.checked_next_multiple_of(size)?;
        let end = start.checked_add(size)?;
        (end <= self.end).then(|| {
            self.next = end;
            start
        })
    }
}

impl Default for MmioWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// The memory registers of one function after placement: physical address and size by register index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bars([Option<(u64, u64)>; BAR_COUNT as usize]);

impl Bars {
    /// Sizes every memory register of the function and places it in the window. Port registers are left unplaced.
    ///
    /// The function must not decode addresses yet ([`super::disable`]).
    pub fn place(
        config: &mut dyn ConfigSpace,
        address: Address,
        window: &mut MmioWindow,
    ) -> Result<Self, PciError> {
        let mut bars = Self::default();
        let mut bar = 0;
        while bar < BAR_COUNT {
            let offset = register::BAR0 + 4 * bar;
            config.write(address, offset, u32::MAX);
            let probe = config.read(address, offset);
            let wide = probe & (KIND_PORT | WIDTH_MASK) == WIDTH_64;
            if probe != 0 && probe & KIND_PORT == 0 {
                // Two's complement of the writable bits; 64-bit registers above 4 GiB are refused by the bound.
                let size = u64::from(!(probe & ADDRESS_MASK)) + 1;
                if !size.is_power_of_two() || size > LARGEST {
                    return Err(PciError::BarSize { bar });
                }
                let placed = window.take(size).ok_or(PciError::WindowFull)?;
                config.write(address, offset, placed as u32);
                if wide && bar + 1 < BAR_COUNT {
                    config.write(address, offset + 4, 0);
                }
                // A register that keeps another address would decode where memory or another device may be.
                if u64::from(config.read(address, offset) & ADDRESS_MASK) != placed {
                    return Err(PciError::BarRefused { bar });
                }
                bars.0[usize::from(bar)] = Some((placed, size));
            } else {
                config.write(address, offset, 0);
            }
            bar += if wide { 2 } else { 1 };
        }
        Ok(bars)
    }

    /// The physical address of `length` bytes at `offset` in register `bar`, if they lie inside it.
    pub fn locate(&self, bar: u8, offset: u32, length: u32) -> Option<u64> {
        let (base, size) = (*self.0.get(usize::from(bar))?)?;
        let end = u64::from(offset).checked_add(u64::from(length))?;
        (end <= size).then(|| base + u64::from(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeConfig, FakeFunction};
    use super::*;

    const DEVICE: Address = Address {
        device: 1,
        function: 0,
    };

    fn with_bars(bars: &[(usize, u32, u32)]) -> FakeConfig {
        let mut function = FakeFunction::new(0x1af4, 0x1042);
        for &(bar, size, kind) in bars {
            function.bar_sizes[bar] = size;
            function.words[4 + bar] = kind;
        }
        let mut config = FakeConfig::default();
        config.functions.insert(DEVICE, function);
        config
    }

    #[test]
    fn memory_registers_are_placed_apart_inside_the_window() {
        let mut config = with_bars(&[
            (0, 0x20, KIND_PORT),
            (1, 0x1000, 0),
            (4, 0x4000, WIDTH_64 | 8),
        ]);
        // The upper half of a 64-bit register holds a value of the host's choosing.
        config.functions.get_mut(&DEVICE).unwrap().words[9] = 0xdead;
        let mut window = MmioWindow::new();
        let bars = Bars::place(&mut config, DEVICE, &mut window).unwrap();
        assert_eq!(bars.locate(1, 0, 0x1000), Some(WINDOW_BASE));
        assert_eq!(
            bars.locate(4, 0x3000, 0x1000),
            Some(WINDOW_BASE + 0x4000 + 0x3000)
        );
        assert_eq!(bars.locate(0, 0, 4), None, "ports are not memory");
        let words = &config.functions[&DEVICE].words;
        assert_eq!(
            (words[5], words[8], words[9]),
            (0xe000_0000, 0xe000_400c, 0)
        );
    }

    #[test]
    fn nothing_outside_a_register_is_located() {
        let mut config = with_bars(&[(2, 0x1000, 0)]);
        let bars = Bars::place(&mut config, DEVICE, &mut MmioWindow::new()).unwrap();
        assert_eq!(bars.locate(2, 0xfff, 2), None);
        assert_eq!(bars.locate(2, u32::MAX, u32::MAX), None);
        assert_eq!(bars.locate(3, 0, 1), None);
        assert_eq!(bars.locate(200, 0, 1), None);
    }

    #[test]
    fn an_oversized_register_is_refused() {
        let mut config = with_bars(&[(0, 0x1000_0000, 0)]);
        let error = Bars::place(&mut config, DEVICE, &mut MmioWindow::new()).unwrap_err();
        assert_eq!(error, PciError::BarSize { bar: 0 });
    }

    #[test]
    fn a_register_that_moves_away_is_refused() {
        struct Stubborn(u32);
        impl ConfigSpace for Stubborn {
            fn read(&mut self, _: Address, _: u8) -> u32 {
                self.0
            }
            fn write(&mut self, _: Address, _: u8, _: u32) {}
        }
        let error =
            Bars::place(&mut Stubborn(0xffff_f000), DEVICE, &mut MmioWindow::new()).unwrap_err();
        assert_eq!(error, PciError::BarRefused { bar: 0 });
    }

    #[test]
    fn the_window_ends() {
        let mut window = MmioWindow::new();
        for _ in 0..WINDOW_LENGTH / LARGEST {
            assert!(window.take(LARGEST).is_some());
        }
        assert_eq!(window.take(16), None);
    }
}
