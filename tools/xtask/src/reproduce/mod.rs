//! `cargo xtask reproduce`: the image depends on nothing but its sources and its compilers.
//!
//! Two clean builds of copies of the checkout differ in everything that should not matter: where the checkout, the home, cargo's home and
//! the build directory are, the user's name, locale and time zone, the files' times, and the number of processors. They are
//! compared byte by byte, with each other and with the image of the checkout itself, which was built on whatever an earlier build left.
//! With `--rootfs` a third build runs as another user in a Debian system made for it, with the pinned compilers.

mod difference;
mod rootfs;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::failure::{Context, Failure, Result};
use crate::image_step::{
    self,
    assembly::{Assembly, Surroundings, assemble},
};
use crate::workspace::Workspace;

pub use difference::same;

/// Build the image twice in different surroundings and compare
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Build in a Debian system with the pinned packages instead, made by debootstrap (as root)
    #[arg(long)]
    rootfs: bool,
    /// Where that system's packages come from [default: http://deb.debian.org/debian, then the archive of image/toolchain.toml]
    #[arg(long, value_name = "URL", requires = "rootfs")]
    mirror: Option<String>,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    match arguments.rootfs {
        true => rootfs::run(workspace, arguments.mirror.as_deref()),
        false => twice(workspace),
    }
}

/// Two clean builds, compared with each other and with the checkout's own image.
pub fn twice(workspace: &Workspace) -> Result<()> {
    let here = image_step::build(workspace)?;
    let place = tempfile::Builder::new()
        .prefix("reproduce-")
        .tempdir_in(&workspace.target)
        .context("create a directory")?;
    for scene in [
        Scene {
            folder: place.path().join("a"),
            days_ago: 0,
            user: "aloysia",
            locale: "C.UTF-8",
            zone: "UTC",
            one_processor: false,
        },
        Scene {
            folder: place.path().join("b, somewhere else (with spaces)/ünï"),
            days_ago: 400,
            user: "balthasar",
            locale: "tr_TR.UTF-8",
            zone: "Pacific/Auckland",
            one_processor: true,
        },
    ] {
        eprintln!("building from nothing as {} would", scene.user);
        let assembly = scene.build(workspace)?;
        same(&here.assembly, &assembly)?;
    }
    println!("{here}");
    println!("The same bytes from this checkout and from two clean builds elsewhere.");
    Ok(())
}

/// Surroundings of a build, and a copy of the checkout in them.
struct Scene {
    folder: PathBuf,
    days_ago: u64,
    user: &'static str,
    locale: &'static str,
    zone: &'static str,
    one_processor: bool,
}

impl Scene {
    fn build(&self, workspace: &Workspace) -> Result<Assembly> {
        let checkout = self.folder.join("checkout");
        let time = SystemTime::now() - Duration::from_secs(self.days_ago * 24 * 60 * 60);
        copy_sources(&workspace.root, &checkout, time)?;
        let cargo_home = self.folder.join("cargo home");
        copy_registry(&cargo_home)?;
        let scene = Workspace {
            root: checkout,
            target: self.folder.join("target"),
        };
        assemble(&scene, &scene.target.join("td"), &self.surroundings()?)
    }

    fn surroundings(&self) -> Result<Surroundings> {
        let home = self.folder.join("home");
        fs::create_dir_all(&home).context(format!("create {}", home.display()))?;
        // rustup finds the compilers below the user's own home.
        let rustup = std::env::var_os("RUSTUP_HOME").map_or_else(
            || {
                let home = std::env::var_os("HOME").unwrap_or_default();
                Path::new(&home).join(".rustup").into_os_string()
            },
            OsString::from,
        );
        let mut launcher: Vec<OsString> = [
            "env",
            &format!("USER={}", self.user),
            &format!("LOGNAME={}", self.user),
            &format!("LANG={}", self.locale),
            &format!("TZ={}", self.zone),
        ]
        .map(OsString::from)
        .into();
        if self.one_processor {
            launcher.extend(["taskset", "--cpu-list", "0"].map(OsString::from));
        }
        Ok(Surroundings {
            variables: vec![
                ("HOME", home.into()),
                ("CARGO_HOME", self.folder.join("cargo home").into()),
                ("RUSTUP_HOME", rustup),
            ],
            launcher,
            user: Some(self.user),
        })
    }
}

/// Copies the checkout without what was built in it, and gives every file one time.
pub fn copy_sources(from: &Path, to: &Path, time: SystemTime) -> Result<()> {
    let cannot = || format!("copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).context(cannot())?;
    for entry in fs::read_dir(from).context(cannot())? {
        let entry = entry.context(cannot())?;
        let name = entry.file_name();
        if ["target", ".git", "__pycache__"]
            .iter()
            .any(|skipped| name == *skipped)
        {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if source.is_symlink() {
            let points_to = fs::read_link(&source).context(cannot())?;
            std::os::unix::fs::symlink(points_to, &copy).context(cannot())?;
            continue;
        }
        if source.is_dir() {
            copy_sources(&source, &copy, time)?;
            continue;
        }
        fs::copy(&source, &copy).context(cannot())?;
        fs::File::options()
            .append(true)
            .open(&copy)
            .and_then(|file| file.set_modified(time))
            .context(cannot())?;
    }
    Ok(())
}

/// Gives a cargo home what this user's already downloaded; sources are unpacked again.
pub fn copy_registry(cargo_home: &Path) -> Result<()> {
    let own = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .ok_or_else(|| Failure::new("neither CARGO_HOME nor HOME is set"))?;
    for part in ["registry/index", "registry/cache"] {
        let source = own.join(part);
        if source.is_dir() {
            copy_sources(&source, &cargo_home.join(part), SystemTime::now())?;
        }
    }
    let config = own.join("config.toml");
    if config.is_file() {
        let copy = cargo_home.join("config.toml");
        fs::copy(&config, &copy).context(format!("copy {}", config.display()))?;
    }
    Ok(())
}
