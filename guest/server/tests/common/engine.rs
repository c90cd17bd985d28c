//! An engine whose every answer is known: tokens are bytes, and the answer is the prompt backwards, or,
//! in a conversation, what its last user said.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use engine::{Event, FinishReason, Logprob, Request, SubmitError, TokenLogprobs, Usage};
use server::Inference;

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct Script {
    /// How long a step takes.
    pub step: Duration,
    /// Sequences taken on at all.
    pub capacity: usize,
    /// Answers go on until they reach their token limit.
    pub endless: bool,
    /// Longest sequence, in tokens.
    pub context: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            step: Duration::ZERO,
            capacity: 1000,
            endless: false,
            context: 1024,
        }
    }
}

/// What the engine has seen, for the test to look at.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    live: usize,
    cancelled: usize,
}

impl Watch {
    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.0.lock().unwrap().requests.clone()
    }

    pub fn last_request(&self) -> Request {
        self.requests().pop().expect("a request")
    }

    /// The prompt of the last request, as text.
    pub fn last_prompt(&self) -> String {
        text_of(&self.last_request().prompt)
    }

    pub fn live(&self) -> usize {
        self.0.lock().unwrap().live
    }

    pub fn cancelled(&self) -> usize {
        self.0.lock().unwrap().cancelled
    }
}

fn text_of(tokens: &[u32]) -> String {
    let bytes = tokens
        .iter()
        .map(|&token| u8::try_from(token).expect("a byte"))
        .collect();
    String::from_utf8(bytes).expect("text")
}

/// All tokens, in order.
static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut index = 0;
    while index < 256 {
        bytes[index] = index as u8;
        index += 1;
    }
    bytes
};

struct Sequence {
    request: Request,
    answer: Vec<u32>,
    produced: usize,
    events: Vec<Event>,
    over: bool,
}

pub struct Engine {
    script: Script,
    watch: Watch,
    sequences: BTreeMap<u64, Sequence>,
    next: u64,
}

impl Engine {
    pub fn new(script: Script, watch: Watch) -> Self {
        Self {
            script,
            watch,
            sequences: BTreeMap::new(),
            next: 0,
        }
    }

    fn unfinished(&self) -> usize {
        self.sequences
            .values()
            .filter(|sequence| !sequence.over)
            .count()
    }

    fn report(&self) {
        self.watch.0.lock().unwrap().live = self.sequences.len();
    }
}

impl Sequence {
    fn new(request: Request) -> Self {
        let last_said = text_of_said(&request.prompt);
        let mut answer = last_said.unwrap_or_else(|| request.prompt.clone());
        answer.reverse();
        Self {
            request,
            answer,
            produced: 0,
            events: Vec::new(),
            over: false,
        }
    }

    fn step(&mut self, endless: bool) {
        let over = self.produced == self.answer.len() && !endless;
        if !over {
            let id = self.answer[self.produced % self.answer.len()];
            let entry = |token: u32, logprob| Logprob { token, logprob };
            self.events.push(Event::Token {
                id,
                text: char::from(BYTES[id as usize]).into(),
                logprobs: self.request.sampling.logprobs.map(|count| TokenLogprobs {
                    chosen: entry(id, -0.5),
                    top: (0..count)
                        .map(|n| entry(97 + n as u32, -1.0 - n as f32))
                        .collect(),
                }),
            });
            self.produced += 1;
        }
        let full = self.produced == self.request.max_tokens;
        if over || full {
            self.over = true;
            self.events.push(Event::Finished {
                reason: if over {
                    FinishReason::Stop
                } else {
                    FinishReason::Length
                },
                usage: Usage {
                    prompt_tokens: self.request.prompt.len(),
                    completion_tokens: self.produced,
                },
            });
        }
    }
}

/// What the last user said, if the prompt is a conversation.
fn text_of_said(prompt: &[u32]) -> Option<Vec<u32>> {
    let bytes: Option<Vec<_>> = prompt
        .iter()
        .map(|&token| u8::try_from(token).ok())
        .collect();
    let text = String::from_utf8(bytes?).ok()?;
    let (_, said) = text.rsplit_once("<|im_start|>user\n")?;
    let (said, _) = said.split_once("<|im_end|>")?;
    Some(said.bytes().map(u32::from).collect())
}

impl Inference for Engine {
    type Sequence = u64;

    fn name(&self) -> &str {
        "Tiny Qwen3"
    }

    fn context(&self) -> usize {
        self.script.context
    }

    fn vocabulary_size(&self) -> usize {
        256
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    fn token_bytes(&self, token: u32) -> &[u8] {
        let token = token as usize;
        BYTES.get(token..=token).unwrap_or_default()
    }

    fn submit(&mut self, request: Request) -> Result<u64, SubmitError> {
        if self.unfinished() >= self.script.capacity {
            return Err(SubmitError::QueueFull);
        }
        self.watch.0.lock().unwrap().requests.push(request.clone());
        self.next += 1;
        self.sequences.insert(self.next, Sequence::new(request));
        self.report();
        Ok(self.next)
    }

    fn step(&mut self) -> bool {
        let endless = self.script.endless;
        let mut stepped = false;
        for sequence in self
            .sequences
            .values_mut()
            .filter(|sequence| !sequence.over)
        {
            sequence.step(endless);
            stepped = true;
        }
        if stepped {
            std::thread::sleep(self.script.step);
        }
        stepped
    }

    fn take_events(&mut self, sequence: u64) -> Vec<Event> {
        let found = self
            .sequences
            .get_mut(&sequence)
            .expect("a sequence that exists");
        let events = std::mem::take(&mut found.events);
        if found.over {
            self.sequences.remove(&sequence);
            self.report();
        }
        events
    }

    fn cancel(&mut self, sequence: u64) {
        assert!(
            self.sequences.remove(&sequence).is_some(),
            "cancelled twice"
        );
        self.watch.0.lock().unwrap().cancelled += 1;
        self.report();
    }
}
