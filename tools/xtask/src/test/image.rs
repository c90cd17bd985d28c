//! The image step: it succeeds, and what it makes depends on the sources only, is what was recorded, and has no instruction nobody
//! looked at.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Suite;
use crate::failure::{Context, Result, ensure};
use crate::image_step;
use crate::instructions;
use crate::process;
use crate::release;
use crate::reproduce;
use crate::tcb;
use crate::workspace::Workspace;

/// For hashing in Python.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    suite.check("image/repeats", || repeats(workspace));
    let image = || image_step::build(workspace);
    suite.check("image/instructions", || {
        instructions::check(workspace, &image()?)
    });
    suite.check("image/measured-by-python", || measured_by_python(workspace));
    suite.check("image/crates-and-size", || tcb::check(workspace, &image()?));
    suite.check("image/published", || release::check(workspace, &image()?));
    if suite.full() {
        suite.check("image/reproduce", || reproduce::twice(workspace));
    }
}

/// The program in Python measures the image as the library does.
fn measured_by_python(workspace: &Workspace) -> Result<()> {
    let image = image_step::build(workspace)?;
    let mut python = Command::new("python3");
    python
        .arg(workspace.root.join("measurements/python/mrtd.py"))
        .arg(&image.path);
    let said: Value = serde_json::from_str(&process::text(&mut python, LIMIT)?)?;
    let measured = serde_json::json!({
        "sha384": image.measurement.sha384,
        "mrtd": image.measurement.mrtd,
    });
    ensure!(
        said == measured,
        "Python says {said}, the library {measured}"
    );
    Ok(())
}

/// A second run of the step gives the same file.
fn repeats(workspace: &Workspace) -> Result<()> {
    let first = image_step::build(workspace)?;
    let second = image_step::build(workspace)?;
    reproduce::same(&first.assembly, &second.assembly)?;
    let written = fs::read(&second.path).context("read the image")?;
    ensure!(
        written == second.assembly.image,
        "the file is not the image"
    );
    Ok(())
}
