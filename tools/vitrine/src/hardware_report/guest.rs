//! The guest, run by `vitrine run` in a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::evidence::Stop;
use super::text;
use crate::failure::Code;

/// Lines of the console that are kept: the last ones.
const CONSOLE_LINES: usize = 1000;

/// A running `vitrine run --json`.
pub struct Guest {
    run: Child,
    /// Collects what it writes to stderr, which is the guest's console.
    console: Option<JoinHandle<Vec<String>>>,
}

impl Guest {
    /// Starts it with these arguments.
    pub fn start(program: &Path, arguments: &[OsString]) -> Result<Self, Stop> {
        let mut run = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Stop::new("run", Code::Failed, error.to_string()))?;
        let console = run.stderr.take().map(|stderr| {
            thread::spawn(move || {
                let mut kept = Vec::new();
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    eprintln!("    {line}");
                    kept.push(line);
                    if kept.len() > CONSOLE_LINES {
                        kept.remove(0);
                    }
                }
                kept
            })
        });
        Ok(Self { run, console })
    }

    /// Waits until it says that the guest is ready; what it says. It has a time limit of its own, and ends when that has passed.
    pub fn wait_ready(&mut self) -> Result<Value, Stop> {
        let mut line = String::new();
        if let Some(stdout) = self.run.stdout.as_mut() {
            // An error is as good as the end: nothing was said.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        serde_json::from_str(&line).map_err(|_| {
            let reason = "the guest did not become ready; the console in the evidence says why";
            Stop::new("run", Code::Failed, reason)
        })
    }

    /// Ends the guest; the last lines of its console.
    pub fn stop(mut self) -> Vec<String> {
        if let Ok(process) = i32::try_from(self.run.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(process), Signal::SIGINT);
        }
        let _ = self.run.wait();
        self.console
            .take()
            .and_then(|console| console.join().ok())
            .unwrap_or_default()
    }
}

/// Where the guest can be reached.
pub fn address(ready: &Value) -> Result<String, Stop> {
    ready
        .get("addresses")
        .and_then(|addresses| addresses.get(0)?.as_str())
        .map(str::to_owned)
        .ok_or_else(|| {
            let event = text(ready, "event").unwrap_or("nothing");
            Stop::new("run", Code::Failed, format!("no address; it said: {event}"))
        })
}
