//! QEMU's fw_cfg: how many CPUs there are, and named files. Outside a TD only, where the host is trusted with everything anyway; still,
//! what it says is bounded.

use alloc::vec::Vec;
use core::fmt;

use crate::port::{in8, out16};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const SIGNATURE: u16 = 0;
const CPU_COUNT: u16 = 5;
const DIRECTORY: u16 = 0x19;
/// Directory entries that are looked at; QEMU has about twenty.
const MAX_FILES: u32 = 1024;
/// Bytes of a directory entry: size, item, two unused bytes, and a zero-padded name.
const ENTRY: usize = 64;
const NAME: core::ops::Range<usize> = 8..64;

/// A file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FwCfgError {
    /// This is not QEMU, or it has no fw_cfg.
    Missing,
    /// The file is larger than the caller can use.
    TooLarge {
        /// Its size.
        size: u32,
    },
}

impl fmt::Display for FwCfgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no fw_cfg device"),
            Self::TooLarge { size } => write!(f, "the fw_cfg file has {size} bytes"),
        }
    }
}

impl core::error::Error for FwCfgError {}

/// How many CPUs the machine has, this one included.
///
/// # Errors
/// [`FwCfgError::Missing`].
pub fn cpu_count() -> Result<u16, FwCfgError> {
    select_present()?;
    select(CPU_COUNT);
    Ok(u16::from_le_bytes(take()))
}

/// The file called `name`, or `None` if there is none.
///
/// # Errors
/// [`FwCfgError`] if there is no device, or more than `limit` bytes.
pub fn file(name: &str, limit: u32) -> Result<Option<Vec<u8>>, FwCfgError> {
    select_present()?;
    select(DIRECTORY);
    let count = u32::from_be_bytes(take()).min(MAX_FILES);
    for _ in 0..count {
        let Some((size, item)) = find(&take(), name) else {
            continue;
        };
        if size > limit {
            return Err(FwCfgError::TooLarge { size });
        }
        select(item);
        return Ok(Some((0..size).map(|_| byte()).collect()));
    }
    Ok(None)
}

/// Size and item of a directory entry, if it is the one called `name`.
fn find(entry: &[u8; ENTRY], name: &str) -> Option<(u32, u16)> {
    let [s0, s1, s2, s3, i0, i1, ..] = *entry;
    let found = entry[NAME].split(|byte| *byte == 0).next();
    (found == Some(name.as_bytes())).then_some((
        u32::from_be_bytes([s0, s1, s2, s3]),
        u16::from_be_bytes([i0, i1]),
    ))
}

fn select_present() -> Result<(), FwCfgError> {
    select(SIGNATURE);
    if take() == *b"QEMU" {
        Ok(())
    } else {
        Err(FwCfgError::Missing)
    }
}

fn select(item: u16) {
    // SAFETY: the selector only decides what the data port gives.
    unsafe { out16(SELECTOR, item) }
}

fn take<const N: usize>() -> [u8; N] {
    core::array::from_fn(|_| byte())
}

fn byte() -> u8 {
    // SAFETY: reading advances the device's own position, nothing else.
    unsafe { in8(DATA) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_entries_match_whole_names() {
        let mut entry = [0; ENTRY];
        entry[..6].copy_from_slice(&[0, 0, 1, 2, 0x34, 0x56]);
        entry[8..16].copy_from_slice(b"opt/name");
        assert_eq!(find(&entry, "opt/name"), Some((0x102, 0x3456)));
        assert_eq!(find(&entry, "opt/nam"), None);
        assert_eq!(find(&entry, "opt/name2"), None);
        entry[8..].fill(b'x');
        assert_eq!(find(&entry, "opt/name"), None);
        assert_eq!(find(&[0; ENTRY], "x"), None);
    }
}
