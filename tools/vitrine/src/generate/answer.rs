//! An answer, through the engine's scheduler as in the guest.

use std::time::{Duration, Instant};

use engine::{Engine, Event, FinishReason, Request, Usage};
use serde::Serialize;

use super::{Args, Task};
use crate::failure::Failure;
use crate::terminal;

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    finish_reason: &'static str,
    prompt_tokens: usize,
    completion_tokens: usize,
    isa: String,
    threads: usize,
    /// From the request to its first token.
    ttft_ms: f64,
    /// From the first token to the last.
    decode_ms: f64,
}

/// Generates and prints.
pub fn print(args: &Args, task: Task<'_>) -> Result<(), Failure> {
    let Task {
        model,
        prompt,
        kernels,
        workers,
        options,
    } = task;
    let mut engine = Engine::new(model, kernels, workers, &options).map_err(Failure::usage)?;
    let room = engine.context().saturating_sub(prompt.len());
    let request = Request {
        prompt,
        max_tokens: args.sampling.max_tokens.map_or(room, |n| n as usize),
        sampling: (&args.sampling).into(),
        ignore_end: false,
    };
    let started = Instant::now();
    let id = engine.submit(request).map_err(Failure::usage)?;
    let mut first = None;
    let mut tokens = Vec::new();
    let mut text = String::new();
    let (reason, usage) = loop {
        let working = engine.step();
        let mut finished = None;
        for event in engine.take_events(id) {
            match event {
                Event::Token {
                    id, text: piece, ..
                } => {
                    first.get_or_insert_with(|| started.elapsed());
                    tokens.push(id);
                    if !args.json {
                        terminal::show(&piece).map_err(|error| {
                            Failure::new(format!("cannot write the answer: {error}"))
                        })?;
                    }
                    text.push_str(&piece);
                }
                Event::Finished { reason, usage } => finished = Some((reason, usage)),
            }
        }
        match finished {
            Some(finished) => break finished,
            None if working => {}
            None => {
                return Err(Failure::new(
                    "the engine stopped before the answer was complete",
                ));
            }
        }
    };
    let total = started.elapsed();
    let first = first.unwrap_or(total);
    report(&usage, first, total);
    if !args.json {
        println!();
        return Ok(());
    }
    let answer = Answer {
        tokens,
        text,
        finish_reason: match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        },
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        isa: kernels.isa().to_string(),
        threads: engine::Workers::count(workers),
        ttft_ms: milliseconds(first),
        decode_ms: milliseconds(total - first),
    };
    println!("{}", serde_json::json!(answer));
    Ok(())
}

/// How long it took, on stderr.
fn report(usage: &Usage, first: Duration, total: Duration) {
    let decode = total - first;
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    eprintln!(
        "\nprompt: {} tokens, {:.1} tokens/s; answer: {} tokens, {:.1} tokens/s; first token after {:.0} ms",
        usage.prompt_tokens,
        rate(usage.prompt_tokens, first),
        usage.completion_tokens,
        rate(usage.completion_tokens.saturating_sub(1), decode),
        milliseconds(first)
    );
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
