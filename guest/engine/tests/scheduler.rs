//! The engine's manners: limits, events, stop texts, cancellation, memory.

mod common;

use common::model::{SMALL, writer};
use common::{Aligned, threads::Threads};
use engine::model::Model;
use engine::{
    Engine, EngineError, EngineOptions, Event, FinishReason, KvFormat, Request, Sampling,
    SequenceId, SingleThread, SubmitError, Usage,
};
use kernels::{Isa, Kernels};

fn kernels() -> &'static Kernels {
    Kernels::for_isa(Isa::Scalar).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions {
        context: 64,
        max_sequences: 2,
        queue: 2,
        chunk: 16,
        ..EngineOptions::default()
    }
}

/// Calls `test` with an engine of these options over the small model.
fn with_engine(options: &EngineOptions, test: impl FnOnce(Engine<'_, SingleThread>)) {
    let file = Aligned::new(&writer(&SMALL).finish().1);
    let model = Model::load(file.bytes()).unwrap();
    test(Engine::new(model, kernels(), SingleThread, options).unwrap());
}

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens,
        sampling: Sampling::greedy(),
        ignore_end: true,
    }
}

/// Runs until nothing is left to do; the tokens, text and end of one sequence.
fn run(
    engine: &mut Engine<'_, SingleThread>,
    id: SequenceId,
) -> (Vec<u32>, String, Option<(FinishReason, Usage)>) {
    let (mut tokens, mut answer, mut end) = (Vec::new(), String::new(), None);
    loop {
        let worked = engine.step();
        for event in engine.take_events(id) {
            assert!(end.is_none(), "nothing comes after the end");
            match event {
                Event::Token { id, text, .. } => {
                    tokens.push(id);
                    answer.push_str(&text);
                }
                Event::Finished { reason, usage } => end = Some((reason, usage)),
            }
        }
        if !worked {
            return (tokens, answer, end);
        }
    }
}

#[test]
fn an_answer_ends_at_its_length_and_its_text_is_whole() {
    with_engine(&options(), |mut engine| {
        let id = engine.submit(request(&[1, 2, 3], 10)).unwrap();
        let (tokens, text, end) = run(&mut engine, id);
        let usage = Usage {
            prompt_tokens: 3,
            completion_tokens: 10,
        };
        assert_eq!(
            (tokens.len(), end),
            (10, Some((FinishReason::Length, usage)))
        );
        assert_eq!(text, engine.model().tokenizer().decode(&tokens));
        // The context ends it, too.
        let id = engine.submit(request(&[1; 60], 1000)).unwrap();
        assert_eq!(run(&mut engine, id).2.unwrap().1.completion_tokens, 4);
        assert!(engine.take_events(id).is_empty());
    });
}

#[test]
fn an_end_token_ends_the_answer() {
    with_engine(&options(), |mut engine| {
        let end = engine
            .model()
            .tokenizer()
            .added_token("<|im_end|>")
            .unwrap();
        let sampling = Sampling {
            logit_bias: vec![(end, 1e9)],
            ..Sampling::greedy()
        };
        let mut request = Request {
            sampling,
            ignore_end: false,
            ..request(&[5], 10)
        };
        let id = engine.submit(request.clone()).unwrap();
        let usage = Usage {
            prompt_tokens: 1,
            completion_tokens: 1,
        };
        assert_eq!(
            run(&mut engine, id),
            (vec![end], String::new(), Some((FinishReason::Stop, usage)))
        );
        request.ignore_end = true;
        let id = engine.submit(request).unwrap();
        assert_eq!(run(&mut engine, id).0, [end; 10]);
    });
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    with_engine(&options(), |mut engine| {
        // The bias makes it say `l` forever, which is no stop text; three of them are.
        let bias = vec![(u32::from(b'l'), 1e9)];
        let stop = vec!["lll".into(), "x".into()];
        let sampling = Sampling {
            logit_bias: bias,
            stop,
            ..Sampling::greedy()
        };
        let id = engine
            .submit(Request {
                sampling: sampling.clone(),
                ..request(&[5], 10)
            })
            .unwrap();
        let (tokens, text, end) = run(&mut engine, id);
        assert_eq!(
            (tokens.len(), text.as_str(), end.unwrap().0),
            (3, "", FinishReason::Stop)
        );
        // What was held back comes when the answer ends for another reason.
        let id = engine
            .submit(Request {
                sampling,
                ..request(&[5], 2)
            })
            .unwrap();
        assert_eq!(run(&mut engine, id).1, "ll");
    });
}

#[test]
fn what_cannot_be_done_is_refused() {
    with_engine(&options(), |mut engine| {
        assert_eq!(
            engine.submit(request(&[], 1)),
            Err(SubmitError::EmptyPrompt)
        );
        assert_eq!(
            engine.submit(request(&[0; 64], 1)),
            Err(SubmitError::PromptTooLong {
                tokens: 64,
                limit: 64
            })
        );
        assert_eq!(
            engine.submit(request(&[1, 9999], 1)),
            Err(SubmitError::UnknownToken(9999))
        );
        assert_eq!(
            engine.submit(request(&[1], 0)),
            Err(SubmitError::Invalid("max_tokens"))
        );
        let sampling = Sampling {
            top_p: 2.0,
            ..Sampling::greedy()
        };
        assert_eq!(
            engine.submit(Request {
                sampling,
                ..request(&[1], 1)
            }),
            Err(SubmitError::Invalid("top_p"))
        );
        assert!(!engine.step());
    });
}

#[test]
fn the_queue_is_bounded_and_cancelling_frees_everything() {
    with_engine(&options(), |mut engine| {
        let free = engine.free_kv_tokens();
        let ids: Vec<_> = (0..4)
            .map(|_| engine.submit(request(&[7; 20], 40)).unwrap())
            .collect();
        assert_eq!((engine.active(), engine.queued()), (2, 2));
        assert_eq!(engine.submit(request(&[7], 1)), Err(SubmitError::QueueFull));
        assert!(engine.step());
        engine.cancel(ids[2]);
        engine.cancel(ids[0]);
        assert_eq!((engine.active(), engine.queued()), (1, 1));
        assert!(engine.step());
        assert_eq!((engine.active(), engine.queued()), (2, 0));
        let (tokens, ..) = run(&mut engine, ids[3]);
        assert_eq!(tokens.len(), 40);
        engine.cancel(ids[1]);
        assert!(engine.take_events(ids[1]).is_empty());
        assert_eq!(engine.free_kv_tokens(), free);
        assert!(!engine.step());
    });
}

#[test]
fn finished_answers_that_nobody_takes_are_bounded_too() {
    with_engine(&options(), |mut engine| {
        let mut accepted = 0;
        while engine.submit(request(&[1], 1)).is_ok() {
            accepted += 1;
            while engine.step() {}
            assert!(accepted < 100);
        }
        assert!(accepted >= 2);
    });
}

#[test]
fn a_sequence_starts_only_if_it_can_end() {
    // Room for one full sequence and a bit.
    let options = EngineOptions {
        kv_tokens: Some(64),
        ..options()
    };
    with_engine(&options, |mut engine| {
        let long = engine.submit(request(&[1; 30], 34)).unwrap();
        let other = engine.submit(request(&[2; 40], 24)).unwrap();
        let third = engine.submit(request(&[3; 40], 20)).unwrap();
        assert!(engine.active() < 3);
        assert_eq!(run(&mut engine, long).0.len(), 34);
        assert_eq!(engine.take_events(other).len(), 25);
        assert_eq!(engine.take_events(third).len(), 21);
    });
}

#[test]
fn prompts_and_answers_take_turns() {
    with_engine(&options(), |mut engine| {
        let first = engine.submit(request(&[1], 20)).unwrap();
        assert!(engine.step());
        assert_eq!(engine.take_events(first).len(), 1);
        // Three pieces of 16, 16 and 8 tokens, with a token of the running answer between them.
        let second = engine.submit(request(&[2; 40], 20)).unwrap();
        let mut steps = Vec::new();
        while steps.len() < 6 {
            assert!(engine.step());
            steps.push((
                engine.take_events(first).len(),
                engine.take_events(second).len(),
            ));
        }
        assert_eq!(steps, [(1, 0), (0, 0), (1, 0), (0, 0), (1, 0), (0, 1)]);
    });
}

#[test]
fn memory_is_known_before_it_is_taken() {
    let file = Aligned::new(&writer(&SMALL).finish().1);
    let model = Model::load(file.bytes()).unwrap();
    let required = |options: &EngineOptions, threads| model.memory_required(options, threads);
    // 2 layers, keys and values, 2 heads of 32 half floats: 512 bytes a token. 2 sequences of 64 tokens, and 2 pages.
    let cache = 512 * (2 * 64 + 2 * 32);
    let bytes = required(&options(), 1).unwrap();
    assert!(bytes > cache && bytes < cache + 200_000, "{bytes}");
    assert!(required(&options(), 4).unwrap() > bytes);
    assert!(
        required(
            &EngineOptions {
                kv: KvFormat::Q8_0,
                ..options()
            },
            1
        )
        .unwrap()
            < bytes
    );

    let huge = EngineOptions {
        kv_tokens: Some(usize::MAX),
        ..options()
    };
    assert!(matches!(
        Engine::new(model.clone(), kernels(), Threads(1), &huge).map(drop),
        Err(EngineError::Memory { .. })
    ));
    for (options, name) in [
        (
            EngineOptions {
                context: 0,
                ..options()
            },
            "context",
        ),
        (
            EngineOptions {
                chunk: 0,
                ..options()
            },
            "chunk",
        ),
        (
            EngineOptions {
                max_sequences: usize::MAX,
                ..options()
            },
            "max_sequences",
        ),
    ] {
        assert_eq!(required(&options, 1), Err(EngineError::Option(name)));
    }
}
