//! The tokenizer against llama.cpp's vocabulary test and against itself.

mod common;

use common::oracle_bytes;
use engine::gguf::Gguf;
use engine::tokenizer::{Decoder, Tokenizer};
use proptest::prelude::*;

const VOCABULARY: &str = "vocab/ggml-vocab-qwen2.gguf";

fn qwen2() -> Option<Tokenizer> {
    let file = oracle_bytes(VOCABULARY)?;
    Some(Tokenizer::from_gguf(&Gguf::parse(file.bytes()).unwrap()).unwrap())
}

/// The text of a file of vectors.
fn text(name: &str) -> String {
    String::from_utf8(oracle_bytes(name).unwrap().bytes().to_vec()).unwrap()
}

#[test]
fn every_line_of_the_vocabulary_test_agrees() {
    let Some(tokenizer) = qwen2() else { return };
    let inputs = text(&format!("{VOCABULARY}.inp"));
    let outputs = text(&format!("{VOCABULARY}.out"));
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    // The file of inputs ends with a separator and the newline of its last line.
    assert!(
        inputs.len() >= outputs.len() && outputs.len() > 40,
        "{} {}",
        inputs.len(),
        outputs.len()
    );
    for (input, output) in inputs.iter().zip(outputs) {
        let expected: Vec<u32> = output
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(tokenizer.encode(input, false), expected, "{input:?}");
        assert_eq!(tokenizer.decode(&expected), *input);
    }
}

#[test]
fn prompts_of_the_models_agree() {
    for net in ["s1", "s2"] {
        let Some(prompts) = oracle_bytes(&format!("engine/{net}.prompts.json")) else {
            return;
        };
        let prompts: serde_json::Value = serde_json::from_slice(prompts.bytes()).unwrap();
        let file = oracle_bytes(&format!("engine/{net}-Q4_K_M.gguf")).unwrap();
        let tokenizer = Tokenizer::from_gguf(&Gguf::parse(file.bytes()).unwrap()).unwrap();
        let mut compared = 0;
        for prompt in prompts.as_array().unwrap() {
            let Some(text) = prompt["text"].as_str() else {
                continue;
            };
            let expected: Vec<u32> = serde_json::from_value(prompt["tokens"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true), expected, "{text:?}");
            compared += 1;
        }
        assert!(compared >= 2);
    }
}

#[test]
fn control_tokens_only_when_asked_for() {
    let Some(tokenizer) = qwen2() else { return };
    let start = tokenizer.added_token("<|im_start|>").unwrap();
    assert_eq!(tokenizer.encode("<|im_start|>", true), [start]);
    let spelled = tokenizer.encode("<|im_start|>", false);
    assert!(spelled.len() > 1 && !spelled.contains(&start));
    assert_eq!(tokenizer.decode(&spelled), "<|im_start|>");
    assert_eq!(tokenizer.decode(&[start]), "");
    assert!(tokenizer.is_end(tokenizer.added_token("<|im_end|>").unwrap()));
    assert!(!tokenizer.is_end(start));
    assert_eq!(
        tokenizer.encode("<|im_start", true),
        tokenizer.encode("<|im_start", false)
    );
}

#[test]
fn any_text_survives_the_round_trip() {
    let Some(tokenizer) = qwen2() else { return };
    proptest!(|(text in prop_oneof![
        any::<String>(),
        "[ \t\r\n'a-zA-Z0-9éſ我\u{300}\u{17b6}½.!<|>_🦙\u{a0}]{0,60}",
    ])| {
        let tokens = tokenizer.encode(&text, false);
        prop_assert_eq!(tokenizer.decode(&tokens), text.clone());
        let mut decoder = Decoder::new();
        let mut decoded = String::new();
        for &token in &tokens {
            decoder.push(tokenizer.text_bytes(token), &mut decoded);
            prop_assert!(text.starts_with(&decoded), "{decoded:?} of {text:?}");
        }
    });
}
