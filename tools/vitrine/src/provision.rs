//! `vitrine provision`: hands a sealed model's key to the machines that are to serve it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::seal::{Envelope, FileKey, HEADER_LIMIT};
use age::IdentityFile;
use age::secrecy::ExposeSecret;
use age_core::format::Stanza;
use client::{Address, Connector, Options, Request, Trust};
use verifier::Scope;

use crate::failure::Failure;
use crate::terminal;

/// Bytes of an answer.
const ANSWER: usize = 64 << 10;

/// Send the key of a sealed model to guests that wait for it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The key is taken out of the sealed file with the identity, and sent on a connection that has been verified. Each guest is \
given it on its own; one that fails does not keep the others from it.

Example:
  vitrine provision --to tcp://192.0.2.10:8443 --sealed model.gguf.age --identity model.gguf.key")]
pub struct Args {
    /// The guests: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT
    #[arg(long, value_name = "ADDRESS", required = true, num_args = 1..)]
    to: Vec<Address>,
    /// Accept guests that are not in a trust domain: whoever runs them can read the model (development only)
    #[arg(long)]
    insecure_no_tee: bool,
    #[command(flatten)]
    trust: crate::trust::Trust,
    /// The sealed model
    #[arg(long, value_name = "FILE")]
    sealed: PathBuf,
    /// The age identity that can open it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let key = file_key(&args.sealed, &args.identity)?;
    let trust = match args.insecure_no_tee {
        true => Trust::InsecureNoTee,
        false => Trust::Evidence(Arc::new(args.trust.judge(Scope::KeyRelease)?)),
    };
    if args.insecure_no_tee {
        eprintln!(
            "warning: --insecure-no-tee: nothing shows who or what gets the key; it can read the model"
        );
    }
    let mut first_failure = None;
    for address in &args.to {
        match send(address, Options::new(trust.clone()), &key) {
            Ok(()) => println!("{address}: has the key"),
            Err(failure) => {
                eprintln!("{address}: {}", terminal::printable(&failure.to_string()));
                first_failure.get_or_insert(failure);
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// Takes the file key out of a sealed file.
fn file_key(sealed: &Path, identity: &Path) -> Result<FileKey, Failure> {
    let unusable = |path: &Path, error: &dyn core::fmt::Display| {
        Failure::usage(format!("{}: {error}", path.display()))
    };
    let file = File::open(sealed).map_err(|error| unusable(sealed, &error))?;
    let length = file.metadata().map_err(|error| unusable(sealed, &error))?;
    let mut start = Vec::new();
    file.take(2 * HEADER_LIMIT as u64)
        .read_to_end(&mut start)
        .map_err(|error| unusable(sealed, &error))?;
    let envelope = Envelope::read(&start, length.len())
        .map_err(|error| unusable(sealed, &error))?
        .ok_or_else(|| unusable(sealed, &"the age header does not end"))?;
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
    let identities = IdentityFile::from_file(identity.display().to_string())
        .map_err(|error| unusable(identity, &error))?
        .into_identities()
        .map_err(|error| unusable(identity, &error))?;
    let key = identities
        .iter()
        .find_map(|identity| identity.unwrap_stanzas(&stanzas))
        .ok_or_else(|| unusable(identity, &"no identity in it opens the sealed file"))?
        .map_err(|error| unusable(sealed, &error))?;
    let key = FileKey::from(*key.expose_secret());
    envelope
        .check(&key)
        .map_err(|error| unusable(sealed, &error))?;
    Ok(key)
}

/// Sends the key to one guest.
fn send(address: &Address, options: Options, key: &FileKey) -> Result<(), Failure> {
    let digits: String = key
        .expose()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body = serde_json::json!({"key": digits}).to_string();
    let session = Connector::new(options)?.connect(address)?;
    let mut response = session.request(&Request::post("/model-key", body.as_bytes()))?;
    let answer = response.read_whole(ANSWER)?;
    if response.status() == 202 {
        return Ok(());
    }
    let message = serde_json::from_slice::<serde_json::Value>(&answer)
        .ok()
        .and_then(|answer| Some(answer["error"]["message"].as_str()?.to_owned()));
    Err(Failure::new(message.unwrap_or_else(|| {
        format!("the guest answers with status {}", response.status())
    })))
}
