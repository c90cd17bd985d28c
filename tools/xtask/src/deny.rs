//! `cargo xtask deny`: what is depended on, judged by cargo-deny and `deny.toml`, for the image and for the tools.
//!
//! Licences, sources and bans follow from the lockfiles and must pass. Advisories need a database from the network and change by the day: where
//! it cannot be had, that is said, not failed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::calendar;
use crate::failure::{Result, ensure};
use crate::process;
use crate::tools;
use crate::workspace::Workspace;

/// For fetching the database of advisories.
const LIMIT: Duration = Duration::from_secs(600);

/// Checks both workspaces.
pub fn run(workspace: &Workspace) -> Result<()> {
    let program = tools::cargo_deny(workspace)?;
    for manifest in ["guest/Cargo.toml", "Cargo.toml"] {
        eprintln!("{manifest}: bans, licences, sources");
        let mut deny = deny(workspace, &program, manifest);
        process::run(deny.args(["bans", "licenses", "sources"]), LIMIT)?;
        advisories(workspace, &program, manifest)?;
    }
    Ok(())
}

/// Fails for an advisory, not for a database that cannot be had.
fn advisories(workspace: &Workspace, program: &Path, manifest: &str) -> Result<()> {
    let mut deny = deny(workspace, program, manifest);
    let output = process::output(deny.arg("advisories"), b"", LIMIT)?;
    if output.status.success() {
        eprintln!("{manifest}: no advisory on {}", calendar::today());
        return Ok(());
    }
    ensure!(
        output.stderr.contains("advisory database")
            && !output.stderr.contains("error[vulnerability]"),
        "{manifest}: {}",
        output.stderr
    );
    let why = output.stderr.lines().next().unwrap_or_default();
    eprintln!(
        "SKIPPED: {manifest}: advisories were not checked on {}: {why}",
        calendar::today()
    );
    Ok(())
}

fn deny(workspace: &Workspace, program: &Path, manifest: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(&workspace.root)
        .args(["--manifest-path", manifest, "--locked", "--config"])
        .arg(workspace.root.join("deny.toml"))
        .arg("check");
    command
}
