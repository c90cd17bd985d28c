//! Keeps the certificate current and answers challenges, one quote at a time.
//!
//! A certificate is replaced at two thirds of its life, or when the claims in it have changed, by one of a new key. Connections
//! keep the certificate they were opened with, and new ones get the old certificate until the new one is there: nothing waits
//! for a quote but who asked for it. Challenges that arrive while a quote is being made share the next one.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::{mem, time::Duration};

use attestation::{
    MAX_QUOTE, Sha384,
    certificate::Evidence,
    challenge::{Answer, Challenge, Purpose, Role, Step, tree},
    claims::{Claims, MinimumTcb, Model},
    fingerprint::fingerprint,
    provisioning::session_message,
    report_data::ReportData,
    sha384,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Leaf, QuoteError, Standing, TrustDomain};
use crate::{
    IdentityError, WallClock,
    identity::{BootKey, Candidate},
};

/// How long after a failure the next certificate is tried: a host that can quote again has one within a second.
const RETRY: Duration = Duration::from_millis(500);

/// What the certificates say besides what the registers do.
pub(crate) struct Statement {
    /// The canonical configuration.
    pub(crate) configuration: Vec<u8>,
    pub(crate) minimum_tcb: MinimumTcb,
    pub(crate) model: Model,
}

/// A challenge whose answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// As many challenges wait as may.
pub(crate) struct QueueFull;

/// The connection a challenge came over.
pub(crate) struct Peer<'a> {
    pub(crate) leaf: &'a Leaf,
    pub(crate) exporter: [u8; 32],
}

/// See the module.
pub(crate) struct Attestor {
    domain: Option<Box<dyn TrustDomain>>,
    statement: Statement,
    clock: Arc<dyn WallClock>,
    boot: [u8; 16],
    /// Lives as long as the machine runs, so that somebody can vouch for it.
    key: BootKey,
    current: Arc<Leaf>,
    /// Counts the changes of the statement.
    version: u64,
    /// The version of the statement that the current certificate carries, with evidence if there is a domain.
    certified: Option<u64>,
    /// When the certificate is to be replaced.
    due: Duration,
    job: Option<Job>,
    waiting: Vec<(Ticket, Challenge)>,
    capacity: usize,
    /// How long a certificate is valid.
    lifetime: Duration,
    /// Why the last quote that was asked for did not come, if it did not.
    failure: Option<QuoteError>,
    answers: BTreeMap<Ticket, Result<Vec<u8>, QuoteError>>,
    next_ticket: u64,
}

/// What the quote being made is for.
enum Job {
    Certificate {
        candidate: Candidate,
        claims: Vec<u8>,
        fingerprint: Sha384,
        version: u64,
        started: Duration,
    },
    Challenges(Vec<(Ticket, Vec<Step>)>),
}

impl Attestor {
    /// An attestor with a first certificate without evidence, which is enough to answer `/health`. At most `capacity`
    /// challenges wait at a time; a certificate is valid for `lifetime`.
    ///
    /// # Errors
    /// There is no entropy, or a date no certificate can name.
    pub(crate) fn new(
        domain: Option<Box<dyn TrustDomain>>,
        statement: Statement,
        clock: Arc<dyn WallClock>,
        capacity: usize,
        lifetime: Duration,
    ) -> Result<Self, IdentityError> {
        let candidate = Candidate::generate(clock.unix_time(), lifetime)?;
        let mut boot = [0; 16];
        SystemRandom::new().fill(&mut boot)?;
        Ok(Self {
            // There is no telling what the first poll's time will be, and this is a certificate for minutes in any case.
            current: Arc::new(certify(candidate, None, lifetime)?),
            certified: domain.is_none().then_some(0),
            due: match domain {
                Some(_) => Duration::ZERO,
                None => rotation(lifetime),
            },
            domain,
            statement,
            clock,
            boot,
            key: BootKey::generate()?,
            version: 0,
            job: None,
            waiting: Vec::new(),
            capacity,
            lifetime,
            failure: None,
            answers: BTreeMap::new(),
            next_ticket: 0,
        })
    }

    /// The certificate for new connections.
    pub(crate) fn current(&self) -> &Arc<Leaf> {
        &self.current
    }

    /// Whether there is a trust domain at all.
    pub(crate) fn has_domain(&self) -> bool {
        self.domain.is_some()
    }

    /// Whether a quote is being made.
    pub(crate) fn awaits_quote(&self) -> bool {
        self.job.is_some()
    }

    /// Whether the current certificate says what there is to say, with evidence if there can be any.
    pub(crate) fn is_current(&self) -> bool {
        self.certified == Some(self.version)
    }

    /// Whether the current certificate has ceased to be valid because it could not be replaced.
    pub(crate) fn has_lapsed(&self, now: Duration) -> bool {
        now >= self.current.end
    }

    /// What the evidence in the current certificate is worth.
    pub(crate) fn standing(&self, now: Duration) -> Standing {
        match self.certified {
            _ if self.domain.is_none() => Standing::None,
            None => Standing::Pending,
            _ if self.has_lapsed(now) => Standing::Expired,
            _ if !self.is_current() => Standing::Pending,
            _ => Standing::Current,
        }
    }

    /// Why the last quote that was asked for did not come, if it did not.
    pub(crate) fn failure(&self) -> Option<QuoteError> {
        self.failure
    }

    /// Random, one per boot.
    pub(crate) fn boot(&self) -> &[u8; 16] {
        &self.boot
    }

    /// The key that [`Attestor::vouch_for`] signs with: SubjectPublicKeyInfo in DER.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }

    /// Signs that a certificate's key is this machine's.
    ///
    /// # Errors
    /// The entropy source failed.
    pub(crate) fn vouch_for(&self, leaf: &Leaf) -> Result<Vec<u8>, IdentityError> {
        self.key.sign(&session_message(leaf.public_key()))
    }

    /// Names the model in all certificates from now on, and replaces the current one. Its measurement is in the registers.
    pub(crate) fn set_model(&mut self, model: Model) {
        self.statement.model = model;
        self.version += 1;
        self.due = Duration::ZERO;
    }

    /// Takes a challenge on; the nonce is the challenger's.
    ///
    /// # Errors
    /// Too many wait already.
    pub(crate) fn challenge(
        &mut self,
        purpose: Purpose,
        nonce: [u8; 32],
        peer: &Peer<'_>,
    ) -> Result<Ticket, QueueFull> {
        if self.waiting.len() >= self.capacity {
            return Err(QueueFull);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        match peer.leaf.fingerprint {
            Some(fingerprint) => self.waiting.push((
                ticket,
                Challenge {
                    purpose,
                    role: Role::Server,
                    nonce,
                    certificate: peer.leaf.certificate,
                    exporter: peer.exporter,
                    fingerprint,
                },
            )),
            // This connection began before there was evidence; the next one will be better.
            None => drop(self.answers.insert(ticket, Err(QuoteError::Unavailable))),
        }
        Ok(ticket)
    }

    /// The encoded answer to a challenge, once it is there. After that its ticket is void.
    pub(crate) fn take_answer(&mut self, ticket: Ticket) -> Option<Result<Vec<u8>, QuoteError>> {
        self.answers.remove(&ticket)
    }

    /// Forgets a challenge whose challenger is gone.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.answers.remove(&ticket);
        if let Some(Job::Challenges(paths)) = &mut self.job {
            paths.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    /// Takes in a quote that has arrived and asks for the next one. Returns whether anything happened.
    pub(crate) fn poll(&mut self, now: Duration) -> bool {
        let mut active = false;
        if let (Some(domain), true) = (&mut self.domain, self.job.is_some()) {
            let Some(outcome) = domain.poll_quote() else {
                return false;
            };
            active = true;
            // A longer one would not fit into what clients read.
            let outcome = outcome.and_then(|quote| match quote.len() {
                1..=MAX_QUOTE => Ok(quote),
                _ => Err(QuoteError::NotOurs),
            });
            self.failure = outcome.as_ref().err().copied();
            match self.job.take() {
                Some(Job::Challenges(paths)) => self.answer(paths, outcome),
                Some(job) => self.conclude(job, outcome, now),
                None => {}
            }
        }
        if now >= self.due {
            self.replace(now);
            active = true;
        } else if !self.waiting.is_empty() {
            self.start_answers();
            active = true;
        }
        active
    }

    /// Begins to replace the certificate; without a domain that is all.
    fn replace(&mut self, now: Duration) {
        // Whatever comes of it, this is not tried again at once.
        self.due = now + rotation(self.lifetime);
        let started = match Candidate::generate(self.clock.unix_time(), self.lifetime) {
            Err(_) => Err(QuoteError::Failed),
            Ok(candidate) => match self.domain {
                Some(_) => self.start_certificate(candidate, now),
                None => self.install(candidate, None, self.version, now),
            },
        };
        if let Err(error) = started {
            self.failure = Some(error);
            self.due = now + RETRY;
        }
    }

    fn start_certificate(&mut self, candidate: Candidate, now: Duration) -> Result<(), QuoteError> {
        let domain = self.domain.as_mut().ok_or(QuoteError::Unavailable)?;
        let registers = domain.registers()?;
        let Statement {
            configuration,
            minimum_tcb,
            model,
        } = &self.statement;
        let fingerprint = fingerprint(&registers, model, candidate.public_key());
        let claims = Claims {
            public_key_hash: sha384(candidate.public_key()),
            platform: registers.digest(),
            compile: domain.compile(),
            configuration: configuration.clone(),
            model: model.clone(),
            minimum_tcb: minimum_tcb.clone(),
            boot: self.boot,
            validity: candidate.period(),
            fingerprint,
        }
        .encode();
        domain.start_quote(&ReportData::certificate(&claims))?;
        self.job = Some(Job::Certificate {
            candidate,
            claims,
            fingerprint,
            version: self.version,
            started: now,
        });
        Ok(())
    }

    /// Ends a certificate's job.
    fn conclude(&mut self, job: Job, outcome: Result<Vec<u8>, QuoteError>, now: Duration) {
        let Job::Certificate {
            candidate,
            claims,
            fingerprint,
            version,
            started,
        } = job
        else {
            return;
        };
        let installed = outcome.and_then(|quote| {
            let evidence = Evidence {
                quote: &quote,
                claims_buffer: &claims,
            };
            self.install(
                candidate,
                Some((&evidence.encode(), fingerprint)),
                version,
                started,
            )
        });
        if installed.is_err() {
            self.due = now + RETRY;
        }
    }

    /// Certifies the candidate and makes it what new connections see.
    fn install(
        &mut self,
        candidate: Candidate,
        evidence: Option<(&[u8], Sha384)>,
        version: u64,
        started: Duration,
    ) -> Result<(), QuoteError> {
        let end = started + self.lifetime;
        let leaf = certify(candidate, evidence, end).map_err(|_| QuoteError::Failed)?;
        self.current = Arc::new(leaf);
        self.certified = Some(version);
        Ok(())
    }

    /// Begins to answer as many of the waiting challenges as one quote can.
    fn start_answers(&mut self) {
        let Some(domain) = &mut self.domain else {
            return;
        };
        let Some(&(_, Challenge { purpose, .. })) = self.waiting.first() else {
            return;
        };
        let waiting = mem::take(&mut self.waiting);
        let (batch, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(_, challenge)| challenge.purpose == purpose);
        self.waiting = others;
        let leaves: Vec<_> = batch
            .iter()
            .map(|(_, challenge)| challenge.leaf())
            .collect();
        let tickets = batch.into_iter().map(|(ticket, _)| ticket);
        let started = tree(&leaves)
            .ok_or(QuoteError::Failed)
            .and_then(|(root, paths)| {
                domain.start_quote(&ReportData::challenges(purpose, &root))?;
                Ok(paths)
            });
        match started {
            Ok(paths) => self.job = Some(Job::Challenges(tickets.zip(paths).collect())),
            Err(error) => {
                self.failure = Some(error);
                let answers = tickets.map(|ticket| (ticket, Err(error)));
                self.answers.extend(answers);
            }
        }
    }

    /// Ends a batch of challenges.
    fn answer(&mut self, paths: Vec<(Ticket, Vec<Step>)>, outcome: Result<Vec<u8>, QuoteError>) {
        let answers = paths.into_iter().map(|(ticket, path)| {
            let answer = outcome.clone().map(|quote| Answer { quote, path }.encode());
            (ticket, answer)
        });
        self.answers.extend(answers);
    }
}

/// The part of its life after which a certificate is replaced.
fn rotation(lifetime: Duration) -> Duration {
    lifetime * 2 / 3
}

/// A certificate of the candidate that is valid until `end`, with evidence and the fingerprint in its claims if there is any.
fn certify(
    candidate: Candidate,
    evidence: Option<(&[u8], Sha384)>,
    end: Duration,
) -> Result<Leaf, IdentityError> {
    let public_key = candidate.public_key().to_vec();
    let identity = candidate.certify(evidence.map(|(extension, _)| extension))?;
    Ok(Leaf {
        certificate: sha384(identity.certificate()),
        fingerprint: evidence.map(|(_, fingerprint)| fingerprint),
        public_key,
        end,
        certified_key: Arc::new(identity.certified_key()),
    })
}
