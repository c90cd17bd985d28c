//! The build in a Debian system of its own: debootstrap, the pinned packages, another user, and `cargo xtask image` as anybody would type
//! it. The Rust toolchain is this machine's, which has to be the pinned one too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::{copy_registry, copy_sources};
use crate::failure::{Context, Failure, Result, ensure};
use crate::image_step::{self, toolchain::Pinned};
use crate::packages::{self, Program};
use crate::process;
use crate::workspace::Workspace;

/// For downloads, and a whole build.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
const QUESTION: Duration = Duration::from_secs(60);
/// Debian's mirrors have the newest versions of a release only.
const MIRROR: &str = "http://deb.debian.org/debian";
/// The user in there.
const USER: &str = "4321:4321";

/// Runs in the new system, in a mount namespace of its own, so that nothing stays mounted. Arguments: the system, the toolchain.
const ENTER: &str = r#"
set -eu
mount --bind "$2" "$1/toolchain"
mount -t proc proc "$1/proc"
exec chroot --userspec="$3" "$1" /usr/bin/env -i PATH=/toolchain/bin:/usr/bin:/bin HOME=/somebody CARGO_HOME=/somebody/cargo \
    LANG=de_DE.UTF-8 TZ=America/Lima sh -c 'cd /somebody/vitrine && exec cargo xtask image'
"#;

/// Makes the system, builds in it and compares.
pub fn run(workspace: &Workspace, mirror: Option<&str>) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "only root can make a Debian system; image/Containerfile does the same with a container engine"
    );
    packages::provide(&[Program::Debootstrap])?;
    let here = image_step::build(workspace)?;
    let pinned = Pinned::read(workspace)?;
    let system = tempfile::Builder::new()
        .prefix("rootfs-")
        .tempdir_in(&workspace.target)
        .context("create a directory")?;
    let root = system.path();
    // Debian's own programs look for their files as another user, too.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(root, open).context(format!("open {}", root.display()))?;

    match mirror {
        Some(mirror) => install(root, &pinned, mirror)?,
        None => {
            if let Err(failure) = install(root, &pinned, MIRROR) {
                eprintln!("{failure}\ntrying Debian's archive of old versions");
                empty(root)?;
                install(root, &pinned, &pinned.debian.snapshot)?;
            }
        }
    }
    let home = root.join("somebody");
    copy_sources(
        &workspace.root,
        &home.join("vitrine"),
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    )?;
    copy_registry(&home.join("cargo"))?;
    fs::create_dir_all(root.join("toolchain")).context("create a directory")?;
    process::run(Command::new("chown").args(["-R", USER]).arg(&home), LIMIT)?;

    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(workspace.guest())
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["--print", "sysroot"]);
    let toolchain = process::text(&mut rustc, QUESTION)?;
    let mut enter = Command::new("unshare");
    enter
        .args(["--mount", "sh", "-c", ENTER, "enter"])
        .arg(root)
        .args([toolchain.trim(), USER]);
    process::run(&mut enter, LIMIT)?;

    let path = home.join("vitrine/target/vitrine/vitrine.fd");
    let there = fs::read(&path).context(format!("read {}", path.display()))?;
    println!("{here}");
    ensure!(
        there == here.assembly.image,
        "the image built in Debian {} is another one: SHA-384 {}{}",
        pinned.debian.suite,
        measurements::Hex(measurements::sha384(&there)),
        match here.unpublished.as_slice() {
            [] => String::new(),
            differences => format!(
                "; this machine's compilers are not the pinned ones: {}",
                differences.join("; ")
            ),
        }
    );
    println!(
        "The same bytes from this checkout and from Debian {} with the pinned packages.",
        pinned.debian.suite
    );
    Ok(())
}

/// A minimal system with the pinned packages, and nothing but those versions of them.
fn install(root: &Path, pinned: &Pinned, mirror: &str) -> Result<()> {
    let names: Vec<&str> = pinned
        .debian
        .packages
        .iter()
        .filter_map(|package| package.split_once('='))
        .map(|(name, _)| name)
        .collect();
    eprintln!("making a Debian system from {mirror}");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", "--merged-usr"])
        // The names `gcc`, `g++` and `cc` come with the default compiler's packages.
        .arg(format!("--include=gcc,g++,libc6-dev,{}", names.join(",")))
        .arg(&pinned.debian.suite)
        .arg(root)
        .arg(mirror);
    process::run(&mut debootstrap, LIMIT)?;
    for package in &pinned.debian.packages {
        let (name, version) = package
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("image/toolchain.toml: {package:?}")))?;
        let mut query = Command::new("dpkg-query");
        query
            .arg(format!("--admindir={}", admin(root).display()))
            .args(["--show", "--showformat=${Version}", name]);
        let installed = process::text(&mut query, QUESTION)?;
        ensure!(
            installed == version,
            "{mirror} has {name} {installed}, the published image is made with {version}; name an archive that has it by --mirror"
        );
    }
    Ok(())
}

fn admin(root: &Path) -> PathBuf {
    root.join("var/lib/dpkg")
}

fn empty(folder: &Path) -> Result<()> {
    let cannot = format!("empty {}", folder.display());
    for entry in fs::read_dir(folder).context(&cannot)? {
        let path = entry.context(&cannot)?.path();
        match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        }
        .context(&cannot)?;
    }
    Ok(())
}
