//! Every attack of the catalogue, and combinations of them, against the drivers of the real guest.
//!
//! What stands for tokens here is the model, byte for byte, and an echo over each network. The whole guest meets the same attacks in
//! `cargo xtask test`.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Guest, Machine, Report, eventually, exchange, pattern};
use emulator::hostile::{Attack, Host, Outcome, Row, Target, catalogue};

/// Several requests of the disk driver, and a last sector with padding.
const MODEL: usize = (3 << 20) + 77;
/// How long the guest may take after the host begins to behave: a lease that never comes takes 3 s, a silent device 1 s.
const PATIENCE: Duration = Duration::from_secs(20);
const AT_ONCE: usize = 8;
/// How many combinations are tried that are possible here; a few by default.
const SEEDS: &str = "VITRINE_HOSTILE_SEEDS";
const FEW_SEEDS: usize = 24;

/// Whether what `name` says can be done here: there is no trust domain to attack, nor one that demands more of a device than others do, and
/// nobody says when to begin.
fn is_possible(name: &str) -> bool {
    let elsewhere = |row: &Row| {
        row.target == Target::Launch
            || row.outcome == Outcome::Deny
            || row.attack == Attack::PlatformBypassed
    };
    !Host::parse(name).unwrap().attacks().any(elsewhere)
}

/// Runs one guest against a host that does what `name` says.
fn run(name: &str) -> Result<(), String> {
    let host = Host::parse(name).unwrap();
    let outcome = *host.outcome();
    let ghosts = host
        .attacks()
        .any(|row| row.attack == Attack::GhostFunctions);
    let target = host
        .attacks()
        .find(|row| row.outcome != Outcome::Continue)
        .map(|row| row.target);
    let contents = pattern(MODEL);
    let machine = Machine::new(&contents, host);
    let guest = Guest::start(&machine);
    let mut lost: Vec<String> = Vec::new();
    let is_real = |reason: &String| !(ghosts && reason.ends_with("no registers"));
    let model = loop {
        match guest.next() {
            Report::Lost(reason) => lost.extend(Some(reason).filter(is_real)),
            Report::Model(model) => break model,
            Report::Serving => return Err("serving without a model".to_owned()),
        }
    };
    match (outcome, model) {
        (Outcome::Stop(words), Err(reason)) => return expect(words, &[reason]),
        (Outcome::Stop(words), Ok(_)) => return Err(format!("got a model, not one of {words:?}")),
        (_, Err(reason)) => return Err(format!("no model: {reason}")),
        (_, Ok(model)) if model != contents => return Err("another model".to_owned()),
        (_, Ok(_)) => {}
    }
    let data = pattern(20_000);
    let vsock = || echo(machine.connect_vsock(8443)?, &data);
    let tcp = || echo(machine.connect_tcp()?, &data);
    let gather = |lost: &mut Vec<String>| {
        let reasons = guest.reports.try_iter().filter_map(|report| match report {
            Report::Lost(reason) => Some(reason),
            _ => None,
        });
        lost.extend(reasons.filter(is_real));
    };
    if let Outcome::Degrade(words) = outcome {
        // The device that is to fail is used until it does.
        eventually(PATIENCE, || {
            let _ = if target == Some(Target::Vsock) {
                vsock()
            } else {
                tcp()
            };
            gather(&mut lost);
            expect(words, &lost).map_err(io::Error::other)
        })
        .map_err(|error| error.to_string())?;
    }
    for (path, attempt) in [
        (Target::Vsock, &vsock as &dyn Fn() -> io::Result<()>),
        (Target::Card, &tcp),
    ] {
        if outcome == Outcome::Continue || target != Some(path) {
            let result = eventually(PATIENCE, attempt);
            gather(&mut lost);
            result.map_err(|error| {
                format!(
                    "nothing comes back over {}: {error}; lost: {lost:?}",
                    path.name()
                )
            })?;
        }
    }
    if outcome == Outcome::Continue && !lost.is_empty() {
        return Err(format!("gave up {lost:?}"));
    }
    Ok(())
}

fn echo(mut stream: impl Read + Write, data: &[u8]) -> io::Result<()> {
    let back = exchange(&mut stream, data)?;
    // A stream whose packets were lost or reordered brings other bytes; what is above it (TLS) notices, and the client tries again.
    if back == data {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn expect(words: &[&str], reasons: &[String]) -> Result<(), String> {
    let found = reasons
        .iter()
        .any(|reason| words.iter().any(|word| reason.contains(word)));
    if found {
        Ok(())
    } else {
        Err(format!("{reasons:?} says none of {words:?}"))
    }
}

/// Runs many guests, several at a time because most of them wait, and says what went wrong.
fn run_all(names: &[String]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let result = run(name);
                    eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f32());
                    if let Err(reason) = result {
                        let attacks: Vec<_> = Host::parse(name)
                            .unwrap()
                            .attacks()
                            .map(|row| row.name)
                            .collect();
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("--hostile {name} ({attacks:?}): {reason}"));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[test]
fn every_attack_has_its_outcome() {
    let names: Vec<String> = catalogue()
        .iter()
        .map(|row| row.name.to_owned())
        .filter(|name| is_possible(name))
        .collect();
    assert!(names.len() > 80, "{}", names.len());
    let failures = run_all(&names);
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn combinations_of_attacks_have_theirs() {
    let count = std::env::var(SEEDS)
        .ok()
        .map_or(FEW_SEEDS, |count| count.parse().expect(SEEDS));
    let seeds = (0u64..).map(|seed| seed.to_string());
    let seeds: Vec<String> = seeds.filter(|seed| is_possible(seed)).take(count).collect();
    let failures = run_all(&seeds);
    assert!(failures.is_empty(), "{failures:#?}");
}
