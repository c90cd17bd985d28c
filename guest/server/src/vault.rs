//! Where a sealed model's key comes in.
//!
//! A trust domain with a sealed model boots without its key and takes one, once. Whether a key is the right one, the sealed
//! file's header says; a second one is refused whatever it is. If the configuration names a provisioner, its signature over the
//! connection is checked before anything else. If it names none, whoever has the model's key may bring it: nobody else can, and
//! the model that is loaded is in the evidence either way, but a stranger who sends wrong keys can delay the right one, because
//! wrong keys make everybody wait.

use alloc::boxed::Box;
use core::{mem, time::Duration};

use attestation::provisioning::{PublicKey, verify_release};
use seal::{Envelope, FileKey};

/// How long the first wrong key, and at most any, keeps the next one from being looked at.
const DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The place for the key, and what was put into it.
pub(crate) struct Vault {
    /// Who may bring the key, if not anybody.
    provisioner: Option<PublicKey>,
    state: State,
    /// How long the next wrong key closes the vault.
    delay: Duration,
    /// Closed until then; monotonic time.
    closed: Duration,
}

enum State {
    /// There is no sealed model.
    Unused,
    /// The model waits for its key.
    Sealed(Box<Envelope>),
    /// The key is there and nobody has taken it yet.
    Keyed(Box<Envelope>, FileKey),
    /// The key was taken.
    Used,
}

/// Why a key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The model is not sealed.
    NotSealed,
    /// It has its key already.
    AlreadyOpen,
    /// It is not signed by the one who may bring it.
    NotTheProvisioner,
    /// It is not this model's.
    WrongKey,
    /// Keys are not looked at for so long.
    Closed(Duration),
}

impl Vault {
    /// A vault for nothing yet. Only `provisioner` may bring a key, if there is one.
    pub(crate) fn new(provisioner: Option<PublicKey>) -> Self {
        Self {
            provisioner,
            state: State::Unused,
            delay: DELAY.0,
            closed: Duration::ZERO,
        }
    }

    /// Waits for the key of this model from now on.
    pub(crate) fn seal(&mut self, envelope: Envelope) {
        self.state = State::Sealed(Box::new(envelope));
    }

    /// Takes the key, if it is the right one and comes from the right place. `exporter` is the connection's, over this key.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing has changed but how long the next key has to wait.
    pub(crate) fn offer(
        &mut self,
        key: FileKey,
        exporter: &[u8; 32],
        signature: Option<&[u8]>,
        now: Duration,
    ) -> Result<(), Refusal> {
        let envelope = match &self.state {
            State::Sealed(envelope) => envelope,
            State::Unused => return Err(Refusal::NotSealed),
            State::Keyed(..) | State::Used => return Err(Refusal::AlreadyOpen),
        };
        if let Some(provisioner) = &self.provisioner {
            let signature = signature.ok_or(Refusal::NotTheProvisioner)?;
            verify_release(provisioner, exporter, signature)
                .map_err(|_| Refusal::NotTheProvisioner)?;
        }
        if now < self.closed {
            return Err(Refusal::Closed(self.closed - now));
        }
        if envelope.check(&key).is_err() {
            self.closed = now + self.delay;
            self.delay = (2 * self.delay).min(DELAY.1);
            return Err(Refusal::WrongKey);
        }
        if let State::Sealed(envelope) = mem::replace(&mut self.state, State::Used) {
            self.state = State::Keyed(envelope, key);
        }
        Ok(())
    }

    /// The key with what it opens, for the one who does, once.
    pub(crate) fn take(&mut self) -> Option<(Envelope, FileKey)> {
        match mem::replace(&mut self.state, State::Used) {
            State::Keyed(envelope, key) => Some((*envelope, key)),
            other => {
                self.state = other;
                None
            }
        }
    }
}
