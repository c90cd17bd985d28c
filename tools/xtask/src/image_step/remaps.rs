//! The directories whose names the compilers could write into the image, and what stands for each there.
//!
//! What stands for them are relative names, the same on every machine: `vitrine` for the checkout, `NAME-VERSION` for a package. Where
//! cargo keeps packages is up to the user (a mirror, a vendored folder, the git index all have folders of their own), so every package is
//! named for itself. Only the precompiled libraries have an absolute name, `/rustc/COMMIT`, which no machine has as a directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::assembly::{self, Surroundings};
use super::metadata::Metadata;
use crate::failure::{Failure, Result};
use crate::process;
use crate::workspace::Workspace;

/// For a compiler's answer to a question.
const QUESTION: Duration = Duration::from_secs(60);

/// A directory of this machine, and what stands for it in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remap {
    pub from: PathBuf,
    pub to: String,
}

/// All of them. Of two that contain each other the inner comes last, because the last match counts.
pub fn list(
    workspace: &Workspace,
    target: &Path,
    surroundings: &Surroundings,
) -> Result<Vec<Remap>> {
    let cargo_home = surroundings
        .cargo_home()
        .ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))?;
    let question = |arguments: &[&str]| {
        let mut rustc = Command::new("rustc");
        rustc
            .current_dir(workspace.guest())
            .env_remove("RUSTUP_TOOLCHAIN")
            .args(arguments);
        process::text(&mut rustc, QUESTION)
    };
    let sysroot = PathBuf::from(question(&["--print", "sysroot"])?.trim());
    let version = question(&["--version", "--verbose"])?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .ok_or_else(|| Failure::new("rustc does not name its commit"))?;
    let mut remaps: Vec<Remap> = [
        (workspace.root.clone(), "vitrine".to_owned()),
        (target.to_owned(), "target".to_owned()),
        (cargo_home, "cargo".to_owned()),
        // As the precompiled libraries have it, also where the component rust-src is installed.
        (
            sysroot.join("lib/rustlib/src/rust"),
            format!("/rustc/{commit}"),
        ),
        (sysroot, "sysroot".to_owned()),
    ]
    .into_iter()
    .map(|(from, to)| Remap { from, to })
    .collect();
    let cargo = assembly::cargo(workspace, target, surroundings, &[]);
    for package in Metadata::of(cargo)?.packages {
        if let Some(folder) = package.manifest_path.parent().filter(|_| !package.ours()) {
            remaps.push(Remap {
                from: folder.to_owned(),
                to: format!("{}-{}", package.name, package.version),
            });
        }
    }
    remaps.sort_by_key(|remap| remap.from.as_os_str().len());
    Ok(remaps)
}
