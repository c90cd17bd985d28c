//! The two lockfiles: what the host workspace tests must be what the image contains.
//!
//! The image is built from `guest/Cargo.lock`, the libraries in it are tested with `Cargo.lock`. Every registry package that both
//! name must have the same version and the same checksum in both. A patch that no longer applies would let the replaced package
//! back into the image; cargo only warns of it, and records it as `[[patch.unused]]`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::failure::{Context, Failure, Result};
use crate::process;
use crate::workspace::Workspace;

/// For `cargo update`, which may fetch the registry's index.
const LIMIT: Duration = Duration::from_secs(300);

/// A lockfile, as far as it matters here.
#[derive(Deserialize)]
struct Lockfile {
    package: Vec<Package>,
    #[serde(default)]
    patch: Patch,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// `None` for a package that is a folder here.
    source: Option<String>,
    checksum: Option<String>,
}

#[derive(Default, Deserialize)]
struct Patch {
    #[serde(default)]
    unused: Vec<UnusedPatch>,
}

#[derive(Deserialize)]
struct UnusedPatch {
    name: String,
    version: String,
}

/// A package of the image that the host tests in another version.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    name: String,
    guest: String,
    host: Vec<String>,
}

/// Fails with every difference named, and how to mend it.
pub fn check(workspace: &Workspace) -> Result<()> {
    let (host, guest) = read(workspace)?;
    if let Some(UnusedPatch { name, version }) = guest.patch.unused.first() {
        return Err(Failure::new(format!(
            "the patch {name} {version} of guest/Cargo.toml replaces nothing, so the package it was made for is in the image: give \
             the patch a version that satisfies whoever depends on {name}"
        )));
    }
    let differences = compare(&host, &guest);
    if differences.is_empty() {
        return Ok(());
    }
    let mut message = "the image and the tests disagree about packages:\n".to_owned();
    for Difference { name, guest, host } in &differences {
        message += &format!(
            "  {name}: guest/Cargo.lock has {guest}, Cargo.lock has {}\n",
            host.join(" and ")
        );
    }
    message += "mend guest/Cargo.lock with `cargo xtask lockfiles --fix`, or Cargo.lock with `cargo update NAME --precise VERSION`";
    Err(Failure::new(message))
}

/// Moves the packages of `guest/Cargo.lock` to the versions the host has, then checks.
pub fn fix(workspace: &Workspace) -> Result<()> {
    let (host, guest) = read(workspace)?;
    for Difference { name, guest, host } in compare(&host, &guest) {
        let Some(version) = host
            .iter()
            .max_by_key(|version| shared_prefix(version, &guest))
        else {
            continue;
        };
        eprintln!("{name}: {guest} -> {version}");
        let mut command = workspace.cargo();
        command.current_dir(workspace.guest()).args([
            "update",
            &format!("{name}@{guest}"),
            "--precise",
            version,
        ]);
        // One package's move may need another's first; what is left is reported by the check.
        if let Err(failure) = process::run(&mut command, LIMIT) {
            eprintln!("{failure}");
        }
    }
    check(workspace)
}

fn read(workspace: &Workspace) -> Result<(Lockfile, Lockfile)> {
    let host = parse(&workspace.root.join("Cargo.lock"))?;
    let guest = parse(&workspace.guest().join("Cargo.lock"))?;
    Ok((host, guest))
}

fn parse(path: &Path) -> Result<Lockfile> {
    let text = fs::read_to_string(path).context(format!("read {}", path.display()))?;
    toml::from_str(&text).context(format!("understand {}", path.display()))
}

fn compare(host: &Lockfile, guest: &Lockfile) -> Vec<Difference> {
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in host
        .package
        .iter()
        .filter(|package| package.source.is_some())
    {
        versions.entry(&package.name).or_default().push(package);
    }
    let differs = |package: &&Package| {
        versions.get(&*package.name).is_some_and(|host| {
            let same = |host: &&Package| {
                host.version == package.version && host.checksum == package.checksum
            };
            package.source.is_some() && !host.iter().any(same)
        })
    };
    guest
        .package
        .iter()
        .filter(differs)
        .map(|package| Difference {
            name: package.name.clone(),
            guest: package.version.clone(),
            host: versions
                .get(&*package.name)
                .into_iter()
                .flatten()
                .map(|host| host.version.clone())
                .collect(),
        })
        .collect()
}

/// How many bytes two versions begin with in common: 0.3.1 is closer to 0.3.2 than to 0.2.9.
fn shared_prefix(one: &str, other: &str) -> usize {
    one.bytes()
        .zip(other.bytes())
        .take_while(|(a, b)| a == b)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lockfile(packages: &[(&str, &str, bool)]) -> Lockfile {
        Lockfile {
            package: packages
                .iter()
                .map(|&(name, version, registry)| Package {
                    name: name.into(),
                    version: version.into(),
                    source: registry.then(|| "registry".into()),
                    checksum: registry.then(|| format!("{name}{version}")),
                })
                .collect(),
            patch: Patch::default(),
        }
    }

    #[test]
    fn only_registry_packages_in_both_are_compared() {
        let host = lockfile(&[
            ("ring", "0.17.1", true),
            ("getrandom", "0.2.17", true),
            ("syn", "1.0.0", true),
            ("syn", "2.0.0", true),
            ("host-only", "1.0.0", true),
        ]);
        let guest = lockfile(&[
            ("ring", "0.17.1", true),
            ("getrandom", "0.2.999", false),
            ("syn", "2.0.0", true),
            ("guest-only", "1.0.0", true),
        ]);
        assert_eq!(compare(&host, &guest), []);
    }

    #[test]
    fn a_difference_names_both_sides() {
        let host = lockfile(&[("syn", "1.0.0", true), ("syn", "2.0.1", true)]);
        let guest = lockfile(&[("syn", "2.0.0", true)]);
        assert_eq!(
            compare(&host, &guest),
            [Difference {
                name: "syn".into(),
                guest: "2.0.0".into(),
                host: vec!["1.0.0".into(), "2.0.1".into()],
            }]
        );
    }

    #[test]
    fn the_same_version_with_another_checksum_differs() {
        let host = lockfile(&[("ring", "0.17.1", true)]);
        let mut guest = lockfile(&[("ring", "0.17.1", true)]);
        guest.package[0].checksum = Some("other".into());
        assert_eq!(compare(&host, &guest).len(), 1);
    }

    #[test]
    fn cargo_records_an_unused_patch_where_it_is_looked_for() {
        let text = "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[patch.unused]]\nname = \"getrandom\"\nversion = \"0.2.999\"\n";
        let lockfile: Lockfile = toml::from_str(text).unwrap();
        assert_eq!(lockfile.patch.unused[0].name, "getrandom");
    }
}
