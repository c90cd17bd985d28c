//! Other programs: run to their end with a limit, or kept running and ended with the value that holds them.
//!
//! Standard output belongs to this program's own results, so theirs goes to standard error unless it is collected.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::failure::{Context, Failure, Result};
use crate::interrupt;

/// How long a process has to end after SIGTERM; `vitrine run` itself gives QEMU and its device five seconds each.
const GRACE: Duration = Duration::from_secs(15);
/// How often a wait looks whether it is over.
const POLL: Duration = Duration::from_millis(10);

/// A process that ends when this value does.
pub struct Process {
    name: String,
    child: Child,
    kept: bool,
}

impl Process {
    /// Starts a program. `process_group(0)`: Ctrl-C reaches this program only, which then ends its children in order.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .context(format!("start {name}"))?;
        Ok(Self {
            name,
            child,
            kept: false,
        })
    }

    /// Leaves it running; its process identifier.
    pub fn keep(mut self) -> u32 {
        self.kept = true;
        self.child.id()
    }

    /// The child's pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            interrupt::check()?;
            if Instant::now() >= deadline {
                return Err(Failure::new(format!(
                    "{} is not finished after {} s",
                    self.name,
                    limit.as_secs()
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let name = &self.name;
        let id = i32::try_from(self.child.id()).context(format!("signal {name}"))?;
        kill(Pid::from_raw(id), signal).context(format!("signal {name}"))
    }

    /// SIGTERM, some time, then SIGKILL. Does nothing to a process that has ended.
    pub fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        if let Ok(id) = i32::try_from(self.child.id()) {
            // Its group, so that cargo's compilers go with cargo. It may end in this moment; then there is nothing left to signal.
            let _ = killpg(Pid::from_raw(id), Signal::SIGTERM);
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return;
            }
            thread::sleep(POLL);
        }
        // Whatever the outcome, nothing more can be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept {
            self.stop();
        }
    }
}

/// Runs a program to its successful end; its output goes to standard error.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()));
    let mut process = Process::start(command)?;
    let status = process.wait(limit)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`{}` failed ({status})",
        words(command)
    )))
}

/// What a program wrote until it ended.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end, whatever that is, and collects its output. `input` is written to its standard input, which is
/// then closed.
pub fn output(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::start(command)?;
    let stdout = collect(process.child().stdout.take());
    let stderr = collect(process.child().stderr.take());
    if let Some(mut stdin) = process.child().stdin.take() {
        let input = input.to_owned();
        // A program that ends without reading it all is judged by its output.
        thread::spawn(move || stdin.write_all(&input));
    }
    let status = process.wait(limit)?;
    let text = |bytes: Receiver<Vec<u8>>| {
        let bytes = bytes.recv().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Output {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Runs a program to its successful end and returns its standard output; what it wrote to standard error is part of the failure.
pub fn text(command: &mut Command, limit: Duration) -> Result<String> {
    let output = output(command, b"", limit)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(format!(
        "`{}` failed ({}): {}",
        words(command),
        output.status,
        output.stderr.trim_end()
    )))
}

/// A command as a person would type it.
pub fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    words.join(" ")
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error means as much as the end: the process is gone.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_collected_and_input_given() {
        let output = output(
            &mut shell("cat; echo err >&2; exit 3"),
            b"in",
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&*output.stdout, &*output.stderr), ("in", "err\n"));
    }

    #[test]
    fn a_limit_ends_the_process() {
        let started = Instant::now();
        let failure = text(&mut shell("exec sleep 100"), Duration::from_millis(50)).unwrap_err();
        assert!(failure.to_string().contains("not finished"), "{failure}");
        assert!(started.elapsed() < GRACE);
    }

    #[test]
    fn a_failing_program_is_quoted() {
        let failure =
            text(&mut shell("echo why >&2; exit 1"), Duration::from_secs(10)).unwrap_err();
        assert!(failure.to_string().contains("why"), "{failure}");
    }
}
