//! What a server proves before anything of a request goes to it.
//!
//! Its certificate carries a quote; the verifier judges it. Then the server has to answer a challenge on the established connection, so
//! that what was judged is known to be fresh and at the other end of *this* connection (`attestation::challenge`).

use core::time::Duration;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use attestation::challenge::{Answer, EXPORTER_LABEL, MAX_ANSWER, Purpose};
use attestation::provisioning::PublicKey;
use ring::rand::{SecureRandom, SystemRandom};
use verifier::{
    Code, Collateral, Policy, Report, Scope, TrustAnchor, UntrustedCertificate, Verdict,
    VerifiedEvidence, Verifier,
};

use crate::error::Error;
use crate::session::{Request, Session};
use crate::term::Term;

/// What to wait if the server does not say, and the least to wait.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of a refusal worth reading.
const REFUSAL_LIMIT: usize = 64 << 10;

/// By what the evidence of servers is judged.
pub trait Judge: Send + Sync {
    /// The verifier of this moment.
    fn verifier(&self) -> Verifier;

    /// Intel's word on the platform that made `quote`.
    ///
    /// # Errors
    /// There is none to be had.
    fn collateral(&self, quote: &[u8]) -> Result<Collateral, Code>;

    /// The owner whose endorsement is demanded besides, if one is.
    fn owner(&self) -> Option<PublicKey> {
        None
    }

    /// Takes note of the judgement of everything that a server showed, accepted or not.
    fn judged(&self, _report: &Report) {}
}

/// A judge with everything at hand, by this machine's clock.
#[derive(Clone)]
pub struct Pinned {
    /// What is accepted.
    pub policy: Policy,
    /// Where chains must end.
    pub anchor: TrustAnchor,
    /// Intel's word on the platforms of all servers; without it no evidence is accepted.
    pub collateral: Option<Collateral>,
}

impl Judge for Pinned {
    fn verifier(&self) -> Verifier {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Verifier {
            policy: self.policy.clone(),
            anchor: self.anchor.clone(),
            scope: Scope::Everything,
            now: now.unwrap_or_default().as_secs(),
            seen: None,
        }
    }

    fn collateral(&self, _quote: &[u8]) -> Result<Collateral, Code> {
        self.collateral.clone().ok_or(Code::CollateralMissing)
    }
}

/// What a server proved on a connection.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The judgement of the certificate, that of the answer to the challenge, and that of the owner's endorsement if one was demanded.
    pub reports: Vec<Report>,
    /// What the certificate's evidence says.
    pub evidence: VerifiedEvidence,
    /// The certificate's first and last second, since 1970.
    pub validity: (u64, u64),
    /// The last second of the owner's endorsement, if one was demanded.
    pub endorsed_until: Option<u64>,
}

impl Proof {
    /// How long it holds.
    pub fn term(&self) -> Term {
        Term::new(self.validity, self.endorsed_until)
    }
}

/// Judges a connection's certificate and has the server confirm it. Gives the connection back, ready for requests. `patience` is for
/// a server whose quotes are in demand.
pub(crate) fn prove(
    session: Session,
    judge: &dyn Judge,
    patience: Duration,
) -> Result<(Session, Proof), Error> {
    let certificate = session.certificate().ok_or(Error::NoEvidence)?;
    let shown = UntrustedCertificate::parse(certificate);
    let collateral = match &shown {
        Ok(shown) => judge.collateral(shown.quote()),
        Err(_) => Err(Code::CollateralMissing),
    };
    let (report, evidence) = judge.verifier().certificate(certificate, collateral);
    let (Ok(shown), Some(evidence)) = (shown, evidence) else {
        judge.judged(&report);
        return Err(refusal(vec![report]));
    };
    let validity = shown.validity();

    let purpose = match judge.verifier().scope {
        Scope::KeyRelease => Purpose::KeyRelease,
        Scope::Everything | Scope::PlatformOnly => Purpose::Session,
    };
    let mut nonce = [0; 32];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Error::Random)?;
    let connection = verifier::Connection {
        purpose,
        nonce,
        exporter: session.export(EXPORTER_LABEL, &nonce)?,
    };
    let (session, answer) = match challenge(session, &nonce, purpose, patience) {
        Err(error @ Error::Refused { .. }) => {
            let report = report.without_answer(error.to_string());
            judge.judged(&report);
            return Err(refusal(vec![report]));
        }
        outcome => outcome?,
    };
    let collateral = match Answer::decode(&answer) {
        Ok(answer) => judge.collateral(&answer.quote),
        Err(_) => Err(Code::CollateralMissing),
    };
    let fresh = judge
        .verifier()
        .answer(&evidence, &connection, &answer, collateral);
    let mut whole = report.clone().with_answer(fresh.clone());
    if fresh.verdict != Verdict::Accepted {
        judge.judged(&whole);
        return Err(refusal(vec![report, fresh]));
    }
    let mut reports = vec![report, fresh];
    let mut endorsed_until = None;
    let session = match judge.owner() {
        None => session,
        Some(owner) => {
            let (session, shown) = endorsement(session)?;
            let judged = judge.verifier().endorsement(&evidence, &owner, &shown);
            let verdict = judged.verdict;
            whole = whole.with_endorsement(judged.clone());
            reports.push(judged);
            if verdict != Verdict::Accepted {
                judge.judged(&whole);
                return Err(refusal(reports));
            }
            endorsed_until = verifier::endorsed_until(&shown);
            session
        }
    };
    judge.judged(&whole);
    let proof = Proof {
        reports,
        evidence,
        validity,
        endorsed_until,
    };
    Ok((session, proof))
}

fn refusal(reports: Vec<Report>) -> Error {
    match reports.last().and_then(|report| report.findings.first()) {
        Some(Code::EvidenceMissing) => Error::NoEvidence,
        _ => Error::Untrusted(reports),
    }
}

/// What the server shows of its owner's word; nothing if it knows of no such thing.
fn endorsement(session: Session) -> Result<(Session, Vec<u8>), Error> {
    let mut response = session.request(&Request::get("/endorsement"))?;
    let shown = response.read_whole(REFUSAL_LIMIT)?;
    let shown = match response.status() {
        200 => shown,
        _ => Vec::new(),
    };
    let session = response.into_session().ok_or(Error::Closed)?;
    Ok((session, shown))
}

/// Sends the challenge until it is answered, as often as the server asks to come again within `patience`.
fn challenge(
    mut session: Session,
    nonce: &[u8; 32],
    purpose: Purpose,
    patience: Duration,
) -> Result<(Session, Vec<u8>), Error> {
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    let purpose = match purpose {
        Purpose::Session => "session",
        Purpose::KeyRelease => "key-release",
    };
    let body = format!(r#"{{"nonce":"{nonce}","purpose":"{purpose}"}}"#);
    let deadline = Instant::now() + patience;
    loop {
        let request = Request::post("/attestation", body.as_bytes());
        let mut response = session.request(&request)?;
        let (status, retry_after) = (response.status(), response.retry_after());
        let limit = match status {
            200 => MAX_ANSWER,
            _ => REFUSAL_LIMIT,
        };
        let answer = response.read_whole(limit)?;
        session = response.into_session().ok_or(Error::Closed)?;
        match status {
            200 => return Ok((session, answer)),
            503 if Instant::now() < deadline => {
                let wait = retry_after.map_or(RETRY, Duration::from_secs);
                thread::sleep(wait.clamp(RETRY, patience));
            }
            _ => {
                return Err(Error::Refused {
                    status,
                    message: "the server gives no fresh evidence".to_owned(),
                    retry_after,
                });
            }
        }
    }
}
