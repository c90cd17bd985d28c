//! Python packages in an environment of their own below the build directory, each file of them known by its hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

/// For a download over a slow line.
const LIMIT: Duration = Duration::from_secs(600);

/// The Python of an environment that has the packages of `requirements`; made when first asked for and when they change.
pub fn environment(workspace: &Workspace, requirements: &Path) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/python");
    let python = directory.join("bin/python");
    // Written last, so an environment that is half made is made again.
    let stamp = directory.join("requirements.txt");
    let wanted = fs::read(requirements).context(format!("read {}", requirements.display()))?;
    let works = process::text(
        Command::new(&python).arg("--version"),
        Duration::from_secs(30),
    );
    if works.is_ok() && fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    eprintln!("making a Python environment (once)");
    let mut make = Command::new("python3");
    process::run(make.args(["-m", "venv", "--clear"]).arg(&directory), LIMIT)?;
    let mut pip = Command::new(&python);
    // The lists name all packages; what those would like to have besides is not fetched.
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(requirements);
    process::run(&mut pip, LIMIT)?;
    fs::write(&stamp, wanted).context(format!("write {}", stamp.display()))?;
    Ok(python)
}
