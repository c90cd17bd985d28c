//! The working memory of a forward pass, all of it allocated at the start.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use kernels::Activation;

use super::attention::AttentionScratch;
use super::operations::Scratch;
use crate::cache::KvFormat;
use crate::model::Model;

/// What one forward pass must have room for.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    /// Tokens.
    pub rows: usize,
    /// Rows of logits, at most `rows`.
    pub outputs: usize,
    /// Positions of a sequence.
    pub context: usize,
    /// Threads.
    pub threads: usize,
    /// How keys are stored, and so what queries become.
    pub kv: KvFormat,
}

/// Every buffer, named as in the forward pass.
pub(super) struct Buffers {
    pub x: Vec<f32>,
    pub h: Vec<f32>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub attended: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    /// For each token, the cosines and then the sines of its position.
    pub angles: Vec<f32>,
    pub scratch: Scratch,
    pub attention: Vec<AttentionScratch>,
    pub logits: Vec<f32>,
}

/// The length of every buffer, in its elements.
struct Lengths {
    hidden: usize,
    q: usize,
    kv: usize,
    feed_forward: usize,
    angles: usize,
    quantised: usize,
    panels: usize,
    scores: usize,
    query: usize,
    logits: usize,
}

impl Lengths {
    fn new(model: &Model<'_>, capacity: &Capacity) -> Self {
        let config = model.config();
        let Capacity {
            rows,
            outputs,
            context,
            threads,
            kv,
        } = *capacity;
        let widest_input = config.hidden.max(config.q_width()).max(config.feed_forward);
        let outputs_together = (config.q_width() + 2 * config.kv_width())
            .max(2 * config.feed_forward)
            .max(config.hidden);
        let logits = outputs * model.weights().output.rows;
        Self {
            hidden: rows * config.hidden,
            q: rows * config.q_width(),
            kv: rows * config.kv_width(),
            feed_forward: rows * config.feed_forward,
            angles: rows * config.head_dim,
            quantised: rows * quantised_bytes(model, widest_input),
            // A single thread, and a single token, are written in place.
            panels: if threads == 1 {
                0
            } else {
                (rows * outputs_together).max(logits)
            },
            scores: config.group() * context,
            query: config.group()
                * kv.format()
                    .activation()
                    .row_bytes(config.head_dim)
                    .unwrap_or(0),
            logits,
        }
    }

    /// Bytes of all buffers together.
    fn bytes(&self, threads: usize) -> usize {
        let floats = 2 * (self.hidden + self.q + self.kv + self.feed_forward)
            + self.angles
            + self.panels
            + self.logits;
        4 * floats + self.quantised + threads * (4 * self.scores + self.query)
    }
}

/// Bytes of one input in every form that some matrix of the model wants.
fn quantised_bytes(model: &Model<'_>, width: usize) -> usize {
    [
        Activation::F32,
        Activation::Q8_0,
        Activation::Q8_1,
        Activation::Q8K,
    ]
    .into_iter()
    .filter(|&activation| {
        model
            .weights()
            .matrices()
            .any(|matrix| matrix.format.activation() == activation)
    })
    // 256 is a multiple of every block.
    .filter_map(|activation| activation.row_bytes(width.next_multiple_of(256)))
    .sum()
}

impl Buffers {
    /// Bytes that [`Buffers::new`] takes.
    pub fn bytes(model: &Model<'_>, capacity: &Capacity) -> usize {
        Lengths::new(model, capacity).bytes(capacity.threads)
    }

    /// # Errors
    /// There is not enough memory.
    pub fn new(model: &Model<'_>, capacity: &Capacity) -> Result<Self, TryReserveError> {
        let lengths = Lengths::new(model, capacity);
        let attention = (0..capacity.threads)
            .map(|_| {
                Ok(AttentionScratch {
                    scores: zeroed(lengths.scores)?,
                    query: zeroed(lengths.query)?,
                })
            })
            .collect::<Result<_, TryReserveError>>()?;
        Ok(Self {
            x: zeroed(lengths.hidden)?,
            h: zeroed(lengths.hidden)?,
            q: zeroed(lengths.q)?,
            k: zeroed(lengths.kv)?,
            v: zeroed(lengths.kv)?,
            attended: zeroed(lengths.q)?,
            gate: zeroed(lengths.feed_forward)?,
            up: zeroed(lengths.feed_forward)?,
            angles: zeroed(lengths.angles)?,
            scratch: Scratch {
                quantised: zeroed(lengths.quantised)?,
                panels: zeroed(lengths.panels)?,
            },
            attention,
            logits: zeroed(lengths.logits)?,
        })
    }
}

impl Capacity {
    /// Bytes of working memory for this much.
    pub fn bytes(&self, model: &Model<'_>) -> usize {
        Buffers::bytes(model, self)
    }
}

fn zeroed<T: Clone + Default>(length: usize) -> Result<Vec<T>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length)?;
    buffer.resize(length, T::default());
    Ok(buffer)
}
