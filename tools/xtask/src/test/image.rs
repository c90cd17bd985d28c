//! The image step: it succeeds, and what it makes depends on the sources only, is what was recorded, and has no instruction nobody
//! looked at.

use std::fs;

use super::Suite;
use crate::failure::{Context, Result, ensure};
use crate::image_step;
use crate::instructions;
use crate::release;
use crate::reproduce;
use crate::tcb;
use crate::workspace::Workspace;

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    suite.check("image/repeats", || repeats(workspace));
    let image = || image_step::build(workspace);
    suite.check("image/instructions", || {
        instructions::check(workspace, &image()?)
    });
    suite.check("image/crates-and-size", || tcb::check(workspace, &image()?));
    suite.check("image/published", || release::check(workspace, &image()?));
    if suite.full() {
        suite.check("image/reproduce", || reproduce::twice(workspace));
    }
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
