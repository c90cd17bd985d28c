//! The label of a disk: its role and exact length, carried in the virtio serial as `<role>:<decimal length>`.
//!
//! A disk's capacity counts 512-byte sectors, so the length of the file on it travels here. It is the host's word: it
//! must agree with the capacity, and whatever it leaves of the last sector must be zero.

use super::{DiskError, SECTOR};
use core::fmt;

/// Bytes of a virtio serial; a shorter one ends with a zero byte.
pub const SERIAL_LENGTH: usize = 20;

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The model.
    Model,
    /// The configuration.
    Config,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Config => "config",
        })
    }
}

/// A disk's role and the exact length of its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// What the disk is for.
    pub role: Role,
    /// Bytes before the padding.
    pub length: u64,
}

impl Label {
    /// Reads the serial of a disk of `capacity` sectors. None if the role is not one of ours: such a disk is ignored.
    pub fn parse(serial: &[u8; SERIAL_LENGTH], capacity: u64) -> Result<Option<Self>, DiskError> {
        let text = serial.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let role = match parts.next() {
            Some(b"model") => Role::Model,
            Some(b"config") => Role::Config,
            _ => return Ok(None),
        };
        let length = decimal(parts.next().unwrap_or_default()).ok_or(DiskError::Label)?;
        // The length ends inside the last sector, so that no sector is all padding and none is missing.
        if length == 0 || length.div_ceil(SECTOR as u64) != capacity {
            return Err(DiskError::Length { length, capacity });
        }
        Ok(Some(Self { role, length }))
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    fn parse(text: &str, capacity: u64) -> Result<Option<Label>, DiskError> {
        let mut serial = [0; SERIAL_LENGTH];
        serial[..text.len()].copy_from_slice(text.as_bytes());
        Label::parse(&serial, capacity)
    }

    #[test]
    fn known_roles_with_a_length_in_the_last_sector() {
        for length in [513, 1000, 1024] {
            let role = Role::Model;
            assert_eq!(
                parse(&format!("model:{length}"), 2),
                Ok(Some(Label { role, length }))
            );
        }
        let config = Label {
            role: Role::Config,
            length: 7,
        };
        assert_eq!(parse("config:7", 1), Ok(Some(config)));
    }

    #[test]
    fn other_disks_are_ignored() {
        for text in ["", "swap:512", "models:512", "QM00001", "Model:512"] {
            assert_eq!(parse(text, 1), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_length_that_is_no_number_is_an_error() {
        for text in [
            "model",
            "model:",
            "model:+5",
            "model:5 ",
            "model:0x5",
            "model:5:5",
            "model:-1",
        ] {
            assert_eq!(parse(text, 1), Err(DiskError::Label), "{text}");
        }
        assert_eq!(
            parse("model:99999999999999", 1),
            Err(DiskError::Length {
                length: 99999999999999,
                capacity: 1
            })
        );
    }

    #[test]
    fn a_length_outside_the_last_sector_is_an_error() {
        for length in [0, 512, 1025, u32::MAX.into()] {
            assert_eq!(
                parse(&format!("model:{length}"), 2),
                Err(DiskError::Length {
                    length,
                    capacity: 2
                })
            );
        }
        assert!(parse("model:0", 0).is_err());
    }

    proptest! {
        #[test]
        fn any_serial_is_judged(serial in any::<[u8; SERIAL_LENGTH]>(), capacity in any::<u64>()) {
            if let Ok(Some(label)) = Label::parse(&serial, capacity) {
                prop_assert_eq!(label.length.div_ceil(512), capacity);
            }
        }
    }
}
