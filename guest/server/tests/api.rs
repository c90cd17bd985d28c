//! The OpenAI-compatible API: what requests mean to the engine, and what answers look like.

mod common;

use std::time::Duration;

use common::{Running, Script};
use serde_json::{Value, json};

/// The length of the prompt [`chat`] amounts to.
const PROMPT_TOKENS: usize = "<|im_start|>user\nabc<|im_end|>\n<|im_start|>assistant\n".len();

/// A chat request that says "abc", with further parameters.
fn chat(extra: Value) -> String {
    let mut body = json!({"messages": [{"role": "user", "content": "abc"}]});
    let (Value::Object(body_map), Value::Object(extra)) = (&mut body, extra) else {
        panic!("objects");
    };
    body_map.extend(extra);
    body.to_string()
}

#[test]
fn models_are_listed_and_retrieved() {
    let server = Running::ready();
    let mut client = server.connect();
    let list = client.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "Tiny Qwen3");
    assert_eq!(list["data"][0]["max_model_len"], 1024);
    assert_eq!(
        client.get("/v1/models/Tiny%20Qwen3").json(),
        list["data"][0]
    );
    let missing = client.get("/v1/models/gpt");
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (404, &"model_not_found".into())
    );

    let named = Running::start("[model]\nname = \"mine\"\n", Some(Script::default()));
    let mut client = named.connect();
    assert_eq!(client.get("/v1/models").json()["data"][0]["id"], "mine");
    assert_eq!(client.get("/health").json()["model"], "mine");
    assert_eq!(
        client
            .post("/v1/chat/completions", chat(json!({"model": "mine"})))
            .status,
        200
    );
}

#[test]
fn a_chat_completion_in_one_piece() {
    let server = Running::ready();
    let body = chat(json!({"model": "Tiny Qwen3", "return_token_ids": true}));
    let reply = server.connect().post("/v1/chat/completions", body);
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/json"))
    );
    let mut answer = reply.json();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    for member in ["id", "created"] {
        answer[member] = Value::Null;
    }
    assert_eq!(
        answer,
        json!({
            "id": null, "created": null, "object": "chat.completion", "model": "Tiny Qwen3",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "cba"},
                "logprobs": null,
                "finish_reason": "stop",
                "token_ids": [99, 98, 97],
            }],
            "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3, "total_tokens": PROMPT_TOKENS + 3},
        })
    );
}

#[test]
fn a_chat_completion_in_a_stream() {
    let server = Running::ready();
    let body = chat(json!({
        "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true
    }));
    let reply = server.connect().post("/v1/chat/completions", body);
    assert_eq!(reply.status, 200);
    let events = reply.events();
    assert!(events.iter().all(|event| event["id"] == events[0]["id"]));
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "chat.completion.chunk")
    );
    let deltas: Vec<_> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"])
        .collect();
    assert_eq!(*deltas[0], json!({"role": "assistant", "content": ""}));
    assert_eq!(*deltas[1], json!({"content": "c"}));
    assert_eq!(events[2]["choices"][0]["token_ids"], json!([98]));
    assert_eq!(*deltas[4], json!({}));
    assert_eq!(events[3]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(events[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[5]["choices"], json!([]));
    assert_eq!(events[5]["usage"]["total_tokens"], PROMPT_TOKENS + 3);
    assert_eq!(events.len(), 6);
}

#[test]
fn completions_take_text_and_tokens() {
    let server = Running::ready();
    let mut client = server.connect();
    for prompt in [
        json!("abc"),
        json!(["abc"]),
        json!([97, 98, 99]),
        json!([[97, 98, 99]]),
    ] {
        let body = json!({"prompt": prompt, "max_tokens": 2}).to_string();
        let answer = client.post("/v1/completions", body).json();
        assert_eq!(answer["object"], "text_completion");
        assert_eq!(answer["choices"][0]["text"], "cb");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 2);
    }
    let body = r#"{"prompt":"abc","stream":true,"stream_options":{"include_usage":false}}"#;
    let events = client.post("/v1/completions", body).events();
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "cba");
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn log_probabilities_have_the_shape_of_their_endpoint() {
    let server = Running::ready();
    let mut client = server.connect();
    let body = chat(json!({"logprobs": true, "top_logprobs": 2}));
    let answer = client.post("/v1/chat/completions", body).json();
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(content.len(), 3);
    assert_eq!(
        content[0],
        json!({
            "token": "c", "logprob": -0.5, "bytes": [99],
            "top_logprobs": [
                {"token": "a", "logprob": -1.0, "bytes": [97]},
                {"token": "b", "logprob": -2.0, "bytes": [98]},
            ],
        })
    );
    let body = r#"{"prompt":"abc","logprobs":1}"#;
    let answer = client.post("/v1/completions", body).json();
    assert_eq!(
        answer["choices"][0]["logprobs"],
        json!({
            "tokens": ["c", "b", "a"], "token_logprobs": [-0.5, -0.5, -0.5],
            "top_logprobs": [{"a": -1.0}, {"a": -1.0}, {"a": -1.0}], "text_offset": [0, 1, 2],
        })
    );
}

#[test]
fn parameters_reach_the_engine() {
    let server = Running::ready();
    let mut client = server.connect();
    let body = chat(json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": -1, "frequency_penalty": 0.25, "seed": -1, "stop": ["x", "yz"],
        "logit_bias": {"97": 5, "98": -100}, "max_completion_tokens": 9, "max_tokens": 8,
        "logprobs": true, "user": "somebody", "ignore_eos": true, "n": 1, "unknown": [], "top_logprobs": null,
    }));
    assert_eq!(client.post("/v1/chat/completions", body).status, 200);
    let request = server.watch.last_request();
    assert!(request.ignore_end);
    assert_eq!(request.max_tokens, 9);
    assert_eq!(request.sampling.stop, ["x", "yz"]);
    assert_eq!(request.sampling.logprobs, Some(0));
    let sampling = request.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.top_k),
        (0.5, 0.9, 20)
    );
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.1, 1.1));
    assert_eq!(
        (sampling.presence_penalty, sampling.frequency_penalty),
        (-1.0, 0.25)
    );
    assert_eq!(sampling.seed, u64::MAX);
    assert_eq!(sampling.logit_bias, [(97, 5.0), (98, -100.0)]);

    client.post("/v1/chat/completions", chat(json!({})));
    let defaults = server.watch.last_request();
    assert_eq!(
        defaults.max_tokens,
        1024 - PROMPT_TOKENS,
        "what the context leaves, up to the configured length"
    );
    assert_eq!(
        (defaults.sampling.temperature, defaults.sampling.top_p),
        (1.0, 1.0)
    );
    client.post("/v1/chat/completions", chat(json!({})));
    assert_ne!(
        defaults.sampling.seed,
        server.watch.last_request().sampling.seed
    );
    client.post(
        "/v1/completions",
        r#"{"prompt":"abc","top_k":-1,"stop":"q"}"#,
    );
    assert_eq!(server.watch.last_request().max_tokens, 16);
    assert_eq!(server.watch.last_request().sampling.stop, ["q"]);
}

#[test]
fn conversations_reach_the_template() {
    let server = Running::ready();
    let mut client = server.connect();
    let body = r#"{
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What "}, {"type": "text", "text": "time?"}
            ]},
            {"role": "assistant", "content": null, "reasoning_content": "A clock?", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
            ]},
            {"role": "tool", "content": "noon", "tool_call_id": "1"}
        ],
        "tools": [{"type": "function", "function": {"name": "clock", "a": {"z": 1, "b": 2}}}],
        "tool_choice": "auto",
        "chat_template_kwargs": {"enable_thinking": false}
    }"#;
    assert_eq!(client.post("/v1/chat/completions", body).status, 200);
    let prompt = server.watch.last_prompt();
    for expected in [
        "<|im_start|>system\nBe brief.\n\n# Tools",
        r#"{"type": "function", "function": {"name": "clock", "a": {"z": 1, "b": 2}}}"#,
        "<|im_start|>user\nWhat time?<|im_end|>\n",
        "<think>\nA clock?\n</think>",
        "<tool_call>\n{\"name\": \"clock\", \"arguments\": {}}\n</tool_call>",
        "<tool_response>\nnoon\n</tool_response>",
    ] {
        assert!(
            prompt.contains(expected),
            "{expected:?} is missing in {prompt}"
        );
    }
    assert!(
        prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        "{prompt}"
    );

    let tool = r#"[{"type": "function", "function": {"name": "clock"}}]"#;
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"abc"}}],"tools":{tool},"tool_choice":"none"}}"#
    );
    assert_eq!(client.post("/v1/chat/completions", body).status, 200);
    assert_eq!(server.watch.last_request().prompt.len(), PROMPT_TOKENS);
}

#[test]
fn invalid_parameters_are_named() {
    let server = Running::ready();
    let mut client = server.connect();
    let many: Vec<_> = (0..17).map(|n| n.to_string()).collect();
    for (extra, parameter) in [
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 1.5}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1e3}), "max_tokens"),
        (json!({"n": 2}), "n"),
        (json!({"stop": 1}), "stop"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": many}), "stop"),
        (json!({"logit_bias": {"256": 1}}), "logit_bias"),
        (json!({"logit_bias": {"a": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias"),
        (json!({"logit_bias": []}), "logit_bias"),
        (json!({"stream": 1}), "stream"),
        (json!({"stream_options": {}}), "stream_options"),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            "response_format.type",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [{}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function", "function": {}}]}),
            "tools[0].function.name",
        ),
        (json!({"functions": []}), "functions"),
        (
            json!({"chat_template_kwargs": {"enable_thinking": "no"}}),
            "chat_template_kwargs.enable_thinking",
        ),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": [1]}), "messages[0]"),
        (
            json!({"messages": [{"role": "cat", "content": "miaow"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{}]}]}),
            "messages[0].tool_calls[0].function",
        ),
        (json!({"model": 1}), "model"),
        (json!({"return_token_ids": "yes"}), "return_token_ids"),
    ] {
        let reply = client.post("/v1/chat/completions", chat(extra.clone()));
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["param"]),
            (400, &parameter.into()),
            "{extra}: {error}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().len() > 10);
    }
    for (body, parameter) in [
        (r#"{}"#, "prompt"),
        (r#"{"prompt":""}"#, "prompt"),
        (r#"{"prompt":[]}"#, "prompt"),
        (r#"{"prompt":["a","b"]}"#, "prompt"),
        (r#"{"prompt":[1,"b"]}"#, "prompt"),
        (r#"{"prompt":[256]}"#, "prompt"),
        (r#"{"prompt":[1.5]}"#, "prompt"),
        (r#"{"prompt":"a","echo":true}"#, "echo"),
        (r#"{"prompt":"a","suffix":"b"}"#, "suffix"),
        (r#"{"prompt":"a","best_of":3}"#, "best_of"),
        (r#"{"prompt":"a","logprobs":6}"#, "logprobs"),
    ] {
        let reply = client.post("/v1/completions", body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &parameter.into()),
            "{body}"
        );
    }
    for body in ["", "[]", "1", "{", "{} {}", "\u{0}", &"[".repeat(100_000)] {
        assert_eq!(client.post("/v1/completions", body).status, 400);
    }
    assert_eq!(
        client
            .post("/v1/completions", b"{\"prompt\":\"\xff\"}")
            .status,
        400
    );
}

#[test]
fn the_context_is_a_limit() {
    let server = Running::ready();
    let mut client = server.connect();
    let prompt = "x".repeat(1012);
    let code = |reply: &common::Reply| reply.json()["error"]["code"].clone();
    for body in [
        json!({"prompt": prompt, "max_tokens": 13}),
        json!({"prompt": "x".repeat(1024)}),
        json!({"prompt": "x".repeat(5000)}),
    ] {
        let reply = client.post("/v1/completions", body.to_string());
        assert_eq!(
            (reply.status, code(&reply)),
            (400, "context_length_exceeded".into())
        );
    }
    let body = json!({"prompt": prompt, "max_tokens": 12}).to_string();
    assert_eq!(client.post("/v1/completions", body).status, 200);
    let body = json!({"prompt": prompt}).to_string();
    assert_eq!(client.post("/v1/completions", body).status, 200);
    assert_eq!(server.watch.last_request().max_tokens, 12);
}

#[test]
fn unknown_models_are_not_found() {
    let server = Running::ready();
    let reply = server
        .connect()
        .post("/v1/chat/completions", chat(json!({"model": "gpt-4o"})));
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["error"]["code"], "model_not_found");
    assert_eq!(reply.json()["error"]["param"], "model");
}

#[test]
fn without_a_model_requests_are_refused_for_now() {
    let server = Running::start("", None);
    let mut client = server.connect();
    for reply in [
        client.post("/v1/chat/completions", chat(json!({}))),
        client.get("/v1/models"),
    ] {
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("5"))
        );
        assert_eq!(reply.json()["error"]["code"], "model_not_ready");
    }
    server.set_health(server::Health::Failed {
        reason: "corrupt header".into(),
    });
    let reply = client.post("/v1/chat/completions", chat(json!({})));
    assert_eq!((reply.status, reply.header("retry-after")), (503, None));
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("corrupt header")
    );
}

#[test]
fn a_full_queue_is_a_reason_to_come_back() {
    let script = Script {
        capacity: 2,
        endless: true,
        step: Duration::from_millis(1),
        ..Script::default()
    };
    let server = Running::start("", Some(script));
    let request = r#"{"prompt":"a","max_tokens":1000,"stream":true}"#;
    let mut waiting: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send_post("/v1/completions", request);
    }
    common::eventually("both are taken on", || server.watch.live() == 2);
    let mut client = server.connect();
    let reply = client.post("/v1/completions", request);
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("1"))
    );
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    drop(waiting);
    common::eventually("both are gone", || server.watch.live() == 0);
    let reply = client.post("/v1/completions", r#"{"prompt":"a","max_tokens":3}"#);
    assert_eq!(reply.status, 200);
}
