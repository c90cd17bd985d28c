//! Metadata values: scalars by value, strings and arrays borrowed from the file.

use super::error::Problem;
use super::reader::Reader;

/// The type of a metadata value or array element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The type with GGUF's number `number`; arrays (number 9) are no element type.
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of one value; of a string, at least that many.
    fn min_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::String | Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

const ARRAY: u32 = 9;

/// One metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

/// An array of scalars or strings, still in the file's bytes; `parse` has walked it to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of every element.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let kind = self.kind;
        (0..self.len).map_while(move |_| scalar(&mut reader, kind).ok())
    }

    /// The elements of an array of strings; none if it holds something else.
    pub fn strings(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.iter().filter_map(|value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }
}

/// Reads the type number and the value that follows it.
pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, Problem> {
    let number = reader.u32()?;
    if number == ARRAY {
        return array(reader).map(Value::Array);
    }
    scalar(
        reader,
        ValueType::from_number(number).ok_or(Problem::UnknownType(number))?,
    )
}

fn scalar<'a>(reader: &mut Reader<'a>, kind: ValueType) -> Result<Value<'a>, Problem> {
    let width = kind.min_bytes();
    Ok(match kind {
        ValueType::String => Value::String(reader.string(u64::MAX)?),
        ValueType::Bool => match reader.u8()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => {
                return Err(Problem::BadValue(alloc::format!(
                    "{other} is not a truth value"
                )));
            }
        },
        ValueType::F32 => Value::Float(f32::from_bits(reader.u32()?).into()),
        ValueType::F64 => Value::Float(f64::from_bits(reader.u64()?)),
        ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 => {
            Value::Unsigned(little_endian(reader.bytes(width)?))
        }
        ValueType::I8 | ValueType::I16 | ValueType::I32 | ValueType::I64 => {
            let unused_bits = 64 - 8 * width as u32;
            let raw = little_endian(reader.bytes(width)?);
            Value::Signed(((raw << unused_bits) as i64) >> unused_bits)
        }
    })
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn array<'a>(reader: &mut Reader<'a>) -> Result<Array<'a>, Problem> {
    let number = reader.u32()?;
    let kind = ValueType::from_number(number).ok_or(Problem::UnknownType(number))?;
    let count = reader.u64()?;
    let least = count
        .checked_mul(kind.min_bytes())
        .ok_or(Problem::Truncated)?;
    if least > reader.remaining() as u64 {
        return Err(Problem::Truncated);
    }
    let start = reader.clone();
    match kind {
        ValueType::String | ValueType::Bool => {
            for _ in 0..count {
                scalar(reader, kind)?;
            }
        }
        _ => {
            reader.bytes(least)?;
        }
    }
    let length = start.remaining() - reader.remaining();
    let bytes = start.clone().bytes(length as u64)?;
    Ok(Array {
        kind,
        len: count as usize,
        bytes,
    })
}
