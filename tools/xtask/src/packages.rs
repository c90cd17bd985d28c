//! Debian packages of the programs a command needs: installed where that is possible, named where it is not.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::process;

/// A program this machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Compiles ring's and ggml's C.
    Gcc,
    /// Compiles ggml's C++.
    Gxx,
    /// Runs the image.
    Qemu,
    /// Speaks HTTPS; an implementation we did not write.
    Curl,
    /// Speaks TLS; an implementation we did not write.
    OpenSsl,
    /// Runs `tokenizers` and OpenAI's client; implementations we did not write.
    Python,
    /// Shows pages as a person sees them.
    Chromium,
    /// Makes a Debian system in a folder.
    Debootstrap,
    /// A TDVF image we did not make.
    Ovmf,
    /// Signs and verifies; an implementation we did not write.
    Minisign,
    /// Seals and opens files; an implementation we did not write.
    Age,
}

/// What building the image and the tools takes.
pub const BUILD: &[Program] = &[Program::Gcc, Program::Gxx];
/// What running the image takes besides.
pub const RUN: &[Program] = &[Program::Gcc, Program::Gxx, Program::Qemu];
/// What it is compared with besides.
pub const ORACLES: &[Program] = &[
    Program::Curl,
    Program::OpenSsl,
    Program::Python,
    Program::Chromium,
    Program::Ovmf,
    Program::Minisign,
    Program::Age,
];

/// For apt-get, which may have to wait for another apt-get.
const LIMIT: Duration = Duration::from_secs(1800);

impl Program {
    /// The command; for what is not a program, the file.
    pub fn command(self) -> &'static str {
        match self {
            Self::Gcc => "gcc",
            Self::Gxx => "g++",
            Self::Qemu => "qemu-system-x86_64",
            Self::Curl => "curl",
            Self::OpenSsl => "openssl",
            Self::Python => "python3",
            Self::Chromium => "chromium",
            Self::Debootstrap => "debootstrap",
            Self::Ovmf => "/usr/share/ovmf/OVMF.fd",
            Self::Minisign => "minisign",
            Self::Age => "age",
        }
    }

    /// Whether it is here. Debian's Python comes without what makes virtual environments.
    fn is_here(self) -> bool {
        let complete = || {
            Command::new(self.command())
                .args(["-c", "import ensurepip, venv"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let here = match self {
            Self::Ovmf => Path::new(self.command()).is_file(),
            _ => exists(self.command()),
        };
        here && (self != Self::Python || complete())
    }

    /// The Debian package it comes in.
    fn package(self) -> &'static str {
        match self {
            Self::Gcc => "gcc",
            Self::Gxx => "g++",
            Self::Qemu => "qemu-system-x86",
            Self::Curl => "curl",
            Self::OpenSsl => "openssl",
            Self::Python => "python3-venv",
            Self::Chromium => "chromium",
            Self::Debootstrap => "debootstrap",
            Self::Ovmf => "ovmf",
            Self::Minisign => "minisign",
            Self::Age => "age",
        }
    }
}

/// Makes sure that the programs are here: says what is missing, installs it if this user may, and otherwise fails with what to
/// type.
pub fn provide(programs: &[Program]) -> Result<()> {
    let packages = missing(programs);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !exists("apt-get") {
        return Err(Failure::new(format!(
            "install what Debian packages as: {list}"
        )));
    }
    let root = nix::unistd::geteuid().is_root();
    if !root && !exists("sudo") {
        return Err(Failure::new(format!(
            "missing Debian packages; as root: apt-get update && apt-get install --no-install-recommends {list}"
        )));
    }
    eprintln!("installing the Debian packages {list}");
    // The package lists of a fresh machine are empty or old, which shows as a failed installation.
    if install(root, &packages).is_err() {
        eprintln!("fetching Debian's package lists, then again");
        process::run(apt(root).arg("update"), LIMIT)?;
        install(root, &packages)?;
    }
    match missing(programs).as_slice() {
        [] => Ok(()),
        left => Err(Failure::new(format!(
            "apt-get installed {list}, yet the programs of {} are not in PATH",
            left.join(" ")
        ))),
    }
}

fn missing(programs: &[Program]) -> Vec<&'static str> {
    programs
        .iter()
        .filter(|program| !program.is_here())
        .map(|program| program.package())
        .collect()
}

fn install(root: bool, packages: &[&str]) -> Result<()> {
    let mut command = apt(root);
    command.args(["install", "--yes", "--no-install-recommends"]);
    process::run(command.args(packages), LIMIT)
}

fn apt(root: bool) -> Command {
    let mut command = Command::new(if root { "env" } else { "sudo" });
    if !root {
        command.arg("env");
    }
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=600",
    ]);
    command
}

/// Whether PATH has an executable of this name.
pub fn exists(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| is_executable(&directory.join(program)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_only_that() {
        assert!(exists("sh"));
        assert!(!exists("no-such-program-anywhere"));
        assert!(!exists("passwd/"));
    }
}
