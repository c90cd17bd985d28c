//! cargo's settings outside the checkout: the user's own, and those of folders above the checkout.
//!
//! They say where packages come from, which the image does not depend on, because the lockfile has their checksums. They can also say how
//! to compile. What the image step sets itself wins over them (flags, linker, target, wrappers); a setting that would win over the image
//! step is refused by name, since the image would be another one and nobody would know why.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::assembly::Surroundings;
use crate::failure::{Context, Failure, Result};
use crate::workspace::Workspace;

/// Settings that say nothing of how to compile.
const HARMLESS: [&str; 14] = [
    "alias",
    "cache",
    "cargo-new",
    "credential-alias",
    "doc",
    "future-incompat-report",
    "http",
    "install",
    "net",
    "registries",
    "registry",
    "resolver",
    "source",
    "term",
];
/// In `[build]`, what the image step sets itself, or what changes nothing.
const BUILD: [&str; 9] = [
    "incremental",
    "jobs",
    "rustc-workspace-wrapper",
    "rustc-wrapper",
    "rustdoc",
    "rustdocflags",
    "rustflags",
    "target",
    "target-dir",
];
/// The same in `[target.NAME]`.
const TARGET: [&str; 3] = ["linker", "runner", "rustflags"];

/// Fails with the first setting that could change the image.
pub fn check(workspace: &Workspace, surroundings: &Surroundings) -> Result<()> {
    for path in files(workspace, surroundings) {
        let text = fs::read_to_string(&path).context(format!("read {}", path.display()))?;
        let settings: Table =
            toml::from_str(&text).context(format!("understand {}", path.display()))?;
        if let Some(key) = first_harmful(&settings) {
            return Err(Failure::new(format!(
                "{} sets {key}, which would change the image: take it out, or build with a CARGO_HOME (and in a folder) without it",
                path.display()
            )));
        }
    }
    Ok(())
}

/// The files that cargo reads in the TD workspace, without the checkout's own.
fn files(workspace: &Workspace, surroundings: &Surroundings) -> Vec<PathBuf> {
    let above = workspace.root.ancestors().skip(1);
    let mut folders: Vec<PathBuf> = above.map(|folder| folder.join(".cargo")).collect();
    folders.push(workspace.guest().join(".cargo"));
    folders.extend(surroundings.cargo_home());
    folders
        .iter()
        .flat_map(|folder| ["config", "config.toml"].map(|name| folder.join(name)))
        .filter(|path| Path::is_file(path))
        .collect()
}

fn first_harmful(settings: &Table) -> Option<String> {
    let unknown = |table: &Value, known: &[&str]| {
        let table = table.as_table()?;
        let key = table.keys().find(|key| !known.contains(&&***key))?;
        Some(key.to_owned())
    };
    settings.iter().find_map(|(name, value)| match &**name {
        "build" => unknown(value, &BUILD).map(|key| format!("build.{key}")),
        "profile" => value.get("release").map(|_| "profile.release".to_owned()),
        "target" => value.as_table()?.iter().find_map(|(target, value)| {
            unknown(value, &TARGET).map(|key| format!("target.{target}.{key}"))
        }),
        name if HARMLESS.contains(&name) => None,
        name => Some(name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmful(text: &str) -> Option<String> {
        first_harmful(&toml::from_str(text).unwrap())
    }

    #[test]
    fn what_the_image_step_sets_itself_is_taken() {
        let text = "\
            [alias]\nb = 'build'\n[source.crates-io]\nreplace-with = 'mirror'\n[source.mirror]\nregistry = 'x'\n\
            [build]\njobs = 2\nrustflags = ['-C', 'target-cpu=native']\nrustc-wrapper = 'sccache'\n\
            [target.x86_64-unknown-linux-gnu]\nlinker = 'clang'\n[profile.dev]\ndebug = 0\n";
        assert_eq!(harmful(text), None);
        assert_eq!(harmful(""), None);
    }

    #[test]
    fn what_would_change_the_image_is_named() {
        for (text, key) in [
            ("[profile.release]\nlto = false", "profile.release"),
            (
                "[profile.release.package.ring]\nopt-level = 1",
                "profile.release",
            ),
            ("[env]\nCC_x86_64_unknown_linux_gnu = 'clang'", "env"),
            ("[build]\nrustc = 'other'", "build.rustc"),
            (
                "[target.x86_64-unknown-linux-gnu.ring]\nx = 'y'",
                "target.x86_64-unknown-linux-gnu.ring",
            ),
            ("[patch.crates-io]\nring = { path = '/x' }", "patch"),
            ("paths = ['/x']", "paths"),
            ("[unstable]\nx = true", "unstable"),
            ("include = 'other.toml'", "include"),
        ] {
            assert_eq!(harmful(text).as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn settings_of_the_home_and_above_the_checkout_are_read() {
        let place = tempfile::tempdir().unwrap();
        let workspace = Workspace {
            root: place.path().join("checkout"),
            target: "/none".into(),
        };
        let home = place.path().join("home");
        let surroundings = Surroundings {
            variables: vec![("CARGO_HOME", home.clone().into())],
            ..Surroundings::default()
        };
        for folder in [home, place.path().join(".cargo")] {
            assert!(check(&workspace, &surroundings).is_ok());
            let path = folder.join("config.toml");
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, "[env]\nCFLAGS = '-O0'\n").unwrap();
            let failure = check(&workspace, &surroundings).unwrap_err().to_string();
            assert!(
                failure.contains(&format!("{} sets env", path.display())),
                "{failure}"
            );
            fs::remove_file(&path).unwrap();
        }
    }
}
