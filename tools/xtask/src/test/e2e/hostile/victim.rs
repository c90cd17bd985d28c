//! One guest of the emulator, with a host that may be hostile, and what it is asked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client::{Address, ChatRequest, Client, Message, Options, Sampling, Trust};
use nix::sys::signal::Signal;
use serde::Deserialize;
use synthesis::Mix;
use tempfile::TempDir;

use super::super::World;
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::{GUEST_PORT, free_port};
use crate::interrupt;
use crate::process::Process;

/// From the start of the emulator to a guest that serves or says why not. A silent disk is given half a minute by the guest.
const START: Duration = Duration::from_secs(60);
/// How often a guest's words are looked at.
const POLL: Duration = Duration::from_millis(20);

const PROMPT: &str = "What is behind the glass?";
const TOKENS: u32 = 12;
/// Where the guest's console begins to say that it serves, or cannot.
const READY: &str = "vitrine: ready";
const FAILED: &str = "vitrine: failed: ";

/// For the emulator to say how often its host attacked.
const COUNT: Duration = Duration::from_secs(5);

/// What the emulator says of itself: how often each attack was carried out.
#[derive(Deserialize)]
struct Counters {
    struck: BTreeMap<String, u64>,
}

/// The tokens a guest answers with.
pub fn tokens(address: &Address, limit: Duration) -> Result<Vec<u32>> {
    let mut options = Options::new(Trust::InsecureNoTee);
    options.connect_timeout = limit;
    options.answer_timeout = limit;
    let mut client = Client::new(address.clone(), options)?;
    let model = client.models()?.into_iter().next().map(|model| model.id);
    let request = ChatRequest {
        model: model.ok_or_else(|| Failure::new("no model is offered"))?,
        messages: vec![Message::new("user", PROMPT)],
        sampling: Sampling {
            max_tokens: Some(TOKENS),
            temperature: Some(0.0),
            ..Sampling::default()
        },
        thinking: None,
    };
    let mut tokens = Vec::new();
    for chunk in client.chat_stream(&request)? {
        for choice in chunk?.choices {
            tokens.extend(choice.token_ids.unwrap_or_default());
        }
    }
    Ok(tokens)
}

/// An emulated trust domain; ends with this value.
pub struct Victim {
    process: Process,
    directory: TempDir,
    port: u16,
    model: PathBuf,
}

const CONSOLE: &str = "console";
const WORDS: &str = "words";
const SOCKET: &str = "vsock";

impl Victim {
    pub fn start(world: &World, attack: &str, cpus: u32) -> Result<Self> {
        let directory = TempDir::with_prefix("vitrine-hostile-").context("create a directory")?;
        let file =
            |name| File::create(directory.path().join(name)).context(format!("create {name}"));
        let (model, port) = (world.model(Mix::Q4KM)?, free_port()?);
        let mut command: Command = world.vitrine(&[
            "emulator",
            "--json",
            "--hostile",
            attack,
            "--cpus",
            &cpus.to_string(),
            "--image",
        ]);
        command
            .arg(&world.image.path)
            .arg("--disk")
            .arg(format!("model={}", model.display()));
        command
            .args(["--tcp", &port.to_string(), "--vsock-uds"])
            .arg(directory.path().join(SOCKET));
        command
            .stdin(Stdio::null())
            .stdout(file(CONSOLE)?)
            .stderr(file(WORDS)?);
        Ok(Self {
            process: Process::start(&mut command)?,
            directory,
            port,
            model,
        })
    }

    /// Tells the emulator when its host attacks (SIGUSR1) and when it behaves (SIGUSR2).
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    pub fn tcp(&self) -> Address {
        Address::Tcp {
            host: "127.0.0.1".into(),
            port: self.port,
        }
    }

    pub fn vsock(&self) -> Address {
        Address::Unix {
            path: self.directory.path().join(SOCKET).display().to_string(),
            port: GUEST_PORT.into(),
        }
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the guest has said.
    pub fn console(&self) -> String {
        self.read(CONSOLE)
    }

    /// How often each attack was carried out. An emulator that has ended has said so, a running one is asked.
    pub fn struck(&mut self) -> Result<BTreeMap<String, u64>> {
        let told = |guest: &Self| {
            let words = guest.read(WORDS);
            let mut counters = words
                .lines()
                .filter_map(|line| serde_json::from_str::<Counters>(line).ok());
            counters.next_back()
        };
        if self.process.ended().is_none() {
            self.signal(Signal::SIGQUIT)?;
        }
        let deadline = Instant::now() + COUNT;
        loop {
            if let Some(counters) = told(self) {
                return Ok(counters.struck);
            }
            ensure!(
                Instant::now() < deadline,
                "the emulator does not say how often its host attacked"
            );
            thread::sleep(POLL);
        }
    }

    /// Whether it has said that it serves.
    pub fn serves(&self) -> bool {
        self.console().contains(READY)
    }

    /// Waits until the guest serves, or says why it does not. Before it has a console of its own that is a fatal error.
    pub fn wait_started(&mut self) -> Result<Option<String>> {
        let deadline = Instant::now() + START;
        loop {
            // Asked first: what it said before it ended is looked at after.
            let ended = self.process.ended();
            let console = self.console();
            ensure!(!console.contains("panic"), "the guest panicked");
            let complete = console.rfind('\n').map_or("", |end| &console[..end]);
            let line = |start: &str| {
                complete
                    .lines()
                    .find_map(|line| Some(line.strip_prefix(start)?.to_owned()))
            };
            if let Some(reason) = line(FAILED) {
                return Ok(Some(reason));
            }
            if line(READY).is_some() {
                return Ok(None);
            }
            if ended.is_some() {
                return Ok(Some(console + &self.read(WORDS)));
            }
            interrupt::check()?;
            ensure!(
                Instant::now() < deadline,
                "it neither serves nor says why not after {} s",
                START.as_secs()
            );
            thread::sleep(POLL);
        }
    }

    /// The instruction set of its kernels.
    pub fn isa(&self) -> Result<String> {
        let console = self.console();
        let words = console
            .lines()
            .find_map(|line| line.strip_prefix(READY))
            .unwrap_or_default();
        let isa = words
            .split_whitespace()
            .find_map(|word| word.strip_prefix("isa="));
        isa.map(str::to_owned)
            .ok_or_else(|| Failure::new("the guest names no instruction set"))
    }

    /// What the engine answers on this host with that instruction set.
    pub fn expected_tokens(&self, world: &World, isa: &str) -> Result<Vec<u32>> {
        let arguments = [
            "--chat",
            PROMPT,
            "--temperature",
            "0",
            "--max-tokens",
            &TOKENS.to_string(),
        ];
        world.generate(Path::new(&self.model), isa, &arguments)
    }

    pub fn wait_until<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.check_alive()?;
            if let Some(found) = look(self) {
                return Ok(found);
            }
            interrupt::check()?;
            ensure!(
                Instant::now() < deadline,
                "nothing after {} s",
                limit.as_secs()
            );
            thread::sleep(POLL);
        }
    }

    /// Fails if the guest has ended or panicked.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.ended() {
            return Err(Failure::new(format!("the emulator ended ({status})")));
        }
        ensure!(!self.console().contains("panic"), "the guest panicked");
        Ok(())
    }

    /// The last lines of guest and emulator, for a failure message.
    pub fn last_words(&self) -> String {
        let text = self.console() + &self.read(WORDS);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(12);
        lines[start..]
            .iter()
            .map(|line| format!("\n    {line}"))
            .collect()
    }
}
