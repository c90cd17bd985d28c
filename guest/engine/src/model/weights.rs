//! The weight matrices and norms of one model, borrowed from the file where they are large.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernels::Format;

use super::Config;
use crate::gguf::{Gguf, GgufError, Problem, Tensor, TensorField};

/// A weight matrix: `rows` outputs of `columns` inputs each.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub format: Format,
    pub rows: usize,
    pub columns: usize,
    /// Contiguous rows.
    pub data: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The bytes of some rows; empty if they are not all there.
    pub fn rows(&self, range: core::ops::Range<usize>) -> &'a [u8] {
        let row_bytes = self.data.len() / self.rows;
        self.data
            .get(range.start * row_bytes..range.end * row_bytes)
            .unwrap_or_default()
    }
}

/// The weights of one transformer block.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    pub attention_norm: Vec<f32>,
    pub wq: Matrix<'a>,
    pub wk: Matrix<'a>,
    pub wv: Matrix<'a>,
    /// One head long each: every head is normed by itself.
    pub q_norm: Vec<f32>,
    pub k_norm: Vec<f32>,
    pub wo: Matrix<'a>,
    pub feed_forward_norm: Vec<f32>,
    pub gate: Matrix<'a>,
    pub up: Matrix<'a>,
    pub down: Matrix<'a>,
}

/// All weights.
#[derive(Clone, Debug)]
pub struct Weights<'a> {
    /// One row a token.
    pub embedding: Matrix<'a>,
    pub layers: Vec<Layer<'a>>,
    pub output_norm: Vec<f32>,
    /// One row a token; the embedding again if the model ties them.
    pub output: Matrix<'a>,
}

impl<'a> Weights<'a> {
    /// Finds every tensor that `config` and a vocabulary of `tokens` ask for.
    ///
    /// # Errors
    /// A tensor is missing, or its shape or type is wrong.
    pub fn from_gguf(gguf: &Gguf<'a>, config: &Config, tokens: usize) -> Result<Self, GgufError> {
        let Config {
            hidden,
            feed_forward,
            head_dim,
            ..
        } = *config;
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        // No room is reserved for `config.layers`: that is only what the file claims.
        let mut layers = Vec::new();
        for index in 0..config.layers {
            let matrix =
                |name: &str, columns, rows| matrix(gguf, &block(index, name), columns, rows);
            let norm = |name: &str, length| norm(gguf, &block(index, name), length);
            layers.push(Layer {
                attention_norm: norm("attn_norm", hidden)?,
                wq: matrix("attn_q", hidden, q_width)?,
                wk: matrix("attn_k", hidden, kv_width)?,
                wv: matrix("attn_v", hidden, kv_width)?,
                q_norm: norm("attn_q_norm", head_dim)?,
                k_norm: norm("attn_k_norm", head_dim)?,
                wo: matrix("attn_output", q_width, hidden)?,
                feed_forward_norm: norm("ffn_norm", hidden)?,
                gate: matrix("ffn_gate", hidden, feed_forward)?,
                up: matrix("ffn_up", hidden, feed_forward)?,
                down: matrix("ffn_down", feed_forward, hidden)?,
            });
        }
        let embedding = matrix(gguf, "token_embd.weight", hidden, tokens)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => matrix(gguf, "output.weight", hidden, tokens)?,
            None => embedding,
        };
        Ok(Self {
            embedding,
            layers,
            output_norm: norm(gguf, "output_norm.weight", hidden)?,
            output,
        })
    }

    /// Every matrix that a forward pass multiplies by.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix<'a>> {
        self.layers
            .iter()
            .flat_map(|layer| {
                [
                    &layer.wq,
                    &layer.wk,
                    &layer.wv,
                    &layer.wo,
                    &layer.gate,
                    &layer.up,
                    &layer.down,
                ]
            })
            .chain([&self.output])
    }
}

fn block(index: usize, name: &str) -> String {
    format!("blk.{index}.{name}.weight")
}

fn find<'g, 'a>(
    gguf: &'g Gguf<'a>,
    name: &str,
    shape: [usize; 2],
) -> Result<&'g Tensor<'a>, GgufError> {
    let tensor = gguf
        .tensor(name)
        .ok_or_else(|| GgufError::tensor(name, TensorField::Whole, Problem::Missing))?;
    let wanted = [shape[0] as u64, shape[1] as u64, 1, 1];
    if tensor.dimensions != wanted {
        let why = format!("{:?}, not {wanted:?}", tensor.dimensions);
        return Err(GgufError::tensor(
            name,
            TensorField::Dimensions,
            Problem::BadValue(why),
        ));
    }
    Ok(tensor)
}

fn matrix<'a>(
    gguf: &Gguf<'a>,
    name: &str,
    columns: usize,
    rows: usize,
) -> Result<Matrix<'a>, GgufError> {
    let tensor = find(gguf, name, [columns, rows])?;
    Ok(Matrix {
        format: tensor.format,
        rows,
        columns,
        data: tensor.data,
    })
}

/// A norm's weights, copied: they are few, and this way they are numbers.
fn norm(gguf: &Gguf<'_>, name: &str, length: usize) -> Result<Vec<f32>, GgufError> {
    let tensor = find(gguf, name, [length, 1])?;
    if tensor.format != Format::F32 {
        let why = format!("{} in place of F32", tensor.format.name());
        return Err(GgufError::tensor(
            name,
            TensorField::Type,
            Problem::UnsupportedTensorType(why),
        ));
    }
    let (numbers, _) = tensor.data.as_chunks::<4>();
    Ok(numbers
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect())
}
