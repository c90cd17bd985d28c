//! An engine whose every answer is known: tokens are bytes, and the answer to a prompt is the prompt
//! backwards.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use server::inference::{
    Conversation, Event, FinishReason, Generation, Inference, ModelFacts, Role, SequenceId,
    SubmitError, TokenLogprobs,
};

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct Script {
    /// How long a step takes.
    pub step: Duration,
    /// Sequences that run at a time; more are queued.
    pub running: usize,
    /// Sequences taken on at all.
    pub capacity: usize,
    /// Answers go on until they reach their token limit.
    pub endless: bool,
    pub context: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            step: Duration::ZERO,
            running: 8,
            capacity: 1000,
            endless: false,
            context: 512,
        }
    }
}

/// What the engine has seen, for the test to look at.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    generations: Vec<Generation>,
    conversations: Vec<Conversation>,
    live: usize,
    cancelled: usize,
}

impl Watch {
    pub fn last_generation(&self) -> Generation {
        self.0
            .lock()
            .unwrap()
            .generations
            .last()
            .expect("a generation")
            .clone()
    }

    pub fn last_conversation(&self) -> Conversation {
        self.0
            .lock()
            .unwrap()
            .conversations
            .last()
            .expect("a conversation")
            .clone()
    }

    pub fn live(&self) -> usize {
        self.0.lock().unwrap().live
    }

    pub fn cancelled(&self) -> usize {
        self.0.lock().unwrap().cancelled
    }
}

struct Sequence {
    generation: Generation,
    produced: usize,
    events: Vec<Event>,
    over: bool,
}

pub struct Engine {
    facts: ModelFacts,
    script: Script,
    watch: Watch,
    sequences: BTreeMap<u64, Sequence>,
    next: u64,
}

impl Engine {
    pub fn new(script: Script, watch: Watch) -> Self {
        let facts = ModelFacts {
            name: "Tiny Qwen3".into(),
            context: script.context,
            vocabulary: 256,
        };
        Self {
            facts,
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
    fn step(&mut self, endless: bool) {
        let prompt = &self.generation.prompt;
        let finished = |reason| Event::Finished {
            reason,
            text: String::new(),
        };
        if prompt.starts_with(b"fail".map(u32::from).as_slice()) {
            self.events.push(finished(FinishReason::Failed));
            self.over = true;
            return;
        }
        let position = self.produced % prompt.len();
        if self.produced == prompt.len() && !endless {
            self.events.push(finished(FinishReason::Stop));
            self.over = true;
            return;
        }
        let id = prompt[prompt.len() - 1 - position];
        let byte = u8::try_from(id).expect("a byte");
        self.events.push(Event::Token {
            id,
            text: char::from(byte).into(),
            logprobs: self.generation.logprobs.map(|count| TokenLogprobs {
                chosen: -0.5,
                top: (0..count)
                    .map(|n| (b'a' as u32 + n as u32, -1.0 - n as f32))
                    .collect(),
            }),
        });
        self.produced += 1;
        if self.produced == self.generation.max_tokens {
            self.events.push(finished(FinishReason::Length));
            self.over = true;
        }
    }
}

impl Inference for Engine {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    fn encode_chat(&self, conversation: &Conversation) -> Vec<u32> {
        self.watch
            .0
            .lock()
            .unwrap()
            .conversations
            .push(conversation.clone());
        let spoken = conversation
            .messages
            .iter()
            .filter(|message| message.role != Role::System);
        spoken
            .flat_map(|message| self.encode(&message.content))
            .collect()
    }

    fn token_bytes(&self, id: u32) -> Vec<u8> {
        vec![u8::try_from(id).expect("a byte")]
    }

    fn queued(&self) -> usize {
        self.unfinished().saturating_sub(self.script.running)
    }

    fn submit(&mut self, generation: Generation) -> Result<SequenceId, SubmitError> {
        if self.unfinished() >= self.script.capacity {
            return Err(SubmitError::QueueFull);
        }
        self.watch
            .0
            .lock()
            .unwrap()
            .generations
            .push(generation.clone());
        self.next += 1;
        let sequence = Sequence {
            generation,
            produced: 0,
            events: Vec::new(),
            over: false,
        };
        self.sequences.insert(self.next, sequence);
        self.report();
        Ok(SequenceId(self.next))
    }

    fn step(&mut self) -> bool {
        let (running, endless) = (self.script.running, self.script.endless);
        let live = self
            .sequences
            .values_mut()
            .filter(|sequence| !sequence.over);
        let mut stepped = false;
        for sequence in live.take(running) {
            sequence.step(endless);
            stepped = true;
        }
        if stepped {
            std::thread::sleep(self.script.step);
        }
        stepped
    }

    fn take_events(&mut self, sequence: SequenceId) -> Vec<Event> {
        let Some(found) = self.sequences.get_mut(&sequence.0) else {
            panic!("events of a sequence that does not exist");
        };
        let events = std::mem::take(&mut found.events);
        if found.over {
            self.sequences.remove(&sequence.0);
            self.report();
        }
        events
    }

    fn cancel(&mut self, sequence: SequenceId) {
        assert!(
            self.sequences.remove(&sequence.0).is_some(),
            "cancelled twice"
        );
        self.watch.0.lock().unwrap().cancelled += 1;
        self.report();
    }
}
