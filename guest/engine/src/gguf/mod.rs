//! GGUF version 3, read as hostile input.
//!
//! On entry there is only a byte slice. [`Gguf::parse`] checks counts, lengths, types, names, duplicates, dimensions,
//! offsets, alignment and overlaps before anything is believed, copies nothing but an index whose size is bounded by
//! the file's, and borrows strings, arrays and tensor data from the slice. Format: the GGUF specification of the ggml
//! project.

mod error;
mod metadata;
mod reader;
mod tensor;
mod value;

use alloc::vec::Vec;

pub(crate) use error::Quoted;
pub use error::{Field, GgufError, Problem, TensorField};
pub use tensor::Tensor;
pub use value::{Array, Value, ValueType};

use reader::Reader;

/// Tensor data, and the slice itself, lie at multiples of this many bytes; the format's default.
pub const ALIGNMENT: usize = 32;

/// Longest key the format allows, in bytes.
const MAX_KEY_BYTES: u64 = 65535;
/// The least a metadata entry takes: an empty name, a type number and one byte.
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// The least a tensor's description takes: an empty name, a count of dimensions, a type number and an offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// A parsed file: an index over the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    /// Sorted by key.
    metadata: Vec<(&'a str, Value<'a>)>,
    /// Sorted by name.
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Gguf<'a> {
    /// Checks and indexes `bytes`.
    ///
    /// # Errors
    /// The first field that is not as the format demands, or that the kernels have no format for. Also if `bytes` does
    /// not start at a multiple of [`ALIGNMENT`], since the kernels rely on aligned tensors.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let at = |field: Field| move |problem| GgufError::new(field, problem);
        let mut reader = Reader::new(bytes);
        if reader.bytes(4).map_err(at(Field::Magic))? != b"GGUF" {
            return Err(GgufError::new(Field::Magic, Problem::NotGguf));
        }
        let version = reader.u32().map_err(at(Field::Version))?;
        if version != 3 {
            return Err(GgufError::new(
                Field::Version,
                Problem::UnsupportedVersion(version),
            ));
        }
        let tensor_count = reader.u64().map_err(at(Field::TensorCount))?;
        let metadata_count = reader.u64().map_err(at(Field::MetadataCount))?;

        let metadata = read_metadata(&mut reader, metadata_count)?;
        let alignment = alignment(&metadata)?;
        let descriptions = read_descriptions(&mut reader, tensor_count)?;

        let header_bytes = bytes.len() - reader.remaining();
        let padding = header_bytes.next_multiple_of(alignment) - header_bytes;
        let data = match reader.bytes(padding as u64) {
            Ok(_) => reader
                .bytes(reader.remaining() as u64)
                .map_err(at(Field::Data))?,
            // A file without tensors may end with its header.
            Err(_) if descriptions.is_empty() => &[],
            Err(problem) => return Err(GgufError::new(Field::Data, problem)),
        };
        if !descriptions.is_empty() && !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(GgufError::new(Field::Data, Problem::Misaligned));
        }
        let tensors = tensor::locate(descriptions, data, alignment)?;
        Ok(Self { metadata, tensors })
    }

    /// The value of `key`, if the file has it.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let index = self
            .metadata
            .binary_search_by(|(name, _)| (*name).cmp(key))
            .ok()?;
        self.metadata.get(index).map(|&(_, value)| value)
    }

    /// Every key and its value, in the order of the keys.
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.metadata
    }

    /// The tensor called `name`, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        let index = self
            .tensors
            .binary_search_by(|tensor| tensor.name.cmp(name))
            .ok()?;
        self.tensors.get(index)
    }

    /// Every tensor, in the order of their names.
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }
}

fn read_metadata<'a>(
    reader: &mut Reader<'a>,
    count: u64,
) -> Result<Vec<(&'a str, Value<'a>)>, GgufError> {
    if count > reader.remaining() as u64 / MIN_ENTRY_BYTES {
        return Err(GgufError::new(Field::MetadataCount, Problem::Truncated));
    }
    let mut metadata = Vec::new();
    for index in 0..count {
        let key = reader
            .string(MAX_KEY_BYTES)
            .and_then(|key| {
                if key.is_empty() {
                    Err(Problem::Missing)
                } else {
                    Ok(key)
                }
            })
            .map_err(|problem| GgufError::new(Field::KeyName(index), problem))?;
        let value = value::read(reader).map_err(|problem| GgufError::key(key, problem))?;
        metadata.push((key, value));
    }
    metadata.sort_unstable_by_key(|&(key, _)| key);
    for (&(key, _), &(next, _)) in metadata.iter().zip(metadata.iter().skip(1)) {
        if key == next {
            return Err(GgufError::key(key, Problem::Duplicate));
        }
    }
    Ok(metadata)
}

fn read_descriptions<'a>(
    reader: &mut Reader<'a>,
    count: u64,
) -> Result<Vec<tensor::Description<'a>>, GgufError> {
    if count > reader.remaining() as u64 / MIN_TENSOR_BYTES {
        return Err(GgufError::new(Field::TensorCount, Problem::Truncated));
    }
    (0..count)
        .map(|index| tensor::Description::read(reader, index))
        .collect()
}

/// The alignment of tensor data: `general.alignment`, or the default.
fn alignment(metadata: &[(&str, Value<'_>)]) -> Result<usize, GgufError> {
    const KEY: &str = "general.alignment";
    match metadata
        .binary_search_by(|(key, _)| (*key).cmp(KEY))
        .ok()
        .and_then(|index| metadata.get(index))
    {
        None => Ok(ALIGNMENT),
        // A larger one would only waste space; a smaller one would misalign the kernels' input.
        Some((_, Value::Unsigned(value @ 32..=65536))) if value.is_power_of_two() => {
            Ok(*value as usize)
        }
        Some((_, Value::Unsigned(value))) => Err(GgufError::key(
            KEY,
            Problem::BadValue(alloc::format!(
                "{value} is not a power of two from 32 to 65536"
            )),
        )),
        Some(_) => Err(GgufError::key(KEY, Problem::WrongType)),
    }
}
