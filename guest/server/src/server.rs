//! The server: all connections, the engine, and the loop body that serves both.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use attestation::{claims::Model, events::ModelIdentity};
use ring::rand::SystemRandom;
use seal::{Envelope, FileKey};

use crate::{
    Config, Health, IdentityError, Inference, Platform, Stream, TrustDomain, WallClock,
    api::Service,
    config::Timeouts,
    connection::{Connection, Outcome},
    evidence::{Attestor, Statement},
    http,
    load::Load,
    tls::{Settings, TlsSetupError},
    vault::Vault,
    warm_up::WarmUp,
};

/// Time between two polls that counts towards what clients are given time for. A step of the engine may take much longer, and
/// no client gets anywhere meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

/// Serves every attached stream from one engine.
///
/// Nothing happens outside [`Server::poll`], which never blocks: call it again at once while it
/// returns true, and otherwise when a device has something, or after some milliseconds, for deadlines.
pub struct Server<S, I: Inference> {
    tls: Settings,
    service: Service<I>,
    connections: Vec<Connection<S, I>>,
    capacity: usize,
    model_version: u64,
    limits: http::Limits,
    timeouts: Timeouts,
    warm_up: WarmUp<I>,
    /// What the connections' deadlines are set by.
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

/// Why there is no server.
#[derive(Debug)]
pub enum SetupError {
    /// The TLS library refused the server's own settings.
    Tls(TlsSetupError),
    /// No key pair, or no certificate, could be made.
    Identity(IdentityError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Identity(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SetupError {}

impl<S: Stream, I: Inference> Server<S, I> {
    /// A server without connections and without a model, reporting [`Health::Booting`]. Without a trust
    /// domain it has no evidence to show.
    ///
    /// # Errors
    /// There is no entropy for a key, or the TLS library does not accept the server's settings.
    pub fn new(
        config: &Config,
        domain: Option<Box<dyn TrustDomain>>,
        platform: Platform,
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, SetupError> {
        let statement = Statement {
            configuration: config.canonical().into_bytes(),
            minimum_tcb: config.trust.minimum_tcb(),
            model: Model::None,
        };
        let attestor = Attestor::new(
            domain,
            statement,
            Arc::clone(&clock),
            config.limits.challenges,
            config.limits.certificate_lifetime(),
        );
        Ok(Self {
            tls: Settings::new(Arc::clone(&clock)).map_err(SetupError::Tls)?,
            service: Service {
                health: Health::Booting,
                platform,
                clock,
                now: Duration::ZERO,
                load: Load::default(),
                rng: SystemRandom::new(),
                attestor: attestor.map_err(SetupError::Identity)?,
                vault: Vault::new(config.trust.provisioner()),
                endorsement: None,
                model: None,
                configured_name: config.model.name.clone(),
                answer_tokens: config.limits.answer_tokens,
            },
            connections: Vec::new(),
            capacity: config.limits.connections,
            model_version: config.model.version,
            limits: http::Limits {
                header_bytes: config.limits.header_bytes,
                body_bytes: config.limits.request_bytes,
            },
            timeouts: config.limits.timeouts(),
            warm_up: WarmUp::new(config.model.max_sequences),
            patience: Duration::ZERO,
        })
    }

    /// The certificate new connections see, in DER.
    pub fn certificate(&self) -> &[u8] {
        self.service.attestor.current().certificate()
    }

    /// Waits for the key of this sealed model, reporting [`Health::Sealed`].
    pub fn seal(&mut self, envelope: Envelope) {
        self.service.vault.seal(envelope);
        // If there was one, it came with a key that opened nothing.
        self.service.endorsement = None;
        self.service.health = Health::Sealed;
    }

    /// The key of the sealed model with its envelope, once it has come; once.
    pub fn take_key(&mut self) -> Option<(Envelope, FileKey)> {
        self.service.vault.take()
    }

    /// What `/health` reports from now on.
    pub fn set_health(&mut self, health: Health) {
        self.service.health = health;
    }

    /// Whether a quote is being made, of whose arrival no device tells.
    pub fn awaits_quote(&self) -> bool {
        self.service.attestor.awaits_quote()
    }

    /// What `/health` reports.
    pub fn health(&self) -> Health {
        self.service.health_now()
    }

    /// Installs the engine with its model, which has been measured, and names the model in all
    /// certificates from now on. The state is [`Health::Warming`] until the engine has been tried out and
    /// the certificate replaced, and then [`Health::Ready`]. Done once; a second one would leave the first
    /// one's answers unfinished, so it is the caller's duty not to.
    pub fn install(&mut self, engine: I, model: ModelIdentity) {
        let created = self.service.clock.unix_time().as_secs();
        self.service.model = Some((engine, created));
        self.service.configured_name = Some(model.name.clone());
        self.service.attestor.set_model(Model::Loaded {
            identity: model,
            version: self.model_version,
        });
        self.service.health = Health::Warming;
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
            &self.tls,
            Arc::clone(self.service.attestor.current()),
            self.limits,
            self.timeouts,
            self.patience,
        );
        self.connections.push(connection.map_err(|_| AtCapacity)?);
        Ok(())
    }

    /// Gives every connection its turn, then the engine one step. `clock` is monotonic. Returns whether
    /// there was anything to do, and so whether to call it again at once.
    pub fn poll(&mut self, clock: impl Fn() -> Duration) -> bool {
        let now = clock();
        self.service.load.served(now);
        self.patience += now.saturating_sub(self.service.now).min(PATIENCE);
        let service = &mut self.service;
        service.now = now;
        let mut active = service.attestor.poll(now);
        active |= self.warm_up.advance(service);
        let now = self.patience;
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
        let service = &mut self.service;
        service.load.served(clock());
        if let Some((engine, _)) = &mut service.model {
            active |= engine.step();
            service.load.computed(clock());
        }
        if !active {
            service.load.rest();
        }
        active
    }
}
