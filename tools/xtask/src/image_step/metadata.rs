//! What `cargo metadata` says of the packages of a workspace.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::failure::Result;
use crate::process;

/// For cargo's answer, which may have to download packages first.
const LIMIT: Duration = Duration::from_secs(3600);

/// The answer, as far as it matters here.
#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
}

/// A package that the workspace's lockfile names, for whatever target.
#[derive(Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    source: Option<String>,
    pub manifest_path: PathBuf,
}

impl Metadata {
    /// Asks `cargo`, a command for the workspace in question.
    pub fn of(mut cargo: Command) -> Result<Self> {
        cargo.args(["metadata", "--format-version", "1", "--locked"]);
        Ok(serde_json::from_str(&process::text(&mut cargo, LIMIT)?)?)
    }
}

impl Package {
    /// Whether it is a folder of this repository.
    pub fn ours(&self) -> bool {
        self.source.is_none()
    }
}
