//! Every model and prompt of the oracle vectors, by the table of their README.

mod common;

use common::threads::Threads;
use common::vectors::{Case, argmax, cases, relative_rms};
use engine::model::Model;
use engine::{EngineOptions, Session};
use kernels::{Isa, Kernels};

/// Judges one way of computing; returns the worst relative error of a prompt.
fn judge(case: &Case, isa: Isa, threads: usize, chunk: usize, forced: usize) -> f64 {
    let kernels = Kernels::for_isa(isa).unwrap();
    let options = EngineOptions {
        context: 700,
        max_sequences: 1,
        chunk,
        ..EngineOptions::default()
    };
    let model = Model::load(case.file.bytes()).unwrap();
    let mut session = Session::new(model, kernels, Threads(threads), &options).unwrap();
    let mut worst = 0.0f64;
    for prompt in &case.prompts {
        let what = format!(
            "{} {isa} threads {threads} chunk {chunk} prompt {}",
            case.name, prompt.id
        );
        session.clear();
        let mut logits = session.feed(&prompt.tokens).unwrap();
        let error = relative_rms(logits, &prompt.logits);
        assert!(error <= case.tolerance, "{what}: relRMS {error}");
        worst = worst.max(error);
        for ((&token, &margin), step) in prompt.greedy.iter().zip(&prompt.margins).zip(0..forced) {
            if margin > case.margin {
                assert_eq!(
                    argmax(logits),
                    token,
                    "{what}: step {step}, margin {margin}"
                );
            }
            logits = session.feed(&[token]).unwrap();
        }
    }
    println!(
        "{} {isa} threads {threads} chunk {chunk}: worst relRMS {worst:.5}",
        case.name
    );
    worst
}

fn instruction_sets() -> Vec<Isa> {
    [Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter(|isa| isa.is_supported())
        .collect()
}

#[test]
fn whole_prompts_and_all_greedy_steps() {
    for case in cases() {
        for isa in instruction_sets() {
            judge(&case, isa, 1, 1024, 32);
        }
    }
}

#[test]
fn prompts_in_chunks_and_on_threads() {
    for case in cases() {
        for isa in instruction_sets() {
            judge(&case, isa, 2, 48, 1);
            judge(&case, isa, 4, 7, 1);
        }
    }
}

#[test]
fn token_by_token() {
    for case in cases() {
        for isa in instruction_sets() {
            judge(&case, isa, 1, 1, 0);
        }
    }
}
