//! The host programs a guest is run with: `vitrine` from this checkout, vhost-device-vsock from the registry.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::failure::Result;
use crate::process;
use crate::workspace::Workspace;

/// Plays the vsock device in user space; `/dev/vhost-vsock` is absent in most containers. Later versions may do.
const VSOCK_DEVICE: &str = "vhost-device-vsock";
const VSOCK_DEVICE_VERSION: &str = "0.3.0";

/// For a build from nothing on a slow machine.
const BUILD: Duration = Duration::from_secs(3600);

/// Builds `vitrine` and returns its path.
pub fn vitrine(workspace: &Workspace) -> Result<PathBuf> {
    eprintln!("building vitrine");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--package", "vitrine"]);
    process::run(&mut cargo, BUILD)?;
    Ok(workspace.target.join("debug/vitrine"))
}

/// Installs vhost-device-vsock below the build directory, unless it is there, and returns its path.
pub fn vsock_device(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.target.join("tools");
    let program = root.join("bin").join(VSOCK_DEVICE);
    let installed = process::text(
        Command::new(&program).arg("--version"),
        Duration::from_secs(10),
    )
    .is_ok_and(|version| version.trim().ends_with(VSOCK_DEVICE_VERSION));
    if !installed {
        eprintln!("installing {VSOCK_DEVICE} {VSOCK_DEVICE_VERSION} (once)");
        let mut cargo = workspace.cargo();
        cargo
            .args(["install", "--locked", "--force", VSOCK_DEVICE])
            .args(["--version", VSOCK_DEVICE_VERSION, "--root"])
            .arg(&root)
            .env("CARGO_TARGET_DIR", root.join("build"));
        process::run(&mut cargo, BUILD)?;
    }
    Ok(program)
}
