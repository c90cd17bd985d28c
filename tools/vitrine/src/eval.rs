//! `vitrine eval`: what a format of weights or of keys and values costs in quality, and what it gains in speed.
//!
//! Each candidate is a model file with a KV format. It reads the same text as the reference (a finer model, F16 keys and values), in
//! step with it, so that at each position the two predictions can be compared without keeping them.

mod measures;
mod questions;
mod report;
mod speed;
mod text;

use std::path::PathBuf;

use engine::{KvFormat, Model, Session};

use crate::failure::Failure;
use crate::host::{HostOptions, HostWorkers, ModelFile, parse_kv};
use measures::{Measures, Quality};
use questions::Question;

/// Positions whose logits are kept at once.
const BATCH: usize = 16;

/// Compare models and KV formats with a reference: quality and speed
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Text is read in windows of --window tokens, each from an empty context. A question file has one JSON object a line: \
{\"question\": TEXT, \"choices\": [TEXT, ...], \"answer\": INDEX}; the model's choice is the likeliest continuation, its \
log-probability divided by its tokens.

Columns: perplexity of the text; mean KL divergence from the reference's predictions, in nats; how often both find the same \
token likeliest; questions answered correctly; prompt and decoding speed in tokens/s and relative to the reference.

Examples:
  vitrine eval --reference f16.gguf --model q8.gguf --model q4.gguf --text book.txt
  vitrine eval --reference f16.gguf --model f16.gguf --kv q8_0 --text book.txt --questions quiz.jsonl --json")]
pub struct Args {
    /// A model to judge (GGUF; repeatable)
    #[arg(long = "model", value_name = "FILE", required = true)]
    models: Vec<PathBuf>,
    /// What to judge it by (GGUF, the same vocabulary)
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// The text to read
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Questions to answer (JSON Lines)
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// KV formats to judge each model with
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "f16,q8_0", value_parser = parse_kv)]
    kv: Vec<KvFormat>,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    window: u32,
    /// Read at most this many tokens of the text
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostOptions,
}

/// A session on this machine's threads.
type HostSession<'a> = Session<'a, &'a HostWorkers>;

/// What everything is judged on.
struct Task {
    /// The text's tokens, in windows.
    windows: Vec<Vec<u32>>,
    questions: Vec<Question>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let workers = args.host.workers()?;
    let file = ModelFile::read(&args.reference)?;
    let reference = load(&file, &args.reference)?;
    let task = Task::read(args, &reference)?;
    let measures = workers.within(|| measure_all(args, &task, &reference, &workers))?;
    match args.json {
        true => report::print_json(&measures),
        false => report::print_table(&measures),
    }
    Ok(())
}

/// The reference's measures, then each candidate's.
fn measure_all(
    args: &Args,
    task: &Task,
    reference: &Model<'_>,
    workers: &HostWorkers,
) -> Result<Vec<Measures>, Failure> {
    let mut all = Vec::new();
    for path in &args.models {
        let file = ModelFile::read(path)?;
        let model = load(&file, path)?;
        if model.tokenizer().vocabulary_size() != reference.tokenizer().vocabulary_size() {
            return Err(Failure::usage(format!(
                "{}: another vocabulary than the reference's",
                path.display()
            )));
        }
        for &kv in &args.kv {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            eprintln!("reading with {name}, {kv:?} keys and values");
            let mut base = session(args, reference, workers, KvFormat::F16)?;
            let mut candidate = session(args, &model, workers, kv)?;
            let qualities = text::compare(&mut base, &mut candidate, &task.windows)?;
            if all.is_empty() {
                let name = args
                    .reference
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy();
                all.push(measure(
                    name.into(),
                    KvFormat::F16,
                    qualities.reference,
                    task,
                    &mut base,
                )?);
            }
            all.push(measure(
                name.into(),
                kv,
                qualities.candidate,
                task,
                &mut candidate,
            )?);
        }
    }
    Ok(all)
}

/// Adds to what the text showed what the questions and the clock say.
fn measure(
    name: String,
    kv: KvFormat,
    quality: Quality,
    task: &Task,
    session: &mut HostSession<'_>,
) -> Result<Measures, Failure> {
    Ok(Measures {
        name,
        kv,
        quality,
        accuracy: questions::accuracy(session, &task.questions)?,
        speed: speed::measure(session, task.windows.first().map_or(&[], Vec::as_slice))?,
    })
}

fn load<'a>(file: &'a ModelFile, path: &std::path::Path) -> Result<Model<'a>, Failure> {
    Model::load(file.bytes())
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// An empty sequence of a model.
fn session<'a>(
    args: &Args,
    model: &Model<'a>,
    workers: &'a HostWorkers,
    kv: KvFormat,
) -> Result<HostSession<'a>, Failure> {
    let mut options = args.host.engine_options(kv);
    options.max_sequences = BATCH;
    Session::new(model.clone(), args.host.kernels()?, workers, &options).map_err(Failure::usage)
}

impl Task {
    fn read(args: &Args, model: &Model<'_>) -> Result<Self, Failure> {
        let cannot = |path: &PathBuf, error| {
            Failure::usage(format!("cannot read {}: {error}", path.display()))
        };
        let text =
            std::fs::read_to_string(&args.text).map_err(|error| cannot(&args.text, error))?;
        let mut tokens = model.tokenizer().encode(&text, false);
        tokens.truncate(args.max_tokens.unwrap_or(usize::MAX));
        let window = (args.window as usize).min(args.host.context());
        let windows: Vec<Vec<u32>> = tokens
            .chunks(window.max(2))
            .filter(|window| window.len() > 1)
            .map(<[u32]>::to_vec)
            .collect();
        if windows.is_empty() {
            return Err(Failure::usage(format!(
                "{}: too short to predict anything",
                args.text.display()
            )));
        }
        let questions = match &args.questions {
            Some(path) => {
                let lines = std::fs::read_to_string(path).map_err(|error| cannot(path, error))?;
                Question::parse(&lines)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
            }
            None => Vec::new(),
        };
        Ok(Self { windows, questions })
    }
}
