//! What can be wrong with a GGUF file, and where: every error names the field it is about.

use alloc::string::String;
use core::fmt;

/// A place in a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The first four bytes.
    Magic,
    Version,
    TensorCount,
    MetadataCount,
    /// The name of the metadata entry with this index.
    KeyName(u64),
    /// The metadata entry with this key: its type or its value.
    Key(String),
    /// The name of the tensor with this index.
    TensorName(u64),
    /// The tensor with this name, and which part of its description.
    Tensor(String, TensorField),
    /// The tensor data section as a whole.
    Data,
}

/// A part of a tensor's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorField {
    Dimensions,
    Type,
    Offset,
    /// The tensor as a whole.
    Whole,
}

/// Text from the file, for a message: what a terminal might obey is escaped, and it is no longer than a name should be.
pub(crate) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LIMIT: usize = 64;
        match self
            .0
            .char_indices()
            .nth(LIMIT)
            .and_then(|(end, _)| self.0.get(..end))
        {
            Some(start) => write!(f, "{start:?}..."),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// What is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The file ends inside this field, or a count exceeds what the rest of the file could hold.
    Truncated,
    /// Not a GGUF file.
    NotGguf,
    /// Only version 3, little-endian, is read.
    UnsupportedVersion(u32),
    /// A type number that GGUF does not define, or an array of arrays.
    UnknownType(u32),
    /// A tensor type that GGUF defines (or may define) and the kernels lack.
    UnsupportedTensorType(String),
    NotUtf8,
    TooLong,
    Duplicate,
    Missing,
    /// The value's type is not the one this key needs.
    WrongType,
    /// The value is outside of what is meaningful or supported.
    BadValue(String),
    /// A product or sum of sizes does not fit.
    Overflow,
    /// Not a multiple of the alignment, or the file itself lies at a misaligned address.
    Misaligned,
    /// The data would lie (partly) outside of the file or inside of another tensor.
    OutOfBounds,
    Overlaps(String),
}

/// An error in a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufError {
    pub field: Field,
    pub problem: Problem,
}

impl GgufError {
    /// `problem` at `field`.
    pub fn new(field: Field, problem: Problem) -> Self {
        Self { field, problem }
    }

    /// `problem` at the metadata entry `key`.
    pub fn key(key: &str, problem: Problem) -> Self {
        Self::new(Field::Key(key.into()), problem)
    }

    /// `problem` at a part of the tensor `name`.
    pub fn tensor(name: &str, part: TensorField, problem: Problem) -> Self {
        Self::new(Field::Tensor(name.into(), part), problem)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Magic => write!(f, "magic"),
            Field::Version => write!(f, "version"),
            Field::TensorCount => write!(f, "tensor count"),
            Field::MetadataCount => write!(f, "metadata count"),
            Field::KeyName(index) => write!(f, "name of metadata entry {index}"),
            Field::Key(key) => write!(f, "metadata {}", Quoted(key)),
            Field::TensorName(index) => write!(f, "name of tensor {index}"),
            Field::Tensor(name, TensorField::Dimensions) => {
                write!(f, "dimensions of tensor {}", Quoted(name))
            }
            Field::Tensor(name, TensorField::Type) => write!(f, "type of tensor {}", Quoted(name)),
            Field::Tensor(name, TensorField::Offset) => {
                write!(f, "offset of tensor {}", Quoted(name))
            }
            Field::Tensor(name, TensorField::Whole) => write!(f, "tensor {}", Quoted(name)),
            Field::Data => write!(f, "tensor data"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Truncated => write!(f, "the file ends too early"),
            Problem::NotGguf => write!(f, "this is not a GGUF file"),
            Problem::UnsupportedVersion(version) => {
                write!(f, "version {version} is not supported, only 3 is")
            }
            Problem::UnknownType(number) => write!(f, "unknown type {number}"),
            Problem::UnsupportedTensorType(name) => write!(f, "type {name} is not supported"),
            Problem::NotUtf8 => write!(f, "not valid UTF-8"),
            Problem::TooLong => write!(f, "too long"),
            Problem::Duplicate => write!(f, "appears twice"),
            Problem::Missing => write!(f, "missing"),
            Problem::WrongType => write!(f, "has the wrong type"),
            Problem::BadValue(why) => write!(f, "{why}"),
            Problem::Overflow => write!(f, "size overflows"),
            Problem::Misaligned => write!(f, "not aligned"),
            Problem::OutOfBounds => write!(f, "lies outside of the file"),
            Problem::Overlaps(other) => write!(f, "overlaps tensor {}", Quoted(other)),
        }
    }
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GGUF: {}: {}", self.field, self.problem)
    }
}

impl core::error::Error for GgufError {}
