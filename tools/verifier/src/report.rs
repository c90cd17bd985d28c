//! What a verification comes to: a table of checks, and the verdict that follows from it.

use core::fmt;

use attestation::fingerprint::Registers;
use serde::Serialize;

use crate::code::{Class, Code};

/// What the evidence is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Chain, binding and policy hold, and program, configuration and model are the pinned ones.
    Accepted,
    /// Chain and platform policy hold; nothing else was asked.
    PlatformGenuine,
    /// [`Class::Platform`].
    PlatformUntrusted,
    /// [`Class::Binding`].
    EvidenceMismatch,
    /// [`Class::Policy`].
    PolicyUnsatisfied,
    /// [`Class::NoEvidence`].
    NoEvidence,
}

impl Verdict {
    /// The exit code of commands that end with this verdict.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Accepted | Self::PlatformGenuine => 0,
            Self::PlatformUntrusted => 20,
            Self::EvidenceMismatch => 21,
            Self::PolicyUnsatisfied => 22,
            Self::NoEvidence => 23,
        }
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::PlatformGenuine => "platform-genuine",
            Self::PlatformUntrusted => "platform-untrusted",
            Self::EvidenceMismatch => "evidence-mismatch",
            Self::PolicyUnsatisfied => "policy-unsatisfied",
            Self::NoEvidence => "no-evidence",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed(Code),
    /// Nothing was expected; shown to be known.
    Noted,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What it had to be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// Whether that will do.
    pub outcome: Outcome,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            expected,
            found,
            ..
        } = self;
        write!(f, "{name}: expected {expected}; found {found}")
    }
}

/// The checks so far.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Check>);

impl Table {
    /// A check that ends well exactly if `holds`.
    pub(crate) fn check(
        &mut self,
        holds: bool,
        code: Code,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        let outcome = match holds {
            true => Outcome::Passed,
            false => Outcome::Failed(code),
        };
        self.push(name, expected, found, outcome);
    }

    /// A check that failed.
    pub(crate) fn fail(
        &mut self,
        code: Code,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.push(name, expected, found, Outcome::Failed(code));
    }

    /// Something to know.
    pub(crate) fn note(&mut self, name: &'static str, found: impl Into<String>) {
        self.push(name, "", found, Outcome::Noted);
    }

    fn push(
        &mut self,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
        outcome: Outcome,
    ) {
        self.0.push(Check {
            name,
            expected: expected.into(),
            found: found.into(),
            outcome,
        });
    }

    /// The findings so far, the deciding one first: by class, then in the order in which they were made.
    fn findings(&self) -> Vec<Code> {
        let mut findings: Vec<Code> = self
            .0
            .iter()
            .filter_map(|check| match check.outcome {
                Outcome::Failed(code) => Some(code),
                _ => None,
            })
            .collect();
        findings.sort_by_key(|code| code.class());
        findings
    }

    /// The report. `good` is the verdict if nothing was found; what was proved comes from a chain that holds.
    pub(crate) fn conclude(self, good: Verdict, anchor: String, proved: Option<Proved>) -> Report {
        let findings = self.findings();
        let verdict = match findings.first().map(|code| code.class()) {
            None => good,
            Some(Class::NoEvidence) => Verdict::NoEvidence,
            Some(Class::Platform) => Verdict::PlatformUntrusted,
            Some(Class::Binding) => Verdict::EvidenceMismatch,
            Some(Class::Policy) => Verdict::PolicyUnsatisfied,
        };
        Report {
            verdict,
            findings,
            checks: self.0,
            anchor,
            proved,
        }
    }
}

/// What a good chain shows of platform and domain, whatever a policy makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Intel's word on the platform, such as `UpToDate`.
    pub tcb_status: String,
    /// The date of the platform's TCB level.
    pub tcb_date: String,
    /// How far the platform is from the newest level; `None` if it has reached it.
    pub tcb_lag: Option<String>,
    /// Advisories that apply to the platform, sorted.
    pub advisories: Vec<String>,
    /// The domain's registers.
    pub registers: Registers,
    /// TDATTRIBUTES.
    pub attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// Measurement of the TDX module.
    pub mrseam: [u8; 48],
    /// MRCONFIGID, MROWNER and MROWNERCONFIG.
    pub owner: [[u8; 48]; 3],
    /// REPORTDATA.
    pub report_data: [u8; 64],
}

/// A verdict with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Everything found wrong; the first decides the verdict.
    pub findings: Vec<Code>,
    /// Every check made, in order.
    pub checks: Vec<Check>,
    /// The trust anchor used.
    pub anchor: String,
    /// What the quote proves; `None` if the chain does not hold.
    pub proved: Option<Proved>,
}

impl Report {
    /// The check that decided the verdict, if one did.
    pub fn deciding(&self) -> Option<&Check> {
        let code = self.findings.first()?;
        self.failed(*code)
    }

    /// The first check that failed with this code.
    fn failed(&self, code: Code) -> Option<&Check> {
        let mut checks = self.checks.iter();
        checks.find(|check| check.outcome == Outcome::Failed(code))
    }

    /// The judgement of a certificate, together with that of the answer to a challenge on its connection.
    #[must_use]
    pub fn with_answer(self, answer: Self) -> Self {
        let mut table = Table(self.checks);
        table.note("challenge", "answered on this connection; its quote:");
        table.0.extend(answer.checks);
        table.conclude(self.verdict, self.anchor, self.proved)
    }

    /// The judgement of a certificate whose server did not answer a challenge; `why` not, in words.
    #[must_use]
    pub fn without_answer(self, why: impl Into<String>) -> Self {
        let mut table = Table(self.checks);
        table.fail(
            Code::AnswerMissing,
            "challenge",
            "an answer on this connection",
            why,
        );
        table.conclude(self.verdict, self.anchor, self.proved)
    }

    /// The judgement of a connection, together with that of its owner's endorsement.
    #[must_use]
    pub fn with_endorsement(self, endorsement: Self) -> Self {
        let mut table = Table(self.checks);
        table.0.extend(endorsement.checks);
        table.conclude(self.verdict, self.anchor, self.proved)
    }

    /// The machine-readable form; `docs/verification.md` says what is stable in it.
    pub fn json(&self) -> serde_json::Value {
        let checks = self.checks.iter().map(|check| {
            let (outcome, code) = match check.outcome {
                Outcome::Passed => ("passed", None),
                Outcome::Failed(code) => ("failed", Some(code)),
                Outcome::Noted => ("noted", None),
            };
            serde_json::json!({
                "check": check.name,
                "expected": check.expected,
                "found": check.found,
                "outcome": outcome,
                "code": code.map(Code::name),
            })
        });
        let findings = self.findings.iter().map(|code| {
            let check = self.failed(*code);
            serde_json::json!({
                "code": code.name(),
                "class": class_name(code.class()),
                "check": check.map(|check| check.name),
                "expected": check.map(|check| &check.expected),
                "found": check.map(|check| &check.found),
            })
        });
        let proved = self.proved.as_ref();
        serde_json::json!({
            "verdict": self.verdict,
            "code": self.findings.first().map(|code| code.name()),
            "findings": findings.collect::<Vec<_>>(),
            "tcb_status": proved.map(|proved| &proved.tcb_status),
            "tcb_date": proved.map(|proved| &proved.tcb_date),
            "tcb_lag": proved.and_then(|proved| proved.tcb_lag.as_ref()),
            "advisories": proved.map_or(&[][..], |proved| &proved.advisories),
            "measurements": proved.map_or_else(|| serde_json::json!({}), measurements),
            "trust_anchor": self.anchor,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::NoEvidence => Verdict::NoEvidence,
        Class::Platform => Verdict::PlatformUntrusted,
        Class::Binding => Verdict::EvidenceMismatch,
        Class::Policy => Verdict::PolicyUnsatisfied,
    }
    .name()
}

fn measurements(proved: &Proved) -> serde_json::Value {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &proved.registers.rtmr;
    let [mrconfigid, mrowner, mrownerconfig] = &proved.owner;
    serde_json::json!({
        "mrtd": hex(&proved.registers.mrtd),
        "rtmr0": hex(rtmr0),
        "rtmr1": hex(rtmr1),
        "rtmr2": hex(rtmr2),
        "rtmr3": hex(rtmr3),
        "attributes": hex(&proved.attributes.to_le_bytes()),
        "xfam": hex(&proved.xfam.to_le_bytes()),
        "mrseam": hex(&proved.mrseam),
        "mrconfigid": hex(mrconfigid),
        "mrowner": hex(mrowner),
        "mrownerconfig": hex(mrownerconfig),
        "report_data": hex(&proved.report_data),
    })
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
