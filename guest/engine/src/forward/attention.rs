//! Attention: every head of every token over the keys and values of its sequence, up to its own position.
//!
//! The query heads that share a key head are computed together. Sums run over positions in ascending order.

use alloc::vec::Vec;

use kernels::math;

use super::Run;
use super::operations::Operations;
use crate::cache::{KvCache, PAGE, PageTable, Part};
use crate::model::Config;
use crate::workers::{Workers, for_each};

/// Where a token stands: its sequence and its position there.
pub(super) struct Place<'a> {
    pub pages: &'a PageTable,
    pub position: usize,
}

impl<'a> Place<'a> {
    /// The places of a run's tokens.
    pub fn of_run(run: &Run<'a>) -> impl Iterator<Item = Self> + use<'a> {
        let pages = run.pages;
        (run.start..)
            .take(run.tokens.len())
            .map(move |position| Self { pages, position })
    }
}

/// One thread's working memory.
pub(super) struct AttentionScratch {
    /// The weight of every position, for each query head of a group.
    pub scores: Vec<f32>,
    /// The query heads of a group, in the form that the keys' format wants.
    pub query: Vec<u8>,
}

impl<W: Workers> Operations<'_, W> {
    /// `out[t][h] = sum over p <= position of softmax(q[t][h] · key[p] / sqrt(head_dim)) value[p]`.
    #[allow(clippy::too_many_arguments)] // Each is a different thing, and there is one caller.
    pub fn attention(
        &self,
        config: &Config,
        cache: &KvCache,
        layer: usize,
        places: &[Place<'_>],
        q: &[f32],
        scratch: &mut [AttentionScratch],
        out: &mut [f32],
    ) {
        let group_width = config.group() * config.head_dim;
        // A unit is one token and one key head, a group of query heads. Threads get consecutive units of about equal cost.
        let mut rest = out;
        let mut unit = 0;
        let ends = split_by_cost(places, config.kv_heads, scratch.len());
        let parts = ends.into_iter().zip(scratch).map(|(end, scratch)| {
            let (out, after) = core::mem::take(&mut rest).split_at_mut((end - unit) * group_width);
            let first = unit;
            (rest, unit) = (after, end);
            (first, out, scratch)
        });
        for_each(self.workers, parts, |(first, out, scratch)| {
            for (unit, out) in (first..).zip(out.chunks_exact_mut(group_width)) {
                let (place, head) = (&places[unit / config.kv_heads], unit % config.kv_heads);
                let q = &q[unit * group_width..(unit + 1) * group_width];
                self.head_group(config, cache, layer, head, place, q, scratch, out);
            }
        });
    }

    /// The query heads `q` of one token that share the key head `head`.
    #[allow(clippy::too_many_arguments)] // As above.
    fn head_group(
        &self,
        config: &Config,
        cache: &KvCache,
        layer: usize,
        head: usize,
        place: &Place<'_>,
        q: &[f32],
        scratch: &mut AttentionScratch,
        out: &mut [f32],
    ) {
        let Config { head_dim, .. } = *config;
        let format = cache.format().format();
        let positions = place.position + 1;
        let query_bytes = scratch.query.len() / config.group();
        for (head, bytes) in q
            .chunks_exact(head_dim)
            .zip(scratch.query.chunks_exact_mut(query_bytes))
        {
            self.kernels.quantize(format.activation(), head, bytes);
        }
        let scores = &mut scratch.scores[..config.group() * positions];
        let keys = cache.rows(place.pages, layer, Part::Keys, head, positions);
        for (keys, first) in keys.zip((0..).step_by(PAGE)) {
            let out = &mut scores[first..];
            self.kernels.rows(
                format,
                keys,
                head_dim,
                &scratch.query,
                config.group(),
                out,
                positions,
            );
        }
        out.fill(0.0);
        for (scores, out) in scores
            .chunks_exact_mut(positions)
            .zip(out.chunks_exact_mut(head_dim))
        {
            self.kernels
                .softmax(scores, 1.0 / math::sqrt(head_dim as f32));
            let values = cache.rows(place.pages, layer, Part::Values, head, positions);
            for (values, scores) in values.zip(scores.chunks(PAGE)) {
                self.kernels.weighted_sum(format, scores, values, out);
            }
        }
    }
}

/// Where each of `parts` consecutive stretches of units ends, so that they cost about the same. A token costs as much as
/// it has positions to look at.
fn split_by_cost(places: &[Place<'_>], heads: usize, parts: usize) -> Vec<usize> {
    let cost = |place: &Place<'_>| place.position + 1;
    let total = places.iter().map(cost).sum::<usize>() * heads;
    let mut ends = Vec::with_capacity(parts);
    let (mut unit, mut spent) = (0, 0);
    for part in 1..=parts {
        let target = total * part / parts;
        while spent < target && unit < places.len() * heads {
            spent += cost(&places[unit / heads]);
            unit += 1;
        }
        ends.push(unit);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_shared_and_every_unit_is_done() {
        let pages = PageTable::default();
        let places: Vec<Place<'_>> = (0..100)
            .map(|position| Place {
                pages: &pages,
                position,
            })
            .collect();
        let ends = split_by_cost(&places, 2, 4);
        assert_eq!(ends.last(), Some(&200));
        let mut start = 0;
        for end in ends {
            let cost: usize = (start..end).map(|unit| places[unit / 2].position + 1).sum();
            assert!((2400..2600).contains(&cost), "{cost}");
            start = end;
        }
        assert_eq!(split_by_cost(&places[..1], 1, 3).last(), Some(&1));
    }
}
