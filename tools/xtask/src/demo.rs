//! `cargo xtask demo`: from sources to a streamed answer of a sealed model, with what was measured and judged on the way.

mod report;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use client::{Address, ChatRequest, Client, Message, Options, Sampling, State, Trust};
use serde_json::Value;

use crate::failure::{Context, Failure, Result, ensure};
use crate::guest::{Guest, Setup};
use crate::image_step;
use crate::interrupt;
use crate::models;
use crate::packages;
use crate::pins::Pins;
use crate::process;
use crate::release;
use crate::sealed::SealedModel;
use crate::tools;
use crate::workspace::Workspace;
use report::{Answer, Kept, Report};

/// From the start to ready; a large model under TCG takes a while.
const READY: Duration = Duration::from_secs(900);
/// How often the guest is asked how far it is, and how long it may take to say so.
const PROGRESS: Duration = Duration::from_secs(1);
/// For evidence, which a new trust domain has within milliseconds, and for a verdict.
const EVIDENCE: Duration = Duration::from_secs(60);

/// What runs the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Backend {
    /// The emulator: a trust domain without TDX hardware
    Emulator,
    /// Stock QEMU: not a trust domain
    Qemu,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Emulator => "emulator",
            Self::Qemu => "qemu",
        }
    }

    /// What is weaker than on hardware.
    fn weaker(self) -> &'static str {
        match self {
            Self::Emulator => {
                "the emulator protects nothing: this machine sees every word, and a test root signs the evidence"
            }
            Self::Qemu => {
                "a guest in plain QEMU is no trust domain: this machine sees every word, and there is no evidence"
            }
        }
    }
}

/// Build the image, seal a model, boot without its key, verify, hand over the key, ask something
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print one JSON object on stdout; everything else goes to stderr
    #[arg(long)]
    json: bool,
    /// Leave the guest running and say how to talk to it
    #[arg(long)]
    keep: bool,
    /// What runs the image
    #[arg(long, value_enum, default_value = "emulator")]
    backend: Backend,
    /// How QEMU runs the guest's code: kvm, tcg, or kvm where it works
    #[arg(long, value_name = "ACCELERATOR", default_value = "auto")]
    accel: String,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// Guest memory in MiB [default: what the model needs]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// A Qwen3 model of yours (GGUF) instead of one with random weights
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// What to ask
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "What is kept in a glass case?"
    )]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_tokens: u32,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(match arguments.backend {
        Backend::Emulator => packages::BUILD,
        Backend::Qemu => packages::RUN,
    })?;
    let image = image_step::build(workspace)?;
    eprintln!("{image}");
    let model = match &arguments.model {
        Some(path) => path.clone(),
        None => models::demonstration(workspace)?,
    };
    let vitrine = tools::vitrine(workspace)?;
    let directory = workspace.products()?.join("demo");
    fs::create_dir_all(&directory).context(format!("create {}", directory.display()))?;
    let sealed = SealedModel::make(&vitrine, &model, &directory)?;
    eprintln!(
        "sealed the model: {}, which {} opens",
        workspace.show(&sealed.file),
        workspace.show(&sealed.identity)
    );
    let pins = Pins::write(&release::manifest(workspace, &image)?, &directory)?;
    let backend = arguments.backend.name();
    let emulator: &[&str] = match arguments.backend {
        Backend::Emulator => &["--pki", pins.pki()],
        Backend::Qemu => &[],
    };

    eprintln!("booting in {backend}, without the key");
    let started = Instant::now();
    let mut guest = Guest::start(&Setup {
        backend,
        accelerator: &arguments.accel,
        memory_mib: arguments.memory,
        emulator,
        ..Setup::new(&vitrine, &image.path, Some(&sealed.file), arguments.cpus)
    })?;
    let address = guest.tcp();
    let mut progress = Progress::new(&address, started)?;
    guest.wait_sealed(READY, || progress.show())?;
    let options = match arguments.backend {
        Backend::Emulator => {
            progress.wait_evidence()?;
            pins.program()
        }
        Backend::Qemu => vec!["--insecure-no-tee".into()],
    };
    // The key goes only to a machine that is verified, in the same command.
    eprintln!("handing over the key");
    let mut provision = Command::new(&vitrine);
    provision.args(["provision", "--to", &address.to_string()]);
    provision.arg("--sealed").arg(&sealed.file);
    provision.arg("--identity").arg(&sealed.identity);
    process::run(provision.args(&options), READY)?;
    let ready = guest.wait_ready(READY, || progress.show())?;
    let start_to_ready = started.elapsed();
    eprintln!(
        "ready after {:.1} s: {}, kernels for {}, {} CPUs",
        start_to_ready.as_secs_f64(),
        ready.accelerator,
        ready.isa,
        ready.vcpus
    );

    let verify = |more: &[&str]| {
        let mut verify = Command::new(&vitrine);
        verify.args(["verify", "--to", &address.to_string()]);
        verify.args(pins.program());
        verify.args(["--model-digest", &sealed.sealed_sha256]);
        process::output(verify.args(more), b"", EVIDENCE)
    };
    eprintln!("\n{}", verify(&[])?.stdout);
    let verdict: Value = serde_json::from_str(&verify(&["--json"])?.stdout)?;
    eprintln!("warning: {}", arguments.backend.weaker());
    let trust = match arguments.backend {
        Backend::Emulator => {
            ensure!(
                verdict["verdict"] == "accepted",
                "the machine is not accepted: {verdict}"
            );
            pins.trust(&sealed.sealed_sha256)?
        }
        Backend::Qemu => Trust::InsecureNoTee,
    };
    let mut client = Client::new(address.clone(), Options::new(trust))?;
    let name = client.models()?.into_iter().next().map(|model| model.id);
    let name = name.ok_or_else(|| Failure::new("the guest offers no model"))?;
    if arguments.model.is_none() {
        eprintln!("the weights are random, so the answer is noise, but the same noise everywhere");
    }
    let answer = ask(&mut client, &name, arguments)?;
    guest.check_alive()?;

    let report = Report {
        backend,
        weaker: arguments.backend.weaker(),
        verdict: verdict["verdict"].clone(),
        findings: verdict["findings"].clone(),
        measurements: verdict["measurements"].clone(),
        trust_anchor: verdict["trust_anchor"].clone(),
        accelerator: &ready.accelerator,
        isa: &ready.isa,
        vcpus: ready.vcpus,
        image_bytes: image.assembly.image.len(),
        image_sha384: image.measurement.sha384.to_string(),
        image_mrtd: image.measurement.mrtd.page_by_page.to_string(),
        model: &name,
        sealed_sha256: &sealed.sealed_sha256,
        plaintext_sha256: &sealed.plaintext_sha256,
        boot_ms: ready.boot_ms,
        start_to_ready_ms: start_to_ready.as_millis(),
        kept: arguments.keep.then(|| {
            let (process, log) = guest.keep();
            let digest = match arguments.backend {
                Backend::Emulator => format!(" --model-digest {}", sealed.sealed_sha256),
                Backend::Qemu => String::new(),
            };
            Kept {
                address: address.to_string(),
                options: options.join(" ") + &digest,
                process,
                log,
            }
        }),
        answer,
    };
    report.print(arguments.json, &vitrine)
}

/// Streams one answer through the client and measures it.
fn ask(client: &mut Client, model: &str, arguments: &Arguments) -> Result<Answer> {
    let request = ChatRequest {
        model: model.to_owned(),
        messages: vec![Message::new("user", &*arguments.prompt)],
        sampling: Sampling {
            max_tokens: Some(arguments.max_tokens),
            temperature: Some(0.7),
            top_p: Some(0.9),
            seed: Some(1),
            ..Sampling::default()
        },
        thinking: Some(false),
    };
    eprintln!("> {}", arguments.prompt);
    let (mut answer, mut finish_reason, mut tokens) = (String::new(), None, Vec::new());
    let (mut first, mut last) = (None, None);
    let sent = Instant::now();
    for chunk in client.chat_stream(&request)? {
        interrupt::check()?;
        for choice in chunk?.choices {
            let ids = choice.token_ids.unwrap_or_default();
            if !ids.is_empty() {
                tokens.extend(ids);
                last = Some(sent.elapsed());
                first = first.or(last);
            }
            let text = choice.delta.content.unwrap_or_default();
            // The answer is shown as it comes, without what could drive a terminal; one that is gone takes nothing.
            let shown = text.replace(|c: char| c.is_control() && !"\n\t".contains(c), "\u{fffd}");
            let _ = write!(io::stderr(), "{shown}");
            answer += &text;
            finish_reason = choice.finish_reason.or(finish_reason);
        }
    }
    eprintln!();
    let (Some(first), Some(last)) = (first, last) else {
        return Err(Failure::new("the guest answered without a token"));
    };
    let decode = (last - first).as_secs_f64();
    Ok(Answer {
        prompt: arguments.prompt.clone(),
        answer,
        finish_reason,
        tokens: tokens.len(),
        time_to_first_token_ms: first.as_secs_f64() * 1e3,
        tokens_per_second: (tokens.len() > 1 && decode > 0.0)
            .then(|| (tokens.len() - 1) as f64 / decode),
        token_ids: tokens,
    })
}

/// Tells how far the guest is, a line whenever that changes.
struct Progress {
    client: Client,
    started: Instant,
    asked: Instant,
    shown: String,
}

impl Progress {
    fn new(address: &Address, started: Instant) -> Result<Self> {
        let mut options = Options::new(Trust::InsecureNoTee);
        options.connect_timeout = PROGRESS;
        options.answer_timeout = PROGRESS;
        Ok(Self {
            client: Client::new(address.clone(), options)?,
            started,
            asked: started,
            shown: String::new(),
        })
    }

    /// Waits until the guest's certificate carries evidence.
    fn wait_evidence(&mut self) -> Result<()> {
        let deadline = Instant::now() + EVIDENCE;
        loop {
            // Silence is normal, as before.
            let health = self.client.health().ok();
            let evidence = health
                .as_ref()
                .and_then(|health| health.evidence.as_deref());
            if evidence == Some("current") {
                return Ok(());
            }
            interrupt::check()?;
            ensure!(
                Instant::now() < deadline,
                "the guest has no evidence after {} s: {}",
                EVIDENCE.as_secs(),
                health
                    .and_then(|health| health.evidence_failure)
                    .unwrap_or_else(|| "it does not say why".to_owned())
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn show(&mut self) {
        if self.asked.elapsed() < PROGRESS {
            return;
        }
        // Silence is normal before the guest's network is up.
        let state = match self.client.health() {
            Ok(health) => match (health.state, health.percent) {
                (State::Loading, Some(percent)) => format!("loading the model: {percent} %"),
                (State::Loading, None) => "loading the model".to_owned(),
                (State::Booting, _) => "booting".to_owned(),
                (State::Sealed, _) => "waiting for the model's key".to_owned(),
                (State::Warming, _) => "warming up".to_owned(),
                (State::Ready | State::Draining | State::Failed, _) => return,
            },
            Err(_) => "booting".to_owned(),
        };
        self.asked = Instant::now();
        if state != self.shown {
            eprintln!("  {:4.1} s  {state}", self.started.elapsed().as_secs_f64());
            self.shown = state;
        }
    }
}
