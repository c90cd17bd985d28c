//! The compilers: which ones are here, and which ones the published image is made with (`image/toolchain.toml`).

use std::fs;
use std::process::Command;
use std::time::Duration;

use measurements::manifest::Toolchain;
use serde::Deserialize;

use crate::failure::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

/// For a compiler's answer to a question.
const QUESTION: Duration = Duration::from_secs(60);

/// `image/toolchain.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// What the programs must say of themselves.
    pub programs: Toolchain,
    /// Where those programs are to be had.
    pub debian: Debian,
}

/// The Debian release they come from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// Its code name.
    pub suite: String,
    /// An archive that still has these versions when the mirrors have newer ones.
    pub snapshot: String,
    /// The packages, each `NAME=VERSION`.
    pub packages: Vec<String>,
}

impl Pinned {
    /// Reads the file.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let path = workspace.root.join("image/toolchain.toml");
        let text = fs::read_to_string(&path).context(format!("read {}", path.display()))?;
        toml::from_str(&text).context(format!("understand {}", path.display()))
    }

    /// One line for each program that is another one here; none if the image built here can be the published one.
    pub fn differences(&self, here: &Toolchain) -> Vec<String> {
        let names = ["rustc", "cargo", "gcc", "binutils"];
        let lines = |toolchain: &Toolchain| {
            [
                toolchain.rustc.clone(),
                toolchain.cargo.clone(),
                toolchain.gcc.clone(),
                toolchain.binutils.clone(),
            ]
        };
        names
            .iter()
            .zip(lines(&self.programs).iter().zip(&lines(here)))
            .filter(|(_, (pinned, here))| pinned != here)
            .map(|(name, (pinned, here))| format!("{name} is {here:?}, not {pinned:?}"))
            .collect()
    }
}

/// What the programs that the image step uses say of themselves.
pub fn identify(workspace: &Workspace) -> Result<Toolchain> {
    let version = |program: &str| -> Result<String> {
        let mut command = Command::new(program);
        command
            .current_dir(workspace.guest())
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("LC_ALL", "C")
            .arg("--version");
        let text = process::text(&mut command, QUESTION)?;
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    Ok(Toolchain {
        rustc: version("rustc")?,
        cargo: version("cargo")?,
        gcc: version("gcc")?,
        binutils: version("as")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(gcc: &str) -> Toolchain {
        Toolchain {
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            gcc: gcc.into(),
            binutils: "as".into(),
        }
    }

    #[test]
    fn another_compiler_is_named() {
        let pinned = Pinned {
            programs: toolchain("gcc 12"),
            debian: Debian {
                suite: "s".into(),
                snapshot: "u".into(),
                packages: Vec::new(),
            },
        };
        assert!(pinned.differences(&toolchain("gcc 12")).is_empty());
        assert_eq!(
            pinned.differences(&toolchain("gcc 13")),
            ["gcc is \"gcc 13\", not \"gcc 12\""]
        );
    }

    /// One list for the container and for `cargo xtask reproduce --rootfs`.
    #[test]
    fn the_container_installs_what_is_pinned() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let workspace = Workspace {
            root: root.into(),
            target: "/none".into(),
        };
        let Debian {
            suite, packages, ..
        } = Pinned::read(&workspace).unwrap().debian;
        let mut script = Command::new("sh");
        script.current_dir(workspace.root.join("image")).args([
            "system.sh",
            "toolchain.toml",
            "--list",
        ]);
        let listed = process::text(&mut script, QUESTION).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), packages);

        let containerfile = fs::read_to_string(workspace.root.join("image/Containerfile")).unwrap();
        for line in [
            &format!("FROM debian:{suite}-slim AS build\n"),
            "COPY image/toolchain.toml image/system.sh /\n",
            "RUN sh /system.sh /toolchain.toml && apt-get install --yes --no-install-recommends ca-certificates curl\n",
        ] {
            assert!(containerfile.contains(line), "{line}");
        }
        for package in packages {
            let (name, _) = package.split_once('=').unwrap();
            assert!(!containerfile.contains(&format!(" {name} ")), "{name}");
        }
    }
}
