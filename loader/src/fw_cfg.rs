//! QEMU's fw_cfg, as far as the memory map goes. Outside a TD only; what it says is believed no further than `e820.rs` checks it.

use core::fmt;

use crate::ports::{FW_CFG_DATA, Ports, select};

const SIGNATURE: u16 = 0;
const DIRECTORY: u16 = 0x19;
/// Files that are looked at; QEMU has about twenty.
const MAX_FILES: u32 = 1024;
/// Bytes of a file's name in the directory, zero padded.
const NAME: usize = 56;

/// The memory map cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FwCfgError {
    /// This is not QEMU, or it has no fw_cfg.
    Missing,
    /// There is no file of that name.
    NoFile(&'static str),
    /// The file is larger than any we can use.
    TooLarge {
        /// Its name.
        name: &'static str,
        /// Its size.
        size: u32,
    },
}

impl fmt::Display for FwCfgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no fw_cfg device: the memory map is unknown"),
            Self::NoFile(name) => write!(f, "fw_cfg has no file {name}"),
            Self::TooLarge { name, size } => write!(f, "the fw_cfg file {name} has {size} bytes"),
        }
    }
}

impl core::error::Error for FwCfgError {}

/// Reads a whole file into `buffer` and returns the part that was filled.
pub fn read<'a>(name: &'static str, buffer: &'a mut [u8]) -> Result<&'a [u8], FwCfgError> {
    select(SIGNATURE);
    if take() != *b"QEMU" {
        return Err(FwCfgError::Missing);
    }
    select(DIRECTORY);
    let count = u32::from_be_bytes(take());
    for _ in 0..count.min(MAX_FILES) {
        let size = u32::from_be_bytes(take());
        let item = u16::from_be_bytes(take());
        let [_, _] = take();
        let found: [u8; NAME] = take();
        if found.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            let buffer = buffer
                .get_mut(..size as usize)
                .ok_or(FwCfgError::TooLarge { name, size })?;
            select(item);
            buffer.fill_with(|| Ports::Plain.in8(FW_CFG_DATA));
            return Ok(buffer);
        }
    }
    Err(FwCfgError::NoFile(name))
}

fn take<const N: usize>() -> [u8; N] {
    core::array::from_fn(|_| Ports::Plain.in8(FW_CFG_DATA))
}
