//! `vitrine seal`: encrypts a model, so that only a machine that is given its key can read it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::{Encryptor, x25519};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::progress::Progress;

/// Bytes encrypted between two looks at the progress.
const PIECE: usize = 4 << 20;

/// Encrypt a model file in the age format, and print the digests that clients pin
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The sealed file takes the place of the model on a guest's disk; the guest waits for its key, which `vitrine provision` takes out \
of the file with an identity. `age` and `rage` read and write the same files. The digests are what clients pin; \
`vitrine measure IMAGE --model MODEL --sealed FILE --json` makes a manifest's entry of them.

Examples:
  vitrine seal model.gguf                                # writes model.gguf.age and a fresh identity, model.gguf.key
  vitrine seal model.gguf --recipient age1... --json")]
pub struct Args {
    /// The model (GGUF)
    model: PathBuf,
    /// The sealed file to write [default: MODEL.age]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Who can take the key out of it (age1...); can be given several times
    #[arg(long, value_name = "RECIPIENT", value_parser = recipient)]
    recipient: Vec<x25519::Recipient>,
    /// Without --recipient: where to write the fresh identity that can [default: MODEL.key]
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    identity: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Serialize)]
struct Outcome {
    /// The sealed file.
    sealed: PathBuf,
    /// SHA-256 of the sealed file.
    sealed_sha256: String,
    /// SHA-256 of the model.
    plaintext_sha256: String,
    recipients: Vec<String>,
    /// The fresh identity, if one was made.
    identity: Option<PathBuf>,
}

fn recipient(text: &str) -> Result<x25519::Recipient, &'static str> {
    text.parse()
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| beside(&args.model, "age"));
    let mut model = File::open(&args.model).map_err(|error| unusable(&args.model, error))?;
    let length = model
        .metadata()
        .map_err(|error| unusable(&args.model, error))?
        .len();
    if !is_gguf(&mut model).map_err(|error| unusable(&args.model, error))? {
        eprintln!(
            "warning: {} is not a GGUF file; no guest can serve it",
            args.model.display()
        );
    }
    let file = File::create_new(&out).map_err(|error| unusable(&out, error))?;
    // What was begun is of no use to anyone.
    let abandon = |failure| {
        let _ = fs::remove_file(&out);
        failure
    };
    let mut recipients = args.recipient.clone();
    let mut identity_file = None;
    if recipients.is_empty() {
        let path = args
            .identity
            .clone()
            .unwrap_or_else(|| beside(&args.model, "key"));
        recipients.push(write_identity(&path).map_err(abandon)?);
        identity_file = Some(path);
    }
    let digests = encrypt(&mut model, length, file, &recipients).map_err(|error| {
        if let Some(identity) = &identity_file {
            let _ = fs::remove_file(identity);
        }
        abandon(Failure::new(format!(
            "cannot seal {}: {error}",
            args.model.display()
        )))
    })?;
    let outcome = Outcome {
        sealed: out,
        sealed_sha256: digests.0,
        plaintext_sha256: digests.1,
        recipients: recipients.iter().map(ToString::to_string).collect(),
        identity: identity_file,
    };
    if args.json {
        println!("{}", serde_json::json!(outcome));
        return Ok(());
    }
    println!("sealed     {}", outcome.sealed.display());
    println!("SHA-256    {} (sealed)", outcome.sealed_sha256);
    println!("           {} (plaintext)", outcome.plaintext_sha256);
    for recipient in &outcome.recipients {
        println!("recipient  {recipient}");
    }
    if let Some(identity) = &outcome.identity {
        println!(
            "identity   {}: whoever has this file can read the model",
            identity.display()
        );
    }
    Ok(())
}

/// Encrypts everything; the SHA-256 of the result and of what went in.
fn encrypt(
    model: &mut File,
    length: u64,
    file: File,
    recipients: &[x25519::Recipient],
) -> Result<(String, String), Box<dyn std::error::Error>> {
    let recipients = recipients.iter().map(|one| one as &dyn age::Recipient);
    let mut sealed = Hashing {
        inner: file,
        digest: Sha256::new(),
    };
    let mut writer = Encryptor::with_recipients(recipients)?.wrap_output(&mut sealed)?;
    let mut plaintext = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut progress = Progress::new(length);
    loop {
        let count = model.read(&mut piece)?;
        if count == 0 {
            break;
        }
        plaintext.update(&piece[..count]);
        writer.write_all(&piece[..count])?;
        progress.advance(count as u64);
    }
    writer.finish()?;
    sealed.inner.sync_all()?;
    Ok((hex(&sealed.digest.finalize()), hex(&plaintext.finalize())))
}

/// Whether a file begins like a model. Leaves it at its beginning.
fn is_gguf(file: &mut File) -> std::io::Result<bool> {
    let mut magic = Vec::new();
    file.take(4).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(magic == b"GGUF")
}

/// Writes a fresh identity that only this user can read; its recipient.
fn write_identity(path: &Path) -> Result<x25519::Recipient, Failure> {
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public();
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(|error| unusable(path, error))?;
    let secret = identity.to_string();
    let text = format!("# public key: {recipient}\n{}\n", secret.expose_secret());
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| unusable(path, error))?;
    Ok(recipient)
}

/// `path` with one more extension.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn unusable(path: &Path, error: std::io::Error) -> Failure {
    if error.kind() == ErrorKind::AlreadyExists {
        return Failure::usage(format!(
            "{} is already there and is not overwritten; name another one with --out or --identity",
            path.display()
        ));
    }
    Failure::usage(format!("{}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that hashes what is written to it.
struct Hashing {
    inner: File,
    digest: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
