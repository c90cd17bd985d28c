//! Evidence over time: a quoting service that is down for a while, certificates that are replaced under load, a clock that is wrong.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use client::{Request, Session};
use serde_json::Value;

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
    br#"{"prompt":"glass","temperature":0,"max_tokens":1000,"ignore_eos":true,"return_token_ids":true,"stream":true}"#;
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
    let prompt = fixture.prompt(&guest)?;
    ensure!(prompt.status == 200, "a prompt meanwhile: {}", prompt.body);
    fs::remove_file(&outage).context("end the second outage")?;
    let digest = &fixture.sealed.sealed_sha256;
    fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    let health = fixture.health(&guest)?;
    ensure!(
        health.body["evidence_failure"] == Value::Null,
        "/health after the outage: {}",
        health.body
    );
    guest.check_alive()
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
    let mut response = session.request(&Request::post("/v1/completions", LONG))?;
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
    let refusal = fixture.provision(&guest, &fixture.sealed, &[])?;
    refused(
        "vitrine provision",
        &refusal,
        EVIDENCE_MISMATCH,
        "server-clock-skew",
    )?;
    guest.check_alive()
}
