//! `cargo xtask demo`: from sources to a streamed answer, with what was measured on the way.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::{Address, ChatRequest, Client, Message, Options, Sampling, State, Trust};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::guest::{Guest, Setup};
use crate::image_step;
use crate::interrupt;
use crate::models;
use crate::packages;
use crate::tools;
use crate::workspace::Workspace;

/// From the start to ready; a large model under TCG takes a while.
const READY: Duration = Duration::from_secs(900);
/// How often the guest is asked how far it is, and how long it may take to say so.
const PROGRESS: Duration = Duration::from_secs(1);

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
}

/// Build the image, boot it, ask it something, print what was measured
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

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    backend: &'static str,
    /// Evidence of a trust domain: none outside one.
    evidence: &'static str,
    accelerator: &'a str,
    isa: &'a str,
    vcpus: u32,
    image_bytes: usize,
    image_sha384: String,
    /// What a TDX module would measure, in the page order of mainline KVM.
    image_mrtd: String,
    model: &'a str,
    /// From reset to ready, by the guest's clock.
    boot_ms: u64,
    /// From starting it to ready, by this machine's clock.
    start_to_ready_ms: u128,
    #[serde(flatten)]
    answer: Answer,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
}

/// What came back.
#[derive(Serialize)]
struct Answer {
    prompt: String,
    answer: String,
    finish_reason: Option<String>,
    tokens: usize,
    /// From sending the request to the first token.
    time_to_first_token_ms: f64,
    /// After the first token; none if there was only one.
    tokens_per_second: Option<f64>,
}

/// How to reach a guest that was left running.
#[derive(Serialize)]
struct Kept {
    address: String,
    process: u32,
    log: PathBuf,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::RUN)?;
    let image = image_step::build(workspace)?;
    eprintln!("{image}");
    let model = match &arguments.model {
        Some(path) => path.clone(),
        None => models::demonstration(workspace)?,
    };
    let vitrine = tools::vitrine(workspace)?;

    let backend = arguments.backend.name();
    eprintln!("booting in {backend}");
    let started = Instant::now();
    let mut guest = Guest::start(&Setup {
        backend,
        accelerator: &arguments.accel,
        memory_mib: arguments.memory,
        ..Setup::new(&vitrine, &image.path, Some(&model), arguments.cpus)
    })?;
    let address = guest.tcp();
    let mut progress = Progress::new(&address, started)?;
    let ready = guest.wait_ready(READY, || progress.show())?;
    let start_to_ready = started.elapsed();
    eprintln!(
        "ready after {:.1} s: {}, kernels for {}, {} CPUs",
        start_to_ready.as_secs_f64(),
        ready.accelerator,
        ready.isa,
        ready.vcpus
    );
    match arguments.backend {
        Backend::Qemu => eprintln!(
            "warning: a guest in plain QEMU is no trust domain; this machine sees every word (evidence: none)"
        ),
        Backend::Emulator => eprintln!(
            "warning: the emulator protects nothing; this machine sees every word, and the evidence is a test's"
        ),
    }

    let mut client = guest.client()?;
    let name = client.models()?.into_iter().next().map(|model| model.id);
    let name = name.ok_or_else(|| Failure::new("the guest offers no model"))?;
    if arguments.model.is_none() {
        eprintln!("the weights are random, so the answer is noise, but the same noise everywhere");
    }
    let answer = ask(&mut client, &name, arguments)?;
    guest.check_alive()?;

    let report = Report {
        backend,
        evidence: "none",
        accelerator: &ready.accelerator,
        isa: &ready.isa,
        vcpus: ready.vcpus,
        image_bytes: image.assembly.image.len(),
        image_sha384: image.measurement.sha384.to_string(),
        image_mrtd: image.measurement.mrtd.page_by_page.to_string(),
        model: &name,
        boot_ms: ready.boot_ms,
        start_to_ready_ms: start_to_ready.as_millis(),
        kept: arguments.keep.then(|| {
            let (process, log) = guest.keep();
            Kept {
                address: address.to_string(),
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
    let (mut answer, mut finish_reason, mut tokens) = (String::new(), None, 0);
    let (mut first, mut last) = (None, None);
    let sent = Instant::now();
    for chunk in client.chat_stream(&request)? {
        interrupt::check()?;
        for choice in chunk?.choices {
            let ids = choice.token_ids.unwrap_or_default();
            if !ids.is_empty() {
                tokens += ids.len();
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
        tokens,
        time_to_first_token_ms: first.as_secs_f64() * 1e3,
        tokens_per_second: (tokens > 1 && decode > 0.0).then(|| (tokens - 1) as f64 / decode),
    })
}

impl Report<'_> {
    fn print(&self, json: bool, vitrine: &Path) -> Result<()> {
        let text = self.for_a_person(vitrine);
        if json {
            eprintln!("\n{text}");
            println!("{}", serde_json::to_string(self)?);
        } else {
            println!("\n{text}");
        }
        Ok(())
    }

    fn for_a_person(&self, vitrine: &Path) -> String {
        let Answer {
            tokens,
            time_to_first_token_ms,
            tokens_per_second,
            ..
        } = &self.answer;
        let mut lines = vec![
            format!(
                "boot                 {} ms from reset to ready",
                self.boot_ms
            ),
            format!("time to first token  {time_to_first_token_ms:.0} ms"),
        ];
        if let Some(rate) = tokens_per_second {
            lines.push(format!("tokens per second    {rate:.1} ({tokens} tokens)"));
        }
        if let Some(kept) = &self.kept {
            let Kept {
                address,
                process,
                log,
            } = kept;
            let (vitrine, log) = (vitrine.display(), log.display());
            let https = address.replace("tcp://", "https://");
            lines.extend([
                "\nThe guest runs on. Talk to it:".to_owned(),
                format!("  {vitrine} chat --to {address} --insecure-no-tee"),
                format!("  curl -k {https}/v1/chat/completions -H 'Content-Type: application/json' \\"),
                "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"max_tokens\": 32}'".to_owned(),
                format!("Its console is in {log}; `kill {process}` ends it."),
            ]);
        }
        lines.join("\n")
    }
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
