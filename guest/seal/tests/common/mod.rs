//! Sealed files made by an implementation that is not ours.
#![allow(dead_code, reason = "every test file uses a different part")]

use std::io::{Read, Write};
use std::thread;

use age::secrecy::ExposeSecret;
use age::{Decryptor, Encryptor, Identity, x25519};
use age_core::format::Stanza;
use seal::{Envelope, EnvelopeError, FileKey, OpenError, Opened, Opening, Parallel};

/// A sealed file with what opens it.
pub struct Sealed {
    pub file: Vec<u8>,
    pub key: FileKey,
    pub identity: x25519::Identity,
}

/// Seals `plaintext` for a fresh identity, and for `others` more.
pub fn seal(plaintext: &[u8], others: usize) -> Sealed {
    let identity = x25519::Identity::generate();
    let recipients: Vec<_> = (0..others)
        .map(|_| x25519::Identity::generate().to_public())
        .chain([identity.to_public()])
        .collect();
    let recipients = recipients.iter().map(|one| one as &dyn age::Recipient);
    let mut file = Vec::new();
    let mut writer = Encryptor::with_recipients(recipients)
        .expect("recipients")
        .wrap_output(&mut file)
        .expect("a header");
    writer.write_all(plaintext).expect("room");
    writer.finish().expect("room");
    let key = file_key(&file, &identity);
    Sealed {
        file,
        key,
        identity,
    }
}

/// What an identity unwraps.
pub fn file_key(file: &[u8], identity: &x25519::Identity) -> FileKey {
    let envelope = envelope(file).expect("an envelope");
    let stanzas: Vec<_> = envelope
        .header()
        .stanzas
        .iter()
        .map(|stanza| Stanza {
            tag: stanza.kind.clone(),
            args: stanza.arguments.clone(),
            body: stanza.body.clone(),
        })
        .collect();
    let key = identity.unwrap_stanzas(&stanzas).expect("our stanza");
    FileKey::from(*key.expect("the file key").expose_secret())
}

/// The envelope of a whole file.
pub fn envelope(file: &[u8]) -> Result<Envelope, EnvelopeError> {
    Envelope::read(file, file.len() as u64).map(|envelope| envelope.expect("the file is whole"))
}

/// Everything on the caller's thread.
pub fn alone(task: &(dyn Fn() + Sync)) {
    task();
}

/// Everything on four threads.
pub fn together(task: &(dyn Fn() + Sync)) {
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(task);
        }
        task();
    });
}

/// Why a file was not opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Envelope(EnvelopeError),
    Open(OpenError),
}

/// Opens a file whose pieces have the given size.
pub fn open(
    file: &[u8],
    key: &FileKey,
    piece: usize,
    parallel: Parallel<'_>,
) -> Result<Opened<Vec<u8>>, Failure> {
    let envelope = envelope(file).map_err(Failure::Envelope)?;
    let payload = &file[envelope.length()..];
    let memory = vec![0; envelope.layout().plaintext_length() as usize];
    let mut opening = Opening::new(envelope, key, memory).map_err(Failure::Open)?;
    for bytes in payload.chunks(piece) {
        opening.push(bytes, parallel).map_err(Failure::Open)?;
    }
    opening.finish(parallel).map_err(Failure::Open)
}

/// What the other implementation makes of a file; None if it refuses.
pub fn open_elsewhere(file: &[u8], identity: &x25519::Identity) -> Option<Vec<u8>> {
    let decryptor = Decryptor::new(file).ok()?;
    let mut reader = decryptor
        .decrypt([identity as &dyn Identity].into_iter())
        .ok()?;
    let mut plaintext = Vec::new();
    reader.read_to_end(&mut plaintext).ok()?;
    Some(plaintext)
}
