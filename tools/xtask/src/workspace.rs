//! Where things are: the checkout, the build directory, and what is made in it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Failure, Result};

/// The directories of one checkout.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The checkout.
    pub root: PathBuf,
    /// The host workspace's build directory; everything made here lies below it.
    pub target: PathBuf,
}

impl Workspace {
    /// The checkout cargo runs this program for, and the build directory it lies in (`TARGET/PROFILE/xtask`).
    pub fn locate() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| {
            Failure::new("run this as `cargo xtask`, from anywhere in the checkout")
        })?;
        let root =
            fs::canonicalize(Path::new(&package).join("../..")).context("find the checkout")?;
        let program = env::current_exe().context("find the build directory")?;
        let target = program
            .ancestors()
            .nth(2)
            .ok_or_else(|| Failure::new("xtask does not lie in a build directory"))?
            .to_owned();
        Ok(Self { root, target })
    }

    /// The TD workspace.
    pub fn guest(&self) -> PathBuf {
        self.root.join("guest")
    }

    /// What is made to be used: the image, the demonstration model.
    pub fn products(&self) -> Result<PathBuf> {
        let directory = self.target.join("vitrine");
        fs::create_dir_all(&directory).context(format!("create {}", directory.display()))?;
        Ok(directory)
    }

    /// The image `cargo xtask image` makes.
    pub fn image(&self) -> Result<PathBuf> {
        Ok(self.products()?.join("vitrine.fd"))
    }

    /// Oracle vectors: `VITRINE_VECTORS`, or beside the checkout.
    pub fn vectors(&self) -> PathBuf {
        env::var_os("VITRINE_VECTORS")
            .map_or_else(|| self.root.join("../shared/vectors"), PathBuf::from)
    }

    /// A cargo command in the host workspace, with this process's environment.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        // Of this program's own package; build scripts of others would mistake them for theirs.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        command
            .env_remove("CARGO_BIN_NAME")
            .env_remove("CARGO_CRATE_NAME")
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// A path as a person in the checkout would write it.
    pub fn show<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
