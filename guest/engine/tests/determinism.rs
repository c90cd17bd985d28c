//! The same tokens give the same logits, to the last bit, whatever they are computed with.

mod common;

use common::model::{SMALL, writer};
use common::threads::Threads;
use common::{Aligned, oracle_bytes};
use engine::model::Model;
use engine::{Engine, EngineOptions, Event, KvFormat, Request, Sampling, Session};
use kernels::{Isa, Kernels};
use proptest::prelude::*;

fn instruction_sets() -> Vec<Isa> {
    [Isa::Scalar, Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter(|isa| isa.is_supported())
        .collect()
}

/// A made-up model, and those of the vectors.
fn models() -> Vec<Aligned> {
    let names = [
        "engine/s1-F16.gguf",
        "engine/s1-Q8_0.gguf",
        "engine/s1-Q4_K_M.gguf",
        "engine/s2-Q4_K_M.gguf",
    ];
    let small = Aligned::new(&writer(&SMALL).finish().1);
    [small]
        .into_iter()
        .chain(names.into_iter().filter_map(oracle_bytes))
        .collect()
}

fn options(chunk: usize, kv: KvFormat) -> EngineOptions {
    EngineOptions {
        context: 200,
        max_sequences: 5,
        chunk,
        kv,
        ..EngineOptions::default()
    }
}

#[test]
fn chunks_and_threads_do_not_change_a_bit() {
    for file in models() {
        let model = Model::load(file.bytes()).unwrap();
        proptest!(ProptestConfig::with_cases(8), |(
            isa in proptest::sample::select(instruction_sets()),
            tokens in proptest::collection::vec(0u32..256, 2..90),
            cuts in proptest::collection::vec(1usize..40, 1..6),
            (chunk, threads) in (1usize..70, 1usize..5),
            kv in prop_oneof![Just(KvFormat::F16), Just(KvFormat::Q8_0)],
        )| {
            let kernels = Kernels::for_isa(isa).unwrap();
            let whole = {
                let mut session = Session::new(model.clone(), kernels, Threads(1), &options(128, kv)).unwrap();
                let mut all = Vec::new();
                session.feed_each(&tokens, |logits| all.push(logits.to_vec())).unwrap();
                all
            };
            let mut session = Session::new(model.clone(), kernels, Threads(threads), &options(chunk, kv)).unwrap();
            let mut rest = &tokens[..];
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                if piece.is_empty() { break }
                rest = after;
                let logits = session.feed(piece).unwrap();
                prop_assert!(same_bits(logits, &whole[tokens.len() - rest.len() - 1]));
            }
        });
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Every token's id and log-probability.
fn answers(
    model: &Model<'_>,
    kernels: &'static Kernels,
    threads: usize,
    options: &EngineOptions,
    requests: &[Request],
) -> Vec<Vec<(u32, u32)>> {
    let mut engine = Engine::new(model.clone(), kernels, Threads(threads), options).unwrap();
    let ids: Vec<_> = requests
        .iter()
        .map(|request| engine.submit(request.clone()).unwrap())
        .collect();
    while engine.step() {}
    ids.into_iter()
        .map(|id| {
            engine
                .take_events(id)
                .into_iter()
                .filter_map(|event| match event {
                    Event::Token { id, logprobs, .. } => {
                        Some((id, logprobs.unwrap().chosen.logprob.to_bits()))
                    }
                    Event::Finished { .. } => None,
                })
                .collect()
        })
        .collect()
}

#[test]
fn company_does_not_change_an_answer() {
    for file in models() {
        let model = Model::load(file.bytes()).unwrap();
        let request = (
            proptest::collection::vec(0u32..256, 1..60),
            1usize..12,
            any::<u64>(),
        )
            .prop_map(|(prompt, max_tokens, seed)| Request {
                prompt,
                max_tokens,
                sampling: Sampling {
                    temperature: 0.8,
                    top_p: 0.95,
                    seed,
                    logprobs: Some(0),
                    ..Sampling::default()
                },
                ignore_end: true,
            });
        proptest!(ProptestConfig::with_cases(4), |(
            isa in proptest::sample::select(instruction_sets()),
            requests in proptest::collection::vec(request, 2..9),
            (chunk, threads) in (1usize..70, 1usize..4),
        )| {
            let kernels = Kernels::for_isa(isa).unwrap();
            let together = answers(&model, kernels, threads, &options(chunk, KvFormat::F16), &requests);
            for (request, answer) in requests.iter().zip(together) {
                let alone = answers(&model, kernels, 1, &options(128, KvFormat::F16), std::slice::from_ref(request));
                prop_assert_eq!(alone[0].len(), request.max_tokens);
                prop_assert_eq!(&answer, &alone[0]);
            }
        });
    }
}
