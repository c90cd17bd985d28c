//! `vitrine provision`: hands a sealed model's key to the machines that are to serve it.

mod watch;

use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use ::seal::FileKey;
use client::{Address, Connector, Options, Request, Trust};
use serde_json::json;
use verifier::Scope;

use crate::failure::Failure;
use crate::memory::clock;
use crate::owner::Signer;
use crate::sealed::{self, Contents};
use crate::terminal;
use watch::Boot;

/// Bytes of an answer.
const ANSWER: usize = 64 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Send the key of a sealed model to guests that wait for it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The key is taken out of the sealed file with the identity, and sent on a connection that has been verified. Each guest is \
given it on its own; one that fails does not keep the others from it. With --watch the command goes on: it looks at the guests again \
and again, and one that waits for its key, after a restart say, is verified anew and given it.

With --sign-with the owner signs for the key, which a guest demands whose configuration names a provisioner, and leaves an endorsement \
of the guest, which clients demand that are given --owner-key. `openssl genpkey -algorithm ed25519 -out owner.pem` makes such a key, \
`openssl pkey -in owner.pem -pubout` its public half.

Examples:
  vitrine provision --to tcp://192.0.2.10:8443 --sealed model.gguf.age --identity model.gguf.key --manifest vitrine.json
  vitrine provision --to tcp://one:8443 tcp://two:8443 --sealed model.gguf.age --identity model.gguf.key --policy policy.toml \
    --sign-with owner.pem --watch")]
pub struct Args {
    /// The guests: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT
    #[arg(long, value_name = "ADDRESS", required = true, num_args = 1..)]
    to: Vec<Address>,
    /// Accept guests that are not in a trust domain: whoever runs them can read the model (development only)
    #[arg(long, conflicts_with_all = ["Trust", "sign_with"])]
    insecure_no_tee: bool,
    #[command(flatten)]
    trust: crate::trust::Trust,
    /// The sealed model
    #[arg(long, value_name = "FILE")]
    sealed: PathBuf,
    /// The age identity that can open it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Sign for the key, and endorse each guest, with this private key (Ed25519, PEM)
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    /// How long clients are to accept the endorsement
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    endorsed_for: u32,
    /// Go on, and give the key to guests that need it again
    #[arg(long)]
    watch: bool,
    /// With --watch: seconds between two looks at a guest
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: u32,
}

/// What a guest is given, and how it is verified before.
struct Delivery {
    trust: Trust,
    key: FileKey,
    /// The owner's key, the SHA-256 of the sealed file, and for how long guests are endorsed.
    owner: Option<(Signer, [u8; 32], Duration)>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let key = Contents::open(&args.sealed)?.key(&args.identity)?;
    let trust = match args.insecure_no_tee {
        true => Trust::InsecureNoTee,
        false => Trust::Evidence(Arc::new(args.trust.judge(Scope::KeyRelease)?)),
    };
    if args.insecure_no_tee {
        eprintln!(
            "warning: --insecure-no-tee: nothing shows who or what gets the key; it can read the model"
        );
    }
    let owner = match &args.sign_with {
        None => None,
        Some(path) => {
            let endorsed_for = DAY * args.endorsed_for;
            Some((
                Signer::read(path)?,
                sealed::digest(&args.sealed)?,
                endorsed_for,
            ))
        }
    };
    let delivery = Delivery { trust, key, owner };
    if args.watch {
        let interval = Duration::from_secs(args.interval.into());
        watch::watch(&args.to, interval, move |address, had| {
            delivery.send(address, had)
        });
        return Ok(());
    }
    let mut first_failure = None;
    for address in &args.to {
        match delivery.send(address, None) {
            Ok(_) => println!("{address}: has the key"),
            Err(failure) => {
                eprintln!("{address}: {}", terminal::printable(&failure.to_string()));
                first_failure.get_or_insert(failure);
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

impl Delivery {
    /// Verifies a guest and sends it the key, unless the boot that had the key before is still running. Which boot has it now.
    fn send(&self, address: &Address, had: Boot) -> Result<Boot, Failure> {
        let session = Connector::new(Options::new(self.trust.clone()))?.connect(address)?;
        let boot = session.proof().map(|proof| proof.evidence.claims.boot);
        if boot.is_some() && boot == had {
            return Err(Failure::new(
                "it has had the key since it was started, and is sealed all the same: its file is not the one sealed here",
            ));
        }
        let digits: String = self
            .key
            .expose()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut body = json!({ "key": digits });
        let session = match &self.owner {
            None => session,
            Some((signer, model, endorsed_for)) => {
                let end = clock::now() + endorsed_for.as_secs();
                let (session, endorsement) = signer.endorse(session, *model, end)?;
                body["signature"] = signer.release(&session, &self.key)?.into();
                body["endorsement"] = endorsement;
                session
            }
        };
        let body = body.to_string();
        let mut response = session.request(&Request::post("/model-key", body.as_bytes()))?;
        let answer = response.read_whole(ANSWER)?;
        if response.status() == 202 {
            return Ok(boot);
        }
        let message = serde_json::from_slice::<serde_json::Value>(&answer)
            .ok()
            .and_then(|answer| Some(answer["error"]["message"].as_str()?.to_owned()));
        Err(Failure::new(message.unwrap_or_else(|| {
            format!("the guest answers with status {}", response.status())
        })))
    }
}
