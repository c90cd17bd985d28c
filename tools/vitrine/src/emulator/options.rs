//! The words that `vitrine emulator` takes.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use emulator::devices::DiskOptions;
use emulator::td::{HostStack, Sept};

/// Bytes of a virtio disk's serial.
const SERIAL_MAX: usize = 20;

/// What `--disk` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOption {
    role: String,
    path: PathBuf,
}

impl FromStr for DiskOption {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((role, path)) if !role.is_empty() && !path.is_empty() => Ok(Self {
                role: role.to_owned(),
                path: path.into(),
            }),
            _ => Err("write ROLE=FILE, such as model=tiny.gguf"),
        }
    }
}

impl DiskOption {
    /// The device: its serial tells role and length, because its capacity counts whole sectors.
    pub fn device(&self) -> io::Result<DiskOptions> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let length = std::fs::metadata(&self.path).map_err(named)?.len();
        let serial = format!("{}:{length}", self.role);
        if serial.len() > SERIAL_MAX {
            return Err(io::Error::other(format!(
                "the serial {serial} has more than {SERIAL_MAX} bytes"
            )));
        }
        Ok(DiskOptions {
            path: self.path.clone(),
            serial,
        })
    }
}

/// What `--sept` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum PageSize {
    /// 4 KiB pages only: accepting 2 MiB at once fails, as with mainline KVM
    #[value(name = "4k")]
    Small,
    /// 2 MiB pages where the TD asks for them
    #[value(name = "2m")]
    Large,
}

impl From<PageSize> for Sept {
    fn from(size: PageSize) -> Self {
        match size {
            PageSize::Small => Self::Small,
            PageSize::Large => Self::Large,
        }
    }
}

/// What `--host-stack` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum HostStackOption {
    /// Linux 6.16 and later with mainline QEMU
    Mainline,
    /// Linux and QEMU with Intel's patches of 2022 to 2024; firmware of that time needs it
    OutOfTree,
}

impl From<HostStackOption> for HostStack {
    fn from(stack: HostStackOption) -> Self {
        match stack {
            HostStackOption::Mainline => Self::Mainline,
            HostStackOption::OutOfTree => Self::OutOfTree,
        }
    }
}

/// What `--gpaw` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Width {
    /// The shared bit is bit 47
    #[value(name = "48")]
    Bits48 = 48,
    /// The shared bit is bit 51
    #[value(name = "52")]
    Bits52 = 52,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_a_role_and_a_file() {
        let disk: DiskOption = "model=a=b.gguf".parse().unwrap();
        assert_eq!(
            (disk.role.as_str(), disk.path.as_os_str()),
            ("model", "a=b.gguf".as_ref())
        );
        for wrong in ["", "model", "=file", "model="] {
            assert!(wrong.parse::<DiskOption>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_serial_tells_role_and_length() {
        let disk = |role: &str| DiskOption {
            role: role.to_owned(),
            path: concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into(),
        };
        let serial = disk("model").device().unwrap().serial;
        assert!(serial.starts_with("model:") && serial.len() > 6, "{serial}");
        assert!(disk("a-role-of-too-many-letters").device().is_err());
    }
}
