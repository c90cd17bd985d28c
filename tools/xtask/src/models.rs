//! Models to run: small Qwen3 networks with random weights, made here, the same bytes on every machine.

use std::path::{Path, PathBuf};

use synthesis::{Mix, Recipe, Shape};

use crate::failure::{Context, Result};
use crate::workspace::Workspace;

/// Where the weights come from.
const SEED: u64 = 1;

/// Makes the demonstration's model among the products.
pub fn demonstration(workspace: &Workspace) -> Result<PathBuf> {
    let path = workspace.products()?.join("demo.gguf");
    eprintln!(
        "making a model with random weights: {}",
        workspace.show(&path)
    );
    tiny(&path, Mix::Q4KM)?;
    Ok(path)
}

/// Makes a model of a few megabytes in the given formats.
pub fn tiny(path: &Path, mix: Mix) -> Result<()> {
    let name = format!("vitrine-tiny-{mix}");
    Recipe::new(&name, &Shape::tiny(), mix, SEED)
        .context("describe a model")?
        .write_file(path, &mut |_| {})
        .context(format!("write {}", path.display()))
}
