//! `vitrine chat`: one prompt, or a conversation at the terminal.

use std::io::{BufRead, IsTerminal, stderr, stdin};
use std::time::Instant;

use client::{ChatRequest, Client, Message, Usage};
use serde::Serialize;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::sampling::Sampling;
use crate::terminal;

/// Bytes of a line typed or piped as a turn.
const LINE_LIMIT: u64 = 1 << 20;

/// Chat with a server
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --prompt each line read is a turn of one conversation; an empty line or Ctrl-D ends it.

With --json each answer is one JSON object on one line: model, text, token_ids, finish_reason, usage, ttft_ms (to the first \
piece), total_ms.

Examples:
  vitrine chat --to tcp://127.0.0.1:8443 --insecure-no-tee
  vitrine chat --to unix:/tmp/vm.sock#8443 --insecure-no-tee --prompt 'Good morning.' --temperature 0 --json")]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Ask this and exit
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The model to ask [default: the server's first]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Whether the model thinks before it answers [default: the server's]
    #[arg(long, value_name = "BOOL")]
    thinking: Option<bool>,
    /// Wait for the whole answer instead of streaming it
    #[arg(long)]
    no_stream: bool,
    /// Print each answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: Sampling,
}

/// An answer, complete.
#[derive(Debug, Serialize)]
struct Answer {
    model: String,
    text: String,
    token_ids: Option<Vec<u32>>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    /// Time to the first piece; of an answer that is not streamed, to all of it.
    ttft_ms: f64,
    total_ms: f64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connection.client()?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => match client.models()?.into_iter().next() {
            Some(model) => model.id,
            None => {
                return Err(Failure::new(
                    "the server offers no model; name one with --model",
                ));
            }
        },
    };
    let system = args.system.iter().map(|text| Message::new("system", text));
    let mut request = ChatRequest {
        model,
        messages: system.collect(),
        sampling: (&args.sampling).into(),
        thinking: args.thinking,
    };
    match &args.prompt {
        Some(prompt) => take_turn(args, &mut client, &mut request, prompt),
        None => converse(args, &mut client, &mut request),
    }
}

/// Reads turns until there are no more.
fn converse(args: &Args, client: &mut Client, request: &mut ChatRequest) -> Result<(), Failure> {
    let prompting = stdin().is_terminal() && stderr().is_terminal();
    let mut input = stdin().lock();
    loop {
        if prompting {
            eprint!("> ");
        }
        let mut line = String::new();
        std::io::Read::take(&mut input, LINE_LIMIT)
            .read_line(&mut line)
            .map_err(|error| Failure::new(format!("cannot read the prompt: {error}")))?;
        let prompt = line.trim();
        if prompt.is_empty() {
            return Ok(());
        }
        take_turn(args, client, request, prompt)?;
    }
}

/// Asks, shows the answer, and adds both to the conversation.
fn take_turn(
    args: &Args,
    client: &mut Client,
    request: &mut ChatRequest,
    prompt: &str,
) -> Result<(), Failure> {
    request.messages.push(Message::new("user", prompt));
    let answer = match args.no_stream {
        true => ask(client, request)?,
        false => stream(client, request, !args.json)?,
    };
    if args.json {
        println!("{}", serde_json::json!(answer));
    } else {
        if args.no_stream {
            terminal::show(&answer.text).map_err(cannot_write)?;
        }
        println!();
    }
    request
        .messages
        .push(Message::new("assistant", answer.text));
    Ok(())
}

/// Waits for a whole answer.
fn ask(client: &mut Client, request: &ChatRequest) -> Result<Answer, Failure> {
    let started = Instant::now();
    let completion = client.chat(request)?;
    let total_ms = milliseconds(started);
    let Some(choice) = completion.choices.into_iter().next() else {
        return Err(Failure::new("the server's answer is empty"));
    };
    Ok(Answer {
        model: completion.model,
        text: choice.message.content.unwrap_or_default(),
        token_ids: choice.token_ids,
        finish_reason: choice.finish_reason,
        usage: completion.usage,
        ttft_ms: total_ms,
        total_ms,
    })
}

/// Collects a streamed answer, showing it as it comes if asked to.
fn stream(client: &mut Client, request: &ChatRequest, show: bool) -> Result<Answer, Failure> {
    let started = Instant::now();
    let mut answer = Answer {
        model: request.model.clone(),
        text: String::new(),
        token_ids: None,
        finish_reason: None,
        usage: None,
        ttft_ms: 0.0,
        total_ms: 0.0,
    };
    for chunk in client.chat_stream(request)? {
        let chunk = chunk?;
        answer.usage = answer.usage.or(chunk.usage);
        let Some(choice) = chunk.choices.into_iter().next() else {
            continue;
        };
        let text = choice.delta.content.unwrap_or_default();
        let tokens = choice.token_ids.unwrap_or_default();
        // The first chunk may only announce the role.
        if answer.ttft_ms == 0.0 && !(text.is_empty() && tokens.is_empty()) {
            answer.ttft_ms = milliseconds(started);
        }
        if show {
            terminal::show(&text).map_err(cannot_write)?;
        }
        answer.text.push_str(&text);
        if !tokens.is_empty() {
            answer.token_ids.get_or_insert_default().extend(tokens);
        }
        answer.finish_reason = choice.finish_reason.or(answer.finish_reason);
    }
    answer.total_ms = milliseconds(started);
    Ok(answer)
}

fn cannot_write(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot write the answer: {error}"))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
