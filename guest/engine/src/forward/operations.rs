//! The steps of a forward pass, each shared between the threads by tokens or by rows of the weights.

use core::mem;

use kernels::{Activation, Format, Kernels};

use crate::model::Matrix;
use crate::workers::{Workers, for_each, share};

/// Rows of a matrix that stay with one thread: whole groups of the kernels that take several rows at once.
const ROW_STEP: usize = 16;

/// What every step needs.
pub(super) struct Operations<'a, W> {
    pub kernels: &'static Kernels,
    pub workers: &'a W,
    pub epsilon: f32,
}

/// Working memory of a product.
pub(super) struct Scratch {
    /// The input in the forms that the matrices want.
    pub quantised: alloc::vec::Vec<u8>,
    /// The outputs, one block for each thread's share of the rows.
    pub panels: alloc::vec::Vec<f32>,
}

/// One thread's share of a product.
struct ProductPart<'p> {
    format: Format,
    weights: &'p [u8],
    columns: usize,
    input: &'p [u8],
    tokens: usize,
    out: &'p mut [f32],
    out_stride: usize,
}

impl<W: Workers> Operations<'_, W> {
    /// `x[t] = embedding[tokens[t]]`; the tokens are in the vocabulary.
    pub fn embed(&self, embedding: &Matrix<'_>, tokens: &[u32], x: &mut [f32]) {
        let width = embedding.columns;
        self.each_row(x, width, |index, row| {
            let token = tokens[index] as usize;
            self.kernels
                .dequantize(embedding.format, embedding.rows(token..token + 1), row);
        });
    }

    /// `h[t] = norm(x[t])`.
    pub fn norm(&self, x: &[f32], weight: &[f32], h: &mut [f32]) {
        let width = weight.len();
        self.each_row(h, width, |index, row| {
            self.kernels
                .rms_norm(row_of(x, width, index), weight, self.epsilon, row);
        });
    }

    /// Norms every head of every token by itself and turns it to the token's position.
    pub fn norm_and_rotate(&self, x: &mut [f32], weight: &[f32], angles: &[f32]) {
        let head_dim = weight.len();
        let tokens = angles.len() / head_dim;
        let width = x.len() / tokens;
        self.each_row(x, width, |index, row| {
            let (cos, sin) = row_of(angles, head_dim, index).split_at(head_dim / 2);
            for head in row.chunks_exact_mut(head_dim) {
                self.kernels.rms_norm_in_place(head, weight, self.epsilon);
                self.kernels.rope(head, cos, sin);
            }
        });
    }

    /// `x += y`, for tokens of `width` elements.
    pub fn add(&self, x: &mut [f32], y: &[f32], width: usize) {
        self.each_row(x, width, |index, row| {
            self.kernels.add(row, row_of(y, width, index))
        });
    }

    /// `gate = silu(gate) * up`, for tokens of `width` elements.
    pub fn swiglu(&self, gate: &mut [f32], up: &[f32], width: usize) {
        self.each_row(gate, width, |index, row| {
            self.kernels.swiglu(row, row_of(up, width, index))
        });
    }

    /// For each matrix and its output: `out[t] = matrix * x[t]` for all tokens.
    pub fn product<const N: usize>(
        &self,
        x: &[f32],
        tokens: usize,
        mut products: [(&Matrix<'_>, &mut [f32]); N],
        scratch: &mut Scratch,
    ) {
        let columns = x.len() / tokens;
        // The input in each form that is wanted, once.
        let mut inputs: [Option<(Activation, &[u8])>; N] = [None; N];
        let mut free = scratch.quantised.as_mut_slice();
        for (index, (matrix, _)) in products.iter().enumerate() {
            let activation = matrix.format.activation();
            if !inputs
                .iter()
                .flatten()
                .any(|(other, _)| *other == activation)
            {
                let row_bytes = activation.row_bytes(columns).unwrap_or(0);
                let (input, rest) = mem::take(&mut free).split_at_mut(tokens * row_bytes);
                self.each_row(input, row_bytes, |index, row| {
                    self.kernels
                        .quantize(activation, row_of(x, columns, index), row);
                });
                inputs[index] = Some((activation, input));
                free = rest;
            }
        }
        let input_for = |format: Format| {
            let wanted = format.activation();
            inputs
                .iter()
                .flatten()
                .find(|(activation, _)| *activation == wanted)
                .map_or(&[][..], |(_, input)| input)
        };

        // A thread's rows of several tokens are no contiguous part of the output: they go through panels.
        let threads = self.workers.count();
        let in_place = tokens == 1 || threads == 1;
        let mut panels = scratch.panels.as_mut_slice();
        let parts = products.iter_mut().flat_map(|(matrix, out)| {
            let matrix = **matrix;
            let mut out = if in_place {
                &mut **out
            } else {
                let (mine, rest) = mem::take(&mut panels).split_at_mut(out.len());
                panels = rest;
                mine
            };
            let input = input_for(matrix.format);
            (0..threads).map(move |thread| {
                let rows = share(matrix.rows, threads, thread, ROW_STEP);
                let (mine, rest) = mem::take(&mut out).split_at_mut(tokens * rows.len());
                out = rest;
                ProductPart {
                    format: matrix.format,
                    weights: matrix.rows(rows.clone()),
                    columns,
                    input,
                    tokens,
                    out: mine,
                    out_stride: rows.len(),
                }
            })
        });
        for_each(self.workers, parts, |part| {
            let ProductPart {
                format,
                weights,
                columns,
                input,
                tokens,
                out,
                out_stride,
            } = part;
            self.kernels
                .rows(format, weights, columns, input, tokens, out, out_stride);
        });
        if in_place {
            return;
        }
        let mut panels = scratch.panels.as_slice();
        for (matrix, out) in products {
            let (mine, rest) = panels.split_at(out.len());
            panels = rest;
            self.each_row(out, matrix.rows, |token, row| {
                for thread in 0..threads {
                    let rows = share(matrix.rows, threads, thread, ROW_STEP);
                    let panel = &mine[tokens * rows.start..tokens * rows.end];
                    row[rows.clone()].copy_from_slice(row_of(panel, rows.len(), token));
                }
            });
        }
    }

    /// Calls `task(index, row)` for every row of `width` elements, the rows shared evenly.
    fn each_row<T: Send>(&self, x: &mut [T], width: usize, task: impl Fn(usize, &mut [T]) + Sync) {
        let rows = (x.len() / width).div_ceil(self.workers.count()).max(1);
        let parts = x.chunks_mut(rows * width).enumerate();
        for_each(self.workers, parts, |(part, x)| {
            for (index, row) in x.chunks_exact_mut(width).enumerate() {
                task(part * rows + index, row);
            }
        });
    }
}

/// Row `index` of `width` elements.
fn row_of<T>(x: &[T], width: usize, index: usize) -> &[T] {
    &x[index * width..(index + 1) * width]
}
