//! `cargo xtask tcb`: how much has to be trusted, counted: `measurements/published/tcb.json`.
//!
//! Every package some of whose code is in the image, with version, licence, and lines of code of the files its compiler read; the image's
//! bytes by part; and beside it what the same service would take on an ordinary system, counted by `measurements/python/replaced.py`.

mod graph;
mod lines;
mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use measurements::manifest::TcbSummary;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Context, Failure, Result, ensure};
use crate::image_step::{self, assembly::TARGET};
use crate::process;
use crate::workspace::Workspace;
use lines::Count;

/// The schema of the file.
const SCHEMA: &str = "vitrine-tcb/1";
/// How much an image may grow, in percent, before somebody has to record it.
const GROWTH: u64 = 2;
/// For a question to the compiler.
const QUESTION: Duration = Duration::from_secs(60);

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    schema: String,
    /// What the counts mean.
    method: String,
    totals: Totals,
    /// Sorted by name and version.
    crates: Vec<Crate>,
    /// Lines of the precompiled libraries that have machine code in them.
    precompiled: BTreeMap<String, u64>,
    /// Bytes of the image.
    image_bytes: u64,
    /// Bytes by part.
    parts: BTreeMap<String, u64>,
    /// The same count of what it replaces.
    replaces: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    crates: u64,
    /// Rust of this repository.
    our_lines: u64,
    /// Rust of other packages.
    other_rust_lines: u64,
    /// C and assembly.
    native_lines: u64,
    /// Of `core`, `alloc` and the compiler's own routines.
    precompiled_lines: u64,
    /// Rust inside `unsafe`; C and assembly are not counted again.
    unsafe_lines: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    ours: bool,
    rust_lines: u64,
    unsafe_lines: u64,
    native_lines: u64,
}

const METHOD: &str = "Lines with at least one token: no blank lines, comments or documentation, no unit tests. Counted are the files that the \
     compilers read, by their own account, whether or not the linker kept what is in them; code for other platforms in those files counts \
     too. Of the precompiled libraries, whose sources do not come with the toolchain, the lines that have machine code.";

/// Counts, and records the count.
pub fn run(workspace: &Workspace) -> Result<()> {
    let tcb = count(workspace, &image_step::build(workspace)?)?;
    write(workspace, &encode(&tcb)?)?;
    println!("{tcb}");
    println!("written          {}", workspace.show(&path(workspace)));
    Ok(())
}

/// Counts.
pub fn count(workspace: &Workspace, image: &image_step::Image) -> Result<Tcb> {
    let mut totals = Totals {
        crates: 0,
        our_lines: 0,
        other_rust_lines: 0,
        native_lines: 0,
        precompiled_lines: 0,
        unsafe_lines: 0,
    };
    let mut crates = Vec::new();
    for package in graph::packages(workspace)? {
        let sum = |paths: &[PathBuf], count: fn(&str) -> Count| {
            let mut sum = Count::default();
            for path in paths {
                let text = fs::read(path).context(format!("read {}", path.display()))?;
                sum += count(&String::from_utf8_lossy(&text));
            }
            Ok::<Count, Failure>(sum)
        };
        let rust = sum(&package.rust, lines::rust)?;
        let native = sum(&package.native, lines::native)?;
        totals.crates += 1;
        match package.ours {
            true => totals.our_lines += rust.lines,
            false => totals.other_rust_lines += rust.lines,
        }
        totals.native_lines += native.lines;
        totals.unsafe_lines += rust.unsafe_lines;
        crates.push(Crate {
            name: package.name,
            version: package.version,
            licence: package.licence,
            ours: package.ours,
            rust_lines: rust.lines,
            unsafe_lines: rust.unsafe_lines,
            native_lines: native.lines,
        });
    }
    let precompiled = precompiled(workspace)?;
    totals.precompiled_lines = precompiled.values().sum();
    Ok(Tcb {
        schema: SCHEMA.into(),
        method: METHOD.into(),
        totals,
        crates,
        precompiled,
        image_bytes: image.measurement.bytes,
        parts: parts::bytes(&image.assembly)?,
        replaces: replaced(workspace)?,
    })
}

/// Fails where the image has a package nobody recorded, or has grown.
pub fn check(workspace: &Workspace, image: &image_step::Image) -> Result<()> {
    let packages = graph::packages(workspace)?.into_iter();
    let crates = packages.map(|package| format!("{} {}", package.name, package.version));
    recorded(workspace)?.admits(&crates.collect(), &parts::bytes(&image.assembly)?)
}

impl Tcb {
    /// Fails where an image of these crates and these parts is not the recorded one, give or take [`GROWTH`].
    fn admits(&self, crates: &BTreeSet<String>, parts: &BTreeMap<String, u64>) -> Result<()> {
        let known: BTreeSet<String> = self
            .crates
            .iter()
            .map(|package| format!("{} {}", package.name, package.version))
            .collect();
        let list = |names: Vec<&String>| {
            let names: Vec<&str> = names.into_iter().map(|name| &**name).collect();
            names.join(", ")
        };
        let advice = "record it in the same commit with `cargo xtask release --update`";
        ensure!(
            *crates == known,
            "the image is made of other crates than recorded (new: {}; gone: {}): {advice}",
            list(crates.difference(&known).collect()),
            list(known.difference(crates).collect())
        );
        // An image is a multiple of 64 KiB; what fills it up would hide a growth, and grow at once.
        let (bytes, before) = (filled(parts), filled(&self.parts));
        ensure!(
            bytes * 100 <= before * (100 + GROWTH),
            "the image has grown from {before} bytes to {bytes}, by more than {GROWTH} %: {advice}"
        );
        Ok(())
    }

    /// What the manifest says of it.
    pub fn summary(&self) -> TcbSummary {
        let Totals {
            crates,
            our_lines,
            other_rust_lines,
            native_lines,
            precompiled_lines,
            unsafe_lines,
        } = self.totals;
        TcbSummary {
            crates,
            lines: our_lines + other_rust_lines + native_lines + precompiled_lines,
            unsafe_lines,
        }
    }
}

/// Bytes of the image without what fills it up.
fn filled(parts: &BTreeMap<String, u64>) -> u64 {
    let meant = parts.iter().filter(|(name, _)| *name != parts::PADDING);
    meant.map(|(_, bytes)| bytes).sum()
}

impl fmt::Display for Tcb {
    /// The totals, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let replaced = &self.replaces["lines"];
        writeln!(f, "crates           {}", totals.crates)?;
        writeln!(f, "lines, ours      {}", totals.our_lines)?;
        writeln!(f, "lines, others'   {} of Rust", totals.other_rust_lines)?;
        writeln!(
            f,
            "                 {} of C and assembly",
            totals.native_lines
        )?;
        writeln!(
            f,
            "                 {} precompiled",
            totals.precompiled_lines
        )?;
        writeln!(f, "lines, unsafe    {} of Rust", totals.unsafe_lines)?;
        writeln!(f, "image            {} bytes", self.image_bytes)?;
        write!(f, "replaces         {replaced} lines")
    }
}

/// The text of the file.
pub fn encode(tcb: &Tcb) -> Result<String> {
    Ok(serde_json::to_string_pretty(tcb)? + "\n")
}

/// Records a count.
pub fn write(workspace: &Workspace, text: &str) -> Result<()> {
    let path = path(workspace);
    fs::write(&path, text).context(format!("write {}", path.display()))
}

/// What was recorded.
pub fn recorded(workspace: &Workspace) -> Result<Tcb> {
    let path = path(workspace);
    let text = fs::read(&path).context(format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.root.join("measurements/published/tcb.json")
}

/// What was counted of the systems it replaces; counting them takes hundreds of megabytes of sources, so it is done by hand.
fn replaced(workspace: &Workspace) -> Result<Value> {
    let path = workspace.root.join("measurements/published/replaced.json");
    let text = fs::read(&path).context(format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Lines of the libraries that come compiled with the toolchain.
fn precompiled(workspace: &Workspace) -> Result<BTreeMap<String, u64>> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(workspace.guest())
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["--print", "target-libdir", "--target", TARGET]);
    let folder = PathBuf::from(process::text(&mut rustc, QUESTION)?.trim());
    let cannot = format!("list {}", folder.display());
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(&folder).context(&cannot)? {
        let path = entry.context(&cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for library in ["core", "alloc", "compiler_builtins"] {
            if name.starts_with(&format!("lib{library}-")) && name.ends_with(".rlib") {
                counts.insert(library.to_owned(), lines::precompiled(&path)?);
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Tcb {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        super::recorded(&Workspace {
            root: root.into(),
            target: "/none".into(),
        })
        .expect("measurements/published/tcb.json")
    }

    fn crates(tcb: &Tcb) -> BTreeSet<String> {
        let crates = tcb.crates.iter();
        crates
            .map(|package| format!("{} {}", package.name, package.version))
            .collect()
    }

    #[test]
    fn another_crate_or_version_is_named() {
        let tcb = recorded();
        assert!(tcb.admits(&crates(&tcb), &tcb.parts).is_ok());
        let mut more = crates(&tcb);
        more.insert("left-pad 1.0.0".into());
        let failure = tcb.admits(&more, &tcb.parts).unwrap_err().to_string();
        assert!(
            failure.contains("new: left-pad 1.0.0; gone: )"),
            "{failure}"
        );
        let mut other = crates(&tcb);
        let first = other.pop_first().unwrap();
        let failure = tcb.admits(&other, &tcb.parts).unwrap_err().to_string();
        assert!(failure.contains(&format!("gone: {first})")), "{failure}");
    }

    #[test]
    fn growth_counts_without_what_fills_the_image_up() {
        let tcb = recorded();
        let admits = |part: &str, bytes: u64| {
            let mut parts = tcb.parts.clone();
            *parts.entry(part.into()).or_insert(0) += bytes;
            tcb.admits(&crates(&tcb), &parts)
        };
        let filled = filled(&tcb.parts);
        assert!(admits("guest .text", filled * 2 / 100).is_ok());
        assert!(admits(parts::PADDING, filled).is_ok());
        let failure = admits("guest .text", filled * 2 / 100 + 1).unwrap_err();
        assert!(failure.to_string().contains("more than 2 %"), "{failure}");
    }

    #[test]
    fn the_record_counts_what_it_says() {
        let tcb = recorded();
        let sum = |count: fn(&Crate) -> u64| tcb.crates.iter().map(count).sum::<u64>();
        assert_eq!(tcb.totals.crates, tcb.crates.len() as u64);
        let rust = tcb.totals.our_lines + tcb.totals.other_rust_lines;
        assert_eq!(rust, sum(|package| package.rust_lines));
        assert_eq!(tcb.totals.native_lines, sum(|package| package.native_lines));
        assert_eq!(tcb.totals.unsafe_lines, sum(|package| package.unsafe_lines));
        assert_eq!(tcb.image_bytes, tcb.parts.values().sum::<u64>());
        for name in ["ring", "ggml-sys"] {
            let package = tcb.crates.iter().find(|package| package.name == name);
            assert!(
                package.is_some_and(|package| package.native_lines > 0),
                "{name}"
            );
        }
        let libraries: Vec<&str> = tcb.precompiled.keys().map(|name| &**name).collect();
        assert_eq!(libraries, ["alloc", "compiler_builtins", "core"]);
        assert!(tcb.crates.iter().all(|package| !package.licence.is_empty()));
        assert_eq!(tcb.replaces["parts"].as_array().map(Vec::len), Some(4));
    }
}
