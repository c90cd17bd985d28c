//! In which pages this machine holds the process's memory: larger ones make decoding faster, so a comparison has to tell.

use std::fs;

use serde::Serialize;

use crate::failure::Failure;

/// Sums over all mappings of this process.
const SUMS: &str = "/proc/self/smaps_rollup";

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub resident: u64,
    /// Of that, what is in 2 MiB pages.
    pub huge: u64,
}

impl Memory {
    /// Of this process, now.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn of_this_process() -> Result<Self, Failure> {
        let sums = fs::read_to_string(SUMS)
            .map_err(|error| Failure::new(format!("cannot read {SUMS}: {error}")))?;
        Self::parse(&sums)
            .ok_or_else(|| Failure::new(format!("{SUMS} does not tell of huge pages")))
    }

    fn parse(sums: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = sums.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self {
            resident: bytes("Rss:")?,
            huge: bytes("AnonHugePages:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_sums_are_read() {
        let sums = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:    9500 kB\nPss:  9000 kB\nAnonHugePages:      4096 kB\n";
        let memory = Memory {
            resident: 9500 << 10,
            huge: 4096 << 10,
        };
        assert_eq!(Memory::parse(sums), Some(memory));
        assert_eq!(Memory::parse("Rss: 1 kB\n"), None);
        assert!(Memory::of_this_process().unwrap().resident > 0);
    }
}
