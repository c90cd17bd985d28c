//! Attacks on clients: whoever sits between them and a trust domain gets a verdict instead of a prompt.
//!
//! The domains are the real image in the emulator; between client and domain sits `cargo xtask adversary`, a process that writes down
//! everything that reaches it. Each attack has the class and the code that it must be refused with; then the capture is searched for the prompt
//! where the adversary could read what it was sent, and has to consist of handshakes where it could not. Three conversations that are no attacks
//! on this protocol show that the prompt would be found.

use std::fs;
use std::process::Command;

use synthesis::Mix;

use super::super::Suite;
use super::adversary::Adversary;
use super::domains::{self, measure};
use super::endpoint::Endpoint;
use super::{ANSWER, World};
use crate::failure::{Context as _, Result, ensure};
use crate::guest::Guest;
use crate::pins::Pins;
use crate::process::{self, Output};

const PROMPT: &str = "The combination of the vault is 2718281828.";
/// What no adversary may learn: the prompt, and that one is about to be asked.
const SECRETS: [&str; 2] = [PROMPT, "/v1/"];
const CHALLENGE: &str = "/attestation";

/// The model's release that is accepted, and the one before.
const CURRENT: &str = "[model]\nversion = 2\n";
const OLD: &str = "[model]\nversion = 1\n";

/// What comes of an attack: the class of the verdict, its exit code, and the code of the deciding finding.
pub type Verdict = (&'static str, i32, &'static str);
pub const fn mismatch(code: &'static str) -> Verdict {
    ("evidence-mismatch", 21, code)
}
pub const fn unsatisfied(code: &'static str) -> Verdict {
    ("policy-unsatisfied", 22, code)
}
const fn no_evidence(code: &'static str) -> Verdict {
    ("no-evidence", 23, code)
}

/// Attacks by `cargo xtask adversary`, by their strategies; whether they get as far as to be challenged; and what comes of them.
const ATTACKS: &[(&str, bool, Verdict)] = &[
    ("eavesdrop", false, no_evidence("evidence-missing")),
    ("replay-certificate", false, mismatch("handshake-signature")),
    ("relay-certificate", false, mismatch("key-mismatch")),
    ("rewrite-claims", false, mismatch("claims-unbound")),
    ("answer-as-certificate", false, mismatch("claims-unbound")),
    ("replay-answer", true, mismatch("not-fresh")),
    ("relay-answer", true, mismatch("not-fresh")),
    ("divert-answer", true, mismatch("another-domain")),
    ("reflect", true, mismatch("reflected")),
    ("certificate-as-answer", true, mismatch("wrong-purpose")),
    ("other-purpose", true, mismatch("wrong-purpose")),
    ("refuse", true, no_evidence("answer-missing")),
];

/// One of the stage's domains.
type Domain = for<'a> fn(&'a Stage<'_>) -> &'a Guest;
/// Genuine domains that are not the accepted one, asked directly and through whoever diverts to them.
const SWAPS: &[(&str, Domain, Verdict)] = &[
    (
        "model-swap",
        |stage| &stage.other,
        unsatisfied("model-mismatch"),
    ),
    (
        "rollback",
        |stage| &stage.old,
        unsatisfied("model-rollback"),
    ),
];

/// A conversation that succeeds.
type Control = fn(&Stage<'_>) -> Result<()>;
/// What is no attack, or beyond what a client can see.
const CONTROLS: &[(&str, Control)] = &[
    ("passed-on", bytes_passed_on_tell_nothing),
    ("impersonated", whoever_has_all_keys_hears_the_prompt),
    ("blind-trust", whoever_is_trusted_blindly_hears_the_prompt),
];

const OLD_CERTIFICATE: &str = "old-certificate";
const PROXY: &str = "proxy";

fn name(attack: &str) -> String {
    format!("e2e/attacks/{attack}")
}

/// Whether any of these tests is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let attacks = ATTACKS.iter().map(|(attack, ..)| *attack);
    let swaps = SWAPS.iter().map(|(swap, ..)| *swap);
    let controls = CONTROLS.iter().map(|(control, _)| *control);
    let names = attacks
        .chain(swaps)
        .chain(controls)
        .chain([OLD_CERTIFICATE, PROXY]);
    names.filter(|attack| suite.wants(&name(attack))).count() > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    if !wanted(suite) {
        return;
    }
    let stage = match Stage::new(world) {
        Ok(stage) => stage,
        Err(failure) => return suite.fail("e2e/attacks", &failure),
    };
    for (control, test) in CONTROLS {
        suite.check(&name(control), || test(&stage));
    }
    for (strategy, challenged, verdict) in ATTACKS {
        suite.check(&name(strategy), || {
            attack(&stage, strategy, *challenged, verdict)
        });
    }
    for (swap, guest, verdict) in SWAPS {
        suite.check(&name(swap), || swapped(&stage, guest(&stage), verdict));
    }
    suite.check(&name(OLD_CERTIFICATE), || {
        an_old_certificate_is_stale(&stage)
    });
    suite.check(&name(PROXY), || no_adversary_is_an_upstream(&stage));
}

/// Three genuine trust domains under one test root, and a policy that accepts the first.
struct Stage<'a> {
    world: &'a World,
    pins: Pins,
    current: Guest,
    old: Guest,
    other: Guest,
    policy: String,
}

impl<'a> Stage<'a> {
    fn new(world: &'a World) -> Result<Self> {
        let pins = domains::pins(world, "attacks")?;
        let (model, other) = (world.model(Mix::Q4KM)?, world.model(Mix::Q8_0)?);
        let mut configurations = Vec::new();
        let mut digest = String::new();
        for (release, text) in [("current", CURRENT), ("old", OLD)] {
            let path = pins.file(&format!("{release}.toml"), text)?;
            let measured = measure(world, &model, Some(&path))?;
            let canonical = pins.file(release, &measured.configuration.canonical)?;
            configurations.push(canonical);
            digest = measured.model.sha256.to_string();
        }
        let policy = format!(
            "[program]\nmanifests = [{:?}]\n[configuration]\nfiles = {configurations:?}\n\
             [model]\ndigests = [{digest:?}]\nminimum_version = 2\n",
            pins.manifest()
        );
        Ok(Self {
            current: domains::boot(world, &pins, &model, Some(CURRENT))?,
            old: domains::boot(world, &pins, &model, Some(OLD))?,
            other: domains::boot(world, &pins, &other, Some(CURRENT))?,
            policy: pins.file("policy.toml", &policy)?.display().to_string(),
            pins,
            world,
        })
    }

    /// Asks the prompt of whoever is at an address.
    fn chat(&self, address: &str) -> Result<Output> {
        let mut command = self.client("chat", address);
        self.accept(&mut command);
        process::output(&mut command, b"", ANSWER)
    }

    /// Puts an adversary before the current domain.
    fn adversary(&self, strategy: &str, other: &Guest) -> Result<Adversary> {
        Adversary::start(&self.pins, strategy, &self.current, other)
    }

    fn client(&self, command: &str, address: &str) -> Command {
        let mut client = self.world.vitrine(&[command, "--to", address]);
        client.args(["--prompt", PROMPT, "--max-tokens", "4"]);
        client
    }

    /// The options that accept the current domain and no other.
    fn accept(&self, command: &mut Command) {
        command.args(self.pins.platform());
        command.args(["--policy", &self.policy]);
    }
}

/// Fails unless a client refused with this verdict and printed no answer.
pub fn refused(output: &Output, verdict: &Verdict) -> Result<()> {
    let (class, exit, code) = verdict;
    ensure!(
        output.status.code() == Some(*exit)
            && output.stdout.is_empty()
            && output.stderr.contains(&format!("{class}, {code}")),
        "expected {verdict:?}; the client ended with {}: {}",
        output.status,
        output.stderr
    );
    Ok(())
}

/// Fails unless a client got an answer.
pub fn answered(output: &Output) -> Result<()> {
    ensure!(
        output.status.success() && !output.stdout.trim().is_empty(),
        "the client ended with {}: {}",
        output.status,
        output.stderr
    );
    Ok(())
}

/// An attack meets its verdict, and hears nothing.
fn attack(stage: &Stage<'_>, strategy: &str, challenged: bool, verdict: &Verdict) -> Result<()> {
    let adversary = stage.adversary(strategy, &stage.other)?;
    refused(&stage.chat(&adversary.address)?, verdict)?;
    if !challenged {
        return adversary.heard_only_handshakes();
    }
    ensure!(
        adversary.heard(CHALLENGE)?,
        "the adversary should have been challenged"
    );
    adversary.heard_none_of(&SECRETS)
}

/// A genuine domain that is not the accepted one is refused, whichever way leads to it.
fn swapped(stage: &Stage<'_>, guest: &Guest, verdict: &Verdict) -> Result<()> {
    refused(&stage.chat(&guest.tcp().to_string())?, verdict)?;
    let adversary = stage.adversary("divert", guest)?;
    refused(&stage.chat(&adversary.address)?, verdict)?;
    adversary.heard_only_handshakes()
}

/// Whoever only passes bytes on is nobody's concern: they are encrypted to the domain.
fn bytes_passed_on_tell_nothing(stage: &Stage<'_>) -> Result<()> {
    let adversary = stage.adversary("pass", &stage.other)?;
    answered(&stage.chat(&adversary.address)?)?;
    adversary.heard_a_request_encrypted()
}

/// Whoever has the platform's keys and the session's is the domain, as far as anybody can tell.
fn whoever_has_all_keys_hears_the_prompt(stage: &Stage<'_>) -> Result<()> {
    let adversary = stage.adversary("impersonate", &stage.other)?;
    answered(&stage.chat(&adversary.address)?)?;
    ensure!(
        adversary.heard(PROMPT)?,
        "the capture would not show a prompt that was sent"
    );
    Ok(())
}

/// --insecure-no-tee is what it says.
fn whoever_is_trusted_blindly_hears_the_prompt(stage: &Stage<'_>) -> Result<()> {
    let adversary = stage.adversary("eavesdrop", &stage.other)?;
    let mut command = stage.client("chat", &adversary.address);
    command.arg("--insecure-no-tee");
    answered(&process::output(&mut command, b"", ANSWER)?)?;
    ensure!(
        adversary.heard(PROMPT)?,
        "the capture would not show a prompt that was sent"
    );
    Ok(())
}

/// A certificate of the domain's is worth nothing after its end.
fn an_old_certificate_is_stale(stage: &Stage<'_>) -> Result<()> {
    let connector = client::Connector::new(client::Options::new(client::Trust::InsecureNoTee))?;
    let session = connector.connect(&stage.current.tcp())?;
    let path = stage.pins.directory().join("certificate.der");
    fs::write(&path, session.certificate().unwrap_or_default()).context("write a certificate")?;
    let judge = |at: u64| {
        let mut command = stage
            .world
            .vitrine(&["verify", "--at", &at.to_string(), "--cert"]);
        command.arg(&path);
        stage.accept(&mut command);
        process::output(&mut command, b"", ANSWER)
    };
    let now = crate::calendar::now();
    answered(&judge(now)?)?;
    let stale = judge(now + 60 * 60)?;
    ensure!(
        stale.status.code() == Some(21) && stale.stderr.contains("server-clock-skew"),
        "an hour later the verdict is {}: {}",
        stale.status,
        stale.stderr
    );
    Ok(())
}

/// A proxy that has adversaries among its servers asks none of them, and says of each why.
fn no_adversary_is_an_upstream(stage: &Stage<'_>) -> Result<()> {
    let mut adversaries = Vec::new();
    for (strategy, ..) in ATTACKS {
        adversaries.push(stage.adversary(strategy, &stage.other)?);
    }
    let domain = stage.current.tcp().to_string();
    let mut options = Vec::new();
    for address in adversaries.iter().map(|one| &one.address).chain([&domain]) {
        options.extend(["--to".to_owned(), address.clone()]);
    }
    options.extend(stage.pins.platform());
    options.extend(["--policy".to_owned(), stage.policy.clone()]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let proxy = Endpoint::start(stage.world, &options)?;
    for _ in 0..3 {
        let answer = process::text(proxy.ask(PROMPT, 4, false).arg("--include"), ANSWER)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains(&domain),
            "curl gets {answer}"
        );
    }
    let upstreams = proxy.upstreams()?;
    for ((strategy, _, (class, _, code)), upstream) in ATTACKS.iter().zip(&upstreams) {
        let reason = upstream.reason.clone().unwrap_or_default();
        ensure!(
            upstream.standing == "refused"
                && upstream.requests == 0
                && reason.contains(class)
                && reason.contains(code),
            "{strategy} should be refused with {class} ({code}): {upstream:?}"
        );
    }
    for adversary in &adversaries {
        adversary.heard_none_of(&SECRETS)?;
    }
    Ok(())
}
