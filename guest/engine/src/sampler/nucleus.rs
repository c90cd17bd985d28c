//! The tokens that may be drawn, and the draw.
//!
//! Candidates are in the order of their ids until top-k or top-p sorts them, the most probable first and equals by id.
//! Sums follow that order, in double precision. Sorting stops where the tail can no longer matter, which leaves the
//! result of a full sort.

use alloc::vec::Vec;
use core::cmp::Ordering;

use kernels::math;

/// A token and how probable it is, relative to the most probable one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub token: u32,
    pub weight: f32,
}

/// Fills `candidates` with the possible tokens at this temperature (above 0), in the order of their ids. The largest
/// weight is 1.
pub(super) fn collect(logits: &[f32], temperature: f32, candidates: &mut Vec<Candidate>) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    candidates.clear();
    candidates.extend((0..).zip(logits).filter_map(|(token, &logit)| {
        // Covers infinity, whose distance to itself is no number.
        let weight = if logit == max {
            1.0
        } else {
            math::exp((logit - max) / temperature)
        };
        (weight > 0.0).then_some(Candidate { token, weight })
    }));
}

/// The most probable first; equals by id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

/// Moves the `count` most probable candidates to the front, in order.
fn sort_front(candidates: &mut [Candidate], count: usize) {
    if count > 0 && count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, by_rank);
    }
    if let Some(front) = candidates.get_mut(..count.min(candidates.len())) {
        front.sort_unstable_by(by_rank);
    }
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight))
        .sum()
}

/// Leaves the `count` most probable; all if it is 0.
pub(super) fn keep_top_k(candidates: &mut Vec<Candidate>, count: usize) {
    if count > 0 && count < candidates.len() {
        sort_front(candidates, count);
        candidates.truncate(count);
    }
}

/// Leaves the fewest of the most probable whose probabilities add up to `probability`; all if that is 1.
pub(super) fn keep_top_p(candidates: &mut Vec<Candidate>, probability: f32) {
    if probability >= 1.0 {
        return;
    }
    let wanted = total(candidates) * f64::from(probability);
    let mut sorted = 64;
    loop {
        sort_front(candidates, sorted);
        let mut sum = 0.0;
        let reached = candidates.iter().take(sorted).position(|candidate| {
            sum += f64::from(candidate.weight);
            sum >= wanted
        });
        match reached {
            Some(last) => return candidates.truncate(last + 1),
            None if sorted >= candidates.len() => return,
            None => sorted *= 8,
        }
    }
}

/// Leaves those at least `ratio` times as probable as the most probable.
pub(super) fn keep_min_p(candidates: &mut Vec<Candidate>, ratio: f32) {
    if ratio > 0.0 {
        candidates.retain(|candidate| candidate.weight >= ratio);
    }
}

/// The candidate at `place`, a number in `0.0..1.0`, when they are laid side by side; token 0 if there is none.
pub(super) fn draw(candidates: &[Candidate], place: f64) -> u32 {
    let mut left = total(candidates) * place;
    for candidate in candidates {
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            return candidate.token;
        }
    }
    candidates.last().map_or(0, |candidate| candidate.token)
}
