//! The forward pass of Qwen3: tokens in, logits out, keys and values into the cache.
//!
//! Tokens come as runs, each a piece of one sequence: a whole prompt, a part of one, or one token. What a token's
//! logits are does not depend on what else is in the batch, on where a prompt was cut, or on the number of threads:
//! every number is computed whole by one thread, in an order that depends on the shape of the model and the
//! token's position alone. The kernels promise the same for the products.

mod attention;
mod buffers;
mod operations;

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use kernels::Kernels;

use crate::cache::{KvCache, PageTable, Part};
use crate::model::Model;
use crate::workers::Workers;
use attention::Place;
use buffers::Buffers;
pub(crate) use buffers::Capacity;
use operations::Operations;

/// Consecutive tokens of one sequence.
pub(crate) struct Run<'a> {
    /// At least one, each in the vocabulary.
    pub tokens: &'a [u32],
    /// The position of the first; all earlier positions are in the cache.
    pub start: usize,
    /// The sequence's pages, which reach all positions.
    pub pages: &'a PageTable,
    /// Of how many of the last tokens the logits are wanted.
    pub outputs: usize,
}

/// A model ready to compute, with its working memory.
pub(crate) struct Forward<'m, W> {
    model: Model<'m>,
    kernels: &'static Kernels,
    workers: W,
    capacity: Capacity,
    buffers: Buffers,
}

impl<'m, W: Workers> Forward<'m, W> {
    /// # Errors
    /// There is not enough memory.
    pub fn new(
        model: Model<'m>,
        kernels: &'static Kernels,
        workers: W,
        capacity: Capacity,
    ) -> Result<Self, TryReserveError> {
        let buffers = Buffers::new(&model, &capacity)?;
        Ok(Self {
            model,
            kernels,
            workers,
            capacity,
            buffers,
        })
    }

    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// How much fits into one pass.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Computes `runs`, which fit the capacity, and returns the logits that they ask for, in their order: as many floats for
    /// each as there are tokens in the vocabulary.
    pub fn forward(&mut self, cache: &mut KvCache, runs: &[Run<'_>]) -> Logits<'_, 'm, W> {
        let config = self.model.config();
        let weights = self.model.weights();
        let (hidden, head_dim) = (config.hidden, config.head_dim);
        let tokens: Vec<u32> = runs.iter().flat_map(|run| run.tokens).copied().collect();
        let places: Vec<Place<'_>> = runs.iter().flat_map(Place::of_run).collect();
        let op = Operations {
            kernels: self.kernels,
            workers: &self.workers,
            epsilon: config.epsilon,
        };
        let Buffers {
            x,
            h,
            q,
            k,
            v,
            attended,
            gate,
            up,
            angles,
            scratch,
            attention,
            logits,
        } = &mut self.buffers;
        let rows = tokens.len();
        let x = &mut x[..rows * hidden];
        let h = &mut h[..rows * hidden];
        let q = &mut q[..rows * config.q_width()];
        let k = &mut k[..rows * config.kv_width()];
        let v = &mut v[..rows * config.kv_width()];
        let attended = &mut attended[..rows * config.q_width()];
        let gate = &mut gate[..rows * config.feed_forward];
        let up = &mut up[..rows * config.feed_forward];
        let angles = &mut angles[..rows * head_dim];

        op.embed(&weights.embedding, &tokens, x);
        for (place, angles) in places.iter().zip(angles.chunks_exact_mut(head_dim)) {
            let (cos, sin) = angles.split_at_mut(head_dim / 2);
            self.model.rope().angles(place.position, cos, sin);
        }
        for (index, layer) in weights.layers.iter().enumerate() {
            op.norm(x, &layer.attention_norm, h);
            op.product(
                h,
                rows,
                [
                    (&layer.wq, &mut *q),
                    (&layer.wk, &mut *k),
                    (&layer.wv, &mut *v),
                ],
                scratch,
            );
            op.norm_and_rotate(q, &layer.q_norm, angles);
            op.norm_and_rotate(k, &layer.k_norm, angles);
            for ((place, k), v) in places
                .iter()
                .zip(k.chunks_exact(config.kv_width()))
                .zip(v.chunks_exact(config.kv_width()))
            {
                cache.store(
                    self.kernels,
                    place.pages,
                    index,
                    Part::Keys,
                    place.position,
                    k,
                );
                cache.store(
                    self.kernels,
                    place.pages,
                    index,
                    Part::Values,
                    place.position,
                    v,
                );
            }
            op.attention(config, cache, index, &places, q, attention, attended);
            op.product(attended, rows, [(&layer.wo, &mut *h)], scratch);
            op.add(x, h, hidden);

            op.norm(x, &layer.feed_forward_norm, h);
            op.product(
                h,
                rows,
                [(&layer.gate, &mut *gate), (&layer.up, &mut *up)],
                scratch,
            );
            op.swiglu(gate, up, config.feed_forward);
            op.product(gate, rows, [(&layer.down, &mut *h)], scratch);
            op.add(x, h, hidden);
        }

        // Only the wanted rows go on, packed together.
        let mut outputs = 0;
        let mut row = 0;
        for run in runs {
            row += run.tokens.len();
            let wanted = run.outputs.min(run.tokens.len());
            x.copy_within((row - wanted) * hidden..row * hidden, outputs * hidden);
            outputs += wanted;
        }
        let logits = &mut logits[..outputs * weights.output.rows];
        if outputs > 0 {
            let h = &mut h[..outputs * hidden];
            op.norm(&x[..outputs * hidden], &weights.output_norm, h);
            op.product(h, outputs, [(&weights.output, &mut *logits)], scratch);
        }
        Logits {
            values: logits,
            model: &self.model,
            kernels: self.kernels,
            workers: &self.workers,
        }
    }
}

/// The logits of a forward pass, and what is needed to go on from them.
pub(crate) struct Logits<'f, 'm, W> {
    /// For each output in turn, one float for each token of the vocabulary.
    pub values: &'f mut [f32],
    pub model: &'f Model<'m>,
    pub kernels: &'static Kernels,
    pub workers: &'f W,
}
