//! The server: all connections, the engine, and the loop body that serves both.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use ring::rand::SystemRandom;
use rustls::ServerConfig;

use crate::{
    Config, Health, Identity, Inference, Platform, Stream, WallClock,
    api::Service,
    config::Timeouts,
    connection::{Connection, Outcome},
    http, tls,
    tls::TlsSetupError,
};

/// Time between two polls that counts towards what clients are given time for. A step of the engine may take much longer, and
/// no client gets anywhere meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

/// Serves every attached stream from one engine.
///
/// Nothing happens outside [`Server::poll`], which never blocks: call it again at once while it
/// returns true, and otherwise when a device has something, or after some milliseconds, for deadlines.
pub struct Server<S, I: Inference> {
    tls: Arc<ServerConfig>,
    service: Service<I>,
    connections: Vec<Connection<S, I>>,
    capacity: usize,
    limits: http::Limits,
    timeouts: Timeouts,
    /// The time of the last poll, and what the connections' deadlines are set by.
    polled: Duration,
    patience: Duration,
}

/// As many connections are open as may be, and all of them are busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtCapacity;

impl fmt::Display for AtCapacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many connections")
    }
}

impl core::error::Error for AtCapacity {}

impl<S: Stream, I: Inference> Server<S, I> {
    /// A server without connections and without a model, reporting [`Health::Booting`].
    ///
    /// # Errors
    /// When the TLS library does not accept `identity`.
    pub fn new(
        config: &Config,
        identity: Identity,
        platform: Platform,
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, TlsSetupError> {
        Ok(Self {
            tls: tls::configure(identity, Arc::clone(&clock))?,
            service: Service {
                health: Health::Booting,
                platform,
                clock,
                rng: SystemRandom::new(),
                model: None,
                configured_name: config.model.name.clone(),
                answer_tokens: config.limits.answer_tokens,
            },
            connections: Vec::new(),
            capacity: config.limits.connections,
            limits: http::Limits {
                header_bytes: config.limits.header_bytes,
                body_bytes: config.limits.request_bytes,
            },
            timeouts: config.limits.timeouts(),
            polled: Duration::ZERO,
            patience: Duration::ZERO,
        })
    }

    /// What `/health` reports from now on. Prompts are answered only when it is [`Health::Ready`] and
    /// an engine is installed.
    pub fn set_health(&mut self, health: Health) {
        self.service.health = health;
    }

    /// Installs the engine. Done once; a second one would leave the first one's answers unfinished,
    /// so it is the caller's duty not to.
    pub fn install(&mut self, engine: I) {
        let created = self.service.clock.unix_time().as_secs();
        self.service.model = Some((engine, created));
    }

    /// Serves another stream. If there is no room, the connection that has been idle the longest makes
    /// some.
    ///
    /// # Errors
    /// When all connections are busy; `stream` is closed.
    pub fn attach(&mut self, stream: S) -> Result<(), AtCapacity> {
        if self.connections.len() >= self.capacity {
            let idle = self.connections.iter().enumerate();
            let idle =
                idle.filter_map(|(index, connection)| Some((connection.idle_until()?, index)));
            let (_, index) = idle.min().ok_or(AtCapacity)?;
            self.connections.remove(index);
        }
        let connection = Connection::new(
            stream,
            Arc::clone(&self.tls),
            self.limits,
            self.timeouts,
            self.patience,
        );
        self.connections.push(connection.map_err(|_| AtCapacity)?);
        Ok(())
    }

    /// Gives every connection its turn, then the engine one step. `now` is monotonic. Returns whether
    /// there was anything to do, and so whether to call it again at once.
    pub fn poll(&mut self, now: Duration) -> bool {
        self.patience += now.saturating_sub(self.polled).min(PATIENCE);
        self.polled = now;
        let now = self.patience;
        let mut active = false;
        let service = &mut self.service;
        // Whoever came first in the last round comes last in this one.
        if let Some(turn) = self.connections.len().checked_sub(1) {
            self.connections.rotate_left(turn.min(1));
        }
        self.connections.retain_mut(|connection| {
            let outcome = connection.poll(service, now);
            active |= outcome != Outcome::Idle;
            if outcome == Outcome::Over {
                connection.abandon(service);
            }
            outcome != Outcome::Over
        });
        if let Some((engine, _)) = &mut self.service.model {
            active |= engine.step();
        }
        active
    }
}
