//! Numbers made of many measurements.

use serde::Serialize;

/// The middle one of some numbers, or what is halfway between the two in the middle. NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let values = sorted(values);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(value) if values.len() % 2 == 1 => *value,
        Some(value) => value.midpoint(values[middle - 1]),
    }
}

/// The smallest of some numbers that at least the `percent`th part of them do not exceed (nearest rank). NaN of none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let values = sorted(values);
    let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
    let rank = rank.clamp(1, values.len().max(1));
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// How long something took, over many times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub samples: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

impl Percentiles {
    /// Of some numbers.
    pub fn of(values: &[f64]) -> Self {
        Self {
            samples: values.len(),
            p50: percentile(values, 50.0),
            p90: percentile(values, 90.0),
            p99: percentile(values, 99.0),
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let Percentiles { p50, p90, p99, .. } = Percentiles::of(&values);
        assert_eq!([p50, p90, p99], [50.0, 90.0, 99.0]);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert_eq!(percentile(&[1.0, 2.0], 50.0), 1.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
