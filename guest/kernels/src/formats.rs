//! The geometry of the GGUF block formats: elements and bytes of a block, bytes of a row.
//!
//! The rule is the layout of the structures in ggml's `ggml-common.h`; block contents are described where they are
//! unpacked (`scalar/`).

use core::fmt;

/// Elements in a block of the K-quants, and of their activations.
pub(crate) const SUPER_BLOCK: usize = 256;
/// Elements in a block of the older quants, and of their activations.
pub(crate) const BLOCK: usize = 32;

/// How the elements of a weight matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
}

impl Format {
    /// Every format, in the order of the enumeration.
    pub const ALL: [Format; 15] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q2K,
        Format::Q3K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
        Format::Iq4Nl,
        Format::Iq4Xs,
    ];

    /// The format with this GGUF tensor type number, or `None` for a type this crate has no kernels for.
    pub const fn from_ggml_type(id: u32) -> Option<Format> {
        Some(match id {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            3 => Format::Q4_1,
            6 => Format::Q5_0,
            7 => Format::Q5_1,
            8 => Format::Q8_0,
            10 => Format::Q2K,
            11 => Format::Q3K,
            12 => Format::Q4K,
            13 => Format::Q5K,
            14 => Format::Q6K,
            20 => Format::Iq4Nl,
            23 => Format::Iq4Xs,
            30 => Format::Bf16,
            _ => return None,
        })
    }

    /// The name GGUF tools print.
    pub const fn name(self) -> &'static str {
        match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::Bf16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::Q4_1 => "Q4_1",
            Format::Q5_0 => "Q5_0",
            Format::Q5_1 => "Q5_1",
            Format::Q2K => "Q2_K",
            Format::Q3K => "Q3_K",
            Format::Q4K => "Q4_K",
            Format::Q5K => "Q5_K",
            Format::Q6K => "Q6_K",
            Format::Iq4Nl => "IQ4_NL",
            Format::Iq4Xs => "IQ4_XS",
        }
    }

    /// Elements in one block; a row is a whole number of blocks.
    pub const fn block_len(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => 1,
            Format::Q8_0
            | Format::Q4_0
            | Format::Q4_1
            | Format::Q5_0
            | Format::Q5_1
            | Format::Iq4Nl => BLOCK,
            Format::Q2K | Format::Q3K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq4Xs => {
                SUPER_BLOCK
            }
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 2,
            Format::Q8_0 => 34,
            Format::Q4_0 | Format::Iq4Nl => 18,
            Format::Q4_1 => 20,
            Format::Q5_0 => 22,
            Format::Q5_1 => 24,
            Format::Q2K => 84,
            Format::Q3K => 110,
            Format::Q4K => 144,
            Format::Q5K => 176,
            Format::Q6K => 210,
            Format::Iq4Xs => 136,
        }
    }

    /// Bytes of a row of `n` elements; `None` if `n` is not a whole number of blocks or the size overflows.
    pub const fn row_bytes(self, n: usize) -> Option<usize> {
        whole_blocks(n, self.block_len(), self.block_bytes())
    }

    /// What the vectors multiplied with this format must be quantised to.
    pub const fn activation(self) -> Activation {
        match self {
            Format::F32 | Format::F16 | Format::Bf16 => Activation::F32,
            Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::Iq4Nl => Activation::Q8_0,
            Format::Q4_1 | Format::Q5_1 => Activation::Q8_1,
            Format::Q2K | Format::Q3K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq4Xs => {
                Activation::Q8K
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a vector is stored before it is multiplied with weights.
///
/// Layouts, little-endian, packed: `F32` plain floats; `Q8_0` an f16 scale and 32 signed bytes; `Q8_1` an f16 scale, the f16
/// product of scale and sum of the bytes, and 32 signed bytes; `Q8K` an f32 scale, 256 signed bytes, and the 16 sums of 16
/// bytes each as i16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    F32,
    Q8_0,
    Q8_1,
    Q8K,
}

impl Activation {
    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        match self {
            Activation::F32 => 1,
            Activation::Q8_0 | Activation::Q8_1 => BLOCK,
            Activation::Q8K => SUPER_BLOCK,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Activation::F32 => 4,
            Activation::Q8_0 => 34,
            Activation::Q8_1 => 36,
            Activation::Q8K => 292,
        }
    }

    /// Bytes of a vector of `n` elements; `None` if `n` is not a whole number of blocks or the size overflows.
    pub const fn row_bytes(self, n: usize) -> Option<usize> {
        whole_blocks(n, self.block_len(), self.block_bytes())
    }
}

const fn whole_blocks(n: usize, block_len: usize, block_bytes: usize) -> Option<usize> {
    if n.is_multiple_of(block_len) {
        (n / block_len).checked_mul(block_bytes)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(Format::Q4K.row_bytes(512), Some(288));
        assert_eq!(Format::Q4K.row_bytes(500), None);
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
        assert_eq!(Format::Q8_0.row_bytes(0), Some(0));
        assert_eq!(Activation::Q8K.row_bytes(256), Some(292));
        assert_eq!(Activation::Q8_0.row_bytes(31), None);
    }

    #[test]
    fn an_activation_block_is_never_longer_than_a_weight_block() {
        for format in Format::ALL {
            assert!(
                format
                    .block_len()
                    .is_multiple_of(format.activation().block_len())
            );
        }
    }

    #[test]
    fn type_numbers_are_distinct() {
        let known = (0..64).filter_map(Format::from_ggml_type);
        let mut seen = [false; Format::ALL.len()];
        for format in known {
            assert!(!seen[format as usize]);
            seen[format as usize] = true;
        }
        assert_eq!(seen, [true; Format::ALL.len()]);
    }
}
