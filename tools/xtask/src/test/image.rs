//! The image step: it succeeds, and what it makes depends on the sources only.

use std::fs;

use super::Suite;
use crate::failure::{Context, Failure, Result, ensure};
use crate::image_step;
use crate::workspace::Workspace;

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    suite.check("image/repeats", || repeats(workspace));
    if suite.full() {
        suite.check("image/elsewhere", || elsewhere(workspace));
    }
}

/// A second run of the step gives the same file.
fn repeats(workspace: &Workspace) -> Result<()> {
    let first = image_step::build(workspace)?;
    let second = image_step::build(workspace)?;
    same(&first.bytes, &second.bytes)?;
    let written = fs::read(&second.path).context("read the image")?;
    same(&second.bytes, &written)
}

/// A build from nothing, in a directory of another name, gives the same file.
fn elsewhere(workspace: &Workspace) -> Result<()> {
    let first = image_step::build(workspace)?;
    let target = tempfile::Builder::new()
        .prefix("elsewhere-")
        .tempdir_in(&workspace.target)
        .context("create a directory")?;
    let second = image_step::assemble(workspace, target.path())?;
    same(&first.bytes, &second)
}

fn same(first: &[u8], second: &[u8]) -> Result<()> {
    ensure!(
        first.len() == second.len(),
        "the images have {} and {} bytes",
        first.len(),
        second.len()
    );
    match first
        .iter()
        .zip(second)
        .position(|(one, other)| one != other)
    {
        None => Ok(()),
        Some(offset) => Err(Failure::new(format!(
            "the images first differ at {offset:#x}"
        ))),
    }
}
