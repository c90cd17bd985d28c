//! The host programs a guest is run with: `vitrine` from this checkout, vhost-device-vsock from the registry; and
//! from there too, cargo-deny.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::failure::Result;
use crate::process;
use crate::workspace::Workspace;

/// Plays the vsock device in user space; `/dev/vhost-vsock` is absent in most containers. Later versions may do.
const VSOCK_DEVICE: &str = "vhost-device-vsock";
const VSOCK_DEVICE_VERSION: &str = "0.3.0";

/// Judges dependencies: licences, sources, bans, advisories.
const CARGO_DENY: &str = "cargo-deny";
const CARGO_DENY_VERSION: &str = "0.20.2";

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

/// Builds `vitrine` as it is released, for measurements, and returns its path.
pub fn fast_vitrine(workspace: &Workspace) -> Result<PathBuf> {
    eprintln!("building vitrine with all optimisations");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--release", "--package", "vitrine"]);
    process::run(&mut cargo, BUILD)?;
    Ok(workspace.target.join("release/vitrine"))
}

/// Installs vhost-device-vsock below the build directory, unless it is there, and returns its path.
pub fn vsock_device(workspace: &Workspace) -> Result<PathBuf> {
    installed(workspace, VSOCK_DEVICE, VSOCK_DEVICE_VERSION)
}

/// Installs cargo-deny below the build directory, unless it is there, and returns its path.
pub fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    installed(workspace, CARGO_DENY, CARGO_DENY_VERSION)
}

/// A program from the registry in one version. It stays below the build directory, so that it is compiled once.
fn installed(workspace: &Workspace, name: &str, version: &str) -> Result<PathBuf> {
    let root = workspace.target.join("tools");
    let program = root.join("bin").join(name);
    let present = process::text(
        Command::new(&program).arg("--version"),
        Duration::from_secs(10),
    )
    .is_ok_and(|text| text.trim().ends_with(version));
    if !present {
        eprintln!("installing {name} {version} (once)");
        let mut cargo = workspace.cargo();
        cargo
            .args(["install", "--locked", "--force", name])
            .args(["--version", version, "--root"])
            .arg(&root)
            .env("CARGO_TARGET_DIR", root.join("build"));
        process::run(&mut cargo, BUILD)?;
    }
    Ok(program)
}
