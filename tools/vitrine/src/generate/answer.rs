//! An answer, through the engine's scheduler as in the guest.

use std::time::{Duration, Instant};

use engine::{Engine, Event, FinishReason, Request, SequenceId, Usage};
use serde::Serialize;

use super::memory::Memory;
use super::{Args, Task};
use crate::failure::Failure;
use crate::host::HostWorkers;
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
    streams: usize,
    /// From the request to the first token of every stream.
    ttft_ms: f64,
    /// From there to the last.
    decode_ms: f64,
    memory: Memory,
}

/// One of the equal answers on its way.
struct Stream {
    id: SequenceId,
    tokens: Vec<u32>,
    text: String,
    finished: Option<(FinishReason, Usage)>,
}

impl Stream {
    /// Takes what has been computed since the last call; returns the text of it.
    fn take(&mut self, engine: &mut Engine<'_, &HostWorkers>) -> String {
        let mut new = String::new();
        for event in engine.take_events(self.id) {
            match event {
                Event::Token { id, text, .. } => {
                    self.tokens.push(id);
                    new.push_str(&text);
                }
                Event::Finished { reason, usage } => self.finished = Some((reason, usage)),
            }
        }
        self.text.push_str(&new);
        new
    }
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
        ignore_end: args.ignore_eos,
    };
    let started = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..args.streams {
        streams.push(Stream {
            id: engine.submit(request.clone()).map_err(Failure::usage)?,
            tokens: Vec::new(),
            text: String::new(),
            finished: None,
        });
    }
    let mut first = None;
    while streams.iter().any(|stream| stream.finished.is_none()) {
        if !engine.step() {
            return Err(Failure::new(
                "the engine stopped before the answer was complete",
            ));
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let text = stream.take(&mut engine);
            // The others' text is the same.
            if index == 0 && !args.json {
                terminal::show(&text)
                    .map_err(|error| Failure::new(format!("cannot write the answer: {error}")))?;
            }
        }
        if first.is_none() && streams.iter().all(|stream| !stream.tokens.is_empty()) {
            first = Some(started.elapsed());
        }
    }
    let total = started.elapsed();
    let first = first.unwrap_or(total);
    let count = streams.len();
    let Some(Stream {
        tokens,
        text,
        finished: Some((reason, usage)),
        ..
    }) = streams.into_iter().next()
    else {
        return Err(Failure::new("no answer was asked for"));
    };
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
        streams: count,
        ttft_ms: milliseconds(first),
        decode_ms: milliseconds(total - first),
        memory: Memory::of_this_process()?,
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
