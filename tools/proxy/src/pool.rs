//! The servers, and who gets the next request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use client::{Address, Health, Request};

use crate::dialer::{Dialer, Refusal, WeakerMode};
use crate::upstream::{Lease, Upstream};

/// How often a server that does well is asked how it is. Servers close connections that are idle for a minute.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// The least time between two looks at a server.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
/// How long a request waits for the first server that is verified, longer than it takes to give one up that does not answer; and how often it
/// looks.
const FIRST_WORD: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a server's health.
const HEALTH_LIMIT: usize = 64 << 10;

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most a connection may be used after its verification.
    pub max_age: Duration,
    /// How long a server is left alone after a failure.
    pub pause: Duration,
}

impl Default for Limits {
    /// Ten minutes, and five seconds.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(600),
            pause: Duration::from_secs(5),
        }
    }
}

/// Verified connections to several servers.
pub struct Pool {
    dialer: Box<dyn Dialer>,
    upstreams: Vec<Arc<Upstream>>,
    limits: Limits,
    /// Whose turn it is among equals.
    turn: AtomicUsize,
}

impl Pool {
    /// Begins to verify the servers at `addresses`, each in a thread of its own, and goes on doing so while the pool is there.
    pub fn new(dialer: Box<dyn Dialer>, addresses: &[Address], limits: Limits) -> Arc<Self> {
        let upstreams = addresses.iter().cloned().map(Upstream::new);
        let pool = Arc::new(Self {
            dialer,
            upstreams: upstreams.map(Arc::new).collect(),
            limits,
            turn: AtomicUsize::new(0),
        });
        for upstream in &pool.upstreams {
            let (pool, upstream) = (Arc::downgrade(&pool), Arc::clone(upstream));
            thread::spawn(move || tend(&pool, &upstream));
        }
        pool
    }

    /// The modes in force that make a verdict worth less.
    pub(crate) fn weaker_modes(&self) -> &[WeakerMode] {
        self.dialer.weaker_modes()
    }

    pub(crate) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// A server that is left alone after a failure is tried again after this time.
    pub(crate) fn pause(&self) -> Duration {
        self.limits.pause
    }

    /// A connection for a request to any server but those `tried`: of the accepted ones the least busy, equals in turn. Others, which may
    /// hang, are tried only when no accepted one has a connection to give. None if no server is left that may be used.
    pub(crate) fn lease(&self, tried: &[Arc<Upstream>]) -> Option<Lease> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.upstreams.len().max(1);
        let (before, from) = self.upstreams.split_at_checked(turn)?;
        let untried =
            |upstream: &&Arc<Upstream>| !tried.iter().any(|other| Arc::ptr_eq(other, upstream));
        let mut candidates: Vec<_> = from.iter().chain(before).filter(untried).collect();
        wait_for_first_word(&candidates);
        candidates.sort_by_key(|upstream| {
            let state = upstream.state();
            (!state.is_accepted(), state.busy)
        });
        let lease = candidates
            .into_iter()
            .find_map(|upstream| self.connection(upstream))?;
        lease.upstream.state().requests += 1;
        Some(lease)
    }

    /// An idle connection, or a new one that is verified first.
    fn connection(&self, upstream: &Arc<Upstream>) -> Option<Lease> {
        if let Some(lease) = upstream.take_idle() {
            return Some(lease);
        }
        if !upstream.is_due() {
            return None;
        }
        match self.dialer.dial(&upstream.address) {
            Ok(dialed) => Some(upstream.admit(dialed, &self.limits)),
            Err(refusal) => {
                upstream.refuse(refusal, self.limits.pause);
                None
            }
        }
    }

    /// Notes that a verified server did not answer.
    pub(crate) fn broke_off(&self, upstream: &Upstream, error: client::Error) {
        upstream.refuse(Refusal::Connection(error), self.limits.pause);
    }

    /// Keeps a verified connection to a server, and asks the server how it is. Returns when to look again.
    fn check(&self, upstream: &Arc<Upstream>) -> Duration {
        // Connections that are all at work are a good sign already.
        if upstream.state().is_at_work() {
            return self.limits.pause;
        }
        let Some(mut lease) = self.connection(upstream) else {
            return self.limits.pause;
        };
        let left = lease.until.saturating_duration_since(Instant::now());
        let answer = lease.take().map(|session| {
            let mut response = session.request(&Request::get("/health"))?;
            let body = response.read_whole(HEALTH_LIMIT)?;
            Ok((body, response.into_session()))
        });
        match answer {
            Some(Ok((body, session))) => {
                upstream.state().health = serde_json::from_slice::<Health>(&body).ok();
                lease.finish(session);
                CHECK_INTERVAL.min(left)
            }
            // The server closed it meanwhile, which it may.
            Some(Err(_)) if lease.reused => LEAST_INTERVAL,
            Some(Err(error)) => {
                self.broke_off(upstream, error);
                self.limits.pause
            }
            None => self.limits.pause,
        }
    }
}

/// Waits while servers are being tried for the first time, until one may be used.
fn wait_for_first_word(upstreams: &[&Arc<Upstream>]) {
    let deadline = Instant::now() + FIRST_WORD;
    while !upstreams.iter().any(|one| one.state().is_accepted())
        && upstreams.iter().any(|one| one.state().is_unknown())
        && Instant::now() < deadline
    {
        thread::sleep(LOOK);
    }
}

/// Looks after a server as long as the pool is there.
fn tend(pool: &Weak<Pool>, upstream: &Arc<Upstream>) {
    while let Some(pool) = pool.upgrade() {
        let pause = pool.check(upstream).max(LEAST_INTERVAL);
        drop(pool);
        thread::sleep(pause);
    }
}
