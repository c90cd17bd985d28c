//! The image in the emulator, and clients that ask it for answers.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use client::{Address, Connector, Options, Request, Response, Session, Trust};
use serde::Deserialize;
use serde_json::{Value, json};

use super::workload::Workload;
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::{Counters, Guest, Ready, Setup};

/// From the start to ready, with a model of a gigabyte on a busy machine.
const READY: Duration = Duration::from_secs(900);
/// For a connection, each step of its handshake, and fresh evidence.
const CONNECT: Duration = Duration::from_secs(120);
/// For an answer; one that is not streamed is silent until it is complete.
const ANSWER: Duration = Duration::from_secs(3600);
/// Memory besides the model: the guest's own, and keys and values of as many answers as are computed together.
const MEMORY_MIB: u64 = 1536;
/// What the first piece of a streamed answer contains.
const FIRST_PIECE: &[u8] = b"token_ids";
/// Bytes of an answer.
const BODY_LIMIT: usize = 16 << 20;

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In one piece when it is complete: nothing is encrypted while it is computed.
    Whole,
    /// Every token at once in a record of its own.
    Streamed,
}

/// What the trust domain's first CPU spends its time on.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// In the engine, with all CPUs.
    pub computing: Duration,
    /// On everything else, while the engine waits.
    pub serving: Duration,
}

/// A trust domain that serves.
pub struct Served {
    guest: Guest,
    pub ready: Ready,
    address: Address,
    model: String,
}

impl Served {
    /// Boots the image in the emulator.
    pub fn boot(vitrine: &Path, image: &Path, workload: &Workload) -> Result<Self> {
        let model = std::fs::metadata(&workload.model).context("look at the model")?;
        let memory = (model.len() >> 20) + MEMORY_MIB;
        let mut emulator = vec!["--sept", "2m"];
        if !workload.huge_pages {
            emulator.push("--small-pages");
        }
        let mut guest = Guest::start(&Setup {
            backend: "emulator",
            emulator: &emulator,
            memory_mib: Some(u32::try_from(memory).context("count the memory")?),
            ..Setup::new(vitrine, image, Some(&workload.model), workload.cpus)
        })?;
        let ready = guest.wait_ready(READY, || {})?;
        let models = guest.client()?.models()?;
        let model = models.into_iter().next();
        let model = model.ok_or_else(|| Failure::new("the guest offers no model"))?;
        Ok(Self {
            address: guest.tcp(),
            guest,
            ready,
            model: model.id,
        })
    }

    /// What the emulator counts.
    pub fn counters(&mut self) -> Result<Counters> {
        self.guest.counters()
    }

    /// What the trust domain's first CPU has spent awake so far, by its own clock.
    pub fn load(&self) -> Result<Load> {
        let health = self.guest.client()?.health()?;
        let told = |field: Option<u64>| {
            field.ok_or_else(|| Failure::new("the guest does not say what it spends its time on"))
        };
        Ok(Load {
            computing: Duration::from_millis(told(health.computing_ms)?),
            serving: Duration::from_millis(told(health.serving_ms)?),
        })
    }

    /// Fails if it does not run any more.
    pub fn check_alive(&mut self) -> Result<()> {
        self.guest.check_alive()
    }

    /// The way to it, for any number of connections at once.
    pub fn front(&self) -> Result<Front> {
        let mut options = Options::new(Trust::InsecureNoTee);
        options.connect_timeout = CONNECT;
        options.answer_timeout = ANSWER;
        Ok(Front {
            connector: Connector::new(options)?,
            address: self.address.clone(),
            model: self.model.clone(),
        })
    }

    /// Has `streams` answers of `tokens` tokens computed together. How long until the last of them is complete; and the tokens of
    /// one of them, which are the same in all.
    pub fn ask(
        &self,
        workload: &Workload,
        streams: u32,
        tokens: u32,
        delivery: Delivery,
    ) -> Result<(Duration, Vec<u32>)> {
        let front = self.front()?;
        let prompt = workload.prompt();
        let body = front.question(&prompt, tokens, delivery)?;
        let sessions = (0..streams).map(|_| front.connect());
        let sessions = sessions.collect::<Result<Vec<_>>>()?;
        // All connections stand before the first question is asked.
        let start = Barrier::new(sessions.len());
        let answers = thread::scope(|scope| {
            let clients: Vec<_> = sessions
                .into_iter()
                .map(|session| {
                    scope.spawn(|| {
                        start.wait();
                        let asked = Instant::now();
                        let text = answer(session, &body)?;
                        Ok((asked.elapsed(), token_ids(&text, delivery)?))
                    })
                })
                .collect();
            let answers = clients.into_iter().map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("a client panicked")))
            });
            answers.collect::<Result<Vec<_>>>()
        })?;
        let (mut longest, mut first) = (Duration::ZERO, None);
        for (time, ids) in answers {
            longest = longest.max(time);
            let expected = first.get_or_insert_with(|| ids.clone());
            ensure!(ids == *expected, "equal questions got different answers");
            ensure!(
                ids.len() == tokens as usize,
                "an answer of {} tokens, not {tokens}",
                ids.len()
            );
        }
        Ok((longest, first.unwrap_or_default()))
    }

    /// How long `streams` answers take from their first token to their last: the time of whole answers without that of answers of one
    /// token. And the tokens.
    pub fn decode(
        &self,
        workload: &Workload,
        streams: u32,
        delivery: Delivery,
    ) -> Result<(Duration, Vec<u32>)> {
        let (prefill, _) = self.ask(workload, streams, 1, delivery)?;
        let (all, tokens) = self.ask(workload, streams, workload.tokens, delivery)?;
        Ok((all.saturating_sub(prefill), tokens))
    }
}

/// The way to a server.
pub struct Front {
    connector: Connector,
    address: Address,
    model: String,
}

impl Front {
    /// A new connection, its handshake done.
    pub fn connect(&self) -> Result<Session> {
        Ok(self.connector.connect(&self.address)?)
    }

    /// The request for an answer that has exactly `tokens` tokens.
    pub fn question(&self, prompt: &[u32], tokens: u32, delivery: Delivery) -> Result<Vec<u8>> {
        let body = json!({
            "model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true,
            "return_token_ids": true, "stream": delivery == Delivery::Streamed,
        });
        Ok(serde_json::to_vec(&body)?)
    }
}

/// Asks a question whose answer comes in pieces; returns once the first token is there.
pub fn first_token(session: Session, question: &[u8]) -> Result<Response> {
    let mut response = session.request(&Request::post("/v1/completions", question))?;
    ensure!(
        response.status() == 200,
        "the guest answers {}",
        response.status()
    );
    let (mut part, mut seen) = (Vec::new(), Vec::new());
    while !seen
        .windows(FIRST_PIECE.len())
        .any(|bytes| bytes == FIRST_PIECE)
    {
        response.read_part(&mut part)?;
        ensure!(
            !part.is_empty(),
            "the answer ends before its first token: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&part);
    }
    Ok(response)
}

/// The whole answer to a question.
fn answer(session: Session, body: &[u8]) -> Result<String> {
    let mut response = session.request(&Request::post("/v1/completions", body))?;
    let status = response.status();
    let text = String::from_utf8_lossy(&response.read_whole(BODY_LIMIT)?).into_owned();
    ensure!(status == 200, "the guest answers {status}: {text}");
    Ok(text)
}

/// The tokens of an answer.
fn token_ids(text: &str, delivery: Delivery) -> Result<Vec<u32>> {
    #[derive(Deserialize)]
    struct Piece {
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        #[serde(default)]
        token_ids: Option<Vec<u32>>,
    }
    let pieces: Vec<Piece> = match delivery {
        Delivery::Whole => vec![serde_json::from_str(text)?],
        Delivery::Streamed => text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| {
                // An error in the middle of a stream has no choices.
                serde_json::from_str(data).map_err(|_| Failure::new(error_in(data)))
            })
            .collect::<Result<_>>()?,
    };
    let choices = pieces.into_iter().flat_map(|piece| piece.choices);
    Ok(choices
        .filter_map(|choice| choice.token_ids)
        .flatten()
        .collect())
}

fn error_in(data: &str) -> String {
    let value: Value = serde_json::from_str(data).unwrap_or_default();
    format!("the guest breaks off: {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_either_form() {
        let whole = r#"{"choices":[{"text":"ab","token_ids":[1,2]}]}"#;
        assert_eq!(token_ids(whole, Delivery::Whole).unwrap(), [1, 2]);
        let streamed = "data: {\"choices\":[{\"token_ids\":[1]}]}\n\ndata: {\"choices\":[{\"text\":\"b\",\"token_ids\":[2]}]}\n\n\
                        data: {\"choices\":[{\"token_ids\":null}]}\n\ndata: [DONE]\n\n";
        assert_eq!(token_ids(streamed, Delivery::Streamed).unwrap(), [1, 2]);
        let broken = "data: {\"error\":{\"message\":\"late\"}}\n\n";
        assert!(token_ids(broken, Delivery::Streamed).is_err());
    }
}
