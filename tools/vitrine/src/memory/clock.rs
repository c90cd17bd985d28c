//! The clock's high-water mark: the latest time at which this user verified something.
//!
//! Old collateral is valid again on a clock that was set back. So every verification by this machine's clock whose chain holds leaves its
//! time in a file, and a clock that is behind it does not count. One wrong clock in the future would lock the user out: the file may be
//! deleted once the clock is right, and every refusal says where it lies.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::failure::Failure;

/// Clocks are corrected by seconds all the time.
const TOLERANCE: u64 = 5 * 60;

/// This machine's clock, seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Where the mark is kept, and what it is.
pub struct Mark {
    file: PathBuf,
    seen: Option<u64>,
}

impl Mark {
    /// Reads the mark; `None` where the user has no home to keep one.
    pub fn read() -> Result<Option<Self>, Failure> {
        let Some(file) = super::file("clock") else {
            return Ok(None);
        };
        let seen = match super::load(&file)? {
            None => None,
            Some(text) => Some(text.trim().parse().map_err(|_| {
                Failure::usage(format!(
                    "{} does not hold a time; check this computer's clock, then delete the file",
                    file.display()
                ))
            })?),
        };
        Ok(Some(Self { file, seen }))
    }

    /// The earliest time that is not behind the mark.
    pub fn earliest(&self) -> Option<u64> {
        self.seen.map(|seen| seen.saturating_sub(TOLERANCE))
    }

    /// Moves the mark forward.
    pub fn advance(&self, now: u64) {
        if self.seen.is_some_and(|seen| seen >= now) {
            return;
        }
        if let Err(error) = super::replace(&self.file, format!("{now}\n").as_bytes()) {
            eprintln!(
                "warning: {}: {error}; a clock set back later will not be noticed",
                self.file.display()
            );
        }
    }

    /// Where the mark is kept.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_mark_moves_forward_alone() {
        let name = format!("vitrine-clock-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let file = directory.join("clock");
        let mark = |seen| Mark {
            file: file.clone(),
            seen,
        };
        mark(None).advance(1000);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1000\n");
        mark(Some(1000)).advance(999);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1000\n");
        mark(Some(1000)).advance(1001);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1001\n");
        assert_eq!(mark(Some(1001)).earliest(), Some(701));
        assert_eq!(mark(Some(5)).earliest(), Some(0));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
