//! Rotary position embedding: the angle by which each pair of a head's elements turns at each position.
//!
//! Pair `i` (elements `i` and `i + head_dim / 2`) turns by `position * theta^(-2i / head_dim)`. YaRN (Peng et al. 2023),
//! with the parameters that llama.cpp and Qwen3 use, slows the pairs that turn too rarely within the trained context,
//! leaves the fast ones alone, ramps between, and enlarges keys and queries a little.

use alloc::format;
use alloc::vec::Vec;

use kernels::math;

use super::config::{Config, MAX_CONTEXT};
use crate::gguf::{Gguf, GgufError, Problem, Quoted};

/// How a model was stretched beyond its trained context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    None,
    /// Every angle divided by `factor`.
    Linear {
        factor: f64,
    },
    Yarn {
        factor: f64,
        attention_factor: f64,
        original_context: usize,
        /// Turns within the original context above which a pair is left alone.
        fast_turns: f64,
        /// And below which it is slowed fully.
        slow_turns: f64,
    },
}

/// The frequencies of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians a position, for each pair.
    frequencies: Vec<f64>,
    /// What keys and queries are enlarged by.
    magnitude: f64,
}

impl Rope {
    /// The frequencies that the file asks for, whose tensors are as wide as `config` says.
    ///
    /// # Errors
    /// A key is of the wrong type, or its value makes no sense.
    pub fn from_gguf(gguf: &Gguf<'_>, config: &Config) -> Result<Self, GgufError> {
        Ok(Self::new(
            config.head_dim,
            theta(gguf)?,
            scaling(gguf, config.context_length)?,
        ))
    }

    /// The frequencies for heads of `head_dim` elements and the base `theta`, which is above 1.
    pub fn new(head_dim: usize, theta: f64, scaling: Scaling) -> Self {
        let dims = head_dim as f64;
        let plain = (0..head_dim / 2).map(|pair| math::pow(theta, -2.0 * pair as f64 / dims));
        match scaling {
            Scaling::None => Self {
                frequencies: plain.collect(),
                magnitude: 1.0,
            },
            Scaling::Linear { factor } => Self {
                frequencies: plain.map(|frequency| frequency / factor).collect(),
                magnitude: 1.0,
            },
            Scaling::Yarn {
                factor,
                attention_factor,
                original_context,
                fast_turns,
                slow_turns,
            } => {
                // The (fractional) pair that makes so many turns within the trained context.
                let pair_with = |turns: f64| {
                    let radians = turns * 2.0 * core::f64::consts::PI;
                    dims * math::ln(original_context as f64 / radians) / (2.0 * math::ln(theta))
                };
                let low = floor(pair_with(fast_turns)).max(0.0);
                let high = ceil(pair_with(slow_turns)).min(dims - 1.0);
                let frequencies = plain
                    .enumerate()
                    .map(|(pair, frequency)| {
                        let ramp = (pair as f64 - low) / (high - low).max(0.001);
                        let kept = 1.0 - ramp.clamp(0.0, 1.0);
                        frequency / factor * (1.0 - kept) + frequency * kept
                    })
                    .collect();
                Self {
                    frequencies,
                    magnitude: attention_factor * (1.0 + 0.1 * math::ln(factor)),
                }
            }
        }
    }

    /// The cosines and sines of every pair's angle at `position`, enlarged; both slices are half a head long.
    pub fn angles(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((frequency, cos), sin) in self.frequencies.iter().zip(cos).zip(sin) {
            let angle = frequency * position as f64;
            *cos = (math::cos(angle) * self.magnitude) as f32;
            *sin = (math::sin(angle) * self.magnitude) as f32;
        }
    }
}

/// The base of the rotary frequencies.
fn theta(gguf: &Gguf<'_>) -> Result<f64, GgufError> {
    const THETA: &str = "qwen3.rope.freq_base";
    // The default of the format, and of the architecture's first implementation.
    let theta = gguf.float(THETA)?.unwrap_or(10_000.0);
    if theta <= 1.0 {
        return Err(GgufError::key(
            THETA,
            Problem::BadValue(format!("{theta} is not above 1")),
        ));
    }
    Ok(theta.into())
}

/// How positions beyond the trained context are squeezed, `qwen3.rope.scaling.*`.
fn scaling(gguf: &Gguf<'_>, context_length: usize) -> Result<Scaling, GgufError> {
    const TYPE: &str = "qwen3.rope.scaling.type";
    const FACTOR: &str = "qwen3.rope.scaling.factor";
    const ATTENTION: [&str; 2] = [
        "qwen3.rope.scaling.attn_factor",
        "qwen3.rope.scaling.yarn_attn_factor",
    ];
    const FAST: &str = "qwen3.rope.scaling.yarn_beta_fast";
    const SLOW: &str = "qwen3.rope.scaling.yarn_beta_slow";
    const EXTRAPOLATION: &str = "qwen3.rope.scaling.yarn_ext_factor";
    const ORIGINAL: &str = "qwen3.rope.scaling.original_context_length";
    let positive = |key: &str| match gguf.float(key)? {
        Some(value) if value > 0.0 => Ok(Some(f64::from(value))),
        Some(value) => Err(GgufError::key(
            key,
            Problem::BadValue(format!("{value} is not positive")),
        )),
        None => Ok(None),
    };
    let kind = gguf.string(TYPE)?.unwrap_or("none");
    if kind == "none" {
        return Ok(Scaling::None);
    }
    let factor = positive(FACTOR)?.ok_or_else(|| GgufError::key(FACTOR, Problem::Missing))?;
    match kind {
        "linear" => Ok(Scaling::Linear { factor }),
        "yarn" => {
            // How much of the ramp is applied. Converters that write it write 1, or a negative number for the default.
            if let Some(value) = gguf.float(EXTRAPOLATION)?
                && value >= 0.0
                && value != 1.0
            {
                let why = format!("{value} is not supported, only 1 is");
                return Err(GgufError::key(EXTRAPOLATION, Problem::BadValue(why)));
            }
            let [general, own] =
                ATTENTION.map(|key| positive(key).map(|value| value.unwrap_or(1.0)));
            Ok(Scaling::Yarn {
                factor,
                attention_factor: general? * own?,
                original_context: match gguf.integer(ORIGINAL)? {
                    Some(_) => gguf.positive(ORIGINAL, MAX_CONTEXT)?,
                    None => context_length,
                },
                fast_turns: positive(FAST)?.unwrap_or(32.0),
                slow_turns: positive(SLOW)?.unwrap_or(1.0),
            })
        }
        other => Err(GgufError::key(
            TYPE,
            Problem::BadValue(format!("{} is not supported", Quoted(other))),
        )),
    }
}

/// The largest whole number not above `x`, for the small numbers here; `core` has no `floor`.
fn floor(x: f64) -> f64 {
    let truncated = x as i64 as f64;
    if truncated > x {
        truncated - 1.0
    } else {
        truncated
    }
}

fn ceil(x: f64) -> f64 {
    -floor(-x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Field;
    use crate::gguf_writer::{Aligned, GgufWriter};
    use alloc::vec;

    fn angles(rope: &Rope, position: usize) -> (Vec<f32>, Vec<f32>) {
        let mut cos = vec![0.0; rope.frequencies.len()];
        let mut sin = cos.clone();
        rope.angles(position, &mut cos, &mut sin);
        (cos, sin)
    }

    #[test]
    fn plain_angles() {
        let rope = Rope::new(128, 1e6, Scaling::None);
        for position in [0, 1, 631, 40_959] {
            let (cos, sin) = angles(&rope, position);
            for pair in 0..64 {
                let angle = position as f64 * 1e6f64.powf(-2.0 * pair as f64 / 128.0);
                assert!(
                    (f64::from(cos[pair]) - angle.cos()).abs() < 1e-7,
                    "{position} {pair}"
                );
                assert!(
                    (f64::from(sin[pair]) - angle.sin()).abs() < 1e-7,
                    "{position} {pair}"
                );
            }
        }
    }

    #[test]
    fn linear_is_a_slower_position() {
        let (plain, linear) = (
            Rope::new(64, 1e4, Scaling::None),
            Rope::new(64, 1e4, Scaling::Linear { factor: 4.0 }),
        );
        let (a, b) = (angles(&plain, 100), angles(&linear, 400));
        assert!(a.0.iter().zip(&b.0).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn yarn_of_qwen3() {
        // As Qwen3's model cards configure it: factor 4 over 32768. Expected values from the formulas of the paper with
        // beta_fast 32 and beta_slow 1: low = floor(23.59..), high = ceil(39.64..), magnitude 1.1386294.
        let yarn = Scaling::Yarn {
            factor: 4.0,
            attention_factor: 1.0,
            original_context: 32768,
            fast_turns: 32.0,
            slow_turns: 1.0,
        };
        let rope = Rope::new(128, 1e6, yarn);
        assert!((rope.magnitude - 1.138_629_436).abs() < 1e-8);
        let plain = Rope::new(128, 1e6, Scaling::None);
        let ratio = |pair: usize| plain.frequencies[pair] / rope.frequencies[pair];
        assert!((ratio(0) - 1.0).abs() < 1e-12 && (ratio(23) - 1.0).abs() < 1e-12);
        assert!((ratio(40) - 4.0).abs() < 1e-12 && (ratio(63) - 4.0).abs() < 1e-12);
        assert!(ratio(24) > 1.0 && ratio(39) < 4.0);
    }

    #[test]
    fn yarn_as_the_file_has_it() {
        let read = |more: &[(&str, f32)]| {
            let mut writer = GgufWriter::new();
            writer
                .string("qwen3.rope.scaling.type", "yarn")
                .f32("qwen3.rope.scaling.factor", 4.0);
            for (key, value) in more {
                writer.f32(&format!("qwen3.rope.scaling.{key}"), *value);
            }
            let file = Aligned::new(&writer.finish().1);
            scaling(&Gguf::parse(file.bytes()).unwrap(), 1024)
        };
        let expected = |attention_factor, fast_turns, slow_turns| Scaling::Yarn {
            factor: 4.0,
            attention_factor,
            original_context: 1024,
            fast_turns,
            slow_turns,
        };
        assert_eq!(read(&[]), Ok(expected(1.0, 32.0, 1.0)));
        assert_eq!(
            read(&[
                ("attn_factor", 0.5),
                ("yarn_attn_factor", 3.0),
                ("yarn_beta_fast", 16.0),
                ("yarn_beta_slow", 2.0),
                ("yarn_ext_factor", -1.0),
            ]),
            Ok(expected(1.5, 16.0, 2.0))
        );
        for (key, value) in [("yarn_ext_factor", 0.5), ("yarn_beta_slow", 0.0)] {
            let key_name = format!("qwen3.rope.scaling.{key}");
            assert_eq!(
                read(&[(key, value)]).unwrap_err().field,
                Field::Key(key_name)
            );
        }
    }

    #[test]
    fn rounding_without_std() {
        for x in [-2.5, -2.0, -0.1, 0.0, 0.1, 2.0, 2.5] {
            assert_eq!((floor(x), ceil(x)), (x.floor(), x.ceil()));
        }
    }
}
