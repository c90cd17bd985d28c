//! QEMU's firmware configuration device, ports 0x510 and 0x511: numbered items, read byte by byte. For the firmware of others; this project's
//! image does not ask in a trust domain.

use std::sync::{Mutex, PoisonError};

/// Selects an item; the next port reads it (QEMU `docs/specs/fw_cfg.rst`).
pub const SELECTOR_PORT: u16 = 0x510;
pub const LAST_PORT: u16 = 0x511;

// Keys, and the directory's layout (QEMU `docs/specs/fw_cfg.rst`, `include/standard-headers/linux/qemu_fw_cfg.h`).
const SIGNATURE: u16 = 0x00;
/// Which interfaces there are: bit 0, the ports.
const INTERFACES: u16 = 0x01;
const CPUS: u16 = 0x05;
const MOST_CPUS: u16 = 0x0f;
const DIRECTORY: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;
const NAME: usize = 56;

/// AddressRangeMemory (ACPI 6.5, 15.2).
const E820_RAM: u32 = 1;

/// The items, and which is being read.
#[derive(Debug)]
pub struct FirmwareConfig {
    items: Vec<(u16, Vec<u8>)>,
    state: Mutex<(u16, usize)>,
}

impl FirmwareConfig {
    /// What describes a machine of `cpus` processors and memory at these addresses and of these lengths.
    pub fn new(cpus: u16, memory: &[(u64, u64)]) -> Self {
        let mut map = Vec::new();
        for (start, length) in memory {
            map.extend(start.to_le_bytes());
            map.extend(length.to_le_bytes());
            map.extend(E820_RAM.to_le_bytes());
        }
        let files = [("etc/e820", map)];
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        let mut items = vec![
            (SIGNATURE, b"QEMU".to_vec()),
            (INTERFACES, 1u32.to_le_bytes().to_vec()),
            (CPUS, cpus.to_le_bytes().to_vec()),
            (MOST_CPUS, cpus.to_le_bytes().to_vec()),
        ];
        for (number, (name, contents)) in (FIRST_FILE..).zip(files) {
            directory.extend((contents.len() as u32).to_be_bytes());
            directory.extend(number.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; NAME];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
            items.push((number, contents));
        }
        items.push((DIRECTORY, directory));
        Self {
            items,
            state: Mutex::new((SIGNATURE, 0)),
        }
    }

    /// An access to one of the ports. An item that does not exist, or is at its end, reads as zeros.
    pub fn io(&self, port: u16, size: u8, write: Option<u32>) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (port, write) {
            (SELECTOR_PORT, Some(item)) => {
                *state = (item as u16, 0);
                0
            }
            (SELECTOR_PORT, None) | (_, Some(_)) => 0,
            (_, None) => {
                let (selected, offset) = &mut *state;
                let item = self.items.iter().find(|(number, _)| number == selected);
                (0..size).fold(0, |value, place| {
                    let byte = item
                        .and_then(|(_, contents)| contents.get(*offset))
                        .copied()
                        .unwrap_or(0);
                    *offset += 1;
                    value | u32::from(byte) << (8 * place)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &FirmwareConfig, item: u16, length: usize) -> Vec<u8> {
        config.io(SELECTOR_PORT, 2, Some(item.into()));
        (0..length)
            .map(|_| config.io(LAST_PORT, 1, None) as u8)
            .collect()
    }

    #[test]
    fn items_are_read_from_their_beginning_and_end_in_zeros() {
        let config = FirmwareConfig::new(4, &[(0, 1 << 30)]);
        assert_eq!(read(&config, SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(read(&config, CPUS, 2), [4, 0]);
        assert_eq!(read(&config, 0x4711, 2), [0, 0]);
    }

    #[test]
    fn the_memory_map_is_found_by_its_name() {
        let config = FirmwareConfig::new(1, &[(0, 1 << 30), (1 << 32, 1 << 20)]);
        let directory = read(&config, DIRECTORY, 4 + 64);
        assert_eq!(directory[..8], [0, 0, 0, 1, 0, 0, 0, 40]);
        assert_eq!(&directory[12..21], b"etc/e820\0");
        let item = u16::from_be_bytes([directory[8], directory[9]]);
        let map = read(&config, item, 40);
        assert_eq!(map[20..28], (1u64 << 32).to_le_bytes());
        assert_eq!(map[36..], E820_RAM.to_le_bytes());
    }
}
