//! Tensor descriptions and where their data lies.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernels::Format;

use super::error::{Field, GgufError, Problem, TensorField};
use super::reader::Reader;

/// Longest tensor name the format allows, in bytes.
const MAX_NAME_BYTES: u64 = 64;
/// Most dimensions the format allows.
const MAX_DIMENSIONS: u32 = 4;

/// A tensor: its shape and its bytes in the file.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub name: &'a str,
    /// Elements in each dimension, the row (contiguous) first; unused ones are 1.
    pub dimensions: [u64; MAX_DIMENSIONS as usize],
    pub format: Format,
    /// All rows, contiguous.
    pub data: &'a [u8],
}

/// A tensor's description as the header gives it, before its data is located.
pub(super) struct Description<'a> {
    name: &'a str,
    dimensions: [u64; MAX_DIMENSIONS as usize],
    format: Format,
    offset: u64,
    bytes: u64,
}

impl<'a> Description<'a> {
    pub fn read(reader: &mut Reader<'a>, index: u64) -> Result<Self, GgufError> {
        let name = reader
            .string(MAX_NAME_BYTES)
            .and_then(|name| {
                if name.is_empty() {
                    Err(Problem::Missing)
                } else {
                    Ok(name)
                }
            })
            .map_err(|problem| GgufError::new(Field::TensorName(index), problem))?;
        let at = |part| move |problem| GgufError::tensor(name, part, problem);

        let dimensions = read_dimensions(reader).map_err(at(TensorField::Dimensions))?;
        let number = reader.u32().map_err(at(TensorField::Type))?;
        let format = Format::from_ggml_type(number).ok_or_else(|| {
            at(TensorField::Type)(Problem::UnsupportedTensorType(type_name(number)))
        })?;
        let offset = reader.u64().map_err(at(TensorField::Offset))?;
        let bytes = data_bytes(dimensions, format).map_err(at(TensorField::Dimensions))?;
        Ok(Self {
            name,
            dimensions,
            format,
            offset,
            bytes,
        })
    }
}

fn read_dimensions(reader: &mut Reader<'_>) -> Result<[u64; MAX_DIMENSIONS as usize], Problem> {
    let count = reader.u32()?;
    if count == 0 || count > MAX_DIMENSIONS {
        return Err(Problem::BadValue(format!(
            "{count} dimensions, not 1 to {MAX_DIMENSIONS}"
        )));
    }
    let mut dimensions = [1; MAX_DIMENSIONS as usize];
    for length in dimensions.iter_mut().take(count as usize) {
        *length = reader.u64()?;
        if *length == 0 {
            return Err(Problem::BadValue("a dimension is 0".to_string()));
        }
    }
    Ok(dimensions)
}

/// Bytes of all rows; a row is a whole number of blocks.
fn data_bytes(
    [row, rows @ ..]: [u64; MAX_DIMENSIONS as usize],
    format: Format,
) -> Result<u64, Problem> {
    let row_length = usize::try_from(row).map_err(|_| Problem::Overflow)?;
    if row_length % format.block_len() != 0 {
        let (name, block) = (format.name(), format.block_len());
        return Err(Problem::BadValue(format!(
            "a row of {row} is not a multiple of {name}'s block of {block}"
        )));
    }
    let row_bytes = format.row_bytes(row_length).ok_or(Problem::Overflow)?;
    rows.iter()
        .try_fold(row_bytes as u64, |bytes, &length| bytes.checked_mul(length))
        .ok_or(Problem::Overflow)
}

/// Finds every tensor's bytes in the data section and returns the tensors sorted by name.
pub(super) fn locate<'a>(
    mut descriptions: Vec<Description<'a>>,
    data: &'a [u8],
    alignment: usize,
) -> Result<Vec<Tensor<'a>>, GgufError> {
    descriptions.sort_unstable_by_key(|tensor| tensor.offset);
    let mut previous: Option<(&str, u64)> = None;
    let mut tensors = Vec::with_capacity(descriptions.len());
    for Description {
        name,
        dimensions,
        format,
        offset,
        bytes,
    } in descriptions
    {
        let fail = |problem| GgufError::tensor(name, TensorField::Offset, problem);
        if offset % alignment as u64 != 0 {
            return Err(fail(Problem::Misaligned));
        }
        if let Some((other, end)) = previous
            && offset < end
        {
            return Err(fail(Problem::Overlaps(other.into())));
        }
        let end = offset
            .checked_add(bytes)
            .ok_or_else(|| fail(Problem::Overflow))?;
        let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(end)) else {
            return Err(fail(Problem::OutOfBounds));
        };
        let data = data
            .get(from..to)
            .ok_or_else(|| fail(Problem::OutOfBounds))?;
        previous = Some((name, end));
        tensors.push(Tensor {
            name,
            dimensions,
            format,
            data,
        });
    }
    tensors.sort_unstable_by_key(|tensor| tensor.name);
    for (tensor, next) in tensors.iter().zip(tensors.iter().skip(1)) {
        if tensor.name == next.name {
            return Err(GgufError::tensor(
                tensor.name,
                TensorField::Whole,
                Problem::Duplicate,
            ));
        }
    }
    Ok(tensors)
}

/// ggml's name of a tensor type that has no kernel here, for the error message.
fn type_name(number: u32) -> String {
    let known = match number {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {number}"),
    };
    known.to_string()
}
