//! The image as a trust domain under a hostile host: every attack of the emulator's catalogue, and with `--full` a thousand combinations.
//!
//! Each has one outcome: the same tokens as on this host over both networks, the same tokens over one of them while the attacked device is
//! shut down with a reason, or a refusal to serve with a reason. Whatever a host withholds from a guest that serves, the guest answers within a
//! second once it has it back. A guest that panics, dies or answers anything else fails, and so does a test whose attack never came to be
//! carried out.

mod victim;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::Address;
use emulator::hostile::{Host, Outcome, Target, catalogue};
use nix::sys::signal::Signal;
use synthesis::Mix;

use super::{Suite, World, same_tokens};
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::interrupt;
use victim::{Victim, tokens};

/// For tokens while attacks go on: lost packets are sent again after a second or two, a lease is waited for three.
const PATIENCE: Duration = Duration::from_secs(40);
/// For one attempt to get them.
const ATTEMPT: Duration = Duration::from_secs(4);
/// For an answer, or for evidence, once the host behaves; the best of [`TRIES`], because this machine has other things to do as well.
const SOON: Duration = Duration::from_secs(1);
const TRIES: usize = 3;
/// The same where many guests share this machine.
const SOON_AMONG_MANY: Duration = Duration::from_secs(10);
/// How long a host withholds something.
const DENIED: Duration = Duration::from_secs(2);
const SEEDS: u64 = 1000;
/// After how many seeds it is said how far the test is.
const REPORT: u64 = 50;
/// Guests at a time.
const AT_ONCE: usize = 6;

/// What a guest's console says last before it wants evidence.
const LOADS: &str = "vitrine: loading";

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
    let mut trial = Trial {
        world,
        soon: SOON,
        expected: Mutex::default(),
    };
    for row in catalogue() {
        suite.check(&name(row.name), || trial.run(row.name, 2));
    }
    if suite.full() {
        trial.soon = SOON_AMONG_MANY;
        suite.check(&name(COMBINATIONS), || trial.run_seeds());
    }
}

/// What all guests under attack share.
struct Trial<'a> {
    world: &'a World,
    /// For an answer once the host behaves.
    soon: Duration,
    /// What the engine answers on this host, by instruction set.
    expected: Mutex<BTreeMap<String, Vec<u32>>>,
}

impl Trial<'_> {
    /// Runs guests against every seed, several at a time because most of them wait; says at once which fails.
    fn run_seeds(&self) -> Result<()> {
        // Made by one, used by all.
        self.world.model(Mix::Q4KM)?;
        let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let worker = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS || interrupt::interrupted() {
                    break;
                }
                // One processor and two in turn.
                if let Err(failure) = self.run(&seed.to_string(), 1 + (seed % 2) as u32) {
                    eprintln!("      {failure}");
                    lock(&failed).push(seed);
                }
                if seed % REPORT == 0 {
                    eprintln!("      seed {seed}");
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(worker);
            }
        });
        interrupt::check()?;
        let failed = lock(&failed);
        ensure!(
            failed.is_empty(),
            "{} of {SEEDS} seeds fail: {failed:?}",
            failed.len()
        );
        Ok(())
    }

    /// Runs a guest against `--hostile attack`; one that waits for evidence again if this machine was too busy to have it soon.
    fn run(&self, attack: &str, cpus: u32) -> Result<()> {
        let mut best = Duration::MAX;
        for _ in 0..TRIES {
            best = best.min(self.run_once(attack, cpus)?);
            if best < self.soon {
                return Ok(());
            }
        }
        Err(Failure::new(format!(
            "--hostile {attack}, {cpus} CPUs: at best it serves {} ms after its host behaves, not within {} ms",
            best.as_millis(),
            self.soon.as_millis()
        )))
    }

    /// Runs one guest; how long after its host behaved it had evidence, if it had to wait for that.
    fn run_once(&self, attack: &str, cpus: u32) -> Result<Duration> {
        interrupt::check()?;
        let host = Host::parse(attack).map_err(Failure::new)?;
        let attacks: Vec<&str> = host.attacks().map(|row| row.name).collect();
        let mut guest = Victim::start(self.world, attack, cpus)?;
        let judged = self.judge(&host, &mut guest).and_then(|waited| {
            // Of several attacks, one may hide another.
            if attacks == [attack] {
                let struck = guest.struck()?;
                let times = struck.get(attack).copied().unwrap_or(0);
                ensure!(times > 0, "the attack was never carried out");
            }
            Ok(waited)
        });
        judged.map_err(|failure| {
            let attacks = attacks.join(", ");
            Failure::new(format!(
                "--hostile {attack} ({attacks}), {cpus} CPUs: {failure}{}",
                guest.last_words()
            ))
        })
    }

    /// The tokens a guest must answer with.
    fn expected(&self, guest: &Victim) -> Result<Vec<u32>> {
        let isa = guest.isa()?;
        let mut expected = lock(&self.expected);
        if let Some(tokens) = expected.get(&isa) {
            return Ok(tokens.clone());
        }
        let tokens = guest.expected_tokens(self.world, &isa)?;
        expected.insert(isa, tokens.clone());
        Ok(tokens)
    }

    /// Fails unless the guest does what is expected of it; how long it waited for evidence once its host behaved.
    fn judge(&self, host: &Host, guest: &mut Victim) -> Result<Duration> {
        let outcome = *host.outcome();
        let behaves = match outcome {
            Outcome::Unattested(words) => Some(waits_for_evidence(guest, words)?),
            _ => None,
        };
        let refused = guest.wait_started()?;
        let waited = behaves.map_or(Duration::ZERO, |behaves| behaves.elapsed());
        match (outcome, refused) {
            (Outcome::Stop(words), Some(reason)) => {
                ensure!(
                    words.iter().any(|word| reason.contains(word)),
                    "it refuses to serve, but says none of {words:?}"
                );
                return Ok(waited);
            }
            (Outcome::Stop(words), None) => {
                return Err(Failure::new(format!(
                    "it serves and should have said one of {words:?}"
                )));
            }
            (_, Some(_)) => return Err(Failure::new("it refuses to serve")),
            (_, None) => {}
        }
        let expected = self.expected(guest)?;
        if outcome == Outcome::Deny {
            self.comes_back(guest, &expected)?;
            return Ok(waited);
        }
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
            self.answers_soon(guest, path, &address, &expected)?;
        }
        if outcome == Outcome::Continue {
            let console = guest.console();
            ensure!(!console.contains("shut down"), "it gave up a device");
        }
        guest.check_alive()?;
        Ok(waited)
    }

    /// Takes everything away from a guest that serves, and gives it back.
    fn comes_back(&self, guest: &mut Victim, expected: &[u32]) -> Result<()> {
        guest.signal(Signal::SIGUSR1)?;
        let paths = [(Target::Vsock, guest.vsock()), (Target::Card, guest.tcp())];
        let denied = paths
            .iter()
            .filter(|(_, address)| tokens(address, DENIED).is_err());
        ensure!(denied.count() > 0, "it answers all the same");
        for (path, address) in &paths {
            self.answers_soon(guest, *path, address, expected)?;
        }
        guest.check_alive()
    }

    /// Fails unless the guest answers soon enough from when its host begins to behave.
    fn answers_soon(
        &self,
        guest: &mut Victim,
        path: Target,
        address: &Address,
        expected: &[u32],
    ) -> Result<()> {
        let mut best = Err(Failure::new("it was never asked"));
        for attempt in 0..TRIES {
            if attempt > 0 {
                guest.signal(Signal::SIGUSR1)?;
                thread::sleep(DENIED);
            }
            guest.signal(Signal::SIGUSR2)?;
            let behaves = Instant::now();
            best = tokens(address, self.soon);
            if best.is_ok() && behaves.elapsed() < self.soon {
                break;
            }
            best = best.and(Err(Failure::new("the answer came later")));
        }
        let answer = best.context(format!(
            "answer over {} within {} s from when the host behaves",
            path.name(),
            self.soon.as_secs()
        ))?;
        guest.signal(Signal::SIGUSR1)?;
        same_tokens(&answer, expected)
    }
}

/// Locks what no thread leaves half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails if the guest serves before it has evidence, or does not say what is wrong with it. In the end the host behaves; since when.
fn waits_for_evidence(guest: &mut Victim, words: &[&str]) -> Result<Instant> {
    guest.wait_until(PATIENCE, |guest| {
        let console = guest.console();
        let said = words.is_empty() || words.iter().any(|word| console.contains(word));
        (said && console.contains(LOADS)).then_some(())
    })?;
    thread::sleep(DENIED);
    ensure!(!guest.serves(), "it serves without evidence");
    let behaves = Instant::now();
    guest.signal(Signal::SIGUSR2)?;
    Ok(behaves)
}
