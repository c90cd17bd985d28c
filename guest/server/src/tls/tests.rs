use alloc::{collections::VecDeque, rc::Rc, vec, vec::Vec};
use core::cell::RefCell;
use std::io::{Read as _, Write as _};

use attestation::claims::Model;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
};

use super::*;
use crate::evidence::{Attestor, Statement};

#[derive(Debug)]
struct FixedClock;

impl WallClock for FixedClock {
    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_800_000_000)
    }
}

impl TimeProvider for FixedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.unix_time()))
    }
}

/// One end of a connection through memory that carries at most `portion` bytes at a time.
#[derive(Clone)]
struct Pipe {
    incoming: Rc<RefCell<VecDeque<u8>>>,
    outgoing: Rc<RefCell<VecDeque<u8>>>,
    portion: usize,
    ended: bool,
}

impl ErrorType for Pipe {
    type Error = ErrorKind;
}

impl ReadReady for Pipe {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.ended || !self.incoming.borrow().is_empty())
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut incoming = self.incoming.borrow_mut();
        let count = buffer.len().min(self.portion).min(incoming.len());
        for (place, byte) in buffer.iter_mut().zip(incoming.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl WriteReady for Pipe {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(true)
    }
}

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, ErrorKind> {
        let count = buffer.len().min(self.portion);
        self.outgoing.borrow_mut().extend(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// A server's session and the client it talks to.
struct Pair {
    settings: Settings,
    leaf: Arc<Leaf>,
    session: Session,
    stream: Pipe,
    config: Arc<ClientConfig>,
    client: ClientConnection,
}

impl Pair {
    fn new(portion: usize) -> Self {
        Self::with_client(portion, |_| {})
    }

    /// With a client whose cryptography `adjust` has changed.
    fn with_client(portion: usize, adjust: impl FnOnce(&mut CryptoProvider)) -> Self {
        let settings = Settings::new(Arc::new(FixedClock)).unwrap();
        let statement = Statement {
            configuration: Vec::new(),
            minimum_tcb: Default::default(),
            model: Model::None,
        };
        let life = Duration::from_secs(600);
        let attestor = Attestor::new(None, statement, Arc::new(FixedClock), 1, life).unwrap();
        let leaf = Arc::clone(attestor.current());
        let certificate = CertificateDer::from(leaf.certificate().to_vec());
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut provider = rustls::crypto::ring::default_provider();
        adjust(&mut provider);
        let mut config =
            ClientConfig::builder_with_details(Arc::new(provider), Arc::new(FixedClock))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.enable_early_data = true;
        let config = Arc::new(config);
        Self {
            session: Session::new(&settings, Arc::clone(&leaf)).unwrap(),
            settings,
            leaf,
            stream: Pipe {
                incoming: Rc::default(),
                outgoing: Rc::default(),
                portion,
                ended: false,
            },
            client: Self::client(&config),
            config,
        }
    }

    fn client(config: &Arc<ClientConfig>) -> ClientConnection {
        let name = ServerName::try_from("vitrine").unwrap();
        ClientConnection::new(Arc::clone(config), name).unwrap()
    }

    /// The same client comes again, with whatever it kept.
    fn reconnect(&mut self) {
        self.session = Session::new(&self.settings, Arc::clone(&self.leaf)).unwrap();
        self.client = Self::client(&self.config);
    }

    /// Moves bytes both ways until nothing moves any more.
    fn settle(&mut self) -> Result<(), Broken> {
        loop {
            let mut moved = false;
            let mut ciphertext = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut ciphertext).unwrap();
                moved = true;
            }
            self.stream.incoming.borrow_mut().extend(ciphertext);
            moved |= self.session.receive(&mut self.stream)?;
            moved |= self.session.transmit(&mut self.stream)?;
            let received: Vec<_> = self.stream.outgoing.borrow_mut().drain(..).collect();
            let mut received = received.as_slice();
            while !received.is_empty() {
                self.client.read_tls(&mut received).unwrap();
                self.client.process_new_packets().unwrap();
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn established(portion: usize) -> Self {
        let mut pair = Self::new(portion);
        pair.settle().unwrap();
        assert!(pair.session.is_established() && !pair.client.is_handshaking());
        pair
    }

    fn client_reads(&mut self) -> Vec<u8> {
        let mut plaintext = Vec::new();
        let _ = self.client.reader().read_to_end(&mut plaintext);
        plaintext
    }
}

#[test]
fn both_sides_close() {
    let mut pair = Pair::established(usize::MAX);
    pair.client.send_close_notify();
    pair.settle().unwrap();
    assert!(pair.session.input_ended());
    // What was asked before is still answered.
    assert_eq!(pair.session.send(b"answer").unwrap(), 6);
    pair.session.close().unwrap();
    pair.session.close().unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.client_reads(), b"answer");
    let state = pair.client.process_new_packets().unwrap();
    assert!(state.peer_has_closed());
}

#[test]
fn the_end_of_the_stream_is_the_end_of_input() {
    let mut pair = Pair::established(usize::MAX);
    pair.stream.ended = true;
    pair.session.receive(&mut pair.stream).unwrap();
    assert!(pair.session.input_ended());
}

#[test]
fn unread_plaintext_holds_back_the_peer() {
    let mut pair = Pair::established(usize::MAX);
    pair.client.set_buffer_limit(None);
    pair.client.writer().write_all(&vec![1; 100_000]).unwrap();
    pair.settle().unwrap();
    let held = pair.session.plaintext().len();
    assert!((PLAINTEXT_LIMIT..PLAINTEXT_LIMIT + INCOMING_LIMIT).contains(&held));
    assert!(!pair.stream.incoming.borrow().is_empty());
    let mut total = 0;
    while !pair.session.plaintext().is_empty() {
        total += pair.session.plaintext().len();
        pair.session.plaintext().clear();
        pair.settle().unwrap();
    }
    assert_eq!(total, 100_000);
}

#[test]
fn unwritten_ciphertext_holds_back_the_server() {
    let mut pair = Pair::established(usize::MAX);
    pair.stream.portion = 0;
    let plaintext = vec![2; 200_000];
    let mut taken = 0;
    loop {
        match pair.session.send(&plaintext[taken..]).unwrap() {
            0 => break,
            count => taken += count,
        }
    }
    assert!((OUTGOING_LIMIT - RECORD_SIZE..OUTGOING_LIMIT + RECORD_SIZE).contains(&taken));
    assert!(!pair.session.is_flushed());
}

#[test]
fn errors_leave_an_alert_for_the_peer() {
    let mut pair = Pair::new(usize::MAX);
    pair.stream
        .incoming
        .borrow_mut()
        .extend(b"GET / HTTP/1.1\r\n\r\n");
    assert!(pair.session.receive(&mut pair.stream).is_err());
    pair.session.transmit(&mut pair.stream).unwrap();
    assert_eq!(pair.stream.outgoing.borrow()[0], 21);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_arrive_whatever_the_portions(portion in 1..3000_usize, length in 1..=PLAINTEXT_LIMIT) {
        let mut pair = Pair::established(portion);
        let message: Vec<_> = (0..length).map(|n| n as u8).collect();
        pair.client.writer().write_all(&message).unwrap();
        pair.settle().unwrap();
        prop_assert!(*pair.session.plaintext() == message);
        let mut taken = 0;
        while taken < length {
            taken += pair.session.send(&message[taken..]).unwrap();
            pair.settle().unwrap();
        }
        prop_assert!(pair.client_reads() == message);
    }
}

/// Cuts the handshake message in `record` into records of at most `size` bytes.
fn fragment(record: &[u8], size: usize) -> Vec<u8> {
    let (header, message) = record.split_at(5);
    let fragments = message.chunks(size).flat_map(|fragment| {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&header[..3], &length, fragment].concat()
    });
    fragments.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_handshake_never_panics(
        size in 1..300_usize,
        damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        portion in 1..400_usize,
    ) {
        let mut pair = Pair::new(portion);
        let mut hello = Vec::new();
        pair.client.write_tls(&mut hello).unwrap();
        let mut input = fragment(&hello, size);
        for (at, byte) in damage {
            let at = at % input.len();
            input[at] ^= byte;
        }
        input.truncate(cut % (2 * input.len()));
        input.extend(garbage);
        pair.stream.incoming.borrow_mut().extend(input);
        while matches!(pair.session.receive(&mut pair.stream), Ok(true)) {}
        let _ = pair.session.transmit(&mut pair.stream);
        prop_assert!(!pair.session.is_established());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_records_are_never_taken_for_data(
        at in any::<usize>(),
        bit in 0..8_u32,
        portion in 1..400_usize,
        times in 1..4_usize,
    ) {
        let mut pair = Pair::established(portion);
        let mut input = Vec::new();
        for _ in 0..times {
            pair.client.writer().write_all(b"four").unwrap();
            pair.client.write_tls(&mut input).unwrap();
        }
        let at = at % input.len();
        // Type and version of an encrypted record are constants (RFC 8446, 5.2). rustls authenticates
        // what they have to be, and does not mind what they are.
        prop_assume!(at % (input.len() / times) > 2);
        input[at] ^= 1 << bit;
        pair.stream.incoming.borrow_mut().extend(input);
        while matches!(pair.session.receive(&mut pair.stream), Ok(true)) {}
        let _ = pair.session.transmit(&mut pair.stream);
        let received = pair.session.plaintext();
        prop_assert!(received.len() < 4 * times && b"fourfourfour".starts_with(received));
    }
}

#[test]
fn a_fragmented_client_hello_is_understood() {
    let mut pair = Pair::new(usize::MAX);
    let mut hello = Vec::new();
    pair.client.write_tls(&mut hello).unwrap();
    pair.stream
        .incoming
        .borrow_mut()
        .extend(fragment(&hello, 50));
    pair.settle().unwrap();
    assert!(pair.session.is_established());
}

/// Which group is used with a client of this cryptography.
fn group(provider: CryptoProvider) -> NamedGroup {
    let mut pair = Pair::with_client(usize::MAX, |own| *own = provider);
    pair.settle().unwrap();
    let theirs = pair.client.export_keying_material([0; 32], b"label", None);
    assert_eq!(pair.session.export("label", b""), Some(theirs.unwrap()));
    pair.client.negotiated_key_exchange_group().unwrap().name()
}

#[test]
fn the_key_exchange_is_post_quantum_where_the_client_s_is() {
    let foreign = rustls_graviola::default_provider();
    let ours = CryptoProvider {
        kx_groups: provider().kx_groups,
        ..rustls::crypto::ring::default_provider()
    };
    for provider in [foreign, ours] {
        assert_eq!(group(provider), NamedGroup::X25519MLKEM768);
    }
    let classical = rustls::crypto::ring::default_provider();
    assert_eq!(group(classical), NamedGroup::X25519);
}

/// Nothing outlives a connection: what a client could come back with is not handed out, and what it sends early is not looked at.
#[test]
fn there_are_no_tickets_no_resumption_and_no_early_data() {
    let mut pair = Pair::established(usize::MAX);
    for _ in 0..2 {
        assert_eq!(pair.client.tls13_tickets_received(), 0);
        pair.reconnect();
        assert!(pair.client.early_data().is_none());
        pair.settle().unwrap();
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn both_ends_export_the_same() {
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        if suite.tls13().is_none() {
            continue;
        }
        let mut pair = Pair::with_client(usize::MAX, |provider| {
            provider.cipher_suites = vec![*suite];
        });
        assert_eq!(pair.session.export("label", b"context"), None);
        pair.settle().unwrap();
        for (label, context) in [("label", &b"context"[..]), ("EXPERIMENTAL-other", b"")] {
            let theirs = pair
                .client
                .export_keying_material([0; 32], label.as_bytes(), Some(context))
                .unwrap();
            assert_eq!(pair.session.export(label, context), Some(theirs));
        }
        let different = pair.session.export("label", b"other");
        assert_ne!(different, pair.session.export("label", b"context"));
    }
}
