//! Certificates that are replaced while answers stream through the proxy, and to a client beside it: both go over to connections that they
//! verify anew, and no answer is cut.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attestation::provisioning::PublicKey;
use client::{Address, ChatRequest, Client, Connector, Judge, Message, Options, Sampling, Trust};
use serde_json::Value;
use synthesis::Mix;
use verifier::{Code, Collateral, Report, Verifier};

use super::super::ANSWER;
use super::super::domains;
use super::super::endpoint::Endpoint;
use super::{PROMPT, Stage};
use crate::failure::{Failure, Result, ensure};
use crate::interrupt;
use crate::process;

/// Certificates that are replaced every ten seconds.
const SHORT_LIVED: &str = "[limits]\ncertificate_seconds = 15\n";
const ROTATIONS: usize = 2;
/// For one of them.
const SOON: Duration = Duration::from_secs(60);
/// Of each answer: many enough for one to be under way whenever a certificate is replaced.
const TOKENS: u32 = 600;

/// See the module.
pub fn rotations_are_followed(stage: &mut Stage<'_>) -> Result<()> {
    let model = stage.world.model(Mix::Q4KM)?;
    let mut guest = domains::boot(stage.world, &stage.pins, &model, Some(SHORT_LIVED))?;
    let address = guest.tcp();
    let to = address.to_string();
    let mut options = vec!["--to", &to];
    options.extend(stage.trust.iter().map(String::as_str));
    let proxy = Endpoint::start(stage.world, &options)?;
    let Trust::Evidence(pinned) = stage.pins.trust(&stage.model_digest)? else {
        return Err(Failure::new("the pins trust blindly"));
    };
    let judge = Arc::new(Counting {
        pinned,
        judged: AtomicUsize::new(0),
    });
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let through = scope.spawn(|| {
            again_and_again(&over, || {
                let answer = process::text(&mut proxy.ask(PROMPT, TOKENS, true), ANSWER)?;
                streamed_text(&answer)
            })
        });
        let beside = scope.spawn(|| {
            let trust = Trust::Evidence(Arc::clone(&judge) as Arc<dyn Judge>);
            let mut client = Client::new(address.clone(), Options::new(trust))?;
            again_and_again(&over, || chat(&mut client))
        });
        let outcome = (0..ROTATIONS).try_for_each(|_| follow(&proxy, &address, &judge));
        over.store(true, Ordering::SeqCst);
        for answers in [through, beside] {
            answers
                .join()
                .unwrap_or_else(|_| Err(Failure::new("a stream panicked")))?;
        }
        outcome
    })?;
    guest.check_alive()
}

/// Waits for another certificate, and until proxy and client have both verified a connection after that. The proxy's server stays accepted.
fn follow(proxy: &Endpoint, address: &Address, judge: &Counting) -> Result<()> {
    let before = certificate(address)?;
    let deadline = Instant::now() + SOON;
    while certificate(address)? == before {
        interrupt::check()?;
        ensure!(Instant::now() < deadline, "the certificate stays");
        thread::sleep(Duration::from_millis(200));
    }
    let verified = proxy.upstreams()?[0].connections.verified;
    let judged = judge.judged.load(Ordering::SeqCst);
    let lapsed = Cell::new(false);
    proxy.wait("followed a rotation, or the client has not", |upstreams| {
        let server = &upstreams[0];
        lapsed.set(lapsed.get() || server.standing != "accepted" || server.reason.is_some());
        server.connections.verified > verified && judge.judged.load(Ordering::SeqCst) > judged
    })?;
    ensure!(
        !lapsed.get(),
        "the server was not accepted all the time: {:?}",
        proxy.upstreams()?
    );
    Ok(())
}

/// The certificate that new connections see.
fn certificate(address: &Address) -> Result<Vec<u8>> {
    let session = Connector::new(Options::new(Trust::InsecureNoTee))?.connect(address)?;
    Ok(session.certificate().unwrap_or_default().to_vec())
}

/// Asks until it is over. Every answer must be the first one's like.
fn again_and_again(over: &AtomicBool, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let expected = ask()?;
    ensure!(!expected.is_empty(), "an answer is empty");
    while !over.load(Ordering::SeqCst) {
        let answer = ask()?;
        ensure!(
            answer == expected,
            "an answer is {answer:?}, and was {expected:?}"
        );
    }
    Ok(())
}

/// The text of a stream of events, which must be whole.
fn streamed_text(stream: &str) -> Result<String> {
    ensure!(
        stream.trim_end().ends_with("data: [DONE]"),
        "a stream through the proxy is cut: {stream}"
    );
    let mut text = String::new();
    for event in stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"))
    {
        let chunk: Value = serde_json::from_str(&format!("{{{event}"))?;
        text += chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default();
    }
    Ok(text)
}

/// The same answer to a client of its own.
fn chat(client: &mut Client) -> Result<String> {
    let model = client.models()?.into_iter().next();
    let request = ChatRequest {
        model: model.map(|model| model.id).unwrap_or_default(),
        messages: vec![Message::new("user", PROMPT)],
        sampling: Sampling {
            max_tokens: Some(TOKENS),
            temperature: Some(0.0),
            ..Sampling::default()
        },
        thinking: None,
    };
    let mut text = String::new();
    for chunk in client.chat_stream(&request)? {
        for choice in chunk?.choices {
            text += &choice.delta.content.unwrap_or_default();
        }
    }
    Ok(text)
}

/// Counts what it judges.
struct Counting {
    pinned: Arc<dyn Judge>,
    judged: AtomicUsize,
}

impl Judge for Counting {
    fn verifier(&self) -> Verifier {
        self.pinned.verifier()
    }

    fn collateral(&self, quote: &[u8]) -> core::result::Result<Collateral, Code> {
        self.pinned.collateral(quote)
    }

    fn owner(&self) -> Option<PublicKey> {
        self.pinned.owner()
    }

    fn judged(&self, report: &Report) {
        self.judged.fetch_add(1, Ordering::SeqCst);
        self.pinned.judged(report);
    }
}
