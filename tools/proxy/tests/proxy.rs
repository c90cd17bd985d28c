//! The proxy between a plain HTTP client and servers behind TLS: who is asked, who is not, and what is shown of it.

mod common;

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Judge, Orders, Upstream, ask, eventually, get, hasty, post, send, start, status};
use proxy::{Limits, WeakerMode};

const PROMPT: &str = r#"{"messages":[{"role":"user","content":"secret"}]}"#;
const STREAMED: &str = r#"{"messages":[{"role":"user","content":"secret"}],"stream":true}"#;

#[test]
fn answers_come_as_the_server_gives_them_over_one_connection() {
    let (judge, upstream) = (Judge::default(), Upstream::start());
    let proxy = start(&judge, &[&upstream], hasty());
    eventually("a verified server", || {
        status(proxy)["upstreams"][0]["connections"]["idle"] == 1
    });
    for _ in 0..3 {
        let whole = ask(proxy, &post(PROMPT));
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"), "{whole}");
        assert!(whole.contains(r#"{"object":"answer"}"#), "{whole}");
        let address = format!("vitrine-upstream: {}\r\n", upstream.address);
        assert!(
            whole.contains(&address) && !whole.contains("weaker"),
            "{whole}"
        );
        let streamed = ask(proxy, &post(STREAMED));
        assert!(
            streamed.contains("content-type: text/event-stream\r\n"),
            "{streamed}"
        );
        assert!(streamed.contains("data: 19\n\n") && streamed.contains("data: [DONE]\n\n"));
        assert!(streamed.ends_with("0\r\n\r\n"), "{streamed}");
    }
    let models = ask(proxy, &get("/v1/models?x=1"));
    assert!(models.starts_with("HTTP/1.1 200 OK\r\n"), "{models}");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 7);
    assert_eq!(
        requests[0],
        format!("POST /v1/chat/completions HTTP/1.1\n{PROMPT}")
    );
    assert_eq!(requests[6], "GET /v1/models?x=1 HTTP/1.1\n");
    // Each request's connection came back before the next was sent, so that one was enough.
    assert_eq!(judge.dialed(), 1);
}

#[test]
fn a_server_that_fails_its_verification_is_skipped_and_told_nothing() {
    let judge = Judge::default();
    let (good, bad) = (Upstream::start(), Upstream::start());
    judge.order(
        &bad,
        Orders {
            refuse: true,
            ..Orders::default()
        },
    );
    let proxy = start(&judge, &[&bad, &good], hasty());
    for _ in 0..6 {
        assert!(ask(proxy, &post(PROMPT)).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!((good.requests().len(), bad.requests().len()), (6, 0));
    let state = status(proxy);
    let (first, second) = (&state["upstreams"][0], &state["upstreams"][1]);
    assert_eq!(first["standing"], "refused");
    assert_eq!(first["reports"][0]["verdict"], "evidence-mismatch");
    assert_eq!(first["reports"][0]["code"], "not-fresh");
    assert_eq!(
        (&second["standing"], &second["requests"]),
        (&"accepted".into(), &6.into())
    );
    eventually("its health", || {
        status(proxy)["upstreams"][1]["health"]["state"] == "ready"
    });

    // It is taken back as soon as it passes.
    judge.order(&bad, Orders::default());
    eventually("the other server", || {
        ask(proxy, &post(PROMPT));
        !bad.requests().is_empty()
    });
}

#[test]
fn without_a_verified_server_nothing_is_sent() {
    let (judge, bad) = (Judge::default(), Upstream::start());
    judge.order(
        &bad,
        Orders {
            refuse: true,
            ..Orders::default()
        },
    );
    let proxy = start(&judge, &[&bad], hasty());
    for request in [post(PROMPT), get("/v1/models")] {
        let reply = ask(proxy, &request);
        assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
        assert!(
            reply.contains(r#""code":"no_verified_upstream""#),
            "{reply}"
        );
        assert!(reply.contains("evidence-mismatch (not-fresh)"), "{reply}");
    }
    assert!(bad.requests().is_empty());
}

#[test]
fn nobody_waits_for_a_server_that_says_nothing() {
    let judge = Judge::default();
    let (silent, good) = (Upstream::silent(), Upstream::start());
    let proxy = start(&judge, &[&silent, &good], hasty());
    // From the first request on, whoever's turn it is: giving the silent one up takes ten seconds each time.
    let asked = Instant::now();
    for _ in 0..8 {
        assert!(ask(proxy, &post(PROMPT)).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(good.requests().len(), 8);
    // Nor while all of the good one's connections are in use.
    *good.part.lock().unwrap() = Duration::from_millis(100);
    let answers: Vec<_> = (0..4).map(|_| send(proxy, &post(STREAMED))).collect();
    for mut answer in answers {
        let mut whole = String::new();
        answer.read_to_string(&mut whole).unwrap();
        assert!(whole.ends_with("0\r\n\r\n"), "{whole}");
    }
    assert_eq!(good.requests().len(), 12);
    assert_ne!(status(proxy)["upstreams"][0]["standing"], "accepted");
}

#[test]
fn a_server_without_room_passes_the_request_to_the_next() {
    let judge = Judge::default();
    let (full, free) = (Upstream::start(), Upstream::start());
    full.status.store(429, Ordering::SeqCst);
    let proxy = start(&judge, &[&full, &free], hasty());
    for _ in 0..4 {
        assert!(ask(proxy, &post(PROMPT)).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(free.requests().len(), 4);
    free.status.store(503, Ordering::SeqCst);
    let reply = ask(proxy, &post(PROMPT));
    assert!(
        reply.contains(r#"{"error":{"message":"later"}}"#),
        "{reply}"
    );
    free.status.store(400, Ordering::SeqCst);
    full.status.store(400, Ordering::SeqCst);
    assert!(ask(proxy, &post(PROMPT)).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_connection_is_verified_anew_when_its_time_is_up() {
    let by_age = Limits {
        max_age: Duration::from_millis(300),
        ..hasty()
    };
    let by_certificate = Orders {
        renew: Some(Duration::from_millis(300)),
        ..Orders::default()
    };
    for (limits, orders) in [(by_age, Orders::default()), (hasty(), by_certificate)] {
        let (judge, upstream) = (Judge::default(), Upstream::start());
        judge.order(&upstream, orders);
        let proxy = start(&judge, &[&upstream], limits);
        assert!(ask(proxy, &post(PROMPT)).starts_with("HTTP/1.1 200 OK\r\n"));
        // An answer under way is not cut short by it.
        *upstream.part.lock().unwrap() = Duration::from_millis(40);
        assert!(ask(proxy, &post(STREAMED)).ends_with("0\r\n\r\n"));
        eventually("two verifications more", || judge.dialed() >= 4);
    }
}

#[test]
fn a_change_of_certificate_retires_the_connections_before_it() {
    let (judge, upstream) = (Judge::default(), Upstream::start());
    let certificate = |byte| Orders {
        certificate: Some([byte; 48]),
        ..Orders::default()
    };
    judge.order(&upstream, certificate(1));
    let proxy = start(&judge, &[&upstream], hasty());
    // The first answer takes this connection, so that the second needs another.
    eventually("a verified server", || {
        status(proxy)["upstreams"][0]["connections"]["idle"] == 1
    });
    *upstream.part.lock().unwrap() = Duration::from_millis(30);
    // Two answers at once, the second over a connection that shows another certificate.
    let mut first = send(proxy, &post(STREAMED));
    eventually("the first request", || upstream.requests().len() == 1);
    judge.order(&upstream, certificate(2));
    let second = ask(proxy, &post(STREAMED));
    let mut whole = String::new();
    first.read_to_string(&mut whole).unwrap();
    assert!(whole.ends_with("0\r\n\r\n") && second.ends_with("0\r\n\r\n"));
    eventually("the answers' ends", || {
        status(proxy)["upstreams"][0]["connections"]["busy"] == 0
    });
    let connections = &status(proxy)["upstreams"][0]["connections"];
    assert_eq!(connections["idle"], 1, "{connections}");
}

#[test]
fn a_client_that_leaves_cancels_its_answer() {
    let (judge, upstream) = (Judge::default(), Upstream::start());
    let proxy = start(&judge, &[&upstream], hasty());
    *upstream.part.lock().unwrap() = Duration::from_millis(300);
    // One leaves before the answer begins, the other in the middle of it.
    let early = send(proxy, &post(STREAMED));
    let mut late = send(proxy, &post(STREAMED));
    eventually("both requests", || upstream.requests().len() == 2);
    drop(early);
    late.read_exact(&mut [0; 10]).unwrap();
    drop(late);
    eventually("the servers' loss", || {
        upstream.broken.load(Ordering::SeqCst) == 2
    });
    *upstream.part.lock().unwrap() = Duration::ZERO;
    assert!(ask(proxy, &post(PROMPT)).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn weaker_modes_mark_every_answer() {
    let judge = Judge {
        modes: vec![WeakerMode::InsecureNoTee, WeakerMode::TestRoot],
        ..Judge::default()
    };
    let upstream = Upstream::start();
    let proxy = start(&judge, &[&upstream], hasty());
    for request in [post(PROMPT), get("/v1/models"), get("/"), get("/nothing")] {
        let reply = ask(proxy, &request);
        assert!(
            reply.contains("\r\nvitrine-weaker-mode: insecure-no-tee\r\n"),
            "{reply}"
        );
        assert!(
            reply.contains("\r\nvitrine-weaker-mode: test-root\r\n"),
            "{reply}"
        );
    }
    assert_eq!(status(proxy)["weaker_modes"][1], "test-root");
    assert!(ask(proxy, &get("/")).contains("--insecure-no-tee"));
}

#[test]
fn the_page_shows_what_servers_showed_as_text() {
    let (judge, upstream) = (Judge::default(), Upstream::start());
    let proxy = start(&judge, &[&upstream], hasty());
    eventually("its health", || {
        ask(proxy, &get("/")).contains("model &lt;m&gt;")
    });
    let page = ask(proxy, &get("/"));
    assert!(
        page.contains("content-security-policy: default-src 'none'"),
        "{page}"
    );
    assert!(page.contains(&upstream.address.to_string()), "{page}");
    assert!(
        page.contains("freshness") && page.contains("&lt;found&gt;"),
        "{page}"
    );
    assert!(
        !page.contains("<found>") && !page.contains("weaker"),
        "{page}"
    );
}

#[test]
fn requests_that_are_not_for_servers_stay_here() {
    let (judge, upstream) = (Judge::default(), Upstream::start());
    let proxy = start(&judge, &[&upstream], hasty());
    let other_host = get("/v1/models").replace("localhost", "attacker.example");
    let other_page =
        post(PROMPT).replace("\r\n\r\n", "\r\nOrigin: http://attacker.example\r\n\r\n");
    let form = post(PROMPT).replace("application/json", "text/plain");
    for (request, status) in [
        (other_host, 403),
        (other_page, 403),
        (form, 415),
        (get("/model-key"), 404),
        (get("/attestation"), 404),
        (get("/v1/models").replace("GET", "DELETE"), 405),
        (get("/").replace("GET", "PUT"), 405),
    ] {
        let reply = ask(proxy, &request);
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{reply}"
        );
    }
    assert!(upstream.requests().is_empty());
}
