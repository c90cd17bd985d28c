//! What this user has seen before, kept between runs so that going back is noticed: the latest time, and the newest release of each
//! manifest key. `docs/verification.md` says where it lies and how to recover from a mark that is wrong.

pub mod clock;
mod releases;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use verifier::{Code, NewestReleases, Report, Verdict, Verifier};

use crate::failure::Failure;

/// The marks that count for one command.
pub struct Memory {
    clock: Option<clock::Mark>,
    releases: Option<releases::Marks>,
}

impl Memory {
    /// Reads what there is. Judgements at another time than now, and under a root for tests, have nothing to do with this machine's clock.
    ///
    /// # Errors
    /// A mark that cannot be read does not count as none.
    pub fn read(by_the_clock: bool) -> Result<Self, Failure> {
        Ok(Self {
            clock: match by_the_clock {
                true => clock::Mark::read()?,
                false => None,
            },
            releases: releases::Marks::read()?,
        })
    }

    /// The earliest time that is not behind the mark.
    pub fn earliest(&self) -> Option<u64> {
        self.clock.as_ref().and_then(clock::Mark::earliest)
    }

    /// The newest releases that were accepted.
    pub fn releases(&self) -> NewestReleases {
        let releases = self.releases.as_ref();
        releases.map_or_else(NewestReleases::new, |marks| marks.newest().clone())
    }

    /// Takes note of a judgement: of its time if the chain holds, of the releases if it was accepted. Says where a mark lies that
    /// refuses.
    pub fn learn(&self, report: &Report, verifier: &Verifier) {
        let refused = |code| report.findings.contains(&code);
        if let Some(clock) = &self.clock {
            if refused(Code::ClockRolledBack) {
                eprintln!(
                    "note: if this computer's clock is right and was once wrong, delete {}",
                    clock.file().display()
                );
            } else if report.proved.is_some() {
                clock.advance(verifier.now);
            }
        }
        if let Some(releases) = &self.releases {
            if refused(Code::ManifestRollback) {
                eprintln!(
                    "note: to go back to an older release on purpose, remove its key's line from {}",
                    releases.file().display()
                );
            } else if report.verdict == Verdict::Accepted {
                releases.advance(&verifier.policy.newest_releases());
            }
        }
    }
}

/// A file of the user's state: `$XDG_STATE_HOME/vitrine/NAME`, or `~/.local/state/vitrine/NAME`; `None` where the user has no home.
fn file(name: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = match set("XDG_STATE_HOME") {
        Some(state) => PathBuf::from(state),
        None => PathBuf::from(set("HOME")?).join(".local/state"),
    };
    Some(state.join("vitrine").join(name))
}

/// Reads a file of the user's state; `None` if there is none.
fn load(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::usage(format!("{}: {error}", file.display()))),
    }
}

/// Replaces a file as a whole, for half of one would be none. Makes its folder.
pub fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = file.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, contents)?;
    fs::rename(&new, file)
}
