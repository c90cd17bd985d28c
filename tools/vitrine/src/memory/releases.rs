//! The releases' high-water marks: of each manifest key, the newest release under which something was accepted.
//!
//! A manifest that was signed stays signed, also when its program turns out to be vulnerable. Whoever can put an old one in a newer one's
//! place is noticed by these marks. The file has a line for each key: its base64, a blank, the version.

use std::path::{Path, PathBuf};

use verifier::NewestReleases;

use crate::failure::Failure;

/// Where the marks are kept, and what they are.
pub struct Marks {
    file: PathBuf,
    newest: NewestReleases,
}

impl Marks {
    /// Reads the marks; `None` where the user has no home to keep some.
    pub fn read() -> Result<Option<Self>, Failure> {
        let Some(file) = super::file("releases") else {
            return Ok(None);
        };
        let text = super::load(&file)?.unwrap_or_default();
        let newest = text.lines().map(|line| {
            let (key, version) = line.split_once(' ')?;
            Some((key.to_owned(), version.parse().ok()?))
        });
        let newest = newest.collect::<Option<_>>().ok_or_else(|| {
            Failure::usage(format!(
                "{} does not hold a manifest key and a version on each line; correct the line that is wrong, or remove it",
                file.display()
            ))
        })?;
        Ok(Some(Self { file, newest }))
    }

    /// The newest release of each key.
    pub fn newest(&self) -> &NewestReleases {
        &self.newest
    }

    /// Moves the marks forward.
    pub fn advance(&self, accepted: &NewestReleases) {
        let mut newest = self.newest.clone();
        for (key, version) in accepted {
            let mark = newest.entry(key.clone()).or_insert_with(|| version.clone());
            if version > mark {
                *mark = version.clone();
            }
        }
        if newest == self.newest {
            return;
        }
        let lines = newest
            .iter()
            .map(|(key, version)| format!("{key} {version}\n"));
        let text: String = lines.collect();
        if let Err(error) = super::replace(&self.file, text.as_bytes()) {
            eprintln!(
                "warning: {}: {error}; an older release later will not be noticed",
                self.file.display()
            );
        }
    }

    /// Where the marks are kept.
    pub fn file(&self) -> &Path {
        &self.file
    }
}
