//! TLS and HTTP as a client meets them: what is served, what is refused, and how.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{Running, Script};
use server::Health;

/// What `/health` says, but for the times, which must be there.
fn without_load(mut health: serde_json::Value) -> serde_json::Value {
    let fields = health.as_object_mut().expect("an object");
    for field in ["computing_ms", "serving_ms"] {
        let time = fields.remove(field);
        assert!(time.is_some_and(|time| time.is_u64()), "{field}");
    }
    health
}

#[test]
fn health_tells_how_far_the_machine_has_come() {
    let server = Running::start("", None);
    let mut client = server.connect();
    let reply = client.get("/health");
    assert_eq!(reply.status, 503);
    assert_eq!(
        without_load(reply.json()),
        serde_json::json!({"state": "booting", "isa": "avx2", "vcpus": 2, "evidence": "none"})
    );

    server.set_health(Health::Loading { percent: 40 });
    assert_eq!(client.get("/health").json()["percent"], 40);
    server.set_health(Health::Failed {
        reason: "no model disk".into(),
    });
    let reply = client.get("/health");
    assert_eq!(
        (reply.status, &reply.json()["reason"]),
        (503, &"no model disk".into())
    );

    let ready = Running::ready().connect().get("/health");
    assert_eq!(ready.status, 200);
    assert_eq!(
        without_load(ready.json()),
        serde_json::json!({
            "state": "ready", "isa": "avx2", "vcpus": 2, "boot_ms": 7, "model": "Tiny Qwen3", "evidence": "none"
        })
    );
}

#[test]
fn one_connection_carries_many_requests() {
    let server = Running::ready();
    let mut client = server.connect();
    for _ in 0..20 {
        assert_eq!(
            client.get("/health").header("connection"),
            Some("keep-alive")
        );
    }
    client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50));
    for _ in 0..50 {
        assert_eq!(client.reply().status, 200);
    }
    client.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_ne!(client.head_reply().header("content-length"), Some("0"));
    client.send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reply().header("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn http_1_0_is_served() {
    let server = Running::ready();
    let mut client = server.connect();
    client.send("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    assert!(client.is_closed());

    let mut client = server.connect();
    let body = r#"{"prompt":"abc","stream":true}"#;
    client.send(format!(
        "POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{body}",
        body.len()
    ));
    let reply = client.reply();
    assert_eq!(reply.header("transfer-encoding"), None);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.events().len(), 4);
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let server = Running::ready();
    let mut client = server.connect();
    client.send(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!(client.reply().status, 100);
    client.send("5\r\n{\"pro\r\n");
    client.send("b\r\nmpt\":\"abc\"}\r\n0\r\n\r\n");
    assert_eq!(client.reply().json()["choices"][0]["text"], "cba");
}

#[test]
fn every_refusal_has_its_status_and_ends_the_connection_if_it_must() {
    let server = Running::start(
        "[limits]\nrequest_bytes = 2048\nheader_bytes = 2048\n",
        None,
    );
    let long = "x".repeat(3000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".to_owned(), 400),
        ("\0\0\0\n".into(), 400),
        (
            "POST /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            411,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2049\r\n\r\n".into(),
            413,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n801\r\n".into(),
            413,
        ),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: gold\r\n\r\n".into(),
            417,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            431,
        ),
        ("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
    ] {
        let mut client = server.connect();
        client.send(&request);
        let reply = client.reply();
        assert_eq!(reply.status, status, "{request:?}");
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(reply.json()["error"]["message"].is_string());
        assert!(client.is_closed());
    }
}

#[test]
fn refusals_of_a_well_formed_request_keep_the_connection() {
    let server = Running::ready();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 404);
    assert_eq!(client.get("/v1/models/other").status, 404);
    let reply = client.get("/v1/completions");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = client.post("/health", "{}");
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD"))
    );
    client.send("DELETE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().status, 405);
    client.send(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\
         Content-Length: 2\r\n\r\n{}",
    );
    assert_eq!(client.reply().status, 415);
    client.send(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\
         Content-Length: 2\r\n\r\n{}",
    );
    assert_eq!(client.reply().status, 415);
    assert_eq!(client.post("/v1/completions", "{").status, 400);
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn slow_requests_are_ended() {
    let server = Running::start("[limits]\nheader_seconds = 1\nbody_seconds = 1\n", None);
    for start in [
        "GET /health HT",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
    ] {
        let mut client = server.connect();
        client.send(start);
        let begun = Instant::now();
        assert_eq!(client.reply().status, 408);
        assert!((1..6).contains(&begun.elapsed().as_secs()));
        assert!(client.is_closed());
    }
    // One byte now and then does not move the deadline.
    let mut client = server.connect();
    for byte in b"GET /health " {
        client.send([*byte]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(client.reply().status, 408);
}

#[test]
fn idle_connections_and_handshakes_are_ended() {
    let server = Running::start("[limits]\nidle_seconds = 1\nhandshake_seconds = 1\n", None);
    let mut client = server.connect();
    assert_eq!(client.get("/health").status, 503);
    let begun = Instant::now();
    assert!(client.is_closed());
    assert!((0..6).contains(&begun.elapsed().as_secs()));

    let mut silent = TcpStream::connect(server.address).unwrap();
    silent
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
}

#[test]
fn the_engines_time_is_not_the_clients() {
    let script = Script {
        step: Duration::from_millis(500),
        ..Script::default()
    };
    let server = Running::start("[limits]\nhandshake_seconds = 1\n", Some(script));
    let mut busy = server.connect();
    busy.send_post(
        "/v1/completions",
        r#"{"prompt":"so long that it takes a while","max_tokens":20,"stream":true}"#,
    );
    busy.wait_for(b"data:");
    // A handshake that is looked at twice a second gets more looks than two before its time is up.
    let mut slow = TcpStream::connect(server.address).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let error = slow.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(server.watch.live(), 1);
}

#[test]
fn what_is_not_tls_is_told_so_and_closed() {
    let server = Running::ready();
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket
        .write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let _ = socket.read_to_end(&mut answer);
    // RFC 8446, 6: an alert record, fatal.
    assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)));
    assert_eq!(server.connect().get("/health").status, 200);
}

#[test]
fn half_closed_clients_get_their_answer() {
    let script = Script {
        step: Duration::from_millis(10),
        ..Script::default()
    };
    let server = Running::start("", Some(script));
    for stream in [false, true] {
        let mut client = server.connect();
        let body = format!(r#"{{"prompt":"0123456789","stream":{stream}}}"#);
        client.send_post("/v1/completions", body);
        client.half_close();
        let reply = client.reply();
        assert_eq!(reply.status, 200);
        if stream {
            assert_eq!(reply.events().len(), 11);
        } else {
            assert_eq!(reply.json()["choices"][0]["text"], "9876543210");
        }
        assert!(client.is_closed());
    }
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nHo");
    client.half_close();
    assert_eq!(client.reply().status, 400);
    // Without close_notify it is not half-closed but gone, though what is known at once still comes.
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    client.shutdown_write();
    assert_eq!(client.reply().status, 200);
    assert_eq!(server.watch.cancelled(), 0);
}

#[test]
fn disconnected_clients_free_their_sequence() {
    let script = Script {
        step: Duration::from_millis(5),
        endless: true,
        ..Script::default()
    };
    let server = Running::start("", Some(script));
    for stream in [false, true] {
        for (politely, still_open) in [(true, false), (false, false), (false, true)] {
            let mut client = server.connect();
            let body = format!(r#"{{"prompt":"0123","max_tokens":500,"stream":{stream}}}"#);
            client.send_post("/v1/completions", body);
            common::eventually("the sequence runs", || server.watch.live() == 1);
            if politely {
                client.half_close();
            } else {
                client.shutdown_write();
            }
            let _kept = still_open.then_some(client);
            let begun = Instant::now();
            common::eventually("the sequence is gone", || server.watch.live() == 0);
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{:?}",
                begun.elapsed()
            );
        }
    }
    assert_eq!(server.watch.cancelled(), 6);
}

#[test]
fn clients_that_do_not_read_are_ended_and_others_do_not_notice() {
    let script = Script {
        endless: true,
        context: 1 << 20,
        ..Script::default()
    };
    let server = Running::start("[limits]\nwrite_seconds = 1\n", Some(script));
    let mut deaf = server.connect();
    deaf.send_post(
        "/v1/completions",
        r#"{"prompt":"0","max_tokens":200000,"stream":true}"#,
    );
    common::eventually("the sequence runs", || server.watch.live() == 1);
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(server.connect().get("/health").status, 200);
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    common::eventually("the sequence is gone", || server.watch.live() == 0);
}

#[test]
fn connections_are_limited_and_idle_ones_make_room() {
    let script = Script {
        endless: true,
        step: Duration::from_millis(5),
        ..Script::default()
    };
    let server = Running::start("[limits]\nconnections = 2\n", Some(script));
    let mut busy = server.connect();
    busy.send_post(
        "/v1/completions",
        r#"{"prompt":"0","max_tokens":1000,"stream":true}"#,
    );
    busy.wait_for(b"data: ");
    let mut idle = server.connect();
    assert_eq!(idle.get("/health").status, 200);
    let mut third = server.connect();
    assert!(idle.is_closed());
    third.send("GET /hea");
    std::thread::sleep(Duration::from_millis(20));
    let mut fourth = TcpStream::connect(server.address).unwrap();
    fourth
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(
        fourth.read(&mut [0; 16]).unwrap_or(0),
        0,
        "there is no room for a fourth"
    );
    third.send("lth HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(third.reply().status, 200);
}
