//! Many clients at once, some of them hostile.

mod common;

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{Client, Running, Script};
use proptest::{prelude::*, test_runner::TestRunner};

/// Seven clients stream their answers while an eighth does `mischief` over and over.
fn undisturbed_by(mischief: impl Fn(&Running) + Send + Sync) {
    let script = Script {
        step: Duration::from_millis(1),
        ..Script::default()
    };
    let server = Running::start("", Some(script));
    std::thread::scope(|scope| {
        let good: Vec<_> = (0..7)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    for round in 0..5 {
                        let prompt = format!("client {number}, round {round}, and some more text");
                        let body =
                            format!(r#"{{"prompt":"{prompt}","max_tokens":99,"stream":true}}"#);
                        let events = client.post("/v1/completions", body).events();
                        let text: String = events
                            .iter()
                            .filter_map(|event| event["choices"][0]["text"].as_str())
                            .collect();
                        assert_eq!(text, prompt.chars().rev().collect::<String>());
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        while !good.iter().all(|client| client.is_finished()) {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the others are held up"
            );
            mischief(&server);
        }
    });
    assert_eq!(server.connect().get("/health").status, 200);
}

#[test]
fn garbage_instead_of_tls_disturbs_nobody() {
    undisturbed_by(|server| {
        if let Ok(mut socket) = TcpStream::connect(server.address) {
            let _ = socket.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 0xaa]);
            let _ = socket.write_all(&[0x5a; 20_000]);
        }
    });
}

#[test]
fn aborted_requests_disturb_nobody() {
    undisturbed_by(|server| {
        let mut client = server.connect();
        client.send_post(
            "/v1/completions",
            r#"{"prompt":"never read","max_tokens":100,"stream":true}"#,
        );
    });
}

#[test]
fn malformed_requests_disturb_nobody() {
    undisturbed_by(|server| {
        let mut client = server.connect();
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        assert_eq!(client.reply().status, 400);
    });
}

#[test]
fn a_flood_of_pipelined_requests_disturbs_nobody() {
    undisturbed_by(|server| {
        let mut client = server.connect();
        client.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
        client.wait_for(b"HTTP/1.1 200 OK");
    });
}

/// JSON that is almost a request: a valid one, with bytes changed, dropped, or put in twice.
fn mutated() -> impl Strategy<Value = (bool, Vec<u8>)> {
    const CHAT: &str = r#"{"model":"Tiny Qwen3","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"bé\n"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}],"temperature":0.5,"top_p":1,"seed":7,"stop":["x"],"logit_bias":{"1":-1},"logprobs":true,"top_logprobs":3,"max_tokens":5,"tools":[{"type":"function","function":{"name":"f"}}],"stream":true,"stream_options":{"include_usage":true},"chat_template_kwargs":{"enable_thinking":true}}"#;
    const COMPLETION: &str = r#"{"prompt":[1,2,3],"max_tokens":5,"temperature":0,"top_k":-1,"min_p":0.1,"n":1,"echo":false,"logprobs":2,"return_token_ids":true,"user":null}"#;
    let edit = (
        any::<usize>(),
        0..4_u8,
        prop_oneof![
            prop::sample::select(&b"{}[]\",:0123456789.-eEtfn\\u \x00\xff"[..]),
            any::<u8>(),
        ],
    );
    let edits = proptest::collection::vec(edit, 0..5);
    (any::<bool>(), edits).prop_map(|(chat, edits)| {
        let mut body = Vec::from(if chat { CHAT } else { COMPLETION });
        for (position, kind, byte) in edits {
            let at = position % body.len();
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => {
                    let end = (at + usize::from(byte) % 30).min(body.len());
                    let piece = body[at..end].to_vec();
                    body.splice(at..at, piece);
                }
            }
        }
        (chat, body)
    })
}

#[test]
fn mutated_requests_get_an_answer_or_a_client_error() {
    let server = Running::ready();
    let mut client: Client = server.connect();
    let mut answered = 0;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let client = std::cell::RefCell::new(&mut client);
    let answered = std::cell::RefCell::new(&mut answered);
    let outcome = runner.run(&mutated(), |(chat, body)| {
        let path = if chat {
            "/v1/chat/completions"
        } else {
            "/v1/completions"
        };
        let status = client.borrow_mut().post(path, body).status;
        prop_assert!(matches!(status, 200 | 400 | 404), "{status}");
        **answered.borrow_mut() += u32::from(status == 200);
        Ok(())
    });
    outcome.unwrap();
    assert!(
        **answered.borrow() > 100,
        "too few mutants were requests still"
    );
    assert_eq!(server.watch.live(), 0);
}
