//! Two models read one text in step.

use super::measures::Quality;
use super::{BATCH, HostSession};
use crate::failure::Failure;

/// What the text showed about both.
pub struct Comparison {
    pub reference: Quality,
    pub candidate: Quality,
}

/// Reads every window with both sessions.
pub fn compare(
    reference: &mut HostSession<'_>,
    candidate: &mut HostSession<'_>,
    windows: &[Vec<u32>],
) -> Result<Comparison, Failure> {
    let mut comparison = Comparison {
        reference: Quality::default(),
        candidate: Quality::default(),
    };
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for window in windows {
        reference.clear();
        candidate.clear();
        // The last token predicts nothing that is known.
        let inputs = window
            .get(..window.len().saturating_sub(1))
            .unwrap_or_default();
        let following = window.get(1..).unwrap_or_default();
        for (inputs, following) in inputs.chunks(BATCH).zip(following.chunks(BATCH)) {
            rows.clear();
            reference
                .feed_each(inputs, |logits| rows.push(logits.to_vec()))
                .map_err(Failure::new)?;
            for (row, &next) in rows.iter().zip(following) {
                comparison.reference.add(row, row, next);
            }
            let mut expected = rows.iter().zip(following);
            candidate
                .feed_each(inputs, |logits| {
                    if let Some((row, &next)) = expected.next() {
                        comparison.candidate.add(logits, row, next);
                    }
                })
                .map_err(Failure::new)?;
        }
    }
    Ok(comparison)
}
