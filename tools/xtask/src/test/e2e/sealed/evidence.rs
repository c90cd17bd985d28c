//! Evidence over time: a quoting service that is down for a while, certificates that are replaced under load, a clock that is wrong.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use client::{Request, Response, Session};
use serde_json::Value;
use verifier::date;

use super::super::READY;
use super::fixture::{Fixture, NO_EVIDENCE, eventually, refused};
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::Guest;

/// `vitrine`'s exit code for evidence that does not belong to what it came with, a certificate of another time included.
const EVIDENCE_MISMATCH: i32 = 21;
/// A challenge nobody else sends.
const CHALLENGE: &[u8] =
    br#"{"nonce":"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a","purpose":"session"}"#;
/// Certificates that are replaced every ten seconds.
const SHORT_LIVED: &str = "[limits]\ncertificate_seconds = 15\n";
/// Seconds by which the wrong clock is ahead, and how often certificates are replaced under load.
const AHEAD: u64 = 3 * 3600;
const ROTATIONS: usize = 2;
/// Connections that stream meanwhile, what each asks again and again, and the longest answer to it.
const STREAMS: usize = 2;
const LONG: &[u8] =
    br#"{"prompt":"glass","temperature":0,"max_tokens":3000,"ignore_eos":true,"return_token_ids":true,"stream":true}"#;
const STREAM_LIMIT: usize = 4 << 20;

/// Without quotes the machine comes up all the same and says what is missing, no owner gives it the key, and it recovers by itself; and a machine
/// that serves goes on serving, challenges aside.
pub fn the_quoting_service_fails_for_a_while(fixture: &Fixture) -> Result<()> {
    let outage = fixture.world.directory.path().join("outage");
    fs::write(&outage, "").context("begin the outage")?;
    let more = ["--quote-outage", &outage.to_string_lossy()];
    let mut guest = fixture.start(&fixture.sealed.file, &more, None)?;
    guest.wait_sealed(READY, || {})?;
    says_that_quotes_fail(fixture, &guest, "sealed", "pending")?;
    let refusal = fixture.provision(&guest, &fixture.sealed, &[])?;
    refused("vitrine provision", &refusal, NO_EVIDENCE, "no evidence")?;
    fs::remove_file(&outage).context("end the outage")?;
    fixture.wait_evidence(&guest)?;
    let ready = fixture.open(&mut guest)?;

    fs::write(&outage, "").context("begin the second outage")?;
    let challenge = fixture.ask(&guest, &Request::post("/attestation", CHALLENGE))?;
    ensure!(
        challenge.status == 503 && challenge.retry_after.is_some(),
        "a challenge without a quoting service: {} {}",
        challenge.status,
        challenge.body
    );
    says_that_quotes_fail(fixture, &guest, "ready", "current")?;
    let digest = &fixture.sealed.sealed_sha256;
    let refusal = fixture.chat(&guest, digest)?;
    refused("vitrine chat", &refusal, NO_EVIDENCE, "answer-missing")?;
    let prompt = fixture.prompt(&guest)?;
    ensure!(prompt.status == 200, "a prompt meanwhile: {}", prompt.body);
    fs::remove_file(&outage).context("end the second outage")?;
    fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    let health = fixture.health(&guest)?;
    ensure!(
        health.body["evidence_failure"] == Value::Null,
        "/health after the outage: {}",
        health.body
    );
    guest.check_alive()
}

/// A machine whose certificate ends while quotes fail finishes the answers it has begun, takes nothing new on, and says why; once the service is
/// back it serves again by itself.
pub fn an_outage_outlasts_the_certificate(fixture: &Fixture) -> Result<()> {
    let outage = fixture.world.directory.path().join("long-outage");
    let more = ["--quote-outage", &outage.to_string_lossy()];
    let mut guest = fixture.start(&fixture.plain, &more, Some(SHORT_LIVED))?;
    let ready = guest.wait_ready(READY, || {})?;
    let expected = streamed(fixture.connect(&guest)?)?.0;
    fs::write(&outage, "").context("begin the outage")?;
    let drained = AtomicBool::new(false);
    let finished = thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| scope.spawn(|| stream_until_refused(fixture, &guest, &expected, &drained)))
            .collect();
        let outcome = eventually("the machine drains", || {
            let health = fixture.health(&guest)?.body;
            Ok(health["state"] == "draining" && health["evidence"] == "expired")
        });
        drained.store(true, Ordering::SeqCst);
        let mut finished = 0;
        for stream in streams {
            let outcome = stream.join();
            finished += outcome.unwrap_or_else(|_| Err(Failure::new("a stream panicked")))?;
        }
        outcome.map(|()| finished)
    })?;
    ensure!(
        finished > 0,
        "no answer was under way when the machine began to drain"
    );
    let prompt = fixture.prompt(&guest)?;
    ensure!(
        (prompt.status, prompt.code()) == (503, "draining"),
        "a prompt to a machine that drains: {} {}",
        prompt.status,
        prompt.body
    );
    fs::remove_file(&outage).context("end the outage")?;
    eventually("the machine serves again", || {
        let health = fixture.health(&guest)?.body;
        Ok(health["state"] == "ready" && health["evidence"] == "current")
    })?;
    let digest = &fixture.sealed.plaintext_sha256;
    fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    guest.check_alive()
}

/// Streams the same answer again and again until the machine takes no more on. How many answers, all of them whole, ended after `drained`.
fn stream_until_refused(
    fixture: &Fixture,
    guest: &Guest,
    expected: &[u64],
    drained: &AtomicBool,
) -> Result<usize> {
    let mut finished = 0;
    loop {
        let begun_before = !drained.load(Ordering::SeqCst);
        let response = fixture
            .connect(guest)?
            .request(&Request::post("/v1/completions", LONG))?;
        if response.status() == 503 {
            return Ok(finished);
        }
        let (tokens, _) = whole(response)?;
        ensure!(tokens == expected, "a stream has other tokens than before");
        if begun_before && drained.load(Ordering::SeqCst) {
            finished += 1;
        }
    }
}

fn says_that_quotes_fail(
    fixture: &Fixture,
    guest: &Guest,
    state: &str,
    evidence: &str,
) -> Result<()> {
    eventually("/health says that quotes fail", || {
        let health = fixture.health(guest)?.body;
        let why = health["evidence_failure"].as_str().unwrap_or_default();
        Ok(why.contains("not available")
            && health["state"] == state
            && health["evidence"] == evidence)
    })
}

/// While clients stream answers on connections of their own, certificates come and go: every answer is whole, every certificate is judged good,
/// and each is another one.
pub fn certificates_are_replaced_under_load(fixture: &Fixture) -> Result<()> {
    let mut guest = fixture.start_sealed(&fixture.sealed.file, &[], Some(SHORT_LIVED))?;
    let ready = fixture.open(&mut guest)?;
    let digest = &fixture.sealed.sealed_sha256;
    let mut certificates = vec![fixture.certificate(&guest)?];
    let expected = streamed(fixture.connect(&guest)?)?.0;
    let over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| scope.spawn(|| stream_on(fixture.connect(&guest)?, &expected, &over)))
            .collect();
        let replaced = (0..ROTATIONS).try_for_each(|_| {
            eventually("there is a new certificate", || {
                let certificate = fixture.certificate(&guest)?;
                let new = !certificates.contains(&certificate);
                if new {
                    certificates.push(certificate);
                    let verdict = fixture.verdict(&guest, digest)?;
                    ensure!(
                        verdict["verdict"] == "accepted",
                        "a certificate under load is judged {verdict}"
                    );
                }
                Ok(new)
            })
        });
        over.store(true, Ordering::Relaxed);
        for stream in streams {
            stream
                .join()
                .unwrap_or_else(|_| Err(Failure::new("a stream panicked")))?;
        }
        replaced
    });
    outcome?;
    fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    guest.check_alive()
}

/// Streams the same answer again and again, always on the same connection.
fn stream_on(mut session: Session, expected: &[u64], over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let (tokens, kept) = streamed(session)?;
        ensure!(tokens == expected, "a stream has other tokens than before");
        session = kept;
    }
    Ok(())
}

/// One streamed answer, and the connection, which must have been kept.
fn streamed(session: Session) -> Result<(Vec<u64>, Session)> {
    whole(session.request(&Request::post("/v1/completions", LONG))?)
}

/// The tokens of a streamed answer, which must be whole, and its connection.
fn whole(mut response: Response) -> Result<(Vec<u64>, Session)> {
    let body = response.read_whole(STREAM_LIMIT)?;
    let text = String::from_utf8_lossy(&body);
    ensure!(
        response.status() == 200 && text.trim_end().ends_with("data: [DONE]"),
        "a stream ends like this: {}",
        text.chars()
            .rev()
            .take(200)
            .collect::<String>()
            .chars()
            .rev()
            .collect::<String>()
    );
    let mut tokens = Vec::new();
    for event in text.lines().filter_map(|line| line.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{event}"))?;
        let ids = chunk["choices"][0]["token_ids"].as_array();
        tokens.extend(ids.into_iter().flatten().filter_map(Value::as_u64));
    }
    ensure!(!tokens.is_empty(), "a stream has no tokens");
    let kept = response.into_session();
    Ok((
        tokens,
        kept.ok_or_else(|| Failure::new("the connection was not kept"))?,
    ))
}

/// A client whose clock differs is told which two times do not go together.
pub fn a_wrong_clock_is_told(fixture: &Fixture) -> Result<()> {
    let ahead = AHEAD.to_string();
    let more = ["--clock-ahead", &ahead];
    let mut guest = fixture.start_sealed(&fixture.sealed.file, &more, None)?;
    let verdict = fixture.verdict(&guest, &fixture.sealed.sealed_sha256)?;
    let findings = verdict["findings"].as_array().cloned().unwrap_or_default();
    let skew = findings
        .iter()
        .find(|finding| finding["code"] == "server-clock-skew");
    // Each begins with a date.
    let is_time = |time: &Value| time.as_str().is_some_and(|time| time.starts_with("20"));
    ensure!(
        verdict["verdict"] == "evidence-mismatch"
            && skew.is_some_and(|skew| is_time(&skew["expected"]) && is_time(&skew["found"])),
        "a clock three hours ahead is judged {verdict}"
    );
    // Whoever talks to the machine is told both times: the day of this side's clock, and the certificate's first second.
    let found = skew.and_then(|skew| skew["found"].as_str());
    let begins = found.and_then(|found| found.split(' ').next());
    let day = date::format(crate::calendar::now());
    let day = day.split('T').next();
    let digest = &fixture.sealed.sealed_sha256;
    for (command, refusal) in [
        (
            "vitrine provision",
            fixture.provision(&guest, &fixture.sealed, &[])?,
        ),
        ("vitrine chat", fixture.chat(&guest, digest)?),
    ] {
        refused(command, &refusal, EVIDENCE_MISMATCH, "server-clock-skew")?;
        let expected = format!("expected {}", day.unwrap_or("a time"));
        let found = format!("found {}", begins.unwrap_or("another"));
        for time in [expected, found] {
            refused(command, &refusal, EVIDENCE_MISMATCH, &time)?;
        }
    }
    guest.check_alive()
}
