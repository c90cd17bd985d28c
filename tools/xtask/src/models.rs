//! Models to run: small Qwen3 networks with random weights, made here, the same bytes on every machine.

use std::fs;
use std::path::{Path, PathBuf};

use synthesis::{Mix, Recipe, Shape};

use crate::failure::{Context, Failure, Result};
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

/// A model of a known shape (`qwen3-1.7b`, say) for measurements: made among the products when it is not there.
pub fn of_shape(workspace: &Workspace, shape: &str, mix: Mix) -> Result<PathBuf> {
    let dimensions = Shape::named(shape).ok_or_else(|| {
        Failure::new(format!(
            "no shape is called {shape}: tiny, qwen3-0.6b, qwen3-1.7b"
        ))
    })?;
    let name = format!("synthetic-{shape}-{mix}");
    let recipe = Recipe::new(&name, &dimensions, mix, SEED).context("describe a model")?;
    let path = workspace.products()?.join(format!("{name}.gguf"));
    // Written under another name first, so it is whole if it has the length.
    if !fs::metadata(&path).is_ok_and(|file| file.len() == recipe.length()) {
        eprintln!(
            "making a model with random weights (once, {} MB): {}",
            recipe.length() / 1_000_000,
            workspace.show(&path)
        );
        recipe
            .write_file(&path, &mut |_| {})
            .context(format!("write {}", path.display()))?;
    }
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
