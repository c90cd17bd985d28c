//! Time that processes have spent on CPUs, by the kernel's books (`/proc/PID/stat`), in steps of ten milliseconds.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::failure::{Context, Result};

/// Time that a process and all its descendants have spent on CPUs so far.
pub fn of_tree(root: u32) -> Result<Duration> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("list the processes")? {
        let name = entry.context("list the processes")?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that ended meanwhile is none of the machine's.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat"))
            && let Some(found) = parent_and_ticks(&stat)
        {
            times.insert(process, found);
        }
    }
    let is_ours = |process: u32| {
        let mut process = process;
        while let Some((parent, _)) = times.get(&process) {
            if process == root {
                return true;
            }
            process = *parent;
        }
        false
    };
    let ticks: u64 = times
        .iter()
        .filter(|(process, _)| is_ours(**process))
        .map(|(_, (_, ticks))| ticks)
        .sum();
    Ok(time(ticks))
}

/// USER_HZ is 100 on every Linux with this architecture.
fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

/// Fields 4, 14 and 15 of a process's `stat`: its parent, and the ticks it spent in user and kernel mode. Field 2 may contain anything.
fn parent_and_ticks(stat: &str) -> Option<(u32, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((u32::try_from(number(4)?).ok()?, number(14)? + number(15)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_awkward_name_is_understood() {
        let stat = "42 (a) b (c) S 7 1 1 0 -1 4194560 10 0 0 0 30 4 0 0 20 0 1 0";
        assert_eq!(parent_and_ticks(stat), Some((7, 34)));
        assert_eq!(parent_and_ticks("42 (a"), None);
        assert!(of_tree(std::process::id()).is_ok());
    }
}
