//! Loading models, sound and not.

mod common;

use common::hostile::try_out;
use common::model::{LEAST, SMALL, Shape, writer};
use common::{Aligned, GgufWriter};
use engine::gguf::{Field, GgufError, Problem, TensorField};
use engine::model::{LoadError, Model};
use engine::{EngineOptions, Session, SingleThread};
use kernels::{Isa, Kernels};

/// What is wrong with the file, if anything.
fn problem(writer: &GgufWriter) -> Option<GgufError> {
    let file = Aligned::new(&writer.finish().1);
    let LoadError::Gguf(error) = Model::load(file.bytes()).err()?;
    Some(error)
}

#[test]
fn a_sound_model_loads() {
    for tied in [true, false] {
        let file = Aligned::new(&writer(&Shape { tied, ..SMALL }).finish().1);
        let model = Model::load(file.bytes()).unwrap();
        let config = model.config();
        assert_eq!(
            (
                config.layers,
                config.hidden,
                config.q_width(),
                config.kv_width()
            ),
            (2, 64, 128, 64)
        );
        assert_eq!(
            (config.context_length, config.epsilon, model.name()),
            (256, 1e-6, Some("small"))
        );
        let (embedding, output) = (&model.weights().embedding, &model.weights().output);
        assert_eq!(embedding.data.as_ptr() == output.data.as_ptr(), tied);
    }
}

#[test]
fn what_is_missing_is_named() {
    let tensors = [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_q_norm",
        "attn_k_norm",
        "attn_output",
    ];
    let tensors = tensors
        .into_iter()
        .chain(["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]);
    let tensors = tensors.map(|name| format!("blk.1.{name}.weight"));
    for name in tensors.chain(["token_embd.weight".into(), "output_norm.weight".into()]) {
        let error = problem(writer(&SMALL).remove(&name)).unwrap();
        assert_eq!(
            error,
            GgufError::tensor(&name, TensorField::Whole, Problem::Missing)
        );
    }
    for key in [
        "general.architecture",
        "qwen3.block_count",
        "qwen3.context_length",
        "qwen3.embedding_length",
        "qwen3.feed_forward_length",
        "qwen3.attention.head_count",
        "qwen3.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        assert_eq!(
            problem(writer(&SMALL).remove(key)).unwrap(),
            GgufError::key(key, Problem::Missing)
        );
    }
    // These have a default, with which the tensors of this model do not fit, or do.
    assert!(problem(writer(&SMALL).remove("qwen3.attention.key_length")).is_some());
    for key in [
        "general.name",
        "qwen3.rope.freq_base",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.eos_token_id",
    ] {
        assert_eq!(problem(writer(&SMALL).remove(key)), None);
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    type Change = for<'w> fn(&'w mut GgufWriter, &str) -> &'w mut GgufWriter;
    let cases: [(&str, Change); 14] = [
        ("general.architecture", |w, key| w.string(key, "llama")),
        ("split.count", |w, key| w.u32(key, 2)),
        ("qwen3.block_count", |w, key| w.u32(key, 0)),
        ("qwen3.embedding_length", |w, key| w.u32(key, u32::MAX)),
        ("qwen3.attention.head_count", |w, key| w.string(key, "4")),
        ("qwen3.attention.head_count_kv", |w, key| w.u32(key, 3)),
        ("qwen3.attention.key_length", |w, key| w.u32(key, 33)),
        ("qwen3.attention.value_length", |w, key| w.u32(key, 64)),
        ("qwen3.attention.layer_norm_rms_epsilon", |w, key| {
            w.f32(key, -1.0)
        }),
        ("qwen3.rope.freq_base", |w, key| w.f32(key, f32::NAN)),
        ("qwen3.rope.scaling.type", |w, key| {
            w.string(key, "longrope")
                .f32("qwen3.rope.scaling.factor", 2.0)
        }),
        ("qwen3.rope.scaling.factor", |w, key| {
            w.string("qwen3.rope.scaling.type", "yarn").f32(key, 0.0)
        }),
        ("tokenizer.ggml.token_type", |w, key| w.i32s(key, [1, 2])),
        ("tokenizer.ggml.eos_token_id", |w, key| w.u32(key, 100_000)),
    ];
    for (key, change) in cases {
        let mut writer = writer(&SMALL);
        change(writer.remove(key), key);
        let error = problem(&writer).unwrap();
        assert_eq!(error.field, Field::Key(key.into()), "{error}");
    }
}

#[test]
fn tensors_of_another_shape_or_type_are_named() {
    let with = |name: &str, dimensions: &[u64], kind| {
        let bytes =
            vec![0; dimensions.iter().product::<u64>() as usize * if kind == 0 { 4 } else { 2 }];
        problem(
            writer(&SMALL)
                .remove(name)
                .tensor(name, dimensions, kind, &bytes),
        )
        .unwrap()
    };
    for (name, dimensions) in [
        ("blk.0.attn_q.weight", &[64, 64][..]),
        ("token_embd.weight", &[64, 7]),
        ("output_norm.weight", &[65]),
    ] {
        let error = with(name, dimensions, 0);
        assert_eq!(
            error.field,
            Field::Tensor(name.into(), TensorField::Dimensions),
            "{error}"
        );
    }
    let error = with("output_norm.weight", &[64], 1);
    assert_eq!(
        error.field,
        Field::Tensor("output_norm.weight".into(), TensorField::Type),
        "{error}"
    );
}

#[test]
fn a_stretched_context_changes_late_positions() {
    let logits = |factor: f32| {
        let mut writer = writer(&SMALL);
        writer
            .string("qwen3.rope.scaling.type", "yarn")
            .f32("qwen3.rope.scaling.factor", factor)
            .u32("qwen3.rope.scaling.original_context_length", 32);
        let file = Aligned::new(&writer.finish().1);
        let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
        let options = EngineOptions {
            context: 64,
            ..EngineOptions::default()
        };
        let mut session = Session::new(
            Model::load(file.bytes()).unwrap(),
            kernels,
            SingleThread,
            &options,
        )
        .unwrap();
        session.feed(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap().to_vec()
    };
    // A factor of 1 is no stretching at all.
    let file = Aligned::new(&writer(&SMALL).finish().1);
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let mut plain = Session::new(
        Model::load(file.bytes()).unwrap(),
        kernels,
        SingleThread,
        &EngineOptions::default(),
    )
    .unwrap();
    assert_eq!(plain.feed(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap(), logits(1.0));
    assert_ne!(logits(1.0), logits(4.0));
}

#[test]
fn extreme_values_at_every_place_do_no_harm() {
    let (header, file) = writer(&LEAST).finish();
    assert!(Model::load(Aligned::new(&file).bytes()).is_ok());
    let mut mutated = Aligned::new(&file);
    for place in 0..header {
        for width in [1, 4, 8] {
            for extreme in [0, 1, u64::MAX, i64::MAX as u64, 1 << 32, header as u64] {
                let end = (place + width).min(header);
                mutated.bytes_mut()[place..end]
                    .copy_from_slice(&extreme.to_le_bytes()[..end - place]);
                try_out(mutated.bytes());
                mutated.bytes_mut()[place..end].copy_from_slice(&file[place..end]);
            }
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let (_, file) = writer(&LEAST).finish();
    let whole = Aligned::new(&file);
    // The last tensor, a norm, fills its last 32 bytes.
    for length in 0..file.len() {
        assert!(Model::load(&whole.bytes()[..length]).is_err(), "{length}");
    }
}
