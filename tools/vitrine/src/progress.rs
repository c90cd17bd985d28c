//! How far a long piece of work is, for a person who waits at a terminal; nobody else is told.

use std::io::{IsTerminal, stderr};

/// A percentage on stderr, from the beginning of the work to its end.
pub struct Progress {
    total: u64,
    done: u64,
    /// What is shown; `None` where nobody looks.
    percent: Option<u64>,
}

impl Progress {
    /// Begins work on so many bytes.
    pub fn new(total: u64) -> Self {
        let mut progress = Self {
            total,
            done: 0,
            percent: stderr().is_terminal().then_some(u64::MAX),
        };
        progress.reach(0);
        progress
    }

    /// So many more bytes are done.
    pub fn advance(&mut self, bytes: u64) {
        self.reach(self.done + bytes);
    }

    /// So many bytes are done.
    pub fn reach(&mut self, done: u64) {
        self.done = done;
        let percent = self.percent();
        if self.percent.is_some_and(|shown| shown != percent) {
            eprint!("\r{percent:3} % of {} MB", self.total / 1_000_000);
            self.percent = Some(percent);
        }
    }

    fn percent(&self) -> u64 {
        let percent = u128::from(self.done) * 100 / u128::from(self.total.max(1));
        percent.min(100) as u64
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.percent.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_nothing_and_all() {
        let percent = |total, done| {
            Progress {
                total,
                done,
                percent: None,
            }
            .percent()
        };
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(3, 1), 33);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        // A file that grew meanwhile.
        assert_eq!(percent(10, 11), 100);
    }
}
