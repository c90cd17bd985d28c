//! What the image is compiled from, by cargo's own account of the build: packages, and of each the files its compilers read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::failure::{Context, Failure, Result};
use crate::image_step::assembly::{self, Surroundings, TARGET};
use crate::image_step::metadata::Metadata;
use crate::image_step::remaps;
use crate::process;
use crate::workspace::Workspace;

/// The programs are compiled already, so cargo only reports.
const LIMIT: Duration = Duration::from_secs(3600);

/// A package some of whose code is in the image.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub licence: String,
    /// Whether it is a folder of this repository.
    pub ours: bool,
    /// Rust sources its library and programs are compiled from.
    pub rust: Vec<PathBuf>,
    /// C and assembly sources its build script compiles.
    pub native: Vec<PathBuf>,
}

/// A line that `cargo build --message-format json` prints.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        target: Target,
        filenames: Vec<PathBuf>,
    },
    BuildScriptExecuted {
        package_id: String,
        out_dir: PathBuf,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The packages in the image, sorted by name and version. Those that only ran at build time (macros, build scripts) are not among them.
pub fn packages(workspace: &Workspace) -> Result<Vec<Package>> {
    let target = workspace.target.join("td");
    let surroundings = Surroundings::default();
    let remaps = remaps::list(workspace, &target, &surroundings)?;
    let mut cargo = assembly::build(workspace, &target, &surroundings, &remaps, "guest");
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = process::text(&mut cargo, LIMIT)?;
    let cargo = assembly::cargo(workspace, &target, &surroundings, &[]);
    let metadata = Metadata::of(cargo)?;

    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    let mut build_scripts: Vec<(String, PathBuf)> = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line)?;
        match message {
            Message::CompilerArtifact {
                package_id,
                target: unit,
                filenames,
            } => {
                let in_image = |path: &PathBuf| path.starts_with(target.join(TARGET));
                let Some(file) = filenames.iter().find(|path| in_image(path)) else {
                    continue;
                };
                let package = match packages.entry(package_id.clone()) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(describe(&metadata, &package_id)?)
                    }
                };
                package.rust.extend(rust_sources(workspace, file, &unit)?);
                package.rust.sort();
                package.rust.dedup();
            }
            Message::BuildScriptExecuted {
                package_id,
                out_dir,
            } => build_scripts.push((package_id, out_dir)),
            Message::Other => {}
        }
    }
    for (package_id, out_dir) in build_scripts {
        if !out_dir.starts_with(target.join(TARGET)) {
            continue;
        }
        if let Some(package) = packages.get_mut(&package_id) {
            let root = native_root(workspace, &metadata, &package_id)?;
            package.native = native_sources(&root, &out_dir)?;
        }
    }
    let mut packages: Vec<Package> = packages.into_values().collect();
    packages.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(packages)
}

fn describe(metadata: &Metadata, id: &str) -> Result<Package> {
    let found = metadata
        .packages
        .iter()
        .find(|package| package.id == id)
        .ok_or_else(|| Failure::new(format!("cargo metadata does not list {id}")))?;
    Ok(Package {
        name: found.name.clone(),
        version: found.version.clone(),
        licence: found.license.clone().unwrap_or_default(),
        ours: found.ours(),
        rust: Vec::new(),
        native: Vec::new(),
    })
}

/// The sources of one unit, from the dependency file rustc left beside what it made.
fn rust_sources(workspace: &Workspace, made: &Path, unit: &Target) -> Result<Vec<PathBuf>> {
    let deps = match unit.kind.iter().any(|kind| kind == "bin") {
        // cargo copies a program out of deps; of several builds there, the newest is the one.
        true => newest(&made.with_file_name("deps"), &format!("{}-", unit.name))?,
        false => {
            let name = made.file_stem().unwrap_or_default().to_string_lossy();
            let name = name.strip_prefix("lib").unwrap_or(&name).to_owned();
            made.with_file_name(name + ".d")
        }
    };
    let text = fs::read_to_string(&deps).context(format!("read {}", deps.display()))?;
    let rule = text.lines().next().unwrap_or_default();
    Ok(crate::image_step::sources::dependencies(rule)
        .into_iter()
        .map(|path| workspace.guest().join(path))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect())
}

fn newest(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let cannot = format!("list {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).context(&cannot)? {
        let entry = entry.context(&cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".d") {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            found.push((modified.context(&cannot)?, entry.path()));
        }
    }
    found
        .into_iter()
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| Failure::new(format!("{} has no {prefix}*.d", folder.display())))
}

/// Where a package's C and assembly sources are: with it, or for the one package that compiles another's, with that.
fn native_root(workspace: &Workspace, metadata: &Metadata, id: &str) -> Result<PathBuf> {
    let own = metadata.packages.iter().find(|package| package.id == id);
    let own = own.and_then(|package| package.manifest_path.parent());
    if own.is_none_or(|root| root != workspace.guest().join("ggml-sys")) {
        return Ok(own.map(Path::to_owned).unwrap_or_default());
    }
    let host = Metadata::of(workspace.cargo())?;
    host.packages
        .iter()
        .find(|package| package.name == "llama-cpp-sys-2")
        .and_then(|package| package.manifest_path.parent())
        .map(|root| root.join("llama.cpp/ggml/src/ggml-cpu/arch/x86"))
        .ok_or_else(|| Failure::new("cargo metadata does not list llama-cpp-sys-2"))
}

/// The sources of the objects a build script left. The `cc` crate names an object after its source, with a hash before it.
fn native_sources(root: &Path, out_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut candidates = Vec::new();
    walk(root, &mut candidates)?;
    let mut objects = Vec::new();
    walk(out_dir, &mut objects)?;
    let mut sources = Vec::new();
    for object in objects {
        let stem = object.file_stem().unwrap_or_default().to_string_lossy();
        let is_object = object.extension().is_some_and(|extension| extension == "o");
        let is_hash =
            |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some((_, stem)) = stem
            .split_once('-')
            .filter(|(hash, _)| is_object && is_hash(hash))
        else {
            continue; // of a question to the compiler
        };
        let source = candidates.iter().find(|source| {
            let extension = source.extension().unwrap_or_default().to_string_lossy();
            ["c", "S", "cpp"].contains(&&*extension)
                && source.file_stem().is_some_and(|other| other == stem)
        });
        let source = source.ok_or_else(|| {
            Failure::new(format!(
                "{} has no source for {}",
                root.display(),
                object.display()
            ))
        })?;
        sources.push(source.clone());
    }
    sources.sort();
    sources.dedup();
    Ok(sources)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = format!("list {}", folder.display());
    for entry in fs::read_dir(folder).context(&cannot)? {
        let path = entry.context(&cannot)?.path();
        match path.is_dir() {
            true => walk(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
