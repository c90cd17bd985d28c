//! `vitrine provision` and the two legs of trust, on a sealed model: the key goes to verified machines only, again after each restart, and
//! the owner's word that it leaves there is what clients demand who know the owner's key.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use synthesis::Mix;

use super::super::Suite;
use super::adversary::Adversary;
use super::attacks::{Verdict, answered, mismatch, refused, unsatisfied};
use super::domains::{self, measure};
use super::endpoint::Endpoint;
use super::{ANSWER, READY, World};
use crate::failure::{Failure, Result, ensure};
use crate::guest::{Guest, free_port};
use crate::interrupt;
use crate::packages::{Program, exists};
use crate::pins::Pins;
use crate::process::{self, Output, Process};
use crate::sealed::SealedModel;

/// For a key, or for sealing a small model.
const SOON: Duration = Duration::from_secs(120);

/// What whoever sits between the owner and a sealed machine comes to.
const ATTACKS: &[(&str, Verdict)] = &[
    ("relay-certificate", mismatch("key-mismatch")),
    ("relay-answer", mismatch("not-fresh")),
    ("other-purpose", mismatch("wrong-purpose")),
];

type Test = fn(&mut Stage<'_>) -> Result<()>;
/// In this order: the machine is sealed in the first, and then given its key.
const TESTS: &[(&str, Test)] = &[
    ("attacked", no_adversary_gets_the_key),
    ("watch", a_watched_machine_is_given_its_key),
    ("endorsed", its_owner_s_word_is_a_row_of_its_own),
    ("another-owner", another_owner_s_word_is_demanded_in_vain),
    ("no-word", a_machine_without_an_owner_s_word_is_refused),
    ("restart", a_machine_that_restarts_is_given_its_key_again),
];

fn name(test: &str) -> String {
    format!("e2e/provision/{test}")
}

/// Whether any of these tests is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let wanted = TESTS.iter().filter(|(test, _)| suite.wants(&name(test)));
    wanted.count() > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    if !wanted(suite) {
        return;
    }
    if !exists(Program::OpenSsl.command()) {
        return suite.skip("e2e/provision", "openssl is not installed");
    }
    let mut stage = match Stage::new(world) {
        Ok(stage) => stage,
        Err(failure) => return suite.fail("e2e/provision", &failure),
    };
    for (test, check) in TESTS {
        suite.check(&name(test), || check(&mut stage));
    }
}

/// A sealed model, a machine for it, its owner and another one.
struct Stage<'a> {
    world: &'a World,
    pins: Pins,
    sealed: SealedModel,
    port: u16,
    guest: Guest,
    owner: Owner,
    other: Owner,
    watcher: Option<Process>,
}

/// An owner's keys, made by a program that is not ours.
struct Owner {
    private: String,
    public: String,
}

impl Owner {
    fn new(directory: &Path, name: &str) -> Result<Self> {
        let path = |extension| {
            directory
                .join(name)
                .with_extension(extension)
                .display()
                .to_string()
        };
        let (private, public) = (path("pem"), path("pub"));
        for arguments in [
            &["genpkey", "-algorithm", "ed25519", "-out", &private][..],
            &["pkey", "-in", &private, "-pubout", "-out", &public],
        ] {
            process::text(
                Command::new(Program::OpenSsl.command()).args(arguments),
                SOON,
            )?;
        }
        Ok(Self { private, public })
    }
}

impl<'a> Stage<'a> {
    fn new(world: &'a World) -> Result<Self> {
        let pins = domains::pins(world, "provision")?;
        let model = world.model(Mix::Q4KM)?;
        let sealed = SealedModel::make(&world.vitrine, &model, pins.directory())?;
        let port = free_port()?;
        let mut stage = Self {
            world,
            port,
            guest: domains::start(world, &pins, &sealed.file, None, Some(port))?,
            owner: Owner::new(pins.directory(), "owner")?,
            other: Owner::new(pins.directory(), "other")?,
            pins,
            sealed,
            watcher: None,
        };
        stage.wait_sealed()?;
        Ok(stage)
    }

    /// Waits until the machine waits for its key, and its evidence is there.
    fn wait_sealed(&mut self) -> Result<()> {
        self.guest.wait_sealed(READY, || {})?;
        let address = self.guest.tcp().to_string();
        let deadline = Instant::now() + READY;
        loop {
            interrupt::check()?;
            let mut verify = self.world.vitrine(&["verify", "--to", &address, "--json"]);
            verify.args(self.pins.program());
            let text = process::output(&mut verify, b"", ANSWER)?.stdout;
            let verdict = serde_json::from_str::<Value>(&text).unwrap_or_default();
            if verdict["measurements"]["mrtd"].is_string() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the machine has no evidence: {text}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// `vitrine provision` to an address, which the owner signs.
    fn provision(&self, address: &str) -> Command {
        let mut provision = self.world.vitrine(&["provision", "--to", address]);
        provision.arg("--sealed").arg(&self.sealed.file);
        provision.arg("--identity").arg(&self.sealed.identity);
        provision.args(["--sign-with", &self.owner.private]);
        provision.args(self.pins.program());
        provision
    }

    /// Asks a machine whose model has this SHA-256 and whose owner is to be this one.
    fn chat(&self, guest: &Guest, model: &str, owner: &Owner) -> Result<Output> {
        let mut chat = self
            .world
            .vitrine(&["chat", "--to", &guest.tcp().to_string()]);
        chat.args(["--prompt", "Good morning.", "--max-tokens", "4"]);
        chat.args(["--owner-key", &owner.public]);
        chat.args(self.pins.accepting(model));
        process::output(&mut chat, b"", ANSWER)
    }
}

/// Whoever sits between gets a refusal, and not the key.
fn no_adversary_gets_the_key(stage: &mut Stage<'_>) -> Result<()> {
    for (strategy, verdict) in ATTACKS {
        let adversary = Adversary::start(&stage.pins, strategy, &stage.guest, &stage.guest)?;
        let output = process::output(&mut stage.provision(&adversary.address), b"", ANSWER)?;
        refused(&output, verdict)?;
        adversary.heard_none_of(&["/model-key", "/endorsement"])?;
    }
    Ok(())
}

/// A machine that waits for its key is verified and given it.
fn a_watched_machine_is_given_its_key(stage: &mut Stage<'_>) -> Result<()> {
    let mut command = stage.provision(&stage.guest.tcp().to_string());
    command.args(["--watch", "--interval", "1"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()));
    stage.watcher = Some(Process::start(&mut command)?);
    stage.guest.wait_ready(READY, || {})?;
    Ok(())
}

/// A client that knows the owner's key accepts the machine, and a proxy shows why.
fn its_owner_s_word_is_a_row_of_its_own(stage: &mut Stage<'_>) -> Result<()> {
    let model = &stage.sealed.sealed_sha256;
    answered(&stage.chat(&stage.guest, model, &stage.owner)?)?;
    let address = stage.guest.tcp().to_string();
    let mut options = vec!["--to", &address, "--owner-key", &stage.owner.public];
    let accepting = stage.pins.accepting(model);
    options.extend(accepting.iter().map(String::as_str));
    let upstreams = Endpoint::start(stage.world, &options)?.upstreams()?;
    let endorsement = &upstreams[0].reports[2]["checks"][0];
    ensure!(
        upstreams[0].standing == "accepted"
            && endorsement["check"] == "owner's endorsement"
            && endorsement["outcome"] == "passed",
        "the proxy shows {upstreams:?}"
    );
    Ok(())
}

/// Evidence does not make up for the wrong owner.
fn another_owner_s_word_is_demanded_in_vain(stage: &mut Stage<'_>) -> Result<()> {
    let output = stage.chat(&stage.guest, &stage.sealed.sealed_sha256, &stage.other)?;
    refused(&output, &unsatisfied("endorsement-signature"))
}

/// Nor for none.
fn a_machine_without_an_owner_s_word_is_refused(stage: &mut Stage<'_>) -> Result<()> {
    let model = stage.world.model(Mix::Q8_0)?;
    let guest = domains::boot(stage.world, &stage.pins, &model, None)?;
    let digest = measure(stage.world, &model, None)?.model.sha256.to_string();
    let output = stage.chat(&guest, &digest, &stage.owner)?;
    refused(&output, &unsatisfied("endorsement-missing"))
}

/// Nobody need do anything when a machine restarts.
fn a_machine_that_restarts_is_given_its_key_again(stage: &mut Stage<'_>) -> Result<()> {
    if stage.watcher.is_none() {
        return Err(Failure::new("not run: nobody watches"));
    }
    stage.guest.stop();
    let model = &stage.sealed.file;
    stage.guest = domains::start(stage.world, &stage.pins, model, None, Some(stage.port))?;
    stage.guest.wait_ready(READY, || {})?;
    answered(&stage.chat(&stage.guest, &stage.sealed.sealed_sha256, &stage.owner)?)
}
