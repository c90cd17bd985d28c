//! The guest's vsock device on a host without `/dev/vhost-vsock`: vhost-device-vsock, a process that plays it in user space.
//!
//! It listens on two Unix sockets: one for QEMU, and one for clients (`unix:PATH#PORT`).

use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

const PROGRAM: &str = "vhost-device-vsock";
/// Names the program where it is not in PATH.
const VARIABLE: &str = "VITRINE_VHOST_DEVICE_VSOCK";
/// Where `cargo xtask` installs it.
const BUILT: &str = "target/tools/bin/vhost-device-vsock";
/// Only the guest sees it; clients name the socket instead.
const GUEST_CID: &str = "3";

/// The device process for one guest.
#[derive(Clone, Debug)]
pub struct Device {
    program: PathBuf,
    /// Where clients connect.
    clients: PathBuf,
    /// Where QEMU connects.
    pub qemu: PathBuf,
}

impl Device {
    /// A device whose clients connect to `clients`; QEMU's socket lies beside it.
    pub fn new(clients: &Path) -> Result<Self, Failure> {
        let mut qemu = OsString::from(clients);
        qemu.push(".vhost");
        Ok(Self {
            program: locate()?,
            clients: clients.to_owned(),
            qemu: qemu.into(),
        })
    }

    /// The command: program first.
    pub fn command(&self) -> Vec<OsString> {
        vec![
            self.program.clone().into(),
            "--guest-cid".into(),
            GUEST_CID.into(),
            "--socket".into(),
            self.qemu.clone().into(),
            "--uds-path".into(),
            self.clients.clone().into(),
        ]
    }

    /// Makes way for the sockets: removes those a killed run left, never one in use and nothing that is not a socket.
    pub fn clear_stale_sockets(&self) -> Result<(), Failure> {
        for path in [&self.clients, &self.qemu] {
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            if !metadata.file_type().is_socket() {
                return Err(Failure::usage(format!(
                    "{} exists and is not a socket; give --vsock-uds another path",
                    path.display()
                )));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(Failure::usage(format!(
                    "{} is in use by another guest; give --vsock-uds another path",
                    path.display()
                )));
            }
            std::fs::remove_file(path).map_err(|error| {
                Failure::new(format!("cannot remove {}: {error}", path.display()))
            })?;
        }
        Ok(())
    }

    /// Removes the sockets of a device that has ended.
    pub fn remove_sockets(&self) {
        for path in [&self.clients, &self.qemu] {
            // The device may have removed them itself.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The program named by the environment, in PATH, or where `cargo xtask` puts it.
fn locate() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    find_in_path(PROGRAM)
        .or_else(|| Some(PathBuf::from(BUILT)).filter(|path| path.is_file()))
        .ok_or_else(|| {
            Failure::usage(format!(
                "{PROGRAM} is not installed: run `cargo install {PROGRAM}`, set {VARIABLE}, or use --tcp PORT instead"
            ))
        })
}

/// The first file of that name in the directories of PATH.
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}
