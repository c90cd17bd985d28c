//! GGUF parsing against hostile files.

mod common;

use common::{Aligned, GgufWriter};
use engine::gguf::{Field, Gguf, GgufError, Problem, TensorField};
use proptest::prelude::*;

const F32: u32 = 0;
const Q4_K: u32 = 12;

/// A file with a value of every kind the writer knows and two tensors; also the length of its header.
fn sample() -> (usize, Vec<u8>) {
    GgufWriter::new()
        .string("general.architecture", "qwen3")
        .u32("general.alignment", 32)
        .f32("x.float", 1.5)
        .strings("x.strings", ["a", "", "bc"])
        .i32s("x.numbers", [1, -2])
        .tensor("a.weight", &[3, 2], F32, &[7; 24])
        .tensor("b.weight", &[256], Q4_K, &[9; 144])
        .finish()
}

fn error(file: &[u8]) -> GgufError {
    Gguf::parse(Aligned::new(file).bytes()).unwrap_err()
}

fn error_of(writer: &GgufWriter) -> GgufError {
    error(&writer.finish().1)
}

#[test]
fn a_sound_file_is_indexed() {
    let (_, file) = sample();
    let file = Aligned::new(&file);
    let gguf = Gguf::parse(file.bytes()).unwrap();
    assert_eq!(gguf.string("general.architecture"), Ok(Some("qwen3")));
    assert_eq!(gguf.float("x.float"), Ok(Some(1.5)));
    assert_eq!(gguf.integer("x.missing"), Ok(None));
    assert_eq!(
        gguf.integer("x.float"),
        Err(GgufError::key("x.float", Problem::WrongType))
    );
    let strings = gguf
        .array("x.strings", engine::gguf::ValueType::String)
        .unwrap()
        .unwrap();
    assert_eq!(strings.strings().collect::<Vec<_>>(), ["a", "", "bc"]);
    let tensor = gguf.tensor("a.weight").unwrap();
    assert_eq!(
        (tensor.dimensions, tensor.data),
        ([3, 2, 1, 1], &[7; 24][..])
    );
    assert_eq!(gguf.tensor("b.weight").unwrap().data, [9; 144]);
    assert!(gguf.tensor("c.weight").is_none());
}

#[test]
fn every_truncation_is_an_error() {
    let (_, file) = sample();
    // The last tensor ends 16 bytes before the file's padded end.
    for length in 0..file.len() - 16 {
        error(&file[..length]);
    }
    Gguf::parse(Aligned::new(&file[..file.len() - 16]).bytes()).unwrap();
}

#[test]
fn extreme_values_at_every_place_do_no_harm() {
    let (header, file) = sample();
    let extremes: [u64; 8] = [
        0,
        1,
        u64::MAX,
        i64::MAX as u64,
        1 << 63,
        1 << 32,
        u32::MAX.into(),
        file.len() as u64,
    ];
    for place in 0..header {
        for width in [1, 2, 4, 8] {
            for extreme in extremes {
                let mut mutated = file.clone();
                let end = (place + width).min(header);
                mutated[place..end].copy_from_slice(&extreme.to_le_bytes()[..end - place]);
                let _ = Gguf::parse(Aligned::new(&mutated).bytes());
            }
        }
    }
}

#[test]
fn errors_name_the_field() {
    let fail = |field, problem| GgufError::new(field, problem);
    assert_eq!(
        error(b"GGML\x03\0\0\0"),
        fail(Field::Magic, Problem::NotGguf)
    );
    assert_eq!(
        error(b"GGUF\x02\0\0\0"),
        fail(Field::Version, Problem::UnsupportedVersion(2))
    );

    let (_, mut file) = sample();
    file[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(error(&file), fail(Field::TensorCount, Problem::Truncated));
    let (_, mut file) = sample();
    file[16..24].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_eq!(error(&file), fail(Field::MetadataCount, Problem::Truncated));

    assert_eq!(
        error_of(GgufWriter::new().u32("k", 1).u32("k", 2)),
        GgufError::key("k", Problem::Duplicate)
    );
    assert!(matches!(
        error_of(GgufWriter::new().u32("general.alignment", 8)),
        GgufError { field: Field::Key(key), problem: Problem::BadValue(_) } if key == "general.alignment"
    ));
    let tensor = |part, problem| GgufError::tensor("t", part, problem);
    assert_eq!(
        error_of(
            GgufWriter::new()
                .tensor("t", &[1], F32, &[0; 4])
                .tensor("t", &[1], F32, &[0; 4])
        ),
        tensor(TensorField::Whole, Problem::Duplicate)
    );
    assert_eq!(
        error_of(GgufWriter::new().tensor("t", &[1], 16, &[0; 4])),
        tensor(
            TensorField::Type,
            Problem::UnsupportedTensorType("IQ2_XXS".into())
        )
    );
    assert_eq!(
        error_of(GgufWriter::new().tensor("t", &[1], 99, &[0; 4])),
        tensor(
            TensorField::Type,
            Problem::UnsupportedTensorType("number 99".into())
        )
    );
    for dimensions in [
        &[1 << 33, 1 << 33][..],
        &[1 << 63],
        &[4, u64::MAX, u64::MAX, 2],
    ] {
        assert_eq!(
            error_of(GgufWriter::new().tensor("t", dimensions, F32, &[0; 4])),
            tensor(TensorField::Dimensions, Problem::Overflow)
        );
    }
    for dimensions in [&[][..], &[0], &[1, 0], &[1, 1, 1, 1, 1]] {
        assert!(matches!(
            error_of(GgufWriter::new().tensor("t", dimensions, F32, &[0; 4])),
            GgufError {
                field: Field::Tensor(_, TensorField::Dimensions),
                problem: Problem::BadValue(_)
            }
        ));
    }
    assert!(matches!(
        error_of(GgufWriter::new().tensor("t", &[255], Q4_K, &[0; 144])),
        GgufError {
            field: Field::Tensor(_, TensorField::Dimensions),
            problem: Problem::BadValue(_)
        }
    ));
    let offset = |offset| {
        error_of(
            GgufWriter::new()
                .tensor("s", &[64], F32, &[0; 256])
                .tensor_at("t", &[8], F32, offset),
        )
    };
    assert_eq!(
        offset(260),
        tensor(TensorField::Offset, Problem::Misaligned)
    );
    assert_eq!(
        offset(256),
        tensor(TensorField::Offset, Problem::OutOfBounds)
    );
    assert_eq!(
        offset(224),
        tensor(TensorField::Offset, Problem::Overlaps("s".into()))
    );
    assert_eq!(
        offset(u64::MAX - 31),
        tensor(TensorField::Offset, Problem::Overflow)
    );

    let (_, file) = sample();
    let mut shifted = vec![0];
    shifted.extend(&file);
    let shifted = Aligned::new(&shifted);
    assert_eq!(
        Gguf::parse(&shifted.bytes()[1..]).unwrap_err(),
        fail(Field::Data, Problem::Misaligned)
    );
}

#[test]
fn hostile_names_are_escaped() {
    let message = error_of(GgufWriter::new().u32("\u{1b}[2J", 1).u32("\u{1b}[2J", 1)).to_string();
    assert!(!message.contains('\u{1b}'), "{message:?}");
}

proptest! {
    #[test]
    fn mutated_files_do_no_harm(
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
    ) {
        let (header, mut file) = sample();
        for (place, value) in mutations {
            file[place.index(header)] = value;
        }
        file.truncate(length.index(2 * file.len()));
        let _ = Gguf::parse(Aligned::new(&file).bytes());
    }
}
