//! The host as an attacker: what it does to the trust domain, when, and what the guest must make of it.
//!
//! Every attack is a row of the [`catalogue`], named, with one expected [`Outcome`]. The devices and the core ask [`Host::strikes`] at each
//! occasion, in the code that an attack would subvert; an honest host never strikes. A row's schedule counts occasions, not time, so that a
//! run repeats; a seed picks rows and schedules of its own. [`Host::behave`] ends all of it, [`Host::attack`] begins it again.

mod catalogue;
mod interrupts;
pub mod launch;
mod random;

pub use catalogue::{Attack, Outcome, Row, Target, catalogue};
pub use interrupts::TamperedInterrupts;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use random::SplitMix64;

/// The most attacks that one seed combines.
const MOST_AT_ONCE: u64 = 4;
/// One seed in this many contains an attack that must stop the guest or a device.
const ONE_STOPS_IN: u64 = 3;

/// No attack has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAttack(String);

impl fmt::Display for UnknownAttack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no attack `{}`; give a number for a random combination, or one of:",
            self.0
        )?;
        catalogue()
            .iter()
            .try_for_each(|row| write!(f, " {}", row.name))
    }
}

impl std::error::Error for UnknownAttack {}

/// One attack in a plan.
#[derive(Debug)]
struct Planned {
    row: &'static Row,
    /// Which occasions are used.
    occasions: Range<u32>,
    /// How many there were.
    seen: AtomicU32,
    /// How many were used.
    struck: AtomicU32,
}

/// How the host behaves.
#[derive(Debug)]
pub struct Host {
    plan: Vec<Planned>,
    /// Nothing is done at the moment, and occasions pass.
    behaves: AtomicBool,
    random: Mutex<SplitMix64>,
}

impl Host {
    /// One that behaves.
    pub fn honest() -> Self {
        Self::with_plan(Vec::new(), 0)
    }

    /// One that carries out the attack called `name`, or, if it is a number, what that seed makes of the catalogue.
    ///
    /// # Errors
    /// There is no such attack.
    pub fn parse(name: &str) -> Result<Self, UnknownAttack> {
        if let Ok(seed) = name.parse() {
            return Ok(Self::random_plan(seed));
        }
        let row = catalogue()
            .iter()
            .find(|row| row.name == name)
            .ok_or_else(|| UnknownAttack(name.to_owned()))?;
        Ok(Self::with_plan(
            vec![Planned::new(row, row.occasions.clone())],
            1,
        ))
    }

    /// Attacks that go together: any number that the guest must survive, and sometimes one that it must not.
    fn random_plan(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let (survived, stopping): (Vec<_>, Vec<_>) = catalogue()
            .iter()
            .filter(|row| row.can_be_combined)
            .partition(|row| row.outcome == Outcome::Continue);
        let mut plan: Vec<Planned> = Vec::new();
        let mut add = |row: &'static Row, random: &mut SplitMix64| {
            let known = plan.iter().any(|planned| planned.row.name == row.name);
            if !known {
                let Range { start, end } = row.occasions;
                // What goes on for ever begins where the row says: there may be no later occasion.
                let delay = if end == u32::MAX {
                    0
                } else {
                    random.below(4) as u32
                };
                plan.push(Planned::new(row, start + delay..end.saturating_add(delay)));
            }
        };
        for _ in 0..=random.below(MOST_AT_ONCE) {
            let choice = random.below(survived.len() as u64) as usize;
            add(survived[choice], &mut random);
        }
        if random.below(ONE_STOPS_IN) == 0 {
            let choice = random.below(stopping.len() as u64) as usize;
            add(stopping[choice], &mut random);
        }
        Self::with_plan(plan, seed)
    }

    fn with_plan(plan: Vec<Planned>, seed: u64) -> Self {
        let denies = |planned: &Planned| planned.row.outcome == Outcome::Deny;
        Self {
            // A guest that is denied everything from the start would never have served.
            behaves: AtomicBool::new(plan.iter().any(denies)),
            plan,
            random: Mutex::new(SplitMix64::new(!seed)),
        }
    }

    /// Whether it ever attacks.
    pub fn is_hostile(&self) -> bool {
        !self.plan.is_empty()
    }

    /// It attacks from now on.
    pub fn attack(&self) {
        self.behaves.store(false, Ordering::SeqCst);
    }

    /// It behaves from now on.
    pub fn behave(&self) {
        self.behaves.store(true, Ordering::SeqCst);
    }

    /// The attacks it carries out.
    pub fn attacks(&self) -> impl Iterator<Item = &'static Row> {
        self.plan.iter().map(|planned| planned.row)
    }

    /// What the guest must make of all of it: the one outcome that is not to go on, if there is one.
    pub fn outcome(&self) -> &'static Outcome {
        let ends = |row: &&'static Row| row.outcome != Outcome::Continue;
        self.attacks()
            .find(ends)
            .map_or(&Outcome::Continue, |row| &row.outcome)
    }

    /// Whether this occasion to carry out `attack` on `target` is used.
    pub fn strikes(&self, attack: Attack, target: Target) -> bool {
        !self.behaves.load(Ordering::SeqCst)
            && self.plan.iter().any(|planned| {
                planned.row.attack == attack && planned.row.target == target && planned.strikes()
            })
    }

    /// How often each attack was carried out so far. One that never was proves nothing of the guest.
    pub fn struck(&self) -> BTreeMap<&'static str, u32> {
        self.plan
            .iter()
            .map(|planned| (planned.row.name, planned.struck.load(Ordering::Relaxed)))
            .collect()
    }

    /// A number of the attacker's choosing below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .below(limit)
    }
}

impl Planned {
    fn new(row: &'static Row, occasions: Range<u32>) -> Self {
        Self {
            row,
            occasions,
            seen: AtomicU32::new(0),
            struck: AtomicU32::new(0),
        }
    }

    /// Takes the next occasion, or lets it pass.
    fn strikes(&self) -> bool {
        let occasion = self.seen.fetch_add(1, Ordering::Relaxed);
        let strikes = self.occasions.contains(&occasion);
        self.struck.fetch_add(strikes.into(), Ordering::Relaxed);
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_host_never_strikes() {
        let host = Host::honest();
        assert!(!host.is_hostile());
        for row in catalogue() {
            assert!(!host.strikes(row.attack, row.target));
        }
    }

    #[test]
    fn a_named_attack_strikes_at_its_occasions_only() {
        for row in catalogue() {
            let host = Host::parse(row.name).unwrap();
            assert_eq!(host.outcome(), &row.outcome);
            host.attack();
            for occasion in 0..100 {
                let strikes = host.strikes(row.attack, row.target);
                assert_eq!(
                    strikes,
                    row.occasions.contains(&occasion),
                    "{} at {occasion}",
                    row.name
                );
            }
            let used = (0..100).filter(|occasion| row.occasions.contains(occasion));
            assert_eq!(host.struck()[row.name] as usize, used.count());
        }
        assert!(
            Host::parse("no-such-attack")
                .unwrap_err()
                .to_string()
                .contains(catalogue()[0].name)
        );
    }

    #[test]
    fn a_host_that_behaves_does_nothing_until_it_attacks_again() {
        let host = Host::parse("clock-nonsense").unwrap();
        let strikes = || host.strikes(Attack::ClockNonsense, Target::Platform);
        assert!(strikes());
        host.behave();
        assert!(!strikes());
        host.attack();
        assert!(strikes());
        let denying = Host::parse("time-withheld").unwrap();
        assert!(!denying.strikes(Attack::TimeWithheld, Target::Launch));
    }

    #[test]
    fn a_seed_always_means_the_same() {
        for seed in 0..200 {
            let names = || {
                Host::random_plan(seed)
                    .plan
                    .iter()
                    .map(|planned| (planned.row.name, planned.occasions.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(names(), names());
            assert!(!names().is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn seeds_try_everything_that_can_be_combined() {
        let tried: std::collections::BTreeSet<_> = (0..1000)
            .flat_map(|seed| {
                Host::random_plan(seed)
                    .attacks()
                    .map(|row| row.name)
                    .collect::<Vec<_>>()
            })
            .collect();
        for row in catalogue().iter().filter(|row| row.can_be_combined) {
            assert!(tried.contains(row.name), "{}", row.name);
        }
    }

    #[test]
    fn names_are_unique_and_half_of_the_attacks_must_be_survived() {
        let names: std::collections::BTreeSet<_> = catalogue().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), catalogue().len());
        // The same tokens over every network.
        let goes_on = |row: &&Row| matches!(row.outcome, Outcome::Continue | Outcome::Deny);
        let survived = catalogue().iter().filter(goes_on).count();
        assert!(2 * survived >= catalogue().len());
    }
}
