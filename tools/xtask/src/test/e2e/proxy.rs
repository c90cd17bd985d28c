//! `vitrine proxy` before real trust domains: programs we did not write chat through it, and everybody can see whom it trusts.
//!
//! Its servers: two trust domains that are what is pinned, one with another model, and one that is not there.

mod rotation;

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use synthesis::Mix;

use super::super::Suite;
use super::domains::{self, measure};
use super::endpoint::{Endpoint, SOON, Upstream};
use super::{ANSWER, World};
use crate::failure::{Failure, Result, ensure};
use crate::guest::{Guest, free_port};
use crate::packages::{Program, exists};
use crate::pins::Pins;
use crate::process;
use crate::python;

const PROMPT: &str = "What is kept in a glass case?";
const TOKENS: u32 = 12;
/// How old a connection of the impatient proxy may become.
const MAX_AGE: &str = "2";

type Check = fn(&mut Stage<'_>) -> Result<()>;
/// What is checked, and the program that takes. In this order: the last one ends a server.
const CHECKS: &[(&str, Option<Program>, Check)] = &[
    ("status", None, each_server_is_judged_on_its_own),
    ("openai", Some(Program::Python), openai_chats),
    ("curl", None, curl_chats),
    ("reuse", None, connections_are_used_again),
    (
        "chromium",
        Some(Program::Chromium),
        a_person_sees_the_verdict,
    ),
    ("max-age", None, old_connections_are_verified_anew),
    ("rotation", None, rotation::rotations_are_followed),
    ("no-tee", None, a_weaker_mode_is_told),
    ("skips", None, a_server_that_ends_is_skipped),
];

fn name(check: &str) -> String {
    format!("e2e/proxy/{check}")
}

/// Whether any of these tests is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let wanted = CHECKS
        .iter()
        .filter(|(check, ..)| suite.wants(&name(check)));
    wanted.count() > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    if !wanted(suite) {
        return;
    }
    if !exists(Program::Curl.command()) {
        return suite.skip("e2e/proxy", "curl is not installed");
    }
    let mut stage = match Stage::new(world) {
        Ok(stage) => stage,
        Err(failure) => return suite.fail("e2e/proxy", &failure),
    };
    for (check, program, test) in CHECKS {
        let name = name(check);
        if !suite.wants(&name) {
            continue;
        }
        match program.and_then(|program| missing(world, program)) {
            Some(why) => suite.skip(&name, &why),
            None => drop(suite.check(&name, || test(&mut stage))),
        }
    }
}

/// Why a check cannot be made for lack of a program.
fn missing(world: &World, program: Program) -> Option<String> {
    if !exists(program.command()) {
        return Some(format!("{} is not installed", program.command()));
    }
    match program {
        Program::Python => environment(world).err().map(|failure| failure.to_string()),
        _ => None,
    }
}

/// The Python that has OpenAI's package.
fn environment(world: &World) -> Result<PathBuf> {
    let oracles = world.workspace.root.join("tools/xtask/oracles");
    python::environment(&world.workspace, &oracles.join("requirements.txt"))
}

/// The servers, and a proxy before them.
struct Stage<'a> {
    world: &'a World,
    pins: Pins,
    /// The first two's model.
    model_digest: String,
    /// The options that accept these two.
    trust: Vec<String>,
    good: Guest,
    twin: Guest,
    other: Guest,
    proxy: Endpoint,
}

impl<'a> Stage<'a> {
    fn new(world: &'a World) -> Result<Self> {
        let pins = domains::pins(world, "proxy")?;
        let model = world.model(Mix::Q4KM)?;
        let model_digest = measure(world, &model, None)?.model.sha256.to_string();
        let trust = pins.accepting(&model_digest);
        let good = domains::boot(world, &pins, &model, None)?;
        let twin = domains::boot(world, &pins, &model, None)?;
        let other = domains::boot(world, &pins, &world.model(Mix::Q8_0)?, None)?;
        let nobody = format!("tcp://127.0.0.1:{}", free_port()?);
        let [first, second, third] = [&good, &twin, &other].map(|guest| guest.tcp().to_string());
        let mut options = vec!["--to", &third, &nobody, &first, &second];
        options.extend(trust.iter().map(String::as_str));
        let proxy = Endpoint::start(world, &options)?;
        Ok(Self {
            world,
            pins,
            model_digest,
            trust,
            good,
            twin,
            other,
            proxy,
        })
    }
}

/// Two are accepted after two judgements each, the one with another model is not, and nobody is nobody.
fn each_server_is_judged_on_its_own(stage: &mut Stage<'_>) -> Result<()> {
    let status = stage.proxy.status()?;
    ensure!(
        status["weaker_modes"] == json!(["test-root"]),
        "under a test root the status says {}",
        status["weaker_modes"]
    );
    let upstreams = stage.proxy.upstreams()?;
    let [other, nobody, good, twin] = upstreams.as_slice() else {
        return Err(Failure::new("the status has not four servers"));
    };
    ensure!(
        other.standing == "refused"
            && other
                .reports
                .iter()
                .any(|report| report["code"] == "model-mismatch"
                    && report["verdict"] == "policy-unsatisfied"),
        "a server with another model: {other:?}"
    );
    ensure!(
        nobody.standing == "unreachable" && nobody.reason.is_some(),
        "a server that is not there: {nobody:?}"
    );
    for server in [good, twin] {
        let accepted = |report: &Value| {
            report["verdict"] == "accepted"
                && report["checks"]
                    .as_array()
                    .is_some_and(|checks| !checks.is_empty())
        };
        ensure!(
            server.standing == "accepted"
                && server.reports.len() == 2
                && server.reports.iter().all(accepted),
            "a server that is what is pinned: {server:?}"
        );
    }
    Ok(())
}

/// What `openai_chat.py` prints.
#[derive(Debug, Deserialize)]
struct Seen {
    weaker_mode: Option<String>,
    whole: String,
    whole_finish_reason: String,
    tokens: u32,
    streamed: String,
    pieces: usize,
    streamed_finish_reason: String,
    completion_tokens: u32,
}

/// OpenAI's own Python package gets the answer that `vitrine chat` gets, whole and streamed.
fn openai_chats(stage: &mut Stage<'_>) -> Result<()> {
    let mut command = Command::new(environment(stage.world)?);
    let root = &stage.world.workspace.root;
    command.arg(root.join("tools/xtask/oracles/openai_chat.py"));
    command.args([
        &format!("{}/v1", stage.proxy.base()),
        PROMPT,
        &TOKENS.to_string(),
    ]);
    // Proxies of this machine's are between no one and its own loopback.
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    let seen: Seen = serde_json::from_str(&process::text(&mut command, ANSWER)?)?;
    let expected = answer(stage, &stage.good)?;
    ensure!(
        seen.whole == expected && seen.streamed == expected,
        "vitrine chat gets {expected:?}; the openai package {seen:?}"
    );
    ensure!(
        seen.tokens == TOKENS
            && seen.completion_tokens == TOKENS
            && seen.pieces > 1
            && seen.whole_finish_reason == "length"
            && seen.streamed_finish_reason == "length",
        "the openai package gets {seen:?}"
    );
    ensure!(
        seen.weaker_mode.as_deref() == Some("test-root"),
        "the answer is not marked: {seen:?}"
    );
    Ok(())
}

/// What `vitrine chat` gets from a server that it verifies itself.
fn answer(stage: &Stage<'_>, guest: &Guest) -> Result<String> {
    let (address, tokens) = (guest.tcp().to_string(), TOKENS.to_string());
    let mut command = stage.world.vitrine(&["chat", "--json", "--to", &address]);
    command.args([
        "--prompt",
        PROMPT,
        "--max-tokens",
        &tokens,
        "--temperature",
        "0",
    ]);
    command.args(&stage.trust);
    let answer: Value = serde_json::from_str(&process::text(&mut command, ANSWER)?)?;
    match answer["text"].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::new(format!("vitrine chat prints {answer}"))),
    }
}

/// curl gets an answer, whole and streamed, that says whose it is and under what.
fn curl_chats(stage: &mut Stage<'_>) -> Result<()> {
    let addresses = [&stage.good, &stage.twin].map(|guest| guest.tcp().to_string());
    for stream in [false, true] {
        let answer = process::text(
            stage.proxy.ask(PROMPT, TOKENS, stream).arg("--include"),
            ANSWER,
        )?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let whose = addresses
            .iter()
            .any(|address| head.contains(&format!("vitrine-upstream: {address}")));
        ensure!(
            head.starts_with("HTTP/1.1 200 ")
                && whose
                && head.contains("vitrine-weaker-mode: test-root"),
            "curl gets {head}"
        );
        let expected = match stream {
            true => "data: [DONE]",
            false => "\"finish_reason\":\"length\"",
        };
        ensure!(body.contains(expected), "curl gets {body}");
    }
    Ok(())
}

/// Requests one after another need no new connection.
fn connections_are_used_again(stage: &mut Stage<'_>) -> Result<()> {
    let count = |upstreams: &[Upstream]| {
        let verified = upstreams.iter().map(|one| one.connections.verified);
        let requests = upstreams.iter().map(|one| one.requests);
        (verified.sum::<u64>(), requests.sum::<u64>())
    };
    let before = count(&stage.proxy.upstreams()?);
    for _ in 0..4 {
        process::text(&mut stage.proxy.curl("/v1/models"), SOON)?;
    }
    let after = count(&stage.proxy.upstreams()?);
    ensure!(
        after.1 >= before.1 + 4 && after.0 <= before.0 + 1,
        "four requests: (connections verified, requests) were {before:?} and are {after:?}"
    );
    Ok(())
}

/// The page shows a person each server's verdict, and that a weaker mode is in force.
fn a_person_sees_the_verdict(stage: &mut Stage<'_>) -> Result<()> {
    let page = page(stage.world, &stage.proxy)?;
    for text in [
        "Vitrine proxy",
        "--test-root",
        &stage.good.tcp().to_string(),
        &stage.other.tcp().to_string(),
        "accepted",
        "refused",
        "unreachable",
        "model-mismatch",
        "freshness (REPORTDATA)",
        "<td class=\"good\">passed</td>",
    ] {
        ensure!(page.contains(text), "the page lacks {text:?}: {page}");
    }
    Ok(())
}

/// The page as a browser has it once it is laid out.
fn page(world: &World, proxy: &Endpoint) -> Result<String> {
    let mut command = Command::new(Program::Chromium.command());
    let profile = world.directory.path().join("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg(format!("{}/", proxy.base()));
    process::text(&mut command, ANSWER)
}

/// A connection that has reached its age is not used again.
fn old_connections_are_verified_anew(stage: &mut Stage<'_>) -> Result<()> {
    let address = stage.good.tcp().to_string();
    let mut options = vec!["--to", &address, "--max-age", MAX_AGE];
    options.extend(stage.trust.iter().map(String::as_str));
    let impatient = Endpoint::start(stage.world, &options)?;
    impatient.wait("verified its server three times", |upstreams| {
        upstreams[0].standing == "accepted" && upstreams[0].connections.verified >= 3
    })?;
    let answer = process::text(&mut impatient.ask(PROMPT, TOKENS, false), ANSWER)?;
    ensure!(answer.contains("finish_reason"), "curl gets {answer}");
    Ok(())
}

/// With --insecure-no-tee every answer and the page say so.
fn a_weaker_mode_is_told(stage: &mut Stage<'_>) -> Result<()> {
    let address = stage.other.tcp().to_string();
    let proxy = Endpoint::start(stage.world, &["--to", &address, "--insecure-no-tee"])?;
    let answer = process::text(proxy.ask(PROMPT, TOKENS, false).arg("--include"), ANSWER)?;
    ensure!(
        answer.contains("vitrine-weaker-mode: insecure-no-tee"),
        "curl gets {answer}"
    );
    let status = proxy.status()?;
    ensure!(
        status["weaker_modes"] == json!(["insecure-no-tee"]),
        "the status is {status}"
    );
    let page = process::text(&mut proxy.curl("/"), SOON)?;
    ensure!(
        page.contains("--insecure-no-tee") && page.contains("accepted without evidence"),
        "the page is {page}"
    );
    Ok(())
}

/// When a server is gone, the others answer.
fn a_server_that_ends_is_skipped(stage: &mut Stage<'_>) -> Result<()> {
    stage.good.stop();
    for _ in 0..4 {
        let answer = process::text(
            stage.proxy.ask(PROMPT, TOKENS, false).arg("--include"),
            ANSWER,
        )?;
        let address = stage.twin.tcp();
        ensure!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains(&address.to_string()),
            "curl gets {answer}"
        );
    }
    stage
        .proxy
        .wait("noticed that a server is gone", |upstreams| {
            upstreams[2].standing == "unreachable" && upstreams[3].standing == "accepted"
        })?;
    Ok(())
}
