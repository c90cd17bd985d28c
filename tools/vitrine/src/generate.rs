//! `vitrine generate`: the guest's engine, on this machine. The same model, prompt, seed and parameters give the tokens a guest
//! with the same instruction set gives, and the defaults are the server's.

mod answer;
mod logits;
mod memory;

use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;

use engine::chat::{self, Message, Thinking};
use engine::{EngineOptions, KvFormat, Model};
use kernels::Kernels;

use crate::failure::Failure;
use crate::host::{HostOptions, HostWorkers, ModelFile, parse_kv};
use crate::sampling::Sampling;

/// Run a model on this machine, with the engine the guest has
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Defaults are the server's: temperature 1, thinking allowed, as many tokens as the context holds; but the seed is 0.

--json prints {\"tokens\": [...], \"text\": ..., \"finish_reason\": ..., \"prompt_tokens\": N, timings, memory}.
--logits prints {\"logits\": [[...], ...], \"tokens\": [...]}: row 0 follows the prompt, row i the prompt and i more tokens, those \
of --force first; tokens[i] is the likeliest in row i, and what follows once --force is used up. Without --max-tokens there is \
one row more than forced tokens.

Examples:
  vitrine generate --model tiny.gguf --chat 'Good morning.' --seed 1
  vitrine generate --model tiny.gguf --prompt 'The sea was' --temperature 0 --max-tokens 32 --json
  vitrine generate --model tiny.gguf --tokens 5,6,7 --force 8,9 --logits --json")]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub struct Args {
    /// The model (GGUF)
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Continue this text as it is
    #[arg(long, value_name = "TEXT", group = "input")]
    prompt: Option<String>,
    /// Answer this message, through the model's chat template
    #[arg(long, value_name = "TEXT", group = "input")]
    chat: Option<String>,
    /// Continue these token ids
    #[arg(long, value_name = "IDS", group = "input")]
    tokens: Option<TokenIds>,
    /// Instructions that stand before the message
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Whether the model may think before it answers
    #[arg(long, value_name = "BOOL", requires = "chat", default_value_t = true, action = clap::ArgAction::Set)]
    thinking: bool,
    /// Print the logits, not an answer
    #[arg(long, requires = "json")]
    logits: bool,
    /// Feed these token ids after the prompt, one by one
    #[arg(long, value_name = "IDS", requires = "logits", default_value = "")]
    force: TokenIds,
    /// How keys and values are stored: f16 or q8_0
    #[arg(long, value_name = "FORMAT", default_value = "f16", value_parser = parse_kv)]
    kv: KvFormat,
    /// Go on where the model ends its answer, up to --max-tokens
    #[arg(long, conflicts_with = "logits")]
    ignore_eos: bool,
    /// Compute this many equal answers together, as a busy server does
    #[arg(long, value_name = "N", conflicts_with = "logits", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    streams: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    host: HostOptions,
}

/// Token ids as they are written: numbers between commas, possibly none.
#[derive(Clone, Debug)]
struct TokenIds(Vec<u32>);

impl FromStr for TokenIds {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        if text.trim().is_empty() {
            return Ok(Self(Vec::new()));
        }
        let ids = text.split(',').map(|id| id.trim().parse());
        ids.collect::<Result<_, _>>().map(Self)
    }
}

/// A model, its prompt, and what computes them.
struct Task<'a> {
    model: Model<'a>,
    prompt: Vec<u32>,
    kernels: &'static Kernels,
    workers: &'a HostWorkers,
    options: EngineOptions,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let kernels = args.host.kernels()?;
    let workers = args.host.workers()?;
    let file = ModelFile::read(&args.model)?;
    let model = Model::load(file.bytes())
        .map_err(|error| Failure::usage(format!("{}: {error}", args.model.display())))?;
    let prompt = prompt(args, &model);
    let mut options = args.host.engine_options(args.kv);
    options.max_sequences = args.streams.into();
    // Memory for no more keys and values than there can be.
    if let Some(tokens) = args.new_tokens() {
        options.context = options.context.min(prompt.len().saturating_add(tokens));
    }
    let task = Task {
        model,
        prompt,
        kernels,
        workers: &workers,
        options,
    };
    workers.within(move || match args.logits {
        true => logits::print(args, task),
        false => answer::print(args, task),
    })
}

impl Args {
    /// Rows of logits, with `--logits`.
    fn rows(&self) -> usize {
        let rows = self.sampling.max_tokens.map_or(0, |rows| rows as usize);
        rows.max(self.force.0.len() + 1)
    }

    /// Tokens that follow the prompt at most; `None` if only the context ends the answer.
    fn new_tokens(&self) -> Option<usize> {
        match self.logits {
            true => Some(self.rows()),
            // Zero is for the engine to refuse.
            false => self.sampling.max_tokens.map(|n| n.max(1) as usize),
        }
    }
}

/// The prompt's tokens. Control tokens are recognised in text, as the server does.
fn prompt(args: &Args, model: &Model<'_>) -> Vec<u32> {
    if let Some(TokenIds(tokens)) = &args.tokens {
        return tokens.clone();
    }
    if let Some(text) = &args.prompt {
        return model.tokenizer().encode(text, true);
    }
    let messages: Vec<Message<'_>> = args
        .system
        .iter()
        .map(|text| Message::System(text))
        .chain(args.chat.iter().map(|text| Message::User(text)))
        .collect();
    let thinking = match args.thinking {
        true => Thinking::Enabled,
        false => Thinking::Disabled,
    };
    let text = chat::template(&messages, thinking, &[]);
    model.tokenizer().encode(&text, true)
}
