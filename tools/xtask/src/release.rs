//! `cargo xtask release`: rebuilds the image, measures it, and holds it against what is published of this version.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use measurements::manifest::{ImageEntry, MAX_BYTES, Masked, SCHEMA};
use measurements::{ConfigurationEntry, Hex, Manifest, ModelEntry, corim, sha384};
use serde::Deserialize;

use crate::failure::{Context, Failure, Result, ensure};
use crate::image_step::{self, Image, sources};
use crate::models;
use crate::process;
use crate::tcb;
use crate::tools;
use crate::workspace::Workspace;

/// The version of every package here, the image's too.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The published files besides the count.
const MANIFEST: &str = concat!(env!("CARGO_PKG_VERSION"), ".json");
const CORIM: &str = concat!(env!("CARGO_PKG_VERSION"), ".corim");
/// For hashing.
const LIMIT: Duration = Duration::from_secs(600);

/// Rebuild and re-measure the image; fail where the published manifest says otherwise
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Compares with measurements/published/VERSION.json, its data as CoRIM (VERSION.corim) and tcb.json, and names what differs. With --update it \
writes them instead. To sign: minisign -S -m measurements/published/VERSION.json with a key that is not in this repository.")]
pub struct Arguments {
    /// Write the published files instead of comparing
    #[arg(long)]
    update: bool,
}

/// What `vitrine measure --json` says, as far as it is needed here.
#[derive(Deserialize)]
struct Measured {
    configuration: ConfigurationEntry,
    model: ModelEntry,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let image = image_step::build(workspace)?;
    println!("{image}");
    if !arguments.update {
        check(workspace, &image)?;
        println!("{VERSION} is published as it is here");
        return Ok(());
    }
    let release = Release::of(workspace, &image)?;
    let folder = folder(workspace);
    fs::create_dir_all(&folder).context(format!("create {}", folder.display()))?;
    tcb::write(workspace, &tcb::encode(&release.tcb)?)?;
    for (name, bytes) in [
        (MANIFEST, release.manifest.encode().into_bytes()),
        (CORIM, corim::encode(&release.manifest)),
    ] {
        let path = folder.join(name);
        fs::write(&path, bytes).context(format!("write {}", path.display()))?;
        println!("written    {}", workspace.show(&path));
    }
    Ok(())
}

/// Fails if what is published of this version is not what is here, and says in what.
pub fn check(workspace: &Workspace, image: &Image) -> Result<()> {
    let published = published(workspace)?
        .ok_or_else(|| Failure::new(format!("nothing is published of version {VERSION}")))?;
    let here = Release::of(workspace, image)?;
    compare(&published, &here.manifest)?;
    let path = folder(workspace).join(CORIM);
    let corim = fs::read(&path).context(format!("read {}", path.display()))?;
    ensure!(
        corim == corim::encode(&published),
        "{CORIM} says something else than the manifest: `cargo xtask release --update`"
    );
    ensure!(
        tcb::recorded(workspace)? == here.tcb,
        "measurements/published/tcb.json was counted of another tree: `cargo xtask release --update`"
    );
    Ok(())
}

/// What is to be published.
struct Release {
    manifest: Manifest,
    tcb: tcb::Tcb,
}

impl Release {
    fn of(workspace: &Workspace, image: &Image) -> Result<Self> {
        ensure!(
            image.unpublished.is_empty(),
            "only the pinned compilers make a release: {}",
            image.unpublished.join("; ")
        );
        let tcb = tcb::count(workspace, image)?;
        Ok(Self {
            manifest: describe(workspace, image, &tcb)?,
            tcb,
        })
    }
}

/// What is published of this version, if anything is.
pub fn published(workspace: &Workspace) -> Result<Option<Manifest>> {
    let path = folder(workspace).join(MANIFEST);
    if !path.exists() {
        return Ok(None);
    }
    let file = fs::read(&path).context(format!("read {}", path.display()))?;
    ensure!(file.len() <= MAX_BYTES, "{} is too long", path.display());
    let manifest = Manifest::parse(&file).context(format!("understand {}", path.display()))?;
    Ok(Some(manifest))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("measurements/published")
}

/// The manifest of what is here, whether or not it was published.
pub fn manifest(workspace: &Workspace, image: &Image) -> Result<Manifest> {
    describe(workspace, image, &tcb::count(workspace, image)?)
}

/// The manifest of what is here, with what was counted.
pub fn describe(workspace: &Workspace, image: &Image, tcb: &tcb::Tcb) -> Result<Manifest> {
    let model = models::demonstration(workspace)?;
    let mut vitrine = std::process::Command::new(tools::vitrine(workspace)?);
    vitrine.arg("measure").arg(&image.path);
    vitrine.arg("--model").arg(&model).arg("--json");
    let measured: Measured = serde_json::from_str(&process::text(&mut vitrine, LIMIT)?)?;
    let guest = image::guest_as_loaded(&image.assembly.guest).context("find the guest program")?;
    Ok(Manifest {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        image: ImageEntry {
            bytes: image.measurement.bytes,
            sha384: image.measurement.sha384,
            guest_sha384: Hex(sha384(&guest)),
        },
        mrtd: image.measurement.mrtd,
        rtmr0: Hex([0; 48]),
        rtmr1: Hex([0; 48]),
        configurations: vec![measured.configuration],
        models: vec![measured.model],
        attributes: Masked::ATTRIBUTES,
        xfam: Masked::XFAM,
        source: sources::summary(&sources::list(workspace, &image.assembly)?),
        toolchain: image.toolchain.clone(),
        tcb: tcb.summary(),
    })
}

/// Fails with every part of the manifest that differs.
fn compare(published: &Manifest, here: &Manifest) -> Result<()> {
    if published == here {
        return Ok(());
    }
    let [published_json, here_json] = [published, here].map(serde_json::to_value);
    let (published_json, here_json) = (published_json?, here_json?);
    let differing: Vec<&str> = here_json
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| published_json.get(key.as_str()) != Some(value))
        .map(|(key, _)| &**key)
        .collect();
    let register = match published.first_difference(here) {
        Some((register, entry)) if entry.is_empty() => {
            format!("; the first register is {register}")
        }
        Some((register, entry)) => format!("; the first register is {register} of {entry:?}"),
        None => String::new(),
    };
    Err(Failure::new(format!(
        "the published manifest of {VERSION} does not match this tree in: {}{register}. `cargo xtask release --update` writes what is here",
        differing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Manifest {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        super::published(&Workspace {
            root: root.into(),
            target: "/none".into(),
        })
        .expect("a good manifest")
        .expect("a manifest of this version")
    }

    #[test]
    fn what_differs_from_the_published_manifest_is_named() {
        let manifest = published();
        assert!(compare(&manifest, &manifest).is_ok());
        type Change = fn(&mut Manifest);
        let changes: [(Change, &str); 6] = [
            (
                |manifest| manifest.mrtd.page_by_page.0[0] ^= 1,
                "in: mrtd; the first register is MRTD",
            ),
            (
                |manifest| manifest.configurations[0].rtmr2.0[0] ^= 1,
                "in: configurations; the first register is RTMR[2] of \"default\"",
            ),
            (
                |manifest| manifest.models[0].rtmr3.0[0] ^= 1,
                "in: models; the first register is RTMR[3]",
            ),
            (|manifest| manifest.image.sha384.0[0] ^= 1, "in: image."),
            (|manifest| manifest.source.files += 1, "in: source."),
            (|manifest| manifest.tcb.lines += 1, "in: tcb."),
        ];
        for (change, expected) in changes {
            let mut doctored = manifest.clone();
            change(&mut doctored);
            let failure = compare(&doctored, &manifest).unwrap_err().to_string();
            assert!(failure.contains(expected), "{failure}");
        }
    }
}
