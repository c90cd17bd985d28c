//! The real engine behind the server: what arrives through TLS is what the engine says.

mod common;

use std::path::PathBuf;

use common::{Running, Watch};
use engine::{Engine, EngineOptions, Event, Model, Request, Sampling, SingleThread};
use kernels::{Isa, Kernels};
use serde_json::json;

/// A model of the test vectors, at an address aligned as the engine demands and there for good; None,
/// said on stderr, if the vectors are not here.
fn model_file() -> Option<&'static [u8]> {
    const ALIGNMENT: usize = 64;
    let root = std::env::var_os("VITRINE_VECTORS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors").into(),
        PathBuf::from,
    );
    let Ok(file) = std::fs::read(root.join("engine/s1-Q8_0.gguf")) else {
        let required = std::env::var_os("VITRINE_REQUIRE_ORACLES");
        assert!(
            required.is_none_or(|value| value != "1"),
            "the vectors are missing"
        );
        eprintln!("SKIPPED: the vectors are missing");
        return None;
    };
    let space = vec![0; file.len() + ALIGNMENT].leak();
    let start = space.as_ptr().align_offset(ALIGNMENT);
    let space = &mut space[start..start + file.len()];
    space.copy_from_slice(&file);
    Some(space)
}

fn new_engine(file: &'static [u8]) -> Engine<'static, SingleThread> {
    let model = Model::load(file).expect("a model");
    let kernels = Kernels::for_isa(Isa::Scalar).expect("scalar kernels");
    let options = EngineOptions {
        context: 128,
        max_sequences: 4,
        ..EngineOptions::default()
    };
    Engine::new(model, kernels, SingleThread, &options).expect("an engine")
}

/// Tokens and text the engine answers by itself.
fn expected(file: &'static [u8], prompt: &[u32], sampling: Sampling) -> (Vec<u32>, String) {
    let mut engine = new_engine(file);
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: 12,
        sampling,
        ignore_end: false,
    };
    let id = engine.submit(request).expect("a sequence");
    let (mut tokens, mut answer) = (Vec::new(), String::new());
    while engine.step() {
        for event in engine.take_events(id) {
            if let Event::Token { id, text, .. } = event {
                tokens.push(id);
                answer.push_str(&text);
            }
        }
    }
    (tokens, answer)
}

fn start(file: &'static [u8]) -> Running {
    Running::start_with("", Watch::default(), move || Some(new_engine(file)))
}

#[test]
fn completions_are_the_engines_own_whatever_else_runs() {
    let Some(file) = model_file() else {
        return;
    };
    let server = start(file);
    std::thread::scope(|scope| {
        for number in 0..6_u32 {
            let server = &server;
            scope.spawn(move || {
                let prompt: Vec<_> = (0..10).map(|n| 40 + n * 3 + number).collect();
                let sampling = Sampling {
                    temperature: if number % 2 == 0 { 0.0 } else { 0.8 },
                    top_p: 0.9,
                    seed: number.into(),
                    ..Sampling::default()
                };
                let body = json!({
                    "prompt": prompt, "max_tokens": 12, "temperature": sampling.temperature,
                    "top_p": 0.9, "seed": number, "return_token_ids": true,
                });
                let (tokens, text) = expected(file, &prompt, sampling);
                let mut client = server.connect();
                let answer = client.post("/v1/completions", body.to_string()).json();
                assert_eq!(answer["choices"][0]["token_ids"], json!(tokens));
                assert_eq!(answer["choices"][0]["text"], json!(text));
                assert_eq!(answer["usage"]["completion_tokens"], tokens.len());
            });
        }
    });
}

#[test]
fn a_chat_streams_with_log_probabilities() {
    let Some(file) = model_file() else {
        return;
    };
    let server = start(file);
    let mut client = server.connect();
    let body = json!({
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "temperature": 0,
        "logprobs": true, "top_logprobs": 3, "return_token_ids": true, "stream": true,
    });
    let events = client
        .post("/v1/chat/completions", body.to_string())
        .events();
    let prompt = engine::chat::template(
        &[engine::chat::Message::User("Hello")],
        engine::chat::Thinking::Enabled,
        &[],
    );
    let prompt = Model::load(file)
        .expect("a model")
        .tokenizer()
        .encode(&prompt, true);
    let (tokens, text) = expected(file, &prompt, Sampling::greedy());
    let (mut ids, mut content) = (Vec::new(), String::new());
    for event in &events {
        let choice = &event["choices"][0];
        ids.extend(
            choice["token_ids"]
                .as_array()
                .into_iter()
                .flatten()
                .cloned(),
        );
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(entries) = choice["logprobs"]["content"].as_array() {
            // Greedy: the token chosen is the most likely one.
            let entry = &entries[0];
            assert_eq!(entry["logprob"], entry["top_logprobs"][0]["logprob"]);
            assert_eq!(entry["top_logprobs"].as_array().map(Vec::len), Some(3));
        }
    }
    assert_eq!(json!(ids), json!(tokens));
    assert_eq!(content, text);
}

#[test]
fn the_engines_limits_reach_the_client() {
    let Some(file) = model_file() else {
        return;
    };
    let server = start(file);
    let mut client = server.connect();
    let reply = client.post(
        "/v1/completions",
        json!({"prompt": vec![40; 128]}).to_string(),
    );
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
    let reply = client.post("/v1/completions", json!({"prompt": [u32::MAX]}).to_string());
    assert_eq!(reply.json()["error"]["param"], "prompt");
    let models = client.get("/v1/models").json();
    assert_eq!(models["data"][0]["max_model_len"], 128);
}
