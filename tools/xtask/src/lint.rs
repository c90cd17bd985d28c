//! Formatting and lints, in every workspace.

use std::process::Command;
use std::time::Duration;

use crate::failure::Result;
use crate::process;
use crate::workspace::Workspace;

/// A whole build may be needed first.
const LIMIT: Duration = Duration::from_secs(3600);

/// Formats the sources, or with `check` fails where they are not formatted.
pub fn format(workspace: &Workspace, check: bool) -> Result<()> {
    for mut cargo in cargos(workspace) {
        cargo.args(["fmt", "--all"]);
        if check {
            cargo.arg("--check");
        }
        process::run(&mut cargo, LIMIT)?;
    }
    Ok(())
}

/// Clippy; a warning is a failure.
pub fn lint(workspace: &Workspace) -> Result<()> {
    let [mut host, mut programs, mut fuzz] = cargos(workspace);
    let mut libraries = guest_cargo(workspace);
    host.args(["clippy", "--workspace"]);
    // What the loader's tests need would switch on `std` in the libraries of the guest: one after the other.
    programs.args(["clippy", "--package", "guest"]);
    libraries.args(["clippy", "--workspace", "--exclude", "guest"]);
    fuzz.args(["clippy", "--workspace"]);
    for mut cargo in [host, programs, libraries, fuzz] {
        cargo.args(["--all-targets", "--locked", "--", "--deny", "warnings"]);
        process::run(&mut cargo, LIMIT)?;
    }
    Ok(())
}

/// A cargo command in each workspace.
fn cargos(workspace: &Workspace) -> [Command; 3] {
    let mut fuzz = workspace.cargo();
    fuzz.current_dir(workspace.root.join("tools/fuzz"))
        .env("CARGO_TARGET_DIR", workspace.target.join("fuzz"));
    [workspace.cargo(), guest_cargo(workspace), fuzz]
}

/// A cargo command in the TD workspace.
pub fn guest_cargo(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.guest())
        .env("CARGO_TARGET_DIR", workspace.target.join("td"));
    cargo
}
