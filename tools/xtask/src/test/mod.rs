//! `cargo xtask test`: everything that can be tested on this machine.
//!
//! One list of named tests, one counter: the unit and property tests of both workspaces, the image step, and end-to-end tests that
//! boot the image. The last line is `N passed, N failed`.

mod cargo;
mod e2e;
mod image;
mod logits;
mod memory;
mod tokenizers;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::failure::{Failure, Result, ensure};
use crate::interrupt;
use crate::lockfiles;
use crate::packages;
use crate::workspace::Workspace;

/// Set to `1` where a test that cannot compare with its oracle must fail.
pub const REQUIRE_ORACLES: &str = "VITRINE_REQUIRE_ORACLES";

/// Test everything that can be tested on this machine
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Longer tests too: a second build of the image from nothing, every model format on every number of CPUs
    #[arg(long)]
    full: bool,
    /// Only the tests whose name contains this; --list shows the names that are not unit tests
    filter: Option<String>,
    /// Print the names and exit
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut suite = Suite::new(arguments);
    if !arguments.list {
        packages::provide(packages::RUN)?;
        // Without them their tests are skipped, and say so.
        if let Err(failure) = packages::provide(packages::ORACLES) {
            eprintln!("warning: {failure}");
        }
    }
    suite.check("lockfiles", || lockfiles::check(workspace));
    cargo::run(&mut suite, workspace);
    image::run(&mut suite, workspace);
    tokenizers::run(&mut suite, workspace);
    logits::run(&mut suite, workspace);
    memory::run(&mut suite, workspace);
    e2e::run(&mut suite, workspace);
    suite.finish()
}

/// The tests so far.
pub struct Suite {
    full: bool,
    list: bool,
    filter: Option<String>,
    /// Whether a skipped oracle counts as a failure.
    strict: bool,
    passed: usize,
    failed: usize,
    failures: Vec<String>,
}

impl Suite {
    fn new(arguments: &Arguments) -> Self {
        Self {
            full: arguments.full,
            list: arguments.list,
            filter: arguments.filter.clone(),
            strict: env::var(REQUIRE_ORACLES).is_ok_and(|value| value == "1"),
            passed: 0,
            failed: 0,
            failures: Vec::new(),
        }
    }

    /// Whether the long tests are asked for.
    pub fn full(&self) -> bool {
        self.full
    }

    /// Whether a test of this name is asked for; with `--list` none is, and the name is printed.
    pub fn wants(&self, name: &str) -> bool {
        let wanted = self
            .filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter));
        if self.list && wanted {
            println!("{name}");
        }
        wanted && !self.list && !interrupt::interrupted()
    }

    /// Runs a test, if it is asked for, and counts it. A panic is a failure. Whether nothing failed.
    pub fn check(&mut self, name: &str, test: impl FnOnce() -> Result<()>) -> bool {
        if !self.wants(name) {
            return true;
        }
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(test))
            .unwrap_or_else(|_| Err(Failure::new("it panicked; the message is above")));
        match outcome {
            Ok(()) => {
                eprintln!("ok    {name} ({:.1} s)", started.elapsed().as_secs_f64());
                self.passed += 1;
                true
            }
            Err(failure) => {
                self.fail(name, &failure);
                false
            }
        }
    }

    /// Counts a test whose oracle is not here.
    pub fn skip(&mut self, name: &str, why: &str) {
        if self.strict {
            self.fail(
                name,
                &Failure::new(format!("{why}, and {REQUIRE_ORACLES}=1")),
            );
        } else {
            eprintln!("SKIPPED: {name}: {why}");
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, name: &str, failure: &Failure) {
        eprintln!("FAIL  {name}: {failure}");
        self.failed += 1;
        self.failures.push(name.to_owned());
    }

    /// Adds what another test runner counted.
    pub fn add(&mut self, passed: usize) {
        self.passed += passed;
    }

    fn finish(self) -> Result<()> {
        if self.list {
            return Ok(());
        }
        interrupt::check()?;
        ensure!(
            self.passed + self.failed > 0,
            "no test has {:?} in its name; --list shows the names",
            self.filter.unwrap_or_default()
        );
        for name in &self.failures {
            eprintln!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        ensure!(self.failed == 0, "{} of the tests failed", self.failed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(filter: Option<&str>) -> Suite {
        Suite::new(&Arguments {
            full: false,
            filter: filter.map(str::to_owned),
            list: false,
        })
    }

    #[test]
    fn outcomes_are_counted() {
        let mut suite = suite(None);
        suite.check("good", || Ok(()));
        suite.check("bad", || Err(Failure::new("why")));
        suite.check("worse", || panic!("oh"));
        suite.add(3);
        assert_eq!((suite.passed, suite.failed), (4, 2));
        assert!(suite.finish().is_err());
    }

    #[test]
    fn an_oracle_that_is_required_and_absent_fails() {
        let mut suite = suite(None);
        suite.strict = true;
        suite.skip("blind", "no oracle");
        assert_eq!(suite.failed, 1);
    }

    #[test]
    fn a_filter_that_matches_nothing_is_an_error() {
        let mut suite = suite(Some("x"));
        suite.check("good", || Ok(()));
        assert!(suite.finish().is_err());
    }
}
