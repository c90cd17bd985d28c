//! A running guest: `vitrine run` as a child process, its console as lines to wait for, and clients of it.
//!
//! The child writes to files, not pipes, so that a guest which is to be kept survives this program.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client::{Address, Client, Options, Trust};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::{Context, Failure, Result};
use crate::interrupt;
use crate::process::Process;

/// Where the guest listens unless its configuration says otherwise.
pub const GUEST_PORT: u16 = 8443;
/// How often a wait looks at what the guest wrote.
const POLL: Duration = Duration::from_millis(50);
/// For a connection and each step of its handshake; TCG computes slowly.
const CONNECT: Duration = Duration::from_secs(60);
/// For an answer that needs no computation.
const SOON: Duration = Duration::from_secs(20);
/// For each silence within an answer.
const ANSWER: Duration = Duration::from_secs(300);

/// What to start.
pub struct Setup<'a> {
    /// The `vitrine` program.
    pub vitrine: &'a Path,
    pub image: &'a Path,
    /// None: a machine without a model.
    pub model: Option<&'a Path>,
    /// The text of the guest's configuration.
    pub config: Option<&'a str>,
    /// Where that makes it listen.
    pub port: u16,
    /// The loopback port that leads there; None: a free one.
    pub forward: Option<u16>,
    pub cpus: u32,
    /// None: what `vitrine run` thinks the model needs.
    pub memory_mib: Option<u32>,
    /// vhost-device-vsock, where the guest is to have a vsock device too.
    pub vsock: Option<&'a Path>,
    /// `auto`, `kvm` or `tcg`: how QEMU runs it.
    pub accelerator: &'a str,
    /// `qemu` or `emulator`.
    pub backend: &'a str,
    /// More arguments for the emulator.
    pub emulator: &'a [&'a str],
}

impl<'a> Setup<'a> {
    /// A guest reached over TCP, accelerated where that works, with the memory its model needs.
    pub fn new(vitrine: &'a Path, image: &'a Path, model: Option<&'a Path>, cpus: u32) -> Self {
        Self {
            vitrine,
            image,
            model,
            config: None,
            port: GUEST_PORT,
            forward: None,
            cpus,
            memory_mib: None,
            vsock: None,
            accelerator: "auto",
            backend: "qemu",
            emulator: &[],
        }
    }
}

/// What `vitrine run` reports of a ready guest.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    pub accelerator: String,
    /// The instruction set of the guest's kernels.
    pub isa: String,
    pub vcpus: u32,
    /// From reset to ready, by the guest's clock.
    pub boot_ms: u64,
}

/// What the emulator counts of a running trust domain.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Counters {
    /// Calls to the host (TDVMCALL), of all CPUs.
    pub host_calls: u64,
    /// Pages of 2 MiB behind its memory.
    pub huge_pages: u64,
}

/// A guest; ends with this value.
pub struct Guest {
    process: Process,
    directory: TempDir,
    port: u16,
    vsock: bool,
}

/// In a guest's directory: what `vitrine run` writes to standard error, the console's lines marked `guest | ` among it.
const LOG: &str = "console.log";
/// In a guest's directory: what it writes to standard output, a line when the guest is ready and one before if it waits for its key.
const STATES: &str = "states.json";

impl Guest {
    /// Starts a guest that TCP, and vsock if asked for, reach.
    pub fn start(setup: &Setup) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("vitrine-")
            .tempdir()
            .context("create a temporary directory")?;
        let port = setup.forward.map_or_else(free_port, Ok)?;
        let mut command = Command::new(setup.vitrine);
        command
            .args(["run", "--json", "--backend", setup.backend])
            .args(["--accel", setup.accelerator, "--image"])
            .arg(setup.image)
            .args([
                "--tcp",
                &port.to_string(),
                "--cpus",
                &setup.cpus.to_string(),
            ]);
        command.args(["--guest-port", &setup.port.to_string()]);
        if let Some(model) = setup.model {
            command.arg("--model").arg(model);
        }
        if let Some(text) = setup.config {
            let path = directory.path().join("config.toml");
            fs::write(&path, text).context(format!("write {}", path.display()))?;
            command.arg("--config").arg(path);
        }
        if let Some(memory) = setup.memory_mib {
            command.args(["--memory", &format!("{memory}M")]);
        }
        if let Some(program) = setup.vsock {
            command
                .env("VITRINE_VHOST_DEVICE_VSOCK", program)
                .arg("--vsock-uds")
                .arg(socket(&directory));
        }
        if !setup.emulator.is_empty() {
            command.arg("--").args(setup.emulator);
        }
        let file =
            |name| File::create(directory.path().join(name)).context(format!("create {name}"));
        command
            .stdin(Stdio::null())
            .stdout(file(STATES)?)
            .stderr(file(LOG)?);
        Ok(Self {
            process: Process::start(&mut command)?,
            directory,
            port,
            vsock: setup.vsock.is_some(),
        })
    }

    /// Where TCP reaches it.
    pub fn tcp(&self) -> Address {
        Address::Tcp {
            host: "127.0.0.1".into(),
            port: self.port,
        }
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// The process of `vitrine run`, of which all others of the machine are descendants.
    pub fn process(&mut self) -> u32 {
        self.process.child().id()
    }

    /// The loopback port that leads to its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where vsock reaches it, if it has such a device.
    pub fn vsock(&self) -> Option<Address> {
        self.vsock.then(|| Address::Unix {
            path: socket(&self.directory).display().to_string(),
            port: GUEST_PORT.into(),
        })
    }

    /// The process of the emulator around it.
    pub fn emulator(&mut self) -> Result<u32> {
        child(self.process())
    }

    /// What the emulator around it counts, as of now.
    pub fn counters(&mut self) -> Result<Counters> {
        let told = |guest: &Self| -> Vec<Counters> {
            guest
                .lines()
                .iter()
                .filter_map(|line| counters(line))
                .collect()
        };
        let before = told(self).len();
        let emulator = i32::try_from(self.emulator()?).context("ask the emulator")?;
        kill(Pid::from_raw(emulator), Signal::SIGQUIT).context("ask the emulator")?;
        self.wait(
            SOON,
            "counted",
            || {},
            |guest| told(guest).into_iter().nth(before),
        )
    }

    /// A client over TCP.
    pub fn client(&self) -> Result<Client> {
        connect(&self.tcp())
    }

    /// Waits until it serves; `progress` is called again and again meanwhile.
    pub fn wait_ready(&mut self, limit: Duration, progress: impl FnMut()) -> Result<Ready> {
        let line = self.wait(limit, "ready", progress, |guest| {
            if let Some(reason) = guest.failure() {
                return Some(Err(Failure::new(format!("the guest failed: {reason}"))));
            }
            guest.state("ready").map(Ok)
        })??;
        serde_json::from_str(&line).context(format!("understand what `vitrine run` says ({line})"))
    }

    /// Waits until it says that its model is sealed and waits for its key; `progress` is called again and again meanwhile.
    pub fn wait_sealed(&mut self, limit: Duration, progress: impl FnMut()) -> Result<()> {
        self.wait(limit, "sealed", progress, |guest| {
            if let Some(reason) = guest.failure() {
                return Some(Err(Failure::new(format!("the guest failed: {reason}"))));
            }
            guest.state("sealed").map(|_| Ok(()))
        })?
    }

    /// Waits until it says that it cannot serve, and why.
    pub fn wait_failed(&mut self, limit: Duration) -> Result<String> {
        self.wait(
            limit,
            "failed",
            || {},
            |guest| {
                if guest.state("ready").is_some() {
                    return Some(Err(Failure::new(
                        "the guest is ready and should have failed",
                    )));
                }
                guest.failure().map(Ok)
            },
        )?
    }

    /// Whether it answers at all, soon.
    pub fn answers(&mut self) -> bool {
        let mut options = Options::new(Trust::InsecureNoTee);
        options.connect_timeout = SOON;
        options.answer_timeout = SOON;
        let health = Client::new(self.tcp(), options).and_then(|mut client| client.health());
        self.process.ended().is_none() && health.is_ok()
    }

    /// Its console so far.
    pub fn console(&self) -> Vec<String> {
        let lines = self.lines();
        lines
            .iter()
            .filter_map(|line| console(line))
            .map(str::to_owned)
            .collect()
    }

    /// The last lines that it, QEMU and `vitrine run` wrote, for a failure message.
    pub fn last_words(&self) -> String {
        let lines = self.lines();
        let start = lines.len().saturating_sub(12);
        lines
            .iter()
            .skip(start)
            .map(|line| format!("\n    {line}"))
            .collect()
    }

    /// Fails if the machine has ended or reported a panic.
    pub fn check_alive(&mut self) -> Result<()> {
        let problem = match self.process.ended() {
            Some(status) => format!("the guest ended ({status})"),
            None if self.console().iter().any(|line| line.contains("panic")) => {
                "the guest panicked".to_owned()
            }
            None => return Ok(()),
        };
        Err(Failure::new(problem + &self.last_words()))
    }

    /// Leaves it running when this program ends; its process and its log.
    pub fn keep(self) -> (u32, PathBuf) {
        let log = self.directory.keep().join(LOG);
        (self.process.keep(), log)
    }

    fn wait<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut progress: impl FnMut(),
        look: impl Fn(&Self) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked first: what it wrote before it ended is looked at after.
            let ended = self.process.ended();
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let problem = match ended {
                Some(status) => format!("the guest ended before it was {what} ({status})"),
                None if Instant::now() >= deadline => {
                    format!("the guest is not {what} after {} s", limit.as_secs())
                }
                None => {
                    interrupt::check()?;
                    progress();
                    thread::sleep(POLL);
                    continue;
                }
            };
            return Err(Failure::new(problem + &self.last_words()));
        }
    }

    /// What `vitrine run` wrote so far, whole lines only.
    pub fn lines(&self) -> Vec<String> {
        let bytes = fs::read(self.directory.path().join(LOG)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(str::to_owned).collect()
    }

    /// What it said when it came to this state, if it has.
    fn state(&self, event: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Stated {
            event: String,
        }
        let text = fs::read_to_string(self.directory.path().join(STATES)).ok()?;
        let is_it = |line: &str| {
            let stated = serde_json::from_str::<Stated>(line);
            line.ends_with('\n') && stated.is_ok_and(|stated| stated.event == event)
        };
        let mut lines = text.split_inclusive('\n');
        lines.find(|line| is_it(line)).map(str::to_owned)
    }

    fn failure(&self) -> Option<String> {
        self.lines().iter().find_map(|line| failure(line))
    }
}

/// A client that takes a guest without evidence, as every guest outside a trust domain is.
pub fn connect(address: &Address) -> Result<Client> {
    let mut options = Options::new(Trust::InsecureNoTee);
    options.connect_timeout = CONNECT;
    options.answer_timeout = ANSWER;
    Ok(Client::new(address.clone(), options)?)
}

/// A port nobody listens on now.
pub fn free_port() -> Result<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .context("find a free port")
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("vsock")
}

/// A line of the guest's console, as `vitrine run` marks it.
fn console(line: &str) -> Option<&str> {
    line.strip_prefix("guest | ")
}

/// What the emulator counts, if the line says so.
fn counters(line: &str) -> Option<Counters> {
    let object = line.find(r#"{"event":"running","#)?;
    serde_json::from_str(&line[object..]).ok()
}

/// The one process that another one started.
fn child(process: u32) -> Result<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).context("find the emulator")?;
    let children =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: String = children.collect();
    let first = children.split_whitespace().next();
    first
        .and_then(|child| child.parse().ok())
        .ok_or_else(|| Failure::new("there is no emulator"))
}

/// Why the guest cannot serve, if the line says so.
fn failure(line: &str) -> Option<String> {
    console(line)?
        .strip_prefix("vitrine: failed: ")
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_line_of_the_console() {
        assert_eq!(
            failure("guest | vitrine: failed: no model"),
            Some("no model".into())
        );
        assert_eq!(failure("qemu | vitrine: failed: no model"), None);
        assert_eq!(failure("guest | something else"), None);
    }

    #[test]
    fn counters_are_a_line_of_the_emulator() {
        assert_eq!(
            counters(r#"qemu | {"event":"running","host_calls":7,"huge_pages":2}"#),
            Some(Counters {
                host_calls: 7,
                huge_pages: 2
            })
        );
        assert_eq!(counters(r#"qemu | {"event":"ended"}"#), None);
    }

    #[test]
    fn a_ready_report_is_understood() {
        let ready: Ready = serde_json::from_str(
            r#"{"event":"ready","addresses":["tcp://127.0.0.1:1"],"accelerator":"tcg","isa":"avx2","vcpus":2,"boot_ms":9,"process":1}"#,
        )
        .unwrap();
        assert_eq!((&*ready.isa, ready.vcpus, ready.boot_ms), ("avx2", 2, 9));
    }
}
