//! The tests cargo runs: those of the host workspace, and those of the TD workspace that need no machine.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Suite;
use crate::failure::{Failure, Result};
use crate::lint;
use crate::process::Process;
use crate::workspace::Workspace;

/// For a run from nothing on a slow machine.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs both and adds up what they count.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    let mut host = workspace.cargo();
    host.args(["test", "--workspace"]);
    let mut td = lint::guest_cargo(workspace);
    td.args([
        "test",
        "--package",
        "loader",
        "--package",
        "getrandom@0.2",
        "--lib",
    ]);
    for (name, command) in [("cargo/host", &mut host), ("cargo/td", &mut td)] {
        if !suite.wants(name) {
            continue;
        }
        command.args(["--locked", "--no-fail-fast", "--", "--show-output"]);
        eprintln!("running {name}");
        let mut counter = Counter::default();
        let outcome = count(command, &mut counter);
        suite.add(counter.passed);
        for test in &counter.failures {
            suite.fail(&format!("{name}/{test}"), &Failure::new("see above"));
        }
        match outcome {
            Err(failure) if counter.failures.is_empty() => suite.fail(name, &failure),
            _ => eprintln!(
                "{name}: {} passed, {} failed",
                counter.passed,
                counter.failures.len()
            ),
        }
    }
}

fn count(command: &mut Command, counter: &mut Counter) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(command)?;
    if let Some(stdout) = process.child().stdout.take() {
        for line in BufReader::new(stdout)
            .split(b'\n')
            .map_while(core::result::Result::ok)
        {
            let line = String::from_utf8_lossy(&line);
            if counter.take(&line) {
                eprintln!("{line}");
            }
        }
    }
    let status = process.wait(LIMIT)?;
    if !status.success() {
        return Err(Failure::new(format!(
            "`cargo test` ended with {status}; see above"
        )));
    }
    Ok(())
}

/// Reads what libtest prints.
#[derive(Default)]
struct Counter {
    passed: usize,
    failures: Vec<String>,
    /// Inside a list of failures with their output.
    failing: bool,
}

impl Counter {
    /// Takes a line; whether a person wants to see it.
    fn take(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.failing = false;
            let passed = result
                .split_once(". ")
                .and_then(|(_, counts)| counts.split_once(" passed"));
            self.passed += passed
                .and_then(|(count, _)| count.parse::<usize>().ok())
                .unwrap_or(0);
            return false;
        }
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
            return true;
        }
        if line == "failures:" {
            self.failing = true;
        } else if line == "successes:" {
            self.failing = false;
        }
        self.failing || line.starts_with("SKIPPED")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_is_understood() {
        let mut counter = Counter::default();
        let text = "running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ok\n\nsuccesses:\n\n---- c stdout ----\nnoise\n\
                    SKIPPED: no vectors\n\nfailures:\n\n---- b stdout ----\nwhy\n\nfailures:\n    b\n\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let shown: Vec<&str> = text.lines().filter(|line| counter.take(line)).collect();
        assert_eq!(
            (counter.passed, counter.failures),
            (42, vec!["b".to_owned()])
        );
        assert!(shown.contains(&"why") && shown.contains(&"SKIPPED: no vectors"));
        assert!(!shown.contains(&"noise") && !shown.contains(&"test a ... ok"));
    }
}
