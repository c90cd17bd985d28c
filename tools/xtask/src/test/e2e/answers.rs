//! What the guest answers is what the same engine answers on this host, token for token.

use std::thread;
use std::time::Duration;

use client::{Address, ChatRequest, Message, Sampling};
use serde::Deserialize;
use serde_json::json;

use super::{ANSWER, Context, http, same_tokens};
use crate::failure::{Failure, Result, ensure};
use crate::guest::connect;
use crate::process;

/// Plain words, another script, and an emoji of several code points.
const PROMPT: &str = "Tell me about glass. 玻璃是什么? 👩‍🔬";
const GREEDY: &[&str] = &["--temperature", "0", "--seed", "1", "--max-tokens", "24"];
const SAMPLED: &[&str] = &[
    "--temperature",
    "0.8",
    "--top-p",
    "0.9",
    "--seed",
    "42",
    "--max-tokens",
    "24",
];
/// `vitrine`'s exit code for a server without evidence.
const NO_EVIDENCE: i32 = 23;
/// For a build of the client from nothing, and an answer.
const BUILD: Duration = Duration::from_secs(900);
/// Connections at once.
const CROWD: u64 = 8;
/// Tokens each of them asks for.
const CROWD_TOKENS: u32 = 16;

pub fn greedy(context: &mut Context) -> Result<()> {
    chat_agrees(context, &context.guest.tcp(), GREEDY, &[])
}

pub fn sampled(context: &mut Context) -> Result<()> {
    chat_agrees(context, &context.guest.tcp(), SAMPLED, &[])
}

pub fn greedy_over_vsock(context: &mut Context) -> Result<()> {
    chat_agrees(context, &vsock(context)?, GREEDY, &[])
}

pub fn sampled_over_vsock(context: &mut Context) -> Result<()> {
    chat_agrees(context, &vsock(context)?, SAMPLED, &[])
}

pub fn not_streamed(context: &mut Context) -> Result<()> {
    chat_agrees(context, &context.guest.tcp(), SAMPLED, &["--no-stream"])
}

/// `vitrine chat` and `vitrine generate` with the same sampling give the same tokens.
fn chat_agrees(context: &Context, to: &Address, sampling: &[&str], more: &[&str]) -> Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        token_ids: Option<Vec<u32>>,
    }
    let address = to.to_string();
    let mut command = context
        .world
        .vitrine(&["chat", "--to", &address, "--insecure-no-tee"]);
    command
        .args(["--json", "--prompt", PROMPT])
        .args(sampling)
        .args(more);
    let answer: Answer = serde_json::from_str(&process::text(&mut command, ANSWER)?)?;
    let guest = answer
        .token_ids
        .ok_or_else(|| Failure::new("the answer has no tokens"))?;
    same_tokens(&guest, &host(context, &["--chat", PROMPT], sampling)?)
}

/// The tokens this host generates, with the instruction set the guest uses.
fn host(context: &Context, prompt: &[&str], sampling: &[&str]) -> Result<Vec<u32>> {
    let arguments = [prompt, sampling].concat();
    context
        .world
        .generate(context.model, &context.ready.isa, &arguments)
}

fn vsock(context: &Context) -> Result<Address> {
    context
        .guest
        .vsock()
        .ok_or_else(|| Failure::new("the guest has no vsock device"))
}

/// The completions endpoint, through curl.
pub fn completions(context: &mut Context) -> Result<()> {
    let body = json!({
        "prompt": PROMPT, "temperature": 0.8, "top_p": 0.9, "seed": 42, "max_tokens": 24, "return_token_ids": true,
    });
    let answer = http::curl_json(context, "/v1/completions", Some(&body), 200)?;
    let guest: Vec<u32> = serde_json::from_value(answer["choices"][0]["token_ids"].clone())?;
    same_tokens(&guest, &host(context, &["--prompt", PROMPT], SAMPLED)?)
}

/// Eight clients, each with a prompt and a seed of its own, computed together: every answer is what its client gets alone.
pub fn eight_at_once(context: &mut Context) -> Result<()> {
    let address = context.guest.tcp();
    let answers: Vec<Result<Vec<u32>>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CROWD)
            .map(|number| {
                let address = &address;
                scope.spawn(move || stream_one(address, number))
            })
            .collect();
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("a client panicked")))
            })
            .collect()
    });
    for (number, answer) in (0..CROWD).zip(answers) {
        let (seed, tokens) = (number.to_string(), CROWD_TOKENS.to_string());
        let sampling = [
            "--temperature",
            "0.8",
            "--top-p",
            "0.9",
            "--seed",
            &seed,
            "--max-tokens",
            &tokens,
        ];
        let host = host(context, &["--chat", &crowd_prompt(number)], &sampling)?;
        same_tokens(&answer?, &host)
            .map_err(|failure| Failure::new(format!("client {number}: {failure}")))?;
    }
    Ok(())
}

fn crowd_prompt(number: u64) -> String {
    format!(
        "Client {number} asks: {}",
        "what is it? ".repeat(number as usize)
    )
}

fn stream_one(address: &Address, number: u64) -> Result<Vec<u32>> {
    let mut client = connect(address)?;
    let model = client.models()?.into_iter().next().map(|model| model.id);
    let request = ChatRequest {
        model: model.ok_or_else(|| Failure::new("no model is offered"))?,
        messages: vec![Message::new("user", crowd_prompt(number))],
        sampling: Sampling {
            max_tokens: Some(CROWD_TOKENS),
            temperature: Some(0.8),
            top_p: Some(0.9),
            seed: Some(number),
            ..Sampling::default()
        },
        thinking: None,
    };
    let mut tokens = Vec::new();
    for chunk in client.chat_stream(&request)? {
        for choice in chunk?.choices {
            tokens.extend(choice.token_ids.unwrap_or_default());
        }
    }
    Ok(tokens)
}

/// The example of the client library.
pub fn the_example_client_chats(context: &mut Context) -> Result<()> {
    let mut cargo = context.world.workspace.cargo();
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "client",
        "--example",
        "chat",
        "--",
    ]);
    cargo.args([&context.guest.tcp().to_string(), "Hello"]);
    let answer = process::text(&mut cargo, BUILD)?;
    ensure!(!answer.trim().is_empty(), "the example prints no answer");
    Ok(())
}

/// Without `--insecure-no-tee` the client sends nothing and says why.
pub fn no_evidence_is_refused(context: &mut Context) -> Result<()> {
    let address = context.guest.tcp().to_string();
    let mut command = context
        .world
        .vitrine(&["chat", "--to", &address, "--prompt", PROMPT]);
    let output = process::output(&mut command, b"", ANSWER)?;
    ensure!(
        output.status.code() == Some(NO_EVIDENCE) && output.stdout.is_empty(),
        "`vitrine chat` should refuse with {NO_EVIDENCE}, and ended with {}: {}",
        output.status,
        output.stderr
    );
    Ok(())
}
