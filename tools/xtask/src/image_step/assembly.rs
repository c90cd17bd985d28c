//! Compiling the two programs and joining them, in surroundings of which nothing may show.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::remaps::{self, Remap};
use super::{settings, traces};
use crate::failure::{Context, Result, ensure};
use crate::process;
use crate::workspace::Workspace;

/// The only target: the image is bare-metal code, but the precompiled `core` of this target has hard floats and SIMD.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What an image may weigh without its model.
const SIZE_LIMIT: usize = 2 << 20;
/// For a build from nothing on a slow machine.
const LIMIT: Duration = Duration::from_secs(3600);

/// What the build takes over from the user's environment: where the tools and the network are.
const INHERITED: [&str; 12] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "TERM",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "CARGO_NET_OFFLINE",
];

/// What differs from one machine, user and day to the next.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Variables that replace the user's.
    pub variables: Vec<(&'static str, OsString)>,
    /// A program that cargo is run by, with its arguments: `taskset`.
    pub launcher: Vec<OsString>,
    /// The user's name, where it is one that no word contains: then it may not be in the image at all.
    pub user: Option<&'static str>,
}

/// The image and the two programs in it.
#[derive(Clone)]
pub struct Assembly {
    pub image: Vec<u8>,
    /// The loader's executable, with symbols.
    pub loader: Vec<u8>,
    /// The guest's executable, with symbols.
    pub guest: Vec<u8>,
    /// Where cargo left them, and what they were made of.
    pub release: PathBuf,
}

/// Compiles both programs in `target` and joins them.
pub fn assemble(
    workspace: &Workspace,
    target: &Path,
    surroundings: &Surroundings,
) -> Result<Assembly> {
    eprintln!("building the image");
    assemble_with(workspace, target, surroundings, "guest")
}

/// An image of another program of the guest's package in the guest's place: for a test.
pub fn assemble_with(
    workspace: &Workspace,
    target: &Path,
    surroundings: &Surroundings,
    program: &str,
) -> Result<Assembly> {
    settings::check(workspace, surroundings)?;
    let remaps = remaps::list(workspace, target, surroundings)?;
    process::run(
        &mut build(workspace, target, surroundings, &remaps, program),
        LIMIT,
    )?;

    let release = target.join(TARGET).join("release");
    let [loader, guest] = ["loader", program].map(|name| {
        let path = release.join(name);
        fs::read(&path).context(format!("read {}", path.display()))
    });
    let (loader, guest) = (loader?, guest?);
    let image = image::build(&loader, &guest).context("build the image")?;
    ensure!(
        image.len() <= SIZE_LIMIT,
        "the image has {} bytes, {SIZE_LIMIT} are allowed",
        image.len()
    );
    traces::check(&image, &remaps, surroundings.user)?;
    Ok(Assembly {
        image,
        loader,
        guest,
        release,
    })
}

/// The command that compiles the loader and a program of the guest's package.
pub fn build(
    workspace: &Workspace,
    target: &Path,
    surroundings: &Surroundings,
    remaps: &[Remap],
    program: &str,
) -> Command {
    let mut cargo = cargo(workspace, target, surroundings, remaps);
    cargo.args(["build", "--locked", "--release", "--target", TARGET]);
    cargo.args(["--package", "loader", "--package", "guest"]);
    cargo.args(["--bin", "loader", "--bin", program]);
    cargo
}

/// A cargo command for the TD workspace that depends on nothing of the user's but where things are.
pub fn cargo(
    workspace: &Workspace,
    target: &Path,
    surroundings: &Surroundings,
    remaps: &[Remap],
) -> Command {
    let mut words = surroundings.launcher.clone();
    words.push("cargo".into());
    let mut cargo = Command::new(&words[0]);
    cargo.args(&words[1..]);
    cargo.current_dir(workspace.guest()).env_clear();
    for name in INHERITED {
        if let Some(value) = surroundings.variable(name) {
            cargo.env(name, value);
        }
    }
    let rust: Vec<String> = remaps
        .iter()
        .map(|Remap { from, to }| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    let c: Vec<String> = remaps
        .iter()
        .map(|Remap { from, to }| quoted(&format!("-ffile-prefix-map={}={to}", from.display())))
        .collect();
    cargo
        .env("LC_ALL", "C")
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_INCREMENTAL", "0")
        // No wrapper, whatever the user's settings say.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        // What gcc takes for the present in `__DATE__` and `__TIME__`.
        .env("SOURCE_DATE_EPOCH", "0")
        // Unit separators between the flags: paths may hold spaces.
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f"))
        .env("CC", "gcc")
        .env("CXX", "g++")
        .env("CC_SHELL_ESCAPED_FLAGS", "1")
        .env("CFLAGS", c.join(" "))
        .env("CXXFLAGS", c.join(" "));
    cargo
}

/// A word as a shell takes it, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Surroundings {
    /// A variable as the build sees it.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        let own = self.variables.iter().find(|(own, _)| *own == name);
        own.map(|(_, value)| value.clone())
            .or_else(|| env::var_os(name))
    }

    /// Where cargo keeps settings and packages.
    pub fn cargo_home(&self) -> Option<PathBuf> {
        let home = || Some(PathBuf::from(self.variable("HOME")?).join(".cargo"));
        let own = self.variable("CARGO_HOME").map(PathBuf::from);
        own.or_else(home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_sees_no_flags_of_the_user() {
        let workspace = Workspace {
            root: "/a b".into(),
            target: "/t".into(),
        };
        let remap = Remap {
            from: "/it's a b".into(),
            to: "/x".into(),
        };
        let surroundings = Surroundings {
            variables: vec![("HOME", "/h".into()), ("USER", "u".into())],
            launcher: vec!["taskset".into(), "1".into()],
            user: None,
        };
        let cargo = cargo(&workspace, Path::new("/t/td"), &surroundings, &[remap]);
        let value = |name: &str| {
            cargo
                .get_envs()
                .find(|(other, _)| *other == name)
                .and_then(|(_, value)| value)
        };
        assert_eq!(process::words(&cargo), "taskset 1 cargo");
        assert_eq!(value("HOME"), Some("/h".as_ref()));
        assert_eq!(
            value("CFLAGS"),
            Some(r"'-ffile-prefix-map=/it'\''s a b=/x'".as_ref())
        );
        assert!(value("CARGO_ENCODED_RUSTFLAGS").is_some());
        assert_eq!(value("RUSTC_WRAPPER"), Some("".as_ref()));
        for name in [
            "RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "RUSTUP_TOOLCHAIN",
            "USER",
        ] {
            assert_eq!(value(name), None, "{name}");
        }
    }
}
