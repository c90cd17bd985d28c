//! The models as others see them: the same bytes each time, readable by the engine, text intact.

use engine::gguf::Gguf;
use engine::tokenizer::Tokenizer;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use synthesis::{Mix, Recipe, Shape};

const MIXES: [Mix; 3] = [Mix::F16, Mix::Q8_0, Mix::Q4KM];

/// A file in memory, aligned as a mapped one.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(file: &[u8]) -> Self {
        let mut bytes = vec![0; file.len() + 64];
        let start = bytes.as_ptr().align_offset(64);
        bytes[start..start + file.len()].copy_from_slice(file);
        bytes.truncate(start + file.len());
        Self { bytes, start }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

fn file(shape: &Shape, mix: Mix, seed: u64) -> Vec<u8> {
    let recipe = Recipe::new("test", shape, mix, seed).unwrap();
    let mut bytes = Vec::new();
    let mut last = 0;
    recipe
        .write(&mut bytes, &mut |written| last = written)
        .unwrap();
    assert_eq!(bytes.len() as u64, recipe.length());
    assert!(last <= recipe.length());
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn the_same_bytes_on_every_machine() {
    let digests = MIXES.map(|mix| sha256(&file(&Shape::tiny(), mix, 1)));
    assert_eq!(
        digests,
        [
            "e6dd63ced6d5352feec079d994ff74fe76f0516e8792125a510adb3821bede70",
            "8bc926f6134c866c223c4e997956d5df72fac2f0cec4f3fd27f58aebad753ee3",
            "673067e3093c58a8d94915da5a714d44d7761ff9788f428647a29a796a3806dd",
        ]
    );
}

#[test]
fn the_engine_reads_every_mix() {
    let untied = Shape {
        tied: false,
        kv_heads: 1,
        vocabulary: Some(2048),
        ..Shape::tiny()
    };
    for shape in [Shape::tiny(), untied] {
        for mix in MIXES {
            let file = Aligned::new(&file(&shape, mix, 3));
            let gguf = Gguf::parse(file.get()).unwrap();
            let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
            let ids = tokenizer.encode("<|im_start|>user\nthe people", true);
            assert_eq!(ids.first(), tokenizer.added_token("<|im_start|>").as_ref());
            assert!(ids.len() < 10, "{ids:?}");
        }
    }
}

#[test]
fn seeds_differ_and_formats_of_one_seed_round_the_same_values() {
    let shape = Shape::tiny();
    assert_ne!(file(&shape, Mix::Q8_0, 1), file(&shape, Mix::Q8_0, 2));
    let row = |mix| {
        let file = Aligned::new(&file(&shape, mix, 1));
        let gguf = Gguf::parse(file.get()).unwrap();
        let tensor = gguf.tensor("blk.1.ffn_down.weight").unwrap();
        let mut row = vec![0.0; 768];
        let bytes = tensor.format.row_bytes(row.len()).unwrap();
        let kernels = kernels::Kernels::for_isa(kernels::Isa::Scalar).unwrap();
        kernels.dequantize(tensor.format, &tensor.data[..bytes], &mut row);
        row
    };
    let exact = row(Mix::F16);
    let largest = exact.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    for mix in [Mix::Q8_0, Mix::Q4KM] {
        for (x, y) in exact.iter().zip(row(mix)) {
            assert!((x - y).abs() < 0.1 * largest, "{mix}: {x} {y}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn text_survives_the_tokenizer(text in "\\PC{0,80}") {
        thread_local! {
            static MODEL: Aligned = Aligned::new(&file(&Shape::tiny(), Mix::Q4KM, 1));
        }
        MODEL.with(|model| {
            let gguf = Gguf::parse(model.get()).unwrap();
            let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
            let ids = tokenizer.encode(&text, false);
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap().to_vec()).collect();
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
            Ok(())
        })?;
    }
}
