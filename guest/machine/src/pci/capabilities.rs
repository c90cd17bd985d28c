//! The capability list of a function: a linked list the host wrote, walked once with a bound.

use super::{Address, ConfigSpace, register};
use alloc::vec::Vec;

/// Capability identifier under which virtio describes its register blocks.
pub const VENDOR_SPECIFIC: u8 = 0x09;

const HAS_CAPABILITIES: u32 = 1 << 20;
const HEADER_END: u8 = 0x40;
/// A capability takes at least four of the 192 bytes behind the header: a longer list is a loop.
const MOST: usize = 48;

/// Offsets of the capabilities with identifier `wanted`, in list order. A broken list yields what precedes the break.
pub fn capabilities(config: &mut dyn ConfigSpace, address: Address, wanted: u8) -> Vec<u8> {
    let mut found = Vec::new();
    if config.read(address, register::COMMAND) & HAS_CAPABILITIES == 0 {
        return found;
    }
    let mut offset = config.read(address, register::CAPABILITIES_POINTER) as u8 & 0xfc;
    for _ in 0..MOST {
        if offset < HEADER_END {
            break;
        }
        let head = config.read(address, offset);
        if head as u8 == wanted {
            found.push(offset);
        }
        offset = (head >> 8) as u8 & 0xfc;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeConfig, FakeFunction};
    use super::*;
    use proptest::prelude::*;

    const DEVICE: Address = Address {
        device: 0,
        function: 0,
    };

    fn with_words(words: &[(u8, u32)]) -> FakeConfig {
        let mut function = FakeFunction::new(0x1af4, 0x1042);
        for &(offset, value) in words {
            function.words[usize::from(offset) / 4] = value;
        }
        let mut config = FakeConfig::default();
        config.functions.insert(DEVICE, function);
        config
    }

    #[test]
    fn the_list_is_followed_in_order() {
        let mut config = with_words(&[
            (4, HAS_CAPABILITIES),
            (0x34, 0x98),
            (0x98, 0x4009),
            (0x40, 0x5011),
            (0x50, 0x09),
        ]);
        assert_eq!(
            capabilities(&mut config, DEVICE, VENDOR_SPECIFIC),
            [0x98, 0x50]
        );
    }

    #[test]
    fn a_loop_ends() {
        let mut config = with_words(&[(4, HAS_CAPABILITIES), (0x34, 0x40), (0x40, 0x4009)]);
        assert_eq!(
            capabilities(&mut config, DEVICE, VENDOR_SPECIFIC).len(),
            MOST
        );
    }

    #[test]
    fn without_the_status_bit_there_is_no_list() {
        let mut config = with_words(&[(0x34, 0x40), (0x40, 0x0009)]);
        assert!(capabilities(&mut config, DEVICE, VENDOR_SPECIFIC).is_empty());
    }

    proptest! {
        #[test]
        fn any_configuration_space_is_walked_within_bounds(words in proptest::array::uniform32(any::<u32>())) {
            let mut function = FakeFunction::new(1, 1);
            function.words[..32].copy_from_slice(&words);
            function.words[32..].copy_from_slice(&words);
            let mut config = FakeConfig::default();
            config.functions.insert(DEVICE, function);
            let found = capabilities(&mut config, DEVICE, VENDOR_SPECIFIC);
            prop_assert!(found.len() <= MOST);
            prop_assert!(found.iter().all(|offset| *offset >= HEADER_END));
        }
    }
}
