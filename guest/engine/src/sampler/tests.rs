use alloc::vec;
use alloc::vec::Vec;

use kernels::{Isa, Kernels};
use proptest::prelude::*;

use super::*;

fn sample(sampling: &Sampling, prompt: &[u32], logits: &[f32]) -> u32 {
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    Sampler::new(sampling.clone(), prompt)
        .sample(kernels, &mut logits.to_vec())
        .0
}

/// How often each token is drawn with seeds `0..4000`.
fn frequencies(sampling: &Sampling, logits: &[f32]) -> Vec<f32> {
    let mut counts = vec![0.0; logits.len()];
    for seed in 0..4000 {
        counts[sample(
            &Sampling {
                seed,
                ..sampling.clone()
            },
            &[],
            logits,
        ) as usize] += 1.0 / 4000.0;
    }
    counts
}

fn close(got: &[f32], expected: &[f32]) -> bool {
    got.iter()
        .zip(expected)
        .all(|(got, expected)| (got - expected).abs() < 0.03)
}

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn draws_follow_the_distribution() {
    let p = [0.4, 0.1, 0.3, 0.2];
    let l = logits(&p);
    let base = Sampling::default();
    assert!(close(&frequencies(&base, &l), &p));
    // Squared and scaled to 1: temperature 1/2.
    let cold = Sampling {
        temperature: 0.5,
        ..base.clone()
    };
    assert!(close(
        &frequencies(&cold, &l),
        &[0.16 / 0.3, 0.01 / 0.3, 0.09 / 0.3, 0.04 / 0.3]
    ));
    let two = [0.4 / 0.7, 0.0, 0.3 / 0.7, 0.0];
    assert!(close(
        &frequencies(
            &Sampling {
                top_k: 2,
                ..base.clone()
            },
            &l
        ),
        &two
    ));
    assert!(close(
        &frequencies(
            &Sampling {
                top_p: 0.65,
                ..base.clone()
            },
            &l
        ),
        &two
    ));
    assert!(close(
        &frequencies(
            &Sampling {
                min_p: 0.6,
                ..base.clone()
            },
            &l
        ),
        &two
    ));
    // 0.4 is two thirds of what top-k leaves.
    let both = Sampling {
        top_k: 2,
        top_p: 0.5,
        ..base.clone()
    };
    assert_eq!(frequencies(&both, &l)[0].round(), 1.0);
    assert_eq!(sample(&Sampling { top_p: 0.0, ..base }, &[], &l), 0);
}

#[test]
fn greedy_takes_the_first_largest() {
    let greedy = Sampling::greedy();
    assert_eq!(sample(&greedy, &[], &[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(sample(&greedy, &[], &[f32::NAN, -1.0, f32::NAN]), 1);
}

#[test]
fn hostile_logits_choose_something() {
    for temperature in [0.0, 1e-38, 1.0, 1e38] {
        let sampling = Sampling {
            temperature,
            top_p: 0.9,
            top_k: 3,
            min_p: 0.1,
            logprobs: Some(2),
            ..Sampling::default()
        };
        for logits in [
            [f32::NAN; 4],
            [f32::NEG_INFINITY; 4],
            [f32::INFINITY; 4],
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0],
            [f32::MAX, f32::MIN, 0.0, -0.0],
        ] {
            assert!(sample(&sampling, &[1, 9], &logits) < 4);
        }
    }
    assert_eq!(
        sample(&Sampling::default(), &[], &[0.0, f32::INFINITY, f32::NAN]),
        1
    );
}

#[test]
fn bias_and_penalties_change_the_choice() {
    let greedy = Sampling::greedy();
    let l = [2.0, 1.9, -1.0];
    assert_eq!(
        sample(
            &Sampling {
                logit_bias: vec![(2, 5.0), (7, 9.0)],
                ..greedy.clone()
            },
            &[],
            &l
        ),
        2
    );
    assert_eq!(
        sample(
            &Sampling {
                logit_bias: vec![(0, f32::NEG_INFINITY)],
                ..greedy.clone()
            },
            &[],
            &l
        ),
        1
    );
    // The prompt counts for repetition only.
    assert_eq!(
        sample(
            &Sampling {
                repetition_penalty: 1.2,
                ..greedy.clone()
            },
            &[0],
            &l
        ),
        1
    );
    assert_eq!(
        sample(
            &Sampling {
                presence_penalty: 1.0,
                frequency_penalty: 1.0,
                ..greedy.clone()
            },
            &[0],
            &l
        ),
        0
    );

    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let choices = |sampling: Sampling| {
        let mut sampler = Sampler::new(sampling, &[]);
        [(); 5].map(|()| sampler.sample(kernels, &mut [2.0, 1.5, -9.0]).0)
    };
    assert_eq!(
        choices(Sampling {
            presence_penalty: 1.0,
            ..greedy.clone()
        }),
        [0, 1, 0, 0, 0]
    );
    assert_eq!(
        choices(Sampling {
            frequency_penalty: 1.0,
            ..greedy.clone()
        }),
        [0, 1, 0, 1, 0]
    );
    assert_eq!(
        choices(Sampling {
            repetition_penalty: 2.0,
            ..greedy
        }),
        [0, 1, 0, 0, 0]
    );
}

#[test]
fn logprobs_are_those_of_the_model() {
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let sampling = Sampling {
        logprobs: Some(2),
        logit_bias: vec![(1, 100.0)],
        ..Sampling::greedy()
    };
    let mut sampler = Sampler::new(sampling, &[]);
    let (token, logprobs) = sampler.sample(kernels, &mut logits(&[0.5, 0.125, 0.25, 0.125]));
    let logprobs = logprobs.unwrap();
    let close = |logprob: Logprob, token, p: f32| {
        logprob.token == token && (logprob.logprob - p.ln()).abs() < 1e-5
    };
    assert!(
        token == 1 && close(logprobs.chosen, 1, 0.125),
        "{logprobs:?}"
    );
    assert!(
        logprobs.top.len() == 2
            && close(logprobs.top[0], 0, 0.5)
            && close(logprobs.top[1], 2, 0.25)
    );
}

#[test]
fn parameters_out_of_range_are_named() {
    let base = Sampling::default();
    assert_eq!(base.invalid(), None);
    assert_eq!(
        Sampling {
            temperature: -0.1,
            ..base.clone()
        }
        .invalid(),
        Some("temperature")
    );
    assert_eq!(
        Sampling {
            temperature: f32::NAN,
            ..base.clone()
        }
        .invalid(),
        Some("temperature")
    );
    assert_eq!(
        Sampling {
            top_p: 1.1,
            ..base.clone()
        }
        .invalid(),
        Some("top_p")
    );
    assert_eq!(
        Sampling {
            repetition_penalty: 0.0,
            ..base.clone()
        }
        .invalid(),
        Some("repetition_penalty")
    );
    assert_eq!(
        Sampling {
            logit_bias: vec![(0, f32::NAN)],
            ..base
        }
        .invalid(),
        Some("logit_bias")
    );
}

proptest! {
    /// The partial sort of top-p against the definition.
    #[test]
    fn top_p_is_that_of_a_full_sort(
        weights in proptest::collection::vec(0.0f32..1.0, 1..900),
        probability in 0.0f32..1.0,
        top_k in 0usize..1000,
    ) {
        let mut candidates = Vec::new();
        nucleus::collect(&logits(&weights), 1.0, &mut candidates);
        let mut expected = candidates.clone();
        if top_k > 0 {
            expected.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
            expected.truncate(top_k);
        }
        let total: f64 = expected.iter().map(|candidate| f64::from(candidate.weight)).sum();
        expected.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
        let mut sum = 0.0;
        let kept = expected.iter().take_while(|candidate| {
            let take = sum < total * f64::from(probability);
            sum += f64::from(candidate.weight);
            take
        });
        let expected: Vec<Candidate> = kept.copied().collect();

        nucleus::keep_top_k(&mut candidates, top_k);
        nucleus::keep_top_p(&mut candidates, probability);
        // The most probable one always stays.
        prop_assert_eq!(&candidates[..expected.len()], &expected[..]);
        prop_assert_eq!(candidates.len(), expected.len().max(1));
    }
}
