//! `cargo xtask verifier`: how much a client has to trust to verify, counted on a program that does nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

const BUILD: Duration = Duration::from_secs(3600);
const QUESTION: Duration = Duration::from_secs(60);

/// Builds the program and prints its size and its packages.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut build = workspace.cargo();
    build.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").args([
        "build",
        "--locked",
        "--release",
        "--package",
        "verifier",
        "--example",
        "verify",
    ]);
    process::run(&mut build, BUILD)?;
    let program = workspace.target.join("release/examples/verify");
    let bytes = fs::metadata(&program)
        .context(format!("read {}", workspace.show(&program)))?
        .len();

    let mut tree = workspace.cargo();
    tree.args([
        "tree",
        "--locked",
        "--package",
        "verifier",
        "--prefix",
        "none",
    ])
    .args([
        "--edges",
        "no-dev,no-build,no-proc-macro",
        "--format",
        "{p}",
    ]);
    let tree = process::text(&mut tree, QUESTION)?;
    // Name and version; a path or a mark of repetition may follow.
    let linked: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(" (").next())
        .filter(|package| !package.is_empty())
        .collect();
    let ours: Vec<&&str> = linked
        .iter()
        .filter(|package| {
            OURS.iter()
                .any(|name| package.starts_with(&format!("{name} ")))
        })
        .collect();
    println!("{bytes} bytes, stripped: {}", workspace.show(&program));
    println!(
        "{} packages are linked, {} of them ours:",
        linked.len(),
        ours.len()
    );
    for package in &linked {
        println!("  {package}");
    }
    Ok(())
}

/// Packages of this repository.
const OURS: [&str; 3] = ["attestation", "measurements", "verifier"];
