//! The machine as its files describe it, and the few things that only trying tells.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::ptrace;
use nix::unistd::Pid;

/// A machine whose `/proc`, `/sys` and `/dev` lie below a directory.
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine described below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The content of a small file such as those of `/sys`, without the space around it; `None` if there is no such file.
    pub fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Opens a device for reading and writing.
    pub fn open(&self, path: &str) -> io::Result<()> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(path))
            .map(|_| ())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The release of the running kernel, and its first two numbers.
    pub fn kernel(&self) -> Option<(String, (u32, u32))> {
        let release = self.read("/proc/sys/kernel/osrelease")?;
        let version = version(&release)?;
        Some((release, version))
    }

    /// Whether the processor has all of these features, as `/proc/cpuinfo` names them.
    pub fn has_features(&self, names: &[&str]) -> bool {
        let cpuinfo = self.read("/proc/cpuinfo").unwrap_or_default();
        let features: Vec<&str> = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
            .map(|(_, features)| features.split_ascii_whitespace().collect())
            .unwrap_or_default();
        names.iter().all(|name| features.contains(name))
    }
}

/// Whether this process may trace a child of its own. Files tell only part of it: a container may forbid the system call.
pub fn may_trace() -> io::Result<()> {
    let mut child = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()?;
    let outcome = i32::try_from(child.id())
        .map_err(io::Error::other)
        .and_then(|id| Ok(ptrace::seize(Pid::from_raw(id), ptrace::Options::empty())?));
    child.kill()?;
    child.wait()?;
    outcome
}

/// The first two numbers of a version such as `6.16.1-arch1` or `10.1.0`.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.16.1-arch1-1"), Some((6, 16)));
        assert!(version("6.9.0") < version("6.16.0"));
        assert_eq!(version("10.1"), Some((10, 1)));
        for nonsense in ["", "6", "six.one", ".1"] {
            assert_eq!(version(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn tracing_a_child_leaves_nothing_behind() {
        // Whether it is allowed depends on the machine; that it ends does not.
        let _ = may_trace();
    }
}
