//! The attack catalogue at the level of quote and collateral: what an attacker shows, and what a verifier must answer.
//!
//! Rows C1–C29 attack the platform chain, rows P1–P15 the policy. Not here, because they are not made of a quote and collateral:
//! the binding of certificate and evidence (M1–M16; [`Scenario::report`] has the REPORTDATA that a quote binds), CBOR and
//! certificate sizes (C26, C27), documents of the verifier's own (P11–P13) and the key protocols (P16, P17). C28, a production
//! client shown this PKI, is any sound evidence judged without [`Evidence::root`].

mod chain;
mod collateral;
mod encoding;
mod policy;
mod quote;

use crate::{Error, Evidence, Quote, Scenario, TestPki};

/// What a verifier must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Looks odd and is sound.
    Accepted,
    /// The platform chain does not hold (class C).
    PlatformUntrusted,
    /// The chain holds and the policy does not allow it (class P).
    PolicyUnsatisfied,
}

/// What a verifier must know for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The evidence alone, under the default platform policy.
    Evidence,
    /// A policy that pins what the sound scenario shows; under the default policy the evidence is accepted.
    Pins,
    /// That its clock once stood at the time the case was asked for; without a memory the evidence is accepted.
    Clock,
}

/// One attack.
#[derive(Clone, Copy)]
pub struct Case {
    /// The row of the catalogue.
    pub row: &'static str,
    /// What is done.
    pub attack: &'static str,
    pub expected: Expected,
    pub given: Given,
    change: Change,
}

/// Where an attack changes the scenario.
#[derive(Clone, Copy)]
enum Change {
    /// What is reported, certified and issued.
    Described(fn(&mut Scenario<'_>)),
    /// The same, where it takes making.
    Prepared(fn(&mut Scenario<'_>) -> Result<(), Error>),
    /// The quote as its enclave is about to sign it.
    Quoted(fn(&mut Quote)),
    /// The quote once signed.
    Tampered(fn(&mut Quote)),
    /// All that is shown, without any key.
    Shown(fn(&mut Evidence)),
    /// All that is shown, with every key of the PKI.
    Issued(fn(&mut Evidence, &TestPki) -> Result<(), Error>),
}

impl Case {
    const fn new(row: &'static str, attack: &'static str, change: Change) -> Self {
        Self {
            row,
            attack,
            // Most are.
            expected: Expected::PlatformUntrusted,
            given: Given::Evidence,
            change,
        }
    }

    const fn accepted(self) -> Self {
        Self {
            expected: Expected::Accepted,
            ..self
        }
    }

    const fn policy(self, given: Given) -> Self {
        Self {
            expected: Expected::PolicyUnsatisfied,
            given,
            ..self
        }
    }

    const fn given(self, given: Given) -> Self {
        Self { given, ..self }
    }

    /// The attack on `pki`'s sound evidence at `now` (seconds since 1970).
    pub fn evidence(&self, pki: &TestPki, now: u64) -> Result<Evidence, Error> {
        let mut scenario = pki.scenario(now)?;
        match self.change {
            Change::Described(change) => change(&mut scenario),
            Change::Prepared(change) => change(&mut scenario)?,
            Change::Quoted(change) => scenario.before_signing = change,
            Change::Tampered(change) => scenario.after_signing = change,
            Change::Shown(_) | Change::Issued(_) => {}
        }
        let mut evidence = scenario.build()?;
        match self.change {
            Change::Shown(change) => change(&mut evidence),
            Change::Issued(change) => change(&mut evidence, pki)?,
            _ => {}
        }
        Ok(evidence)
    }
}

/// Every attack, row by row within quote, chain, collateral and policy.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        quote::CASES,
        chain::CASES,
        collateral::CASES,
        encoding::CASES,
        policy::CASES,
    ]
    .into_iter()
    .flatten()
}
