//! Hostile model files: a corpus that is replayed by every test run, and a search for more.
//!
//! `cargo test -p engine --test fuzz -- --ignored search` mutates the corpus for `VITRINE_FUZZ_SECONDS` (60 by default) and
//! keeps a file that does harm; it then belongs into `tests/corpus`. `-- --ignored write` writes the corpus anew. The search of
//! `cargo xtask fuzz` starts from the same corpus, does the same with a file, and is guided by the code that it reaches.

mod common;

use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use common::hostile::try_out;
use common::model::{LEAST, Shape, writer};
use common::{Aligned, GgufWriter};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

fn corpus() -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(CORPUS)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    assert!(files.len() >= 20, "the corpus is gone");
    files
}

#[test]
fn the_corpus_does_no_harm() {
    for file in corpus() {
        try_out(Aligned::new(&file).bytes());
    }
}

#[test]
#[ignore = "runs as long as it is told to"]
fn search() {
    let seconds =
        std::env::var("VITRINE_FUZZ_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    let (corpus, start, mut count) = (corpus(), Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let file = mutate(&corpus, &mut Random(count));
        count += 1;
        if catch_unwind(|| try_out(Aligned::new(&file).bytes())).is_err() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("finding-{count}.gguf"));
            std::fs::write(&path, &file).unwrap();
            panic!("finding after {count} files: {}", path.display());
        }
    }
    println!("{count} files in {seconds} s did no harm");
}

/// A file of the corpus with some changes, most of them where the header is.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut file = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let place = random.below(file.len().max(1));
        let end = (place + 1 + random.below(8)).min(file.len());
        match random.below(6) {
            0 => file[place..end]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8),
            1 => file[place..end]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 << random.below(8)),
            2 => file[place..end].fill([0, 0xff, 0x7f, 0x80, 1][random.below(5)]),
            3 => file.truncate(place),
            4 => drop(file.drain(place..end)),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len().max(1));
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                file.splice(place..place, piece.iter().copied());
            }
        }
    }
    file
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[test]
#[ignore = "changes the repository"]
fn write() {
    let least = || writer(&LEAST);
    let (header, sound) = least().finish();
    let patched = |place: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[place..place + bytes.len()].copy_from_slice(bytes);
        file
    };
    let built = |change: for<'w> fn(&'w mut GgufWriter) -> &'w mut GgufWriter| {
        change(&mut least()).finish().1
    };
    // The element type of the array `nested`, behind its name and type.
    let mut nested = built(|w| w.strings("nested", ["x"]));
    let place = nested
        .windows(6)
        .position(|window| window == b"nested")
        .unwrap();
    nested[place + 10] = 9;
    let files = [
        ("sound", sound.clone()),
        (
            "untied",
            writer(&Shape {
                tied: false,
                ..LEAST
            })
            .finish()
            .1,
        ),
        (
            "two-layers",
            writer(&Shape {
                layers: 2,
                last_byte: 0,
                ..LEAST
            })
            .finish()
            .1,
        ),
        ("empty", Vec::new()),
        ("cut-in-magic", sound[..3].to_vec()),
        ("cut-in-counts", sound[..20].to_vec()),
        ("cut-in-metadata", sound[..200].to_vec()),
        ("cut-after-header", sound[..header].to_vec()),
        ("cut-in-data", sound[..sound.len() - 1].to_vec()),
        ("version-2", patched(4, &[2])),
        ("tensors-beyond-count", patched(8, &u64::MAX.to_le_bytes())),
        (
            "metadata-beyond-count",
            patched(16, &(1u64 << 62).to_le_bytes()),
        ),
        ("key-beyond-file", patched(24, &(1u64 << 63).to_le_bytes())),
        (
            "duplicate-key",
            built(|w| w.string("general.name", "again")),
        ),
        ("array-of-arrays", nested),
        ("alignment-of-1", built(|w| w.u32("general.alignment", 1))),
        (
            "unsupported-type",
            built(|w| w.tensor("x", &[256], 16, &[0; 66])),
        ),
        ("dimension-of-0", built(|w| w.tensor("x", &[0], 0, &[]))),
        (
            "product-overflows",
            built(|w| w.tensor("x", &[1 << 32, 1 << 31], 0, &[])),
        ),
        ("outside", built(|w| w.tensor_at("x", &[1 << 20], 0, 0))),
        ("overlap", built(|w| w.tensor_at("x", &[8], 0, 32))),
        (
            "offset-overflows",
            built(|w| w.tensor_at("x", &[8], 0, u64::MAX - 31)),
        ),
        (
            "many-layers",
            built(|w| {
                w.remove("qwen3.block_count")
                    .u32("qwen3.block_count", 1 << 20)
            }),
        ),
        (
            "wide-heads",
            built(|w| {
                w.remove("qwen3.attention.key_length")
                    .u32("qwen3.attention.key_length", 1 << 18)
            }),
        ),
        (
            "no-pair",
            built(|w| {
                w.remove("tokenizer.ggml.merges")
                    .strings("tokenizer.ggml.merges", ["he"])
            }),
        ),
    ];
    for (name, bytes) in files {
        std::fs::write(Path::new(CORPUS).join(name).with_extension("gguf"), bytes).unwrap();
    }
}
