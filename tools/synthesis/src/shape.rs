//! What a model looks like: its dimensions, the formats of its tensors, and the known shapes by name.

use core::fmt;
use core::str::FromStr;

use crate::format::Format;

/// The hyper-parameters of a Qwen3 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width inside the feed-forward network.
    pub feed_forward: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    /// Tokens; filled up with unused ones. `None`: exactly those the vocabulary has.
    pub vocabulary: Option<u64>,
    /// Whether the output projection is the token embedding.
    pub tied: bool,
    pub rope_theta: f32,
    pub rms_epsilon: f32,
    /// Longest context, in tokens.
    pub context: u32,
}

impl Shape {
    /// The shape of that name: `tiny`, `qwen3-0.6b` or `qwen3-1.7b`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self::tiny()),
            "qwen3-0.6b" => Some(Self::qwen3_0_6b()),
            "qwen3-1.7b" => Some(Self::qwen3_1_7b()),
            _ => None,
        }
    }

    /// A few megabytes: quick even in an emulated processor.
    pub fn tiny() -> Self {
        Self {
            layers: 4,
            hidden: 256,
            feed_forward: 768,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            vocabulary: None,
            tied: true,
            rope_theta: 1e6,
            rms_epsilon: 1e-6,
            context: 4096,
        }
    }

    /// Qwen3-0.6B's.
    pub fn qwen3_0_6b() -> Self {
        Self {
            layers: 28,
            hidden: 1024,
            feed_forward: 3072,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            vocabulary: Some(151_936),
            context: 40_960,
            ..Self::tiny()
        }
    }

    /// Qwen3-1.7B's.
    pub fn qwen3_1_7b() -> Self {
        Self {
            hidden: 2048,
            feed_forward: 6144,
            ..Self::qwen3_0_6b()
        }
    }
}

/// Which tensor gets which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    F16,
    Q8_0,
    /// llama.cpp's mixture: Q4_K, with Q6_K for the output and for the tensors that matter most.
    Q4KM,
}

impl Mix {
    /// `general.file_type`.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
        }
    }

    /// The format of a matrix that multiplies.
    pub(crate) fn ordinary(self) -> Format {
        match self {
            Self::F16 => Format::F16,
            Self::Q8_0 => Format::Q8_0,
            Self::Q4KM => Format::Q4K,
        }
    }

    /// The format of the output projection, and of value and down projections in some layers.
    pub(crate) fn finer(self) -> Format {
        match self {
            Self::Q4KM => Format::Q6K,
            other => other.ordinary(),
        }
    }

    /// The format of value and down projections in a layer: finer in the first and last eighth, and in every third between.
    pub(crate) fn sensitive(self, layer: u32, layers: u32) -> Format {
        let eighth = layers / 8;
        let more_bits = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
        if more_bits {
            self.finer()
        } else {
            self.ordinary()
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "F16",
            Self::Q8_0 => "Q8_0",
            Self::Q4KM => "Q4_K_M",
        })
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::F16, Self::Q8_0, Self::Q4KM]
            .into_iter()
            .find(|mix| mix.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("`{text}` is none of F16, Q8_0, Q4_K_M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_is_llama_cpps() {
        let finer = |layers: u32| -> Vec<u32> {
            (0..layers)
                .filter(|&layer| Mix::Q4KM.sensitive(layer, layers) == Format::Q6K)
                .collect()
        };
        assert_eq!(
            finer(28),
            [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]
        );
        assert_eq!(finer(4), [2, 3]);
        assert_eq!(finer(3), [2]);
    }

    #[test]
    fn mixes_read_what_they_print() {
        for mix in [Mix::F16, Mix::Q8_0, Mix::Q4KM] {
            assert_eq!(mix.to_string().to_lowercase().parse(), Ok(mix));
        }
        assert!("Q3_K".parse::<Mix>().is_err());
    }
}
