//! Which files of the repository the image depends on, and one digest over them.
//!
//! The list is what the compilers read, by their own account: cargo's dependency files beside the two programs name every source file,
//! included text, linker script and build script of the packages that are folders here. To these come what cargo itself reads (manifests,
//! the TD workspace's lockfile, its settings), the image builder, and this step with its flags. Registry packages are named by the
//! lockfile with their checksums; ggml's, which the TD's lockfile does not name, is represented by its entry in the other one.
//!
//! The digest is SHA-384 over one line for each file, sorted by name: the file's SHA-384 in hexadecimal, two spaces, its name, a line feed.
//! That is the output of `sha384sum`, so that `cargo xtask sources` can be checked by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use measurements::{Hex, manifest::Source, sha384};

use super::assembly::Assembly;
use crate::failure::{Context, Failure, Result};
use crate::workspace::Workspace;

/// Read by cargo, the linker and this step whatever the packages are.
const ALWAYS: [&str; 8] = [
    ".cargo/config.toml",
    "Cargo.toml",
    "guest/Cargo.lock",
    "guest/Cargo.toml",
    "image/Cargo.toml",
    "image/toolchain.toml",
    "rust-toolchain.toml",
    "tools/xtask/cc",
];
/// Whole folders of the programs that make the image.
const FOLDERS: [&str; 2] = ["image/src", "tools/xtask/src/image_step"];
/// Compiled by `guest/ggml-sys`, pinned by the host workspace's lockfile.
const GGML: &str = "llama-cpp-sys-2";

/// Every file with its digest, as `sha384sum` prints it.
pub fn list(workspace: &Workspace, assembly: &Assembly) -> Result<String> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |path: &Path| {
        let name = path
            .strip_prefix(&workspace.root)
            .context(format!("find {} in the checkout", path.display()))?;
        let bytes = fs::read(path).context(format!("read {}", path.display()))?;
        files.insert(name.display().to_string(), bytes);
        Ok::<(), Failure>(())
    };
    for name in ALWAYS {
        add(&workspace.root.join(name))?;
    }
    for folder in FOLDERS {
        for path in files_below(&workspace.root.join(folder))? {
            add(&path)?;
        }
    }
    for program in ["loader", "guest"] {
        let path = assembly.release.join(program).with_extension("d");
        let text = fs::read_to_string(&path).context(format!("read {}", path.display()))?;
        for path in dependencies(&text) {
            // Files made by build scripts lie in the build directory, and follow from the others.
            if !path.starts_with(&workspace.root) || path.starts_with(&workspace.target) {
                continue;
            }
            add(&path)?;
            if let Some(manifest) = manifest(&workspace.root, &path) {
                add(&manifest)?;
            }
        }
    }
    let lockfile = workspace.root.join("Cargo.lock");
    let text = fs::read_to_string(&lockfile).context(format!("read {}", lockfile.display()))?;
    let entry = lock_entry(&text, GGML)
        .ok_or_else(|| Failure::new(format!("Cargo.lock does not name {GGML}")))?;
    files.insert(format!("Cargo.lock#{GGML}"), entry.into());
    Ok(files
        .iter()
        .map(|(name, bytes)| format!("{}  {name}\n", Hex(sha384(bytes))))
        .collect())
}

/// What a list says in the manifest.
pub fn summary(list: &str) -> Source {
    Source {
        files: list.lines().count() as u64,
        sha384: Hex(sha384(list.as_bytes())),
    }
}

/// The files a make rule depends on; spaces in their names are escaped.
pub fn dependencies(rule: &str) -> Vec<PathBuf> {
    let Some((_, list)) = rule.split_once(": ") else {
        return Vec::new();
    };
    list.trim_end()
        .replace("\\ ", "\0")
        .split(' ')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('\0', " ").into())
        .collect()
}

/// The manifest of the package a file belongs to.
fn manifest(root: &Path, file: &Path) -> Option<PathBuf> {
    file.ancestors()
        .skip(1)
        .take_while(|directory| directory.starts_with(root))
        .map(|directory| directory.join("Cargo.toml"))
        .find(|manifest| manifest.is_file())
}

/// The entry of a package in a lockfile.
fn lock_entry<'a>(lockfile: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"\n");
    lockfile
        .split("[[package]]\n")
        .find(|entry| entry.starts_with(&name))
        .map(str::trim_end)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = format!("list {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).context(&cannot)? {
        let path = entry.context(&cannot)?.path();
        match path.is_dir() {
            true => files.extend(files_below(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_its_files() {
        let rule = "/t/a\\ b/guest: /c/a\\ b/src/main.rs /c/link.ld\n";
        let expected = ["/c/a b/src/main.rs", "/c/link.ld"].map(PathBuf::from);
        assert_eq!(dependencies(rule), expected);
        assert!(dependencies("").is_empty());
    }

    #[test]
    fn an_entry_is_one_package() {
        let lockfile = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1\"\n\n[[package]]\nname = \"ab\"\nversion = \"2\"\n";
        assert_eq!(
            lock_entry(lockfile, "a"),
            Some("name = \"a\"\nversion = \"1\"")
        );
        assert_eq!(
            lock_entry(lockfile, "ab"),
            Some("name = \"ab\"\nversion = \"2\"")
        );
        assert_eq!(lock_entry(lockfile, "b"), None);
    }
}
