//! `vitrine model`: what a model file is, sealed or not.

mod description;

use std::io::Read;
use std::path::PathBuf;
use std::thread;

use ::seal::{Arrival, Envelope};
use measurements::Hex;
use serde::Serialize;

use crate::failure::Failure;
use crate::host::ModelFile;
use crate::progress::Progress;
use crate::sealed::{self, Contents};
use description::Description;

/// Bytes read between two looks at the progress.
const PIECE: usize = 4 << 20;

/// Look into model files
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Inspect(Inspect),
}

/// Say what a model file is: architecture, quantization, sizes, digests; of a sealed one, who can open it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A sealed file is opened only with --identity; then every byte of it is authenticated. Without, the recipients and the file's own \
digest are all that can be said, and nothing shows yet that they are authentic.

The digests are the ones that clients pin (`vitrine verify --model-digest`) and that manifests list.

Examples:
  vitrine model inspect model.gguf
  vitrine model inspect model.gguf.age --identity model.gguf.key --json")]
struct Inspect {
    /// The model: a GGUF file, or one sealed in the age format
    model: PathBuf,
    /// The age identity that can open a sealed file
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a file turned out to be.
#[derive(Serialize)]
struct Report {
    file: PathBuf,
    bytes: u64,
    /// `None` if it is not sealed.
    sealed: Option<Sealed>,
    /// SHA-256 of the sealed file.
    sealed_sha256: Option<Hex<32>>,
    /// SHA-256 of the GGUF file; `None` if it was not opened.
    plaintext_sha256: Option<Hex<32>>,
    /// `None` if it was not opened.
    model: Option<Description>,
}

/// What the envelope of a sealed file says.
#[derive(Serialize)]
struct Sealed {
    format: &'static str,
    recipients: Vec<Recipient>,
    chunks: u64,
    plaintext_bytes: u64,
}

/// Who can take the key out of a sealed file, as far as the file says.
#[derive(Serialize)]
struct Recipient {
    #[serde(rename = "type")]
    kind: String,
    arguments: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Command::Inspect(args) = &args.command;
    let report = inspect(args)?;
    match args.json {
        true => println!("{}", serde_json::json!(report)),
        false => print!("{}", report.text()),
    }
    Ok(())
}

fn inspect(args: &Inspect) -> Result<Report, Failure> {
    let contents = Contents::open(&args.model)?;
    let bytes = contents.length;
    let sealed = contents.envelope.as_ref().map(Sealed::from);
    let (sealed_sha256, opened) = match (&sealed, &args.identity) {
        (None, Some(_)) => {
            return Err(Failure::usage(format!(
                "{} is not sealed; leave --identity out",
                args.model.display()
            )));
        }
        (Some(_), None) => (Some(Hex(sealed::digest(&args.model)?)), None),
        _ => {
            let opened = open(args, contents)?;
            (opened.sealed.map(Hex), Some(opened))
        }
    };
    let model = match &opened {
        None => None,
        Some(opened) => Some(Description::read(opened.memory.bytes()).map_err(|error| {
            Failure::usage(format!(
                "{}: not a model that can be read: {error}",
                args.model.display()
            ))
        })?),
    };
    Ok(Report {
        file: args.model.clone(),
        bytes,
        sealed,
        sealed_sha256,
        plaintext_sha256: opened.map(|opened| Hex(opened.plaintext)),
        model,
    })
}

/// Takes a file into memory, and opens it if it is sealed.
fn open(args: &Inspect, contents: Contents) -> Result<::seal::Contents<ModelFile>, Failure> {
    let unusable = |error: &dyn core::fmt::Display| {
        Failure::usage(format!("{}: {error}", args.model.display()))
    };
    let key = match &args.identity {
        Some(identity) => Some(contents.key(identity)?),
        None => None,
    };
    let mut file = contents.file;
    let mut arrival = match (contents.envelope, key) {
        (Some(envelope), Some(key)) => {
            let memory = ModelFile::zeroed(envelope.layout().plaintext_length(), &args.model)?;
            Arrival::sealed(envelope, &key, memory).map_err(|error| unusable(&error))?
        }
        _ => Arrival::plain(ModelFile::zeroed(contents.length, &args.model)?),
    };
    let mut progress = Progress::new(contents.length);
    let mut piece = vec![0; PIECE];
    loop {
        let count = file.read(&mut piece).map_err(|error| unusable(&error))?;
        if count == 0 {
            break;
        }
        arrival
            .push(&piece[..count], &on_every_thread)
            .map_err(|error| unusable(&error))?;
        progress.advance(count as u64);
    }
    arrival
        .finish(&on_every_thread)
        .map_err(|error| unusable(&error))
}

/// Calls a task on as many threads as there are processors.
fn on_every_thread(task: &(dyn Fn() + Sync)) {
    let others = thread::available_parallelism().map_or(0, |count| count.get() - 1);
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(task);
        }
        task();
    });
}

impl From<&Envelope> for Sealed {
    fn from(envelope: &Envelope) -> Self {
        let stanzas = envelope.header().stanzas.iter();
        // Some writers add a stanza for nobody, so that readers stay used to types that they do not know.
        let somebody = stanzas.filter(|stanza| !stanza.kind.ends_with("-grease"));
        let recipients = somebody.map(|stanza| Recipient {
            kind: stanza.kind.clone(),
            arguments: stanza.arguments.clone(),
        });
        Self {
            format: "age-encryption.org/v1",
            recipients: recipients.collect(),
            chunks: envelope.layout().chunks(),
            plaintext_bytes: envelope.layout().plaintext_length(),
        }
    }
}

impl Report {
    /// For a person, one fact a line.
    fn text(&self) -> String {
        let mut lines = vec![format!("file          {}", self.file.display())];
        lines.push(format!("bytes         {}", self.bytes));
        if let Some(sealed) = &self.sealed {
            lines.push(format!(
                "sealed        {}, {} chunks, {} bytes of plaintext",
                sealed.format, sealed.chunks, sealed.plaintext_bytes
            ));
            for recipient in &sealed.recipients {
                let words = [&recipient.kind].into_iter().chain(&recipient.arguments);
                let words: Vec<&str> = words.map(String::as_str).collect();
                lines.push(format!("recipient     {}", words.join(" ")));
            }
        }
        if let Some(digest) = &self.sealed_sha256 {
            lines.push(format!("SHA-256       {digest} (sealed)"));
        }
        match &self.plaintext_sha256 {
            Some(digest) => lines.push(format!("SHA-256       {digest} (GGUF)")),
            None => lines.push("contents      not opened: --identity opens it".to_owned()),
        }
        let mut text = lines.join("\n") + "\n";
        if let Some(model) = &self.model {
            text += &model.text();
        }
        text
    }
}
