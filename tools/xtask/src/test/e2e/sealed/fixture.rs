//! What the tests of sealed models share: a model sealed once, a manifest of the image, machines, and the commands that talk to them.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use client::{Connector, Options, Request, Session, Trust};
use serde::Deserialize;
use serde_json::Value;
use synthesis::Mix;

use super::super::{ANSWER, READY, World, same_tokens};
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::{Guest, Ready, Setup};
use crate::pins::Pins;
use crate::process::{self, Output};
use crate::sealed::SealedModel;

/// What every answer is asked with.
const PROMPT: &str = "What is kept in a glass case?";
const SAMPLING: &[&str] = &[
    "--temperature",
    "0.8",
    "--top-p",
    "0.9",
    "--seed",
    "7",
    "--max-tokens",
    "24",
];
/// `vitrine`'s exit code for a server without evidence, which a new one has for a moment.
pub const NO_EVIDENCE: i32 = 23;
/// To talk to a machine that is not in a trust domain.
pub const BLINDLY: &str = "--insecure-no-tee";
/// For what takes no computation.
pub const SOON: Duration = Duration::from_secs(60);
/// How often something is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// See the module.
pub struct Fixture<'a> {
    pub world: &'a World,
    pub pins: Pins,
    pub plain: PathBuf,
    pub sealed: SealedModel,
    /// Another model, sealed under another key.
    pub other: SealedModel,
}

/// An answer over HTTP.
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Reply {
    /// The stable name of the error, if it is one.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

impl<'a> Fixture<'a> {
    pub fn new(world: &'a World) -> Result<Self> {
        let directory = world.directory.path();
        let seal = |mix| -> Result<(PathBuf, SealedModel)> {
            let plain = world.model(mix)?;
            let sealed = SealedModel::make(&world.vitrine, &plain, directory)?;
            Ok((plain, sealed))
        };
        let (plain, sealed) = seal(Mix::Q4KM)?;
        Ok(Self {
            world,
            pins: Pins::write(&world.manifest()?, directory)?,
            plain,
            sealed,
            other: seal(Mix::Q8_0)?.1,
        })
    }

    /// A machine in the emulator, with more of the emulator's arguments, and the text of its configuration.
    pub fn start(&self, model: &Path, more: &[&str], config: Option<&str>) -> Result<Guest> {
        let emulator = [&["--pki", self.pins.pki()], more].concat();
        let world = self.world;
        let setup = Setup {
            backend: "emulator",
            emulator: &emulator,
            config,
            ..Setup::new(&world.vitrine, &world.image.path, Some(model), 2)
        };
        Guest::start(&setup)
    }

    /// A machine with the sealed model that waits for its key and has evidence to show.
    pub fn start_sealed(&self, model: &Path, more: &[&str], config: Option<&str>) -> Result<Guest> {
        let mut guest = self.start(model, more, config)?;
        guest.wait_sealed(READY, || {})?;
        self.wait_evidence(&guest)?;
        Ok(guest)
    }

    /// Waits until the machine's certificate carries evidence.
    pub fn wait_evidence(&self, guest: &Guest) -> Result<()> {
        eventually("there is evidence", || {
            Ok(self.verify(guest, &[])?.status.code() != Some(NO_EVIDENCE))
        })
    }

    /// `vitrine COMMAND --to GUEST`, judging by the pins.
    fn command(&self, command: &str, guest: &Guest, more: &[&str]) -> Result<Output> {
        let address = guest.tcp().to_string();
        let mut program = self.world.vitrine(&[command, "--to", &address]);
        program.args(more);
        if !more.contains(&BLINDLY) {
            program.args(self.pins.program());
        }
        process::output(&mut program, b"", ANSWER)
    }

    /// `vitrine verify`.
    pub fn verify(&self, guest: &Guest, more: &[&str]) -> Result<Output> {
        self.command("verify", guest, more)
    }

    /// What `vitrine verify --json` says of a machine with a model of this digest.
    pub fn verdict(&self, guest: &Guest, digest: &str) -> Result<Value> {
        let output = self.verify(guest, &["--json", "--model-digest", digest])?;
        serde_json::from_str(&output.stdout).context(format!("understand {}", output.stderr))
    }

    /// `vitrine health --json`, to a client that demands this model.
    pub fn judged_health(&self, guest: &Guest, digest: &str) -> Result<Output> {
        self.command("health", guest, &["--json", "--model-digest", digest])
    }

    /// `vitrine chat`, to a client that demands this model.
    pub fn chat(&self, guest: &Guest, digest: &str) -> Result<Output> {
        let asked = [
            "--prompt",
            PROMPT,
            "--max-tokens",
            "2",
            "--model-digest",
            digest,
        ];
        self.command("chat", guest, &asked)
    }

    /// `vitrine provision` with the key of this model.
    pub fn provision(&self, guest: &Guest, model: &SealedModel, more: &[&str]) -> Result<Output> {
        let (file, identity) = (
            &model.file.to_string_lossy(),
            &model.identity.to_string_lossy(),
        );
        let key = [&["--sealed", file, "--identity", identity], more].concat();
        self.command("provision", guest, &key)
    }

    /// Brings the right key, and waits until the machine serves.
    pub fn open(&self, guest: &mut Guest) -> Result<Ready> {
        let provisioned = self.provision(guest, &self.sealed, &[])?;
        succeeded("vitrine provision", &provisioned)?;
        guest.wait_ready(READY, || {})
    }

    /// The machine answers, to a client that judged it, with the tokens that this host computes from the plain model.
    pub fn answers(&self, guest: &Guest, ready: &Ready, trust: &[&str]) -> Result<()> {
        let asked = [&["--json", "--prompt", PROMPT], trust, SAMPLING].concat();
        let output = self.command("chat", guest, &asked)?;
        succeeded("vitrine chat", &output)?;
        #[derive(Deserialize)]
        struct Answer {
            token_ids: Option<Vec<u32>>,
        }
        let answer: Answer = serde_json::from_str(&output.stdout)?;
        let tokens = answer
            .token_ids
            .ok_or_else(|| Failure::new("the answer has no tokens"))?;
        same_tokens(&tokens, &self.expected(&ready.isa)?)
    }

    fn expected(&self, isa: &str) -> Result<Vec<u32>> {
        let arguments = [&["--chat", PROMPT], SAMPLING].concat();
        self.world.generate(&self.plain, isa, &arguments)
    }

    /// A connection that nothing judged, as strangers have them too.
    pub fn connect(&self, guest: &Guest) -> Result<Session> {
        let mut options = Options::new(Trust::InsecureNoTee);
        (options.connect_timeout, options.answer_timeout) = (SOON, SOON);
        Ok(Connector::new(options)?.connect(&guest.tcp())?)
    }

    /// The certificate for new connections, in DER.
    pub fn certificate(&self, guest: &Guest) -> Result<Vec<u8>> {
        let session = self.connect(guest)?;
        let certificate = session.certificate().map(<[u8]>::to_vec);
        certificate.ok_or_else(|| Failure::new("the server has no certificate"))
    }

    /// Asks on a connection of its own.
    pub fn ask(&self, guest: &Guest, request: &Request<'_>) -> Result<Reply> {
        let mut response = self.connect(guest)?.request(request)?;
        let body = response.read_whole(1 << 20)?;
        Ok(Reply {
            status: response.status(),
            retry_after: response.retry_after(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    /// What `/health` says.
    pub fn health(&self, guest: &Guest) -> Result<Reply> {
        self.ask(guest, &Request::get("/health"))
    }

    /// Sends sixteen bytes as the model's key.
    pub fn send_key(&self, guest: &Guest, key: &[u8; 16]) -> Result<Reply> {
        let digits = key.map(|byte| format!("{byte:02x}")).concat();
        let body = format!(r#"{{"key":"{digits}"}}"#);
        self.ask(guest, &Request::post("/model-key", body.as_bytes()))
    }

    /// Asks for a completion.
    pub fn prompt(&self, guest: &Guest) -> Result<Reply> {
        let body = br#"{"prompt":"secret","max_tokens":1}"#;
        self.ask(guest, &Request::post("/v1/completions", body))
    }
}

/// Fails with a program's own words unless it succeeded.
pub fn succeeded(what: &str, output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "`{what}` ended with {}: {}{}",
        output.status,
        output.stdout,
        output.stderr
    );
    Ok(())
}

/// Fails unless a program refused with this exit code and these words.
pub fn refused(what: &str, output: &Output, code: i32, words: &str) -> Result<()> {
    ensure!(
        output.status.code() == Some(code) && output.stderr.contains(words),
        "`{what}` should end with {code} and say {words:?}, and ended with {}: {}",
        output.status,
        output.stderr
    );
    Ok(())
}

/// Tries until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !is_so()? {
        ensure!(
            Instant::now() < deadline,
            "it is not so after {} s that {what}",
            SOON.as_secs()
        );
        thread::sleep(AGAIN);
    }
    Ok(())
}
