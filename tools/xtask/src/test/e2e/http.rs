//! HTTP as curl and a terminal see it, well-formed and not.

use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use client::{ChatRequest, Error, Message, Sampling, State};
use serde_json::{Value, json};

use super::Context;
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::process::{self, Process};

/// For one request.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a client that stalls is left alone with its stalled request.
const STALL: Duration = Duration::from_secs(2);

/// `/health` names the state and the machine.
pub fn health_tells_the_state(context: &mut Context) -> Result<()> {
    let health = context.guest.client()?.health()?;
    ensure!(
        health.state == State::Ready
            && health.vcpus == Some(context.cpus)
            && health.isa.as_deref() == Some(&*context.ready.isa)
            && health.boot_ms == Some(context.ready.boot_ms)
            && health.model.is_some(),
        "/health of a ready guest with {} CPUs says {health:?}",
        context.cpus
    );
    Ok(())
}

pub fn curl_tells_the_state(context: &mut Context) -> Result<()> {
    let answer = curl_json(context, "/health", None, 200)?;
    ensure!(answer["state"] == "ready", "curl gets {answer}");
    Ok(())
}

/// `curl -k` on a path: the JSON it gets, with the status it must have.
pub fn curl_json(
    context: &Context,
    path: &str,
    body: Option<&Value>,
    status: u16,
) -> Result<Value> {
    let mut command = curl(context, path);
    command.args(["--write-out", "\n%{http_code}"]);
    if let Some(body) = body {
        command.args([
            "--header",
            "Content-Type: application/json",
            "--data",
            &body.to_string(),
        ]);
    }
    let text = process::text(&mut command, LIMIT)?;
    let (body, code) = text.rsplit_once('\n').unwrap_or_default();
    ensure!(
        code == status.to_string(),
        "{path} gives {code} instead of {status}: {body}"
    );
    Ok(serde_json::from_str(body)?)
}

fn curl(context: &Context, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args([
        "--insecure",
        "--silent",
        "--show-error",
        "--max-time",
        "100",
    ]);
    command.arg(url(context, path));
    command
}

fn url(context: &Context, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", context.guest.port())
}

pub fn curl_lists_models(context: &mut Context) -> Result<()> {
    let list = curl_json(context, "/v1/models", None, 200)?;
    ensure!(
        list["object"] == "list" && list["data"][0]["object"] == "model",
        "not a list of models: {list}"
    );
    let id = list["data"][0]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let health = context.guest.client()?.health()?;
    ensure!(
        Some(&id) == health.model.as_ref(),
        "two names for one model: {id}, {health:?}"
    );
    Ok(())
}

pub fn the_model_has_the_configured_name(context: &mut Context) -> Result<()> {
    let models = context.guest.client()?.models()?;
    let names: Vec<&str> = models.iter().map(|model| &*model.id).collect();
    ensure!(names == ["renamed"], "the models are {names:?}");
    Ok(())
}

/// Prompt and answer together are longer than the configuration allows.
pub fn the_configured_context_is_the_limit(context: &mut Context) -> Result<()> {
    let request = ChatRequest {
        model: "renamed".into(),
        messages: vec![Message::new("user", "glass ".repeat(200))],
        sampling: Sampling::default(),
        thinking: None,
    };
    match context.guest.client()?.chat(&request) {
        Err(Error::Refused {
            status: 400,
            message,
            ..
        }) if message.contains("128") => Ok(()),
        other => Err(Failure::new(format!(
            "a long prompt should get 400, not {other:?}"
        ))),
    }
}

fn chat_body(stream: bool) -> Value {
    json!({
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": 8, "temperature": 0, "stream": stream,
    })
}

pub fn curl_chats(context: &mut Context) -> Result<()> {
    let answer = curl_json(
        context,
        "/v1/chat/completions",
        Some(&chat_body(false)),
        200,
    )?;
    let usage = &answer["usage"];
    ensure!(
        answer["object"] == "chat.completion"
            && answer["choices"][0]["message"]["role"] == "assistant"
            && answer["choices"][0]["message"]["content"].is_string()
            && answer["choices"][0]["finish_reason"].is_string()
            && usage["completion_tokens"]
                .as_u64()
                .is_some_and(|tokens| (1..=8).contains(&tokens)),
        "not a chat completion: {answer}"
    );
    Ok(())
}

/// The pieces of a stream join to the answer that is not streamed.
pub fn curl_streams(context: &mut Context) -> Result<()> {
    let whole = curl_json(
        context,
        "/v1/chat/completions",
        Some(&chat_body(false)),
        200,
    )?;
    let mut command = curl(context, "/v1/chat/completions");
    command.args([
        "--no-buffer",
        "--include",
        "--header",
        "Content-Type: application/json",
    ]);
    command.args(["--data", &chat_body(true).to_string()]);
    let text = process::text(&mut command, LIMIT)?;
    let head = text
        .split("\r\n\r\n")
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    ensure!(
        head.contains("text/event-stream"),
        "not a stream of events: {head}"
    );
    let events: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    let Some((&"[DONE]", chunks)) = events.split_last() else {
        return Err(Failure::new(format!(
            "the stream does not end with [DONE]: {text}"
        )));
    };
    let mut joined = String::new();
    let mut reason = Value::Null;
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(chunk)?;
        ensure!(
            chunk["object"] == "chat.completion.chunk",
            "not a chunk: {chunk}"
        );
        let choice = &chunk["choices"][0];
        joined += choice["delta"]["content"].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    let choice = &whole["choices"][0];
    ensure!(
        choice["message"]["content"] == joined && choice["finish_reason"] == reason,
        "streamed {joined:?} ({reason}), not streamed {choice}"
    );
    Ok(())
}

/// Two requests, one connection.
pub fn curl_reuses_its_connection(context: &mut Context) -> Result<()> {
    let mut command = curl(context, "/health");
    command.arg(url(context, "/v1/models")).arg("--verbose");
    let output = process::output(&mut command, b"", LIMIT)?;
    ensure!(
        output.status.success() && output.stderr.contains("Re-using existing connection"),
        "curl opened a second connection: {}",
        output.stderr
    );
    Ok(())
}

/// Sends bytes through `openssl s_client` and returns what comes back until the server closes.
fn raw(context: &Context, request: &[u8]) -> Result<String> {
    let output = process::output(&mut s_client(context), request, LIMIT)?;
    Ok(output.stdout)
}

/// With `-quiet` it stays connected when its input ends, until the server closes.
fn s_client(context: &Context) -> Command {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-quiet",
        "-connect",
        &format!("127.0.0.1:{}", context.guest.port()),
    ]);
    command
}

pub fn openssl_asks(context: &mut Context) -> Result<()> {
    let answer = raw(
        context,
        b"GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n",
    )?;
    ensure!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"ready\""),
        "openssl gets {answer:?}"
    );
    Ok(())
}

/// Bytes that are not HTTP, or HTTP with two readings, get their status and no second answer.
pub fn malformed_requests_get_their_status(context: &mut Context) -> Result<()> {
    let post =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let table: &[(u16, String)] = &[
        (400, "GARBAGE\r\n\r\n".into()),
        (400, "GET /health HTTP/1.1\r\n\r\n".into()),
        (
            400,
            "GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n".into(),
        ),
        (400, "GET /health HTTP/1.1\r\nHost : x\r\n\r\n".into()),
        (
            400,
            format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
        ),
        (
            400,
            format!("{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (400, format!("{post}Content-Length: -1\r\n\r\n")),
        (
            400,
            format!("{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        ),
        (411, format!("{post}\r\n")),
        (413, format!("{post}Content-Length: 99999999999\r\n\r\n")),
        (
            414,
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)),
        ),
        (
            431,
            format!(
                "GET /health HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
                "a".repeat(100_000)
            ),
        ),
        (501, format!("{post}Transfer-Encoding: gzip\r\n\r\n")),
        (505, "GET /health HTTP/9.9\r\nHost: x\r\n\r\n".into()),
    ];
    for (status, request) in table {
        let answer = raw(context, request.as_bytes())?;
        let start: String = request.chars().take(120).collect();
        ensure!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{start:?} should get {status} and gets {answer:?}"
        );
        ensure!(
            answer.matches("\r\nContent-Length: ").count() == 1,
            "{start:?} gets more than one answer: {answer:?}"
        );
    }
    context
        .guest
        .client()?
        .health()
        .map(drop)
        .map_err(Failure::from)
}

/// Requests that HTTP accepts and the API does not: the status, and an error object that names the parameter.
pub fn bad_parameters_get_an_openai_error(context: &mut Context) -> Result<()> {
    let with = |key: &str, value: Value| {
        let mut body = chat_body(false);
        body[key] = value;
        body
    };
    let chat = "/v1/chat/completions";
    let table: &[(u16, &str, Option<Value>)] = &[
        (404, "/nowhere", None),
        (404, chat, Some(with("model", json!("another")))),
        (405, chat, None),
        (405, "/health", Some(json!({}))),
        (400, chat, Some(json!([1, 2]))),
        (400, chat, Some(json!({}))),
        (400, chat, Some(with("messages", json!([])))),
        (400, chat, Some(with("messages", json!("hello")))),
        (400, chat, Some(with("temperature", json!(-1)))),
        (400, chat, Some(with("temperature", json!("hot")))),
        (400, chat, Some(with("top_p", json!(7)))),
        (400, chat, Some(with("max_tokens", json!(0)))),
        (400, chat, Some(with("max_tokens", json!(1_000_000)))),
        (400, "/v1/completions", Some(json!({"max_tokens": 4}))),
    ];
    for (status, path, body) in table {
        let answer = curl_json(context, path, body.as_ref(), *status)
            .map_err(|failure| Failure::new(format!("{failure} (body {body:?})")))?;
        let error = &answer["error"];
        ensure!(
            error["message"].is_string() && error["type"].is_string(),
            "{path} with {body:?}: not an OpenAI error: {answer}"
        );
    }
    Ok(())
}

/// A client that stalls in the middle of its request, one that vanishes there, and one that vanishes in the middle of its
/// answer: the others are served as if they were not there.
pub fn slow_and_cut_requests_disturb_nobody(context: &mut Context) -> Result<()> {
    let half =
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"mess";
    let body = json!({
        "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 400, "stream": true,
    })
    .to_string();
    let long = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let stalled = Stalled::new(context, half)?;
    let cut = Stalled::new(context, half)?;
    let mut streaming = Stalled::new(context, long.as_bytes())?;
    streaming.read_some()?;
    thread::sleep(STALL);
    drop((cut, streaming));
    super::answers::sampled(context)?;
    drop(stalled);
    super::answers::sampled(context)
}

/// A connection whose request stays as it is; killed with this value.
struct Stalled {
    process: Process,
    _input: Option<ChildStdin>,
}

impl Stalled {
    fn new(context: &Context, bytes: &[u8]) -> Result<Self> {
        let mut command = s_client(context);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut command)?;
        let mut input = process.child().stdin.take();
        if let Some(input) = &mut input {
            input.write_all(bytes).context("write to openssl")?;
        }
        Ok(Self {
            process,
            _input: input,
        })
    }

    /// Waits for the first bytes of an answer.
    fn read_some(&mut self) -> Result<()> {
        let mut buffer = [0; 64];
        let stdout = self.process.child().stdout.as_mut();
        let read = stdout.map_or(Ok(0), |stdout| stdout.read(&mut buffer));
        ensure!(
            read.context("read from openssl")? > 0,
            "no answer to a long request"
        );
        Ok(())
    }
}
