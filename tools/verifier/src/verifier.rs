//! The verifier: puts chain, binding and policy together.

use attestation::claims::Claims;
use attestation::fingerprint::Registers;
use dcap_qvl::quote::TDReport10;

use crate::anchor::TrustAnchor;
use crate::certificate::UntrustedCertificate;
use crate::code::Code;
use crate::collateral::Collateral;
use crate::platform::Platform;
use crate::policy::Policy;
use crate::quote::UntrustedQuote;
use crate::report::{Proved, Report, Table, Verdict};
use crate::{binding, chain, date, judge, judge_platform};

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: the best verdict is [`Verdict::Accepted`].
    Everything,
    /// What the owner of a sealed model asks before its key is handed over: everything, but instead of a certain model there must be
    /// none yet, because the key decides which one it will be. The best verdict is [`Verdict::Accepted`].
    KeyRelease,
    /// Chain and platform policy only: the best verdict is [`Verdict::PlatformGenuine`].
    PlatformOnly,
}

/// Judges evidence under one policy, trust anchor and time.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// What is accepted.
    pub policy: Policy,
    /// Where chains must end.
    pub anchor: TrustAnchor,
    /// How much is asked.
    pub scope: Scope,
    /// The time of judgement, seconds since 1970.
    pub now: u64,
    /// A time that has been seen before, if it is known: the clock must not be behind it.
    pub seen: Option<u64>,
}

/// Evidence that was accepted: what fresh evidence on the same connection is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvidence {
    /// SHA-384 of the certificate.
    pub certificate: attestation::Sha384,
    /// SubjectPublicKeyInfo of the certificate, DER.
    pub public_key: Vec<u8>,
    /// What the domain says about itself, all of it bound to the quote.
    pub claims: Claims,
    /// The registers in the quote.
    pub registers: Registers,
}

impl Verifier {
    /// Judges a bare quote. It is bound to no key: an accepted one says that such a domain exists, not who is talking.
    pub fn quote(&self, quote: &[u8], collateral: Result<Collateral, Code>) -> Report {
        let mut table = Table::default();
        let platform = self.chain(&mut table, quote, collateral, &self.policy);
        if self.scope != Scope::PlatformOnly
            && let Some(evidence) = &platform.claimed
        {
            table.note("binding", "a bare quote: no certificate, no key");
            judge::contents(
                &mut table,
                self.scope,
                &self.policy,
                &evidence.report,
                &evidence.registers,
                None,
                self.now,
            );
        }
        self.conclude(table, platform)
    }

    /// Judges a certificate in DER with the evidence in it. Accepted evidence comes with the report, except under
    /// [`Scope::PlatformOnly`].
    pub fn certificate(
        &self,
        der: &[u8],
        collateral: Result<Collateral, Code>,
    ) -> (Report, Option<VerifiedEvidence>) {
        let mut table = Table::default();
        let certificate = match UntrustedCertificate::parse(der) {
            Ok(certificate) => certificate,
            Err(code) => {
                table.fail(
                    code,
                    "certificate",
                    "one extension with evidence",
                    code.name(),
                );
                return (table.conclude(self.best(), self.anchor.name(), None), None);
            }
        };
        // The owner's demands come from claims that are not bound yet, but a demand can only add a refusal.
        let claims = Claims::decode(certificate.claims_buffer()).ok();
        let policy = match &claims {
            Some(claims) => judge::stricter(&self.policy, &claims.minimum_tcb),
            None => self.policy.clone(),
        };
        let platform = self.chain(&mut table, certificate.quote(), collateral, &policy);
        let mut bound = None;
        if let Some(evidence) = &platform.claimed {
            let report_data = &evidence.report.report_data;
            bound = binding::check(
                &mut table,
                &certificate,
                &evidence.registers,
                report_data,
                self.now,
            );
            if self.scope != Scope::PlatformOnly {
                judge::certificate(&mut table, &policy, certificate.validity());
                judge::contents(
                    &mut table,
                    self.scope,
                    &policy,
                    &evidence.report,
                    &evidence.registers,
                    bound.as_ref(),
                    self.now,
                );
            }
        }
        let registers = platform.claimed.as_ref().map(|claimed| claimed.registers);
        let report = self.conclude(table, platform);
        let verified = match (report.verdict, bound, registers) {
            (Verdict::Accepted, Some(claims), Some(registers)) => Some(VerifiedEvidence {
                certificate: *certificate.digest(),
                public_key: certificate.public_key().to_vec(),
                claims,
                registers,
            }),
            _ => None,
        };
        (report, verified)
    }

    /// The report on a server whose handshake is not signed with its certificate's key.
    pub fn unsigned_handshake(&self) -> Report {
        let mut table = Table::default();
        table.fail(
            Code::HandshakeSignature,
            "handshake",
            "signed with the certificate's key",
            "signed with another key",
        );
        table.conclude(self.best(), self.anchor.name(), None)
    }

    /// Judges chain and platform.
    pub(crate) fn chain(
        &self,
        table: &mut Table,
        quote: &[u8],
        collateral: Result<Collateral, Code>,
        policy: &Policy,
    ) -> Judged {
        if let Some(seen) = self.seen {
            table.check(
                self.now >= seen,
                Code::ClockRolledBack,
                "clock",
                format!("{} or later", date::format(seen)),
                date::format(self.now),
            );
        }
        let quote = match UntrustedQuote::parse(quote) {
            Ok(quote) => quote,
            Err(code) => {
                table.fail(code, "quote", "a TDX quote", code.name());
                return Judged::default();
            }
        };
        let claimed = Claimed::read(&quote);
        let collateral = match collateral {
            Ok(collateral) => collateral,
            Err(code) => {
                table.fail(
                    code,
                    "collateral",
                    "Intel's word on the platform",
                    code.name(),
                );
                return Judged {
                    claimed: Some(claimed),
                    proved: None,
                };
            }
        };
        let expected = format!("to {} at {}", self.anchor.name(), date::format(self.now));
        let platform = match chain::verify(&quote, &collateral, &self.anchor, self.now) {
            Ok(platform) => platform,
            Err(broken) => {
                table.fail(broken.code, "chain", expected, broken.detail);
                return Judged {
                    claimed: Some(claimed),
                    proved: None,
                };
            }
        };
        table.check(true, Code::ChainInvalid, "chain", expected, "holds");
        judge_platform::platform(table, policy, &platform);
        judge::domain(table, &platform.report, &platform.service_tds);
        Judged {
            proved: Some(proved(&platform, &claimed)),
            claimed: Some(claimed),
        }
    }

    pub(crate) fn conclude(&self, table: Table, judged: Judged) -> Report {
        table.conclude(self.best(), self.anchor.name(), judged.proved)
    }

    /// The verdict if there is no finding.
    fn best(&self) -> Verdict {
        match self.scope {
            Scope::Everything | Scope::KeyRelease => Verdict::Accepted,
            Scope::PlatformOnly => Verdict::PlatformGenuine,
        }
    }
}

/// What came of judging chain and platform.
#[derive(Default)]
pub(crate) struct Judged {
    /// What the quote says, proved or not; `None` if it is not a quote.
    pub claimed: Option<Claimed>,
    /// What it proves.
    pub proved: Option<Proved>,
}

/// What a quote says.
pub(crate) struct Claimed {
    pub report: TDReport10,
    pub registers: Registers,
}

impl Claimed {
    fn read(quote: &UntrustedQuote) -> Self {
        let report = *quote.report();
        Self {
            registers: Registers {
                mrtd: report.mr_td,
                rtmr: [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3],
            },
            report,
        }
    }
}

fn proved(platform: &Platform, claimed: &Claimed) -> Proved {
    let report = &platform.report;
    Proved {
        tcb_status: platform.status.to_string(),
        tcb_date: date::format(platform.tcb_date),
        tcb_lag: platform.lag.clone(),
        advisories: platform.advisories.clone(),
        registers: claimed.registers,
        attributes: u64::from_le_bytes(report.td_attributes),
        xfam: u64::from_le_bytes(report.xfam),
        mrseam: report.mr_seam,
        owner: [report.mr_config_id, report.mr_owner, report.mr_owner_config],
        report_data: report.report_data,
    }
}
