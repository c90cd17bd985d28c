//! One server: what it last showed, and the connections to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use client::{Address, Health, Session};
use verifier::Report;

use crate::dialer::{Dialed, Refusal, Shown};
use crate::pool::Limits;

/// Idle connections kept to one server.
const MAX_IDLE: usize = 16;

/// What is known about a server.
#[derive(Clone, Debug, Default)]
pub(crate) enum Standing {
    /// It was not tried yet.
    #[default]
    Unknown,
    /// The last connection to it was accepted.
    Accepted,
    /// The last connection to it was not.
    Refused(String),
    /// It could not be reached, or broke off.
    Unreachable(String),
}

/// A connection at rest.
struct Idle {
    session: Session,
    certificate: Option<[u8; 48]>,
    /// When it is to be used no more.
    until: Instant,
}

/// A connection in use.
pub(crate) struct Lease {
    pub(crate) upstream: Arc<Upstream>,
    session: Option<Session>,
    /// It carried a request before, so its server may have closed it meanwhile.
    pub(crate) reused: bool,
    certificate: Option<[u8; 48]>,
    pub(crate) until: Instant,
}

impl Lease {
    fn new(upstream: &Arc<Upstream>, idle: Idle, reused: bool) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            session: Some(idle.session),
            reused,
            certificate: idle.certificate,
            until: idle.until,
        }
    }

    /// The connection; there is one, once.
    pub(crate) fn take(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// Gives the connection back, if it is still there. One whose time is up, or from before a change of certificate, is closed.
    pub(crate) fn finish(self, session: Option<Session>) {
        let mut state = self.upstream.state();
        if let Some(session) = session
            && self.certificate == state.certificate
            && Instant::now() < self.until
            && state.idle.len() < MAX_IDLE
            && !matches!(state.standing, Standing::Refused(_))
        {
            state.idle.push(Idle {
                session,
                certificate: self.certificate,
                until: self.until,
            });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.state().busy -= 1;
    }
}

/// What the pool knows about a server.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) standing: Standing,
    /// When that was found.
    pub(crate) since: Option<SystemTime>,
    /// The judgements of the last connection that showed something.
    pub(crate) reports: Vec<Report>,
    /// What it said of itself last.
    pub(crate) health: Option<Health>,
    /// The certificate of the last connection; connections with another one are not used again.
    certificate: Option<[u8; 48]>,
    idle: Vec<Idle>,
    /// Connections in use.
    pub(crate) busy: usize,
    /// Connections verified, and requests passed on.
    pub(crate) verified: u64,
    pub(crate) requests: u64,
    /// Not to be tried before.
    retry: Option<Instant>,
}

/// A server.
pub(crate) struct Upstream {
    pub(crate) address: Address,
    state: Mutex<State>,
}

impl Upstream {
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            state: Mutex::default(),
        }
    }

    /// What is known now.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole: what a panicking thread left is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be tried now.
    pub(crate) fn is_due(&self) -> bool {
        self.state()
            .retry
            .is_none_or(|retry| retry <= Instant::now())
    }

    /// Takes an idle connection that is still good.
    pub(crate) fn take_idle(self: &Arc<Self>) -> Option<Lease> {
        let now = Instant::now();
        let mut state = self.state();
        state.idle.retain(|idle| now < idle.until);
        let idle = state.idle.pop()?;
        state.busy += 1;
        Some(Lease::new(self, idle, true))
    }

    /// Notes a new connection. Idle ones from before a change of certificate are closed.
    pub(crate) fn admit(self: &Arc<Self>, dialed: Dialed, limits: &Limits) -> Lease {
        let Dialed { session, shown } = dialed;
        let Shown {
            reports,
            certificate,
            term,
        } = shown;
        // A server that is late with its new certificate is not to be asked for it without a pause.
        let left = term.map_or(limits.max_age, |term| {
            term.left(SystemTime::now(), limits.pause, limits.max_age)
        });
        let mut state = self.state();
        state.idle.retain(|idle| idle.certificate == certificate);
        state.certificate = certificate;
        state.reports = reports;
        state.verified += 1;
        state.busy += 1;
        state.retry = None;
        state.judge(Standing::Accepted);
        let idle = Idle {
            session,
            certificate,
            until: Instant::now() + left,
        };
        Lease::new(self, idle, false)
    }

    /// Notes that there is no connection to be had, and not to try again for `pause`. After evidence that is not good enough
    /// nothing goes over the older connections either.
    pub(crate) fn refuse(&self, refusal: Refusal, pause: Duration) {
        let mut state = self.state();
        let words = refusal.to_string();
        state.health = None;
        state.retry = Some(Instant::now() + pause);
        match refusal {
            Refusal::Connection(error) if error.is_transport() => {
                state.judge(Standing::Unreachable(words));
            }
            Refusal::Connection(_) => {
                state.idle.clear();
                state.reports.clear();
                state.judge(Standing::Refused(words));
            }
            Refusal::Evidence(reports) => {
                state.idle.clear();
                state.reports = reports;
                state.judge(Standing::Refused(words));
            }
        }
    }
}

impl State {
    /// Whether the last connection to it was accepted.
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.standing, Standing::Accepted)
    }

    /// Whether it is being tried for the first time.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.standing, Standing::Unknown)
    }

    /// Connections at rest.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Whether it was accepted, and all connections are in use.
    pub(crate) fn is_at_work(&self) -> bool {
        self.is_accepted() && self.idle.is_empty() && self.busy > 0
    }

    fn judge(&mut self, standing: Standing) {
        self.standing = standing;
        self.since = Some(SystemTime::now());
    }
}
