//! The numbers, and how they come from logits.

use engine::KvFormat;

use super::speed::Speed;

/// All that is said about one model with one KV format.
pub struct Measures {
    pub name: String,
    pub kv: KvFormat,
    pub quality: Quality,
    /// Share of questions answered correctly, if there were any.
    pub accuracy: Option<f64>,
    pub speed: Speed,
}

/// How well a text was predicted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quality {
    /// Sum of -ln p over the tokens that followed.
    surprise: f64,
    /// Sum of the Kullback-Leibler divergence from the reference.
    divergence: f64,
    /// Positions where the likeliest token is the reference's.
    agreements: u64,
    positions: u64,
}

impl Quality {
    /// Takes in one position: the logits, the reference's, and the token that followed.
    pub fn add(&mut self, logits: &[f32], reference: &[f32], next: u32) {
        let normaliser = log_sum_exp(logits);
        let reference_normaliser = log_sum_exp(reference);
        let next = logits
            .get(next as usize)
            .copied()
            .unwrap_or(f32::NEG_INFINITY);
        self.surprise += normaliser - f64::from(next);
        self.divergence += logits
            .iter()
            .zip(reference)
            .map(|(&logit, &reference)| {
                let expected = f64::from(reference) - reference_normaliser;
                let found = f64::from(logit) - normaliser;
                match expected.exp() {
                    0.0 => 0.0,
                    probability => probability * (expected - found),
                }
            })
            .sum::<f64>();
        self.agreements += u64::from(likeliest(logits) == likeliest(reference));
        self.positions += 1;
    }

    pub fn perplexity(&self) -> f64 {
        self.mean(self.surprise).exp()
    }

    /// Mean divergence in nats.
    pub fn divergence(&self) -> f64 {
        self.mean(self.divergence)
    }

    /// Share of positions with the reference's likeliest token.
    pub fn agreement(&self) -> f64 {
        self.mean(self.agreements as f64)
    }

    pub fn positions(&self) -> u64 {
        self.positions
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.positions.max(1) as f64
    }
}

/// ln of the sum of exponentials, without overflow.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let most = f64::from(most);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - most).exp()).sum();
    most + sum.ln()
}

fn likeliest(logits: &[f32]) -> Option<usize> {
    let largest = logits
        .iter()
        .enumerate()
        .rev()
        .max_by(|a, b| a.1.total_cmp(b.1));
    largest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreeing_predictions_do_not_diverge() {
        let logits = [0.0, 0.0, 0.0, 0.0];
        let mut quality = Quality::default();
        quality.add(&logits, &logits, 2);
        assert!((quality.perplexity() - 4.0).abs() < 1e-9);
        assert!(quality.divergence().abs() < 1e-12);
        assert_eq!(quality.agreement(), 1.0);
    }

    #[test]
    fn divergence_is_kullback_and_leiblers() {
        // Reference 1/4 and 3/4, candidate 1/2 and 1/2.
        let reference = [0.25_f32.ln(), 0.75_f32.ln()];
        let mut quality = Quality::default();
        quality.add(&[1000.0, 1000.0], &reference, 0);
        let expected = 0.25 * 0.5_f64.ln() + 0.75 * 1.5_f64.ln();
        assert!((quality.divergence() - expected).abs() < 1e-6);
        assert_eq!(quality.agreement(), 0.0);
        assert!((quality.perplexity() - 2.0).abs() < 1e-6);
    }
}
