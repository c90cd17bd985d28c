//! The image as a trust domain under a hostile host: every attack of the emulator's catalogue, and with `--full` a thousand combinations.
//!
//! Each has one outcome: the same tokens as on this host over both networks, the same tokens over one of them while the attacked device is
//! shut down with a reason, or a refusal to serve with a reason. A guest that panics, dies or answers anything else fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client::{Address, ChatRequest, Client, Message, Options, Sampling, Trust};
use emulator::hostile::{Host, Outcome, Target, catalogue};
use synthesis::Mix;
use tempfile::TempDir;

use super::{Suite, World, same_tokens};
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::{GUEST_PORT, free_port};
use crate::interrupt;
use crate::process::Process;

/// From the start of the emulator to a guest that serves or says why not. A silent disk is given half a minute by the guest.
const START: Duration = Duration::from_secs(60);
/// For tokens while attacks go on: lost packets are sent again after a second or two, a lease is waited for three.
const PATIENCE: Duration = Duration::from_secs(40);
/// For one attempt to get them.
const ATTEMPT: Duration = Duration::from_secs(4);
/// For an answer once the host behaves.
const SOON: Duration = Duration::from_secs(1);
/// How often a guest's words are looked at.
const POLL: Duration = Duration::from_millis(20);
const SEEDS: u64 = 1000;

const PROMPT: &str = "What is behind the glass?";
const TOKENS: u32 = 12;
/// Where the guest's console begins to say that it serves, or cannot.
const READY: &str = "vitrine: ready";
const FAILED: &str = "vitrine: failed: ";

fn name(attack: &str) -> String {
    format!("e2e/hostile/{attack}")
}

/// The one test of `--full`.
const COMBINATIONS: &str = "a-thousand-combinations";

/// Whether any of these tests is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let attacks = catalogue().iter().map(|row| row.name);
    let combinations = suite.full().then_some(COMBINATIONS);
    let wanted = attacks
        .chain(combinations)
        .filter(|attack| suite.wants(&name(attack)));
    wanted.count() > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    for row in catalogue() {
        suite.check(&name(row.name), || withstands(world, row.name, 2));
    }
    if suite.full() {
        suite.check(&name(COMBINATIONS), || {
            let failures: Vec<String> = (0..SEEDS)
                // One processor and two in turn.
                .filter_map(|seed| {
                    withstands(world, &seed.to_string(), 1 + (seed % 2) as u32).err()
                })
                .map(|failure| failure.to_string())
                .collect();
            ensure!(
                failures.is_empty(),
                "{} of {SEEDS}:\n{}",
                failures.len(),
                failures.join("\n")
            );
            Ok(())
        });
    }
}

/// Runs one guest against `--hostile attack`.
fn withstands(world: &World, attack: &str, cpus: u32) -> Result<()> {
    interrupt::check()?;
    let host = Host::parse(attack).map_err(Failure::new)?;
    let attacks: Vec<&str> = host.attacks().map(|row| row.name).collect();
    let mut guest = Victim::start(world, attack, cpus)?;
    judge(world, &host, &mut guest).map_err(|failure| {
        let attacks = attacks.join(", ");
        Failure::new(format!(
            "--hostile {attack} ({attacks}), {cpus} CPUs: {failure}{}",
            guest.last_words()
        ))
    })
}

fn judge(world: &World, host: &Host, guest: &mut Victim) -> Result<()> {
    let refused = guest.wait_started()?;
    let outcome = *host.outcome();
    match (outcome, refused) {
        (Outcome::Stop(words), Some(reason)) => {
            ensure!(
                words.iter().any(|word| reason.contains(word)),
                "it refuses to serve, but says none of {words:?}"
            );
            return Ok(());
        }
        (Outcome::Stop(words), None) => {
            return Err(Failure::new(format!(
                "it serves and should have said one of {words:?}"
            )));
        }
        (_, Some(_)) => return Err(Failure::new("it refuses to serve")),
        (_, None) => {}
    }
    let expected = guest.expected_tokens(world)?;
    let attacked = host
        .attacks()
        .find(|row| row.outcome != Outcome::Continue)
        .map(|row| row.target);
    if let Outcome::Degrade(words) = outcome {
        let address = if attacked == Some(Target::Vsock) {
            guest.vsock()
        } else {
            guest.tcp()
        };
        // The device that is to fail is used until it does; what comes of that does not matter.
        guest.wait_until(PATIENCE, |guest| {
            let _ = tokens(&address, ATTEMPT);
            let console = guest.console();
            words
                .iter()
                .any(|word| console.contains(word))
                .then_some(())
        })?;
    }
    for (path, address) in [(Target::Vsock, guest.vsock()), (Target::Card, guest.tcp())] {
        if outcome != Outcome::Continue && attacked == Some(path) {
            continue;
        }
        let answer = guest.wait_until(PATIENCE, |_| tokens(&address, ATTEMPT).ok())?;
        same_tokens(&answer, &expected)?;
        let again = Instant::now();
        same_tokens(&tokens(&address, SOON)?, &expected)?;
        let (elapsed, path) = (again.elapsed().as_secs_f64(), path.name());
        ensure!(
            elapsed < SOON.as_secs_f64(),
            "over {path} the second answer takes {elapsed:.1} s"
        );
    }
    if outcome == Outcome::Continue {
        let console = guest.console();
        ensure!(!console.contains("shut down"), "it gave up a device");
    }
    guest.check_alive()
}

/// The tokens a guest answers with.
fn tokens(address: &Address, limit: Duration) -> Result<Vec<u32>> {
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
struct Victim {
    process: Process,
    directory: TempDir,
    port: u16,
    model: PathBuf,
}

const CONSOLE: &str = "console";
const WORDS: &str = "words";
const SOCKET: &str = "vsock";

impl Victim {
    fn start(world: &World, attack: &str, cpus: u32) -> Result<Self> {
        let directory = TempDir::with_prefix("vitrine-hostile-").context("create a directory")?;
        let file =
            |name| File::create(directory.path().join(name)).context(format!("create {name}"));
        let (model, port) = (world.model(Mix::Q4KM)?, free_port()?);
        let mut command: Command = world.vitrine(&[
            "emulator",
            "--hostile",
            attack,
            "--cpus",
            &cpus.to_string(),
            "--image",
        ]);
        command
            .arg(&world.image)
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

    fn tcp(&self) -> Address {
        Address::Tcp {
            host: "127.0.0.1".into(),
            port: self.port,
        }
    }

    fn vsock(&self) -> Address {
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
    fn console(&self) -> String {
        self.read(CONSOLE)
    }

    /// Waits until the guest serves, or says why it does not. Before it has a console of its own that is a fatal error.
    fn wait_started(&mut self) -> Result<Option<String>> {
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

    /// What the engine answers on this host with the guest's instruction set.
    fn expected_tokens(&self, world: &World) -> Result<Vec<u32>> {
        let console = self.console();
        let words = console
            .lines()
            .find_map(|line| line.strip_prefix(READY))
            .unwrap_or_default();
        let isa = words
            .split_whitespace()
            .find_map(|word| word.strip_prefix("isa="));
        let isa = isa.ok_or_else(|| Failure::new("the guest names no instruction set"))?;
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

    fn wait_until<T>(
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
    fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.ended() {
            return Err(Failure::new(format!("the emulator ended ({status})")));
        }
        ensure!(!self.console().contains("panic"), "the guest panicked");
        Ok(())
    }

    /// The last lines of guest and emulator, for a failure message.
    fn last_words(&self) -> String {
        let text = self.console() + &self.read(WORDS);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(12);
        lines[start..]
            .iter()
            .map(|line| format!("\n    {line}"))
            .collect()
    }
}
