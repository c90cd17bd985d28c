//! TLS 1.3 (RFC 8446) without I/O: ciphertext in, plaintext out, and back.
//!
//! rustls' unbuffered interface over *ring*: no session tickets, no resumption, no early data, so that
//! every connection has fresh keys and nothing outlives it. Both directions are bounded. A
//! [`Session`] takes no ciphertext while its plaintext is unread, and no plaintext while its
//! ciphertext is unwritten.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use rustls::{
    ServerConfig,
    pki_types::UnixTime,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection},
    sign::CertifiedKey,
    time_provider::TimeProvider,
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    },
};

mod exporter;

use crate::{Stream, evidence::Leaf, provider::provider};
use exporter::Exporter;

/// Ciphertext held while a record is incomplete: two records of the greatest size (RFC 8446, 5.2).
const INCOMING_LIMIT: usize = 2 * (5 + (1 << 14) + 256);
/// Ciphertext read from a stream at a time, and so the work one poll does for one connection.
const READ_SIZE: usize = 16 * 1024;
/// Unread plaintext above which no more ciphertext is read.
const PLAINTEXT_LIMIT: usize = 16 * 1024;
/// Unwritten ciphertext above which no more plaintext is taken.
const OUTGOING_LIMIT: usize = 32 * 1024;
/// Plaintext in one record (RFC 8446, 5.1).
const RECORD_SIZE: usize = 1 << 14;
/// What one record adds to its plaintext: header, content type, authentication tag, rounded up.
const RECORD_OVERHEAD: usize = 64;

/// Where the server gets the date from. Inside a trust domain it is the host's word: good for a
/// certificate's validity, for nothing that must stay secret.
pub trait WallClock: fmt::Debug + Send + Sync {
    /// Time since the UNIX epoch.
    fn unix_time(&self) -> Duration;
}

/// A [`WallClock`] as rustls wants it.
#[derive(Debug)]
struct RustlsClock(Arc<dyn WallClock>);

impl TimeProvider for RustlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.unix_time()))
    }
}

/// What the TLS configurations of all connections have in common.
pub(crate) struct Settings(ServerConfig);

impl Settings {
    /// TLS 1.3 with nothing that outlives a connection.
    ///
    /// # Errors
    /// When rustls does not accept the set of algorithms.
    pub(crate) fn new(clock: Arc<dyn WallClock>) -> Result<Self, TlsSetupError> {
        let mut config =
            ServerConfig::builder_with_details(Arc::new(provider()), Arc::new(RustlsClock(clock)))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Certificate(None)));
        config.alpn_protocols.push(b"http/1.1".to_vec());
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(config))
    }

    /// The configuration of one connection: with the certificate of this moment, and a place for its exporter secret, which
    /// rustls' unbuffered interface hands out in no other way.
    fn for_connection(&self, leaf: &Leaf, exporter: &Arc<Exporter>) -> Arc<ServerConfig> {
        let mut config = self.0.clone();
        config.cert_resolver = Arc::new(Certificate(Some(leaf.certified_key())));
        config.key_log = Arc::clone(exporter) as _;
        Arc::new(config)
    }
}

/// The one certificate a connection can show.
#[derive(Debug)]
struct Certificate(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// The TLS library refused the server's own settings.
#[derive(Debug)]
pub struct TlsSetupError(rustls::Error);

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS cannot be set up: {}", self.0)
    }
}

impl core::error::Error for TlsSetupError {}

impl From<rustls::Error> for TlsSetupError {
    fn from(error: rustls::Error) -> Self {
        Self(error)
    }
}

/// The connection cannot go on: the peer broke the protocol, or its stream failed.
#[derive(Debug)]
pub(crate) struct Broken;

/// One connection's TLS state with its buffers.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    exporter: Arc<Exporter>,
    leaf: Arc<Leaf>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    plaintext: Vec<u8>,
    established: bool,
    /// The peer announced that it will send nothing more (close_notify).
    notified: bool,
    /// The stream has no more bytes.
    stream_ended: bool,
}

/// What to do once application data may be sent.
enum Intent<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

impl Session {
    /// A session waiting for its ClientHello, to be answered with the certificate `leaf`.
    ///
    /// # Errors
    /// When rustls cannot start one, for want of entropy.
    pub(crate) fn new(settings: &Settings, leaf: Arc<Leaf>) -> Result<Self, Broken> {
        let exporter = Arc::new(Exporter::default());
        let config = settings.for_connection(&leaf, &exporter);
        Ok(Self {
            tls: UnbufferedServerConnection::new(config).map_err(|_| Broken)?,
            exporter,
            leaf,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            plaintext: Vec::new(),
            established: false,
            notified: false,
            stream_ended: false,
        })
    }

    /// The certificate this session shows.
    pub(crate) fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// A secret only the two ends of this session know (RFC 8446, 7.5). None before the handshake is complete.
    pub(crate) fn export(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        self.exporter
            .export(label, context)
            .filter(|_| self.established)
    }

    /// Whether the handshake is complete.
    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the peer will send nothing more, because it said so or its stream ended.
    pub(crate) fn input_ended(&self) -> bool {
        self.notified || self.stream_ended
    }

    /// Whether the peer's stream ended without notice. RFC 8446, 6.1, demands the notice of a peer that
    /// goes on reading; this one is gone.
    pub(crate) fn was_cut_off(&self) -> bool {
        self.stream_ended && !self.notified
    }

    /// Whether all ciphertext has been written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Decrypted bytes nobody has taken yet. The reader removes what it consumes.
    pub(crate) fn plaintext(&mut self) -> &mut Vec<u8> {
        &mut self.plaintext
    }

    /// Reads at most one buffer from `stream` and decrypts it. Returns whether anything arrived.
    ///
    /// # Errors
    /// [`Broken`] on a stream error or a TLS error; in the latter case the alert is in the outgoing
    /// buffer and [`Session::transmit`] can still deliver it.
    pub(crate) fn receive<S: Stream>(&mut self, stream: &mut S) -> Result<bool, Broken> {
        let room = self.plaintext.len() < PLAINTEXT_LIMIT && self.outgoing.len() < OUTGOING_LIMIT;
        if self.stream_ended || !room || !stream.read_ready().map_err(|_| Broken)? {
            return Ok(false);
        }
        let held = self.incoming.len();
        if held >= INCOMING_LIMIT {
            return Err(Broken);
        }
        self.incoming
            .resize((held + READ_SIZE).min(INCOMING_LIMIT), 0);
        let read = stream.read(&mut self.incoming[held..]);
        let count = read.as_ref().map_or(0, |&count| count);
        self.incoming.truncate(held + count);
        read.map_err(|_| Broken)?;
        if count == 0 {
            self.stream_ended = true;
            return Ok(true);
        }
        self.drive(Intent::Nothing).map(|_| true)
    }

    /// Encrypts a prefix of `plaintext`, at most one record. Returns how many bytes it took: none
    /// while the handshake lasts or the outgoing buffer is full.
    pub(crate) fn send(&mut self, plaintext: &[u8]) -> Result<usize, Broken> {
        if plaintext.is_empty() || !self.established || self.outgoing.len() >= OUTGOING_LIMIT {
            return Ok(0);
        }
        let record = &plaintext[..plaintext.len().min(RECORD_SIZE)];
        let done = self.drive(Intent::Encrypt(record))?;
        Ok(if done { record.len() } else { 0 })
    }

    /// Queues the close_notify alert: nothing more will be sent.
    pub(crate) fn close(&mut self) -> Result<(), Broken> {
        self.drive(Intent::Close).map(|_| ())
    }

    /// Writes what the stream takes of the outgoing ciphertext. Returns whether it took anything.
    pub(crate) fn transmit<S: Stream>(&mut self, stream: &mut S) -> Result<bool, Broken> {
        let mut written = 0;
        while written < self.outgoing.len() && stream.write_ready().map_err(|_| Broken)? {
            match stream
                .write(&self.outgoing[written..])
                .map_err(|_| Broken)?
            {
                0 => break,
                count => written = (written + count).min(self.outgoing.len()),
            }
        }
        self.outgoing.drain(..written);
        Ok(written > 0)
    }

    /// Runs rustls' state machine until it needs more input, carrying out `intent` at the first
    /// moment application data may be sent. Returns whether that moment came.
    fn drive(&mut self, intent: Intent<'_>) -> Result<bool, Broken> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut self.incoming);
            let mut outcome = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|_| Broken)?;
                        discard = discard.saturating_add(record.discard);
                        self.plaintext.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, 0, |space| data.encode(space))?;
                }
                Ok(ConnectionState::TransmitTlsData(transmitted)) => transmitted.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.established = true;
                    match intent {
                        Intent::Nothing => {}
                        Intent::Encrypt(data) => {
                            append(&mut self.outgoing, data.len() + RECORD_OVERHEAD, |space| {
                                traffic.encrypt(data, space)
                            })?;
                        }
                        Intent::Close => {
                            append(&mut self.outgoing, RECORD_OVERHEAD, |space| {
                                traffic.queue_close_notify(space)
                            })?;
                        }
                    }
                    outcome = Some(Ok(true));
                }
                Ok(ConnectionState::PeerClosed) => self.notified = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    outcome = Some(Ok(false));
                }
                // No early data is offered, and rustls has no other states today.
                Ok(_) => outcome = Some(Err(Broken)),
                Err(_) => {
                    self.collect_alert();
                    outcome = Some(Err(Broken));
                }
            }
            self.incoming.drain(..discard.min(self.incoming.len()));
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// After a TLS error: moves the alert rustls has queued for the peer to the outgoing buffer.
    ///
    /// Only while there is something queued: rustls then does not look at its input, which it must not
    /// after an error.
    fn collect_alert(&mut self) {
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.tls.process_tls_records(&mut []).state
            else {
                break;
            };
            if append(&mut self.outgoing, 0, |space| data.encode(space)).is_err() {
                break;
            }
        }
    }
}

/// Appends to `buffer` what `encode` writes into the space it is given: first `guess` bytes, then as
/// many as it asks for.
fn append<E: MissingSpace>(
    buffer: &mut Vec<u8>,
    guess: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Broken> {
    let start = buffer.len();
    let mut space = guess;
    for _ in 0..2 {
        buffer.resize(start + space, 0);
        match encode(&mut buffer[start..]) {
            Ok(written) => {
                buffer.truncate(start + written);
                return Ok(());
            }
            Err(error) => match error.missing_space() {
                Some(required) => space = required,
                None => break,
            },
        }
    }
    buffer.truncate(start);
    Err(Broken)
}

/// The two encoding errors of rustls, as far as a bigger buffer helps.
trait MissingSpace {
    /// How many bytes would do, if space is what was missing.
    fn missing_space(self) -> Option<usize>;
}

impl MissingSpace for EncodeError {
    fn missing_space(self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl MissingSpace for EncryptError {
    fn missing_space(self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
            Self::EncryptExhausted => None,
        }
    }
}

#[cfg(test)]
mod tests;
