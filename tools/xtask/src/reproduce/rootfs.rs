//! The build in a Debian system of its own: debootstrap, the pinned packages (`image/system.sh`, which `image/Containerfile` runs too),
//! another user, and `cargo xtask image` as anybody would type it.
//!
//! It takes root, a mirror of Debian and 2 GB of disk. The Rust toolchain is this machine's, which has to be the pinned one too, and so are
//! the packages of the registry that were downloaded before; cargo checks those by their checksums.

use std::fs;
use std::path::Path;
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

/// Runs in the new system, in a mount namespace of its own, so that nothing stays mounted. Arguments: the system, the mirror.
const INSTALL: &str = r#"
set -eu
mount -t proc proc "$1/proc"
exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /system.sh /toolchain.toml "$2"
"#;
/// The same, to build. Arguments: the system, the toolchain, the user.
const BUILD: &str = r#"
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
        Some(mirror) => install(workspace, root, &pinned, mirror)?,
        None => {
            if let Err(failure) = install(workspace, root, &pinned, MIRROR) {
                eprintln!("{failure}\ntrying Debian's archive of old versions");
                empty(root)?;
                install(workspace, root, &pinned, &pinned.debian.snapshot)?;
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
    inside(BUILD, root, &[toolchain.trim(), USER])?;

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

/// A minimal system with the pinned packages.
fn install(workspace: &Workspace, root: &Path, pinned: &Pinned, mirror: &str) -> Result<()> {
    eprintln!("making a Debian system from {mirror}");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", "--merged-usr"])
        .arg(&pinned.debian.suite)
        .arg(root)
        .arg(mirror);
    process::run(&mut debootstrap, LIMIT)?;
    for name in ["system.sh", "toolchain.toml"] {
        let from = workspace.root.join("image").join(name);
        fs::copy(&from, root.join(name)).context(format!("copy {}", from.display()))?;
    }
    inside(INSTALL, root, &[mirror])?;
    for package in &pinned.debian.packages {
        let (name, version) = package
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("image/toolchain.toml: {package:?}")))?;
        let mut query = Command::new("dpkg-query");
        query
            .arg(format!("--admindir={}/var/lib/dpkg", root.display()))
            .args(["--show", "--showformat=${Version}", name]);
        let installed = process::text(&mut query, QUESTION)?;
        ensure!(
            installed == version,
            "{name} is installed as {installed}, the published image is made with {version}"
        );
    }
    Ok(())
}

/// Runs a script beside a system, in a mount namespace that ends with it.
fn inside(script: &str, root: &Path, arguments: &[&str]) -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "sh", "-c", script, "system"])
        .arg(root)
        .args(arguments);
    process::run(&mut unshare, LIMIT)
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
