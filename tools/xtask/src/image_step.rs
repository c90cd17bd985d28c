//! The image step: loader and guest compiled in the TD workspace, joined to `vitrine.fd`, checked, measured.
//!
//! The compilers see a chosen environment, not the user's: no RUSTFLAGS, no CFLAGS, no profile overrides, one locale. Paths that
//! differ from machine to machine are replaced by fixed ones before they can reach the image, and the image is searched for them
//! afterwards.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use measurements::{Metadata, PageOrder, mrtd, sha384};

use crate::failure::{Context, Failure, Result, ensure};
use crate::lockfiles;
use crate::packages;
use crate::process;
use crate::workspace::Workspace;

/// The only target: the image is bare-metal code, but the precompiled `core` of this target has hard floats and SIMD.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What an image may weigh without its model.
const SIZE_LIMIT: usize = 2 << 20;
/// For a build from nothing on a slow machine.
const LIMIT: Duration = Duration::from_secs(3600);
/// For a compiler's answer to a question.
const QUESTION: Duration = Duration::from_secs(60);

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

/// A directory of this machine, and what stands for it in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remap {
    from: PathBuf,
    to: String,
}

/// A finished image.
pub struct Image {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    metadata: Metadata,
}

/// Builds `vitrine.fd` among the products, from the sources as they are.
pub fn build(workspace: &Workspace) -> Result<Image> {
    packages::provide(packages::BUILD)?;
    lockfiles::check(workspace)?;
    let bytes = assemble(workspace, &workspace.target.join("td"))?;
    let path = workspace.image()?;
    // A running guest may have the old file open: replace it, do not write into it.
    let partial = path.with_extension("fd.partial");
    fs::write(&partial, &bytes).context(format!("write {}", partial.display()))?;
    fs::rename(&partial, &path).context(format!("write {}", path.display()))?;
    let metadata = Metadata::parse(&bytes).context("measure the image")?;
    Ok(Image {
        path,
        bytes,
        metadata,
    })
}

/// Compiles both programs in `target` and joins them.
pub fn assemble(workspace: &Workspace, target: &Path) -> Result<Vec<u8>> {
    eprintln!("building the image");
    let remaps = remaps(workspace, target)?;
    let mut cargo = cargo(workspace, target, &remaps);
    cargo.args(["build", "--locked", "--release", "--target", TARGET]);
    cargo.args(["--package", "loader", "--package", "guest"]);
    process::run(&mut cargo, LIMIT)?;

    let programs = target.join(TARGET).join("release");
    let [loader, guest] = ["loader", "guest"].map(|name| {
        let path = programs.join(name);
        fs::read(&path).context(format!("read {}", path.display()))
    });
    let image = image::build(&loader?, &guest?).context("build the image")?;
    ensure!(
        image.len() <= SIZE_LIMIT,
        "the image has {} bytes, {SIZE_LIMIT} are allowed",
        image.len()
    );
    check_paths(&image, &remaps)?;
    Ok(image)
}

impl Image {
    /// SHA-384 of the file, in hexadecimal.
    pub fn digest(&self) -> String {
        hex(&sha384(&self.bytes))
    }

    /// The measurement of a trust domain started from it, in hexadecimal.
    pub fn mrtd(&self, order: PageOrder) -> String {
        hex(&mrtd(&self.bytes, &self.metadata, order))
    }
}

impl fmt::Display for Image {
    /// What is to be known of an image, one line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.bytes.len();
        writeln!(f, "image    {}", self.path.display())?;
        writeln!(f, "size     {size} bytes ({} KiB)", size / 1024)?;
        writeln!(f, "SHA-384  {}", self.digest())?;
        writeln!(
            f,
            "MRTD     {} (each page added, then measured: mainline KVM)",
            self.mrtd(PageOrder::PageByPage)
        )?;
        write!(
            f,
            "         {} (all pages added, then measured: hosts of QEMU 8)",
            self.mrtd(PageOrder::AddThenExtend)
        )
    }
}

/// A cargo command for the TD workspace that depends on nothing of the user's but where things are.
fn cargo(workspace: &Workspace, target: &Path, remaps: &[Remap]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace.guest()).env_clear();
    for (name, value) in env::vars_os() {
        let known = name.to_str().is_some_and(|name| INHERITED.contains(&name));
        if known {
            cargo.env(name, value);
        }
    }
    let rust: Vec<String> = remaps
        .iter()
        .map(|Remap { from, to }| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    let c: Vec<String> = remaps
        .iter()
        .map(|Remap { from, to }| format!("-ffile-prefix-map={}={to}", from.display()))
        .collect();
    cargo
        .env("LC_ALL", "C")
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_INCREMENTAL", "0")
        // Unit separators between the flags: paths may hold spaces.
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f"))
        .env("CC", "gcc")
        .env("CXX", "g++")
        .env("CFLAGS", c.join(" "))
        .env("CXXFLAGS", c.join(" "));
    cargo
}

/// The directories whose names the compilers could write into their output. Of two that contain each other the inner comes last,
/// because the last match counts.
fn remaps(workspace: &Workspace, target: &Path) -> Result<Vec<Remap>> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".cargo")))
        .ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))?;
    let question = |arguments: &[&str]| {
        let mut rustc = Command::new("rustc");
        rustc.current_dir(workspace.guest()).args(arguments);
        process::text(&mut rustc, QUESTION)
    };
    let sysroot = PathBuf::from(question(&["--print", "sysroot"])?.trim());
    let version = question(&["--version", "--verbose"])?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .ok_or_else(|| Failure::new("rustc does not name its commit"))?;
    let mut remaps: Vec<Remap> = [
        (workspace.root.clone(), "/vitrine".to_owned()),
        (target.to_owned(), "/target".to_owned()),
        (cargo_home, "/cargo".to_owned()),
        // As the precompiled libraries have it, also where the component rust-src is installed.
        (
            sysroot.join("lib/rustlib/src/rust"),
            format!("/rustc/{commit}"),
        ),
        (sysroot, "/sysroot".to_owned()),
    ]
    .into_iter()
    .map(|(from, to)| Remap { from, to })
    .collect();
    remaps.sort_by_key(|remap| remap.from.as_os_str().len());
    Ok(remaps)
}

/// Fails if a directory of this machine, or of anybody's, is named in the image.
fn check_paths(image: &[u8], remaps: &[Remap]) -> Result<()> {
    let mut traces: Vec<String> = remaps
        .iter()
        .map(|remap| remap.from.display().to_string())
        .collect();
    traces.extend(["/home/".to_owned(), "/root/".to_owned()]);
    for name in ["USER", "LOGNAME"]
        .iter()
        .filter_map(|name| env::var(name).ok())
    {
        // The bare name may be a word; as part of a path it is a trace.
        traces.push(format!("/{name}/"));
    }
    for trace in &traces {
        if let Some(offset) = find(image, trace.as_bytes()) {
            let end = image.len().min(offset + 120);
            let text = image[offset..end].utf8_chunks().next();
            return Err(Failure::new(format!(
                "the image depends on this machine: it has {:?} at {offset:#x}",
                text.map_or("", |chunk| chunk.valid())
            )));
        }
    }
    Ok(())
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remap(from: &str) -> Remap {
        Remap {
            from: from.into(),
            to: "/x".into(),
        }
    }

    #[test]
    fn a_path_in_the_image_is_found() {
        let remaps = [remap("/srv/checkout")];
        assert!(check_paths(b"ab/rustc/1/library/core.rs\0/vitrine/guest", &remaps).is_ok());
        for image in [
            &b"x/srv/checkout/guest/src/main.rs"[..],
            b"\xff/home/me/.cargo\xff",
        ] {
            let failure = check_paths(image, &remaps).unwrap_err().to_string();
            assert!(failure.contains("depends on this machine"), "{failure}");
        }
    }

    #[test]
    fn the_build_sees_no_flags_of_the_user() {
        let workspace = Workspace {
            root: "/a b".into(),
            target: "/t".into(),
        };
        let cargo = cargo(&workspace, Path::new("/t/td"), &[remap("/a b")]);
        let names: Vec<_> = cargo
            .get_envs()
            .filter_map(|(name, _)| name.to_str())
            .collect();
        assert!(names.contains(&"CARGO_ENCODED_RUSTFLAGS"));
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_MANIFEST_DIR",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
    }
}
