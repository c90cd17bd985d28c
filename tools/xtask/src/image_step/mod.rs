//! The image step: loader and guest compiled in the TD workspace, joined to `vitrine.fd`, checked, measured.
//!
//! The compilers see a chosen environment, not the user's: no RUSTFLAGS, no CFLAGS, no profile overrides, one locale. Paths that
//! differ from machine to machine are replaced by fixed ones before they can reach the image, and the image is searched for them
//! afterwards.

pub mod assembly;
pub mod metadata;
pub mod remaps;
mod settings;
pub mod sources;
pub mod toolchain;
mod traces;

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use measurements::manifest::Toolchain;
use measurements::{ImageMeasurement, Manifest};

use crate::failure::{Context, Result};
use crate::lockfiles;
use crate::packages;
use crate::release;
use crate::workspace::Workspace;
use assembly::{Assembly, Surroundings, assemble, assemble_with};
use toolchain::Pinned;

/// A finished image.
pub struct Image {
    pub path: PathBuf,
    pub measurement: ImageMeasurement,
    pub assembly: Assembly,
    /// What it was made with.
    pub toolchain: Toolchain,
    /// Where that is not what the published image is made with, one line each.
    pub unpublished: Vec<String>,
    /// What was published of this version, if anything legible was.
    published: Option<Manifest>,
}

/// Builds `vitrine.fd` among the products, from the sources as they are.
pub fn build(workspace: &Workspace) -> Result<Image> {
    packages::provide(packages::BUILD)?;
    lockfiles::check(workspace)?;
    let toolchain = toolchain::identify(workspace)?;
    let unpublished = Pinned::read(workspace)?.differences(&toolchain);
    let target = workspace.target.join("td");
    forget_other_compilers(&target, &toolchain)?;
    let assembly = assemble(workspace, &target, &Surroundings::default())?;
    let path = workspace.image()?;
    // A running guest may have the old file open: replace it, do not write into it.
    let partial = path.with_extension("fd.partial");
    fs::write(&partial, &assembly.image).context(format!("write {}", partial.display()))?;
    fs::rename(&partial, &path).context(format!("write {}", path.display()))?;
    // A record that cannot be read keeps nobody from an image, nor from a new record; `cargo xtask release` fails over it.
    let published = release::published(workspace).unwrap_or_else(|failure| {
        eprintln!("warning: {failure}");
        None
    });
    Ok(Image {
        path,
        measurement: ImageMeasurement::of(&assembly.image).context("measure the image")?,
        assembly,
        toolchain,
        unpublished,
        published,
    })
}

/// Removes what other compilers made: cargo does not notice that the C compiler or the assembler has become another one.
fn forget_other_compilers(target: &Path, here: &Toolchain) -> Result<()> {
    let record = target.join("compilers");
    let here = format!("{here:?}");
    if fs::read_to_string(&record).is_ok_and(|made| made == here) {
        return Ok(());
    }
    let products = target.join(assembly::TARGET);
    match fs::remove_dir_all(&products) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context(format!("remove {}", products.display()));
        }
        _ => {}
    }
    fs::create_dir_all(target).context(format!("create {}", target.display()))?;
    fs::write(&record, here).context(format!("write {}", record.display()))
}

/// An image whose guest comes to a bad end with secrets everywhere (`guest/src/bin/canary.rs`), for a test.
pub fn canary(workspace: &Workspace) -> Result<Assembly> {
    eprintln!("building an image that ends badly");
    let target = workspace.target.join("td");
    assemble_with(workspace, &target, &Surroundings::default(), "canary")
}

impl fmt::Display for Image {
    /// What is to be known of an image, one line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageMeasurement {
            bytes,
            sha384,
            mrtd,
        } = self.measurement;
        writeln!(f, "image      {}", self.path.display())?;
        writeln!(f, "size       {bytes} bytes ({} KiB)", bytes / 1024)?;
        writeln!(f, "SHA-384    {sha384}")?;
        writeln!(
            f,
            "MRTD       {} (each page added, then measured: mainline KVM)",
            mrtd.page_by_page
        )?;
        writeln!(
            f,
            "           {} (all pages added, then measured: hosts of QEMU 8)",
            mrtd.add_then_extend
        )?;
        match &self.published {
            Some(manifest) if manifest.image.sha384 == sha384 => {
                write!(f, "published  yes, as {}", manifest.version)
            }
            _ if !self.unpublished.is_empty() => {
                write!(
                    f,
                    "published  no, this image is unpublished: it is made with other compilers"
                )?;
                for difference in &self.unpublished {
                    write!(f, "\n           {difference}")?;
                }
                f.write_str(GET_COMPILERS)
            }
            Some(manifest) => write!(
                f,
                "published  no, this image is unpublished: {} was made from other sources",
                manifest.version
            ),
            None => f.write_str(
                "published  no, this image is unpublished: nothing was published of this version",
            ),
        }
    }
}

/// For whoever has others.
const GET_COMPILERS: &str = "
           The image works. To get the pinned compilers: rustup installs Rust's as rust-toolchain.toml says; the others are Debian
           packages, which `sh image/system.sh image/toolchain.toml --list` prints. `cargo xtask reproduce --rootfs` (as root) makes a
           system that has them and builds there, and so does image/Containerfile with a container engine.";

#[cfg(test)]
mod tests {
    use measurements::{Hex, manifest::MrtdEntry};

    use super::*;

    #[test]
    fn an_image_of_other_compilers_is_called_unpublished() {
        let mut image = Image {
            path: "vitrine.fd".into(),
            measurement: ImageMeasurement {
                bytes: 65536,
                sha384: Hex([1; 48]),
                mrtd: MrtdEntry {
                    page_by_page: Hex([2; 48]),
                    add_then_extend: Hex([3; 48]),
                },
            },
            assembly: Assembly {
                image: Vec::new(),
                loader: Vec::new(),
                guest: Vec::new(),
                release: PathBuf::new(),
            },
            toolchain: Toolchain {
                rustc: String::new(),
                cargo: String::new(),
                gcc: String::new(),
                binutils: String::new(),
            },
            unpublished: Vec::new(),
            published: None,
        };
        let text = image.to_string();
        assert!(
            text.contains("unpublished: nothing was published"),
            "{text}"
        );
        assert!(!text.contains("compilers"), "{text}");
        image.unpublished = vec!["gcc is \"gcc 13\", not \"gcc 12\"".into()];
        let text = image.to_string();
        for part in [
            "unpublished: it is made with other compilers",
            "gcc is \"gcc 13\", not \"gcc 12\"",
            "The image works.",
            "image/system.sh",
            "cargo xtask reproduce --rootfs",
            "image/Containerfile",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
