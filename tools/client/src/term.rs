//! How long what a server proved holds, and so for how long its connection is used.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::claims::BACKDATING;

/// The last second of the year 9999, which no certificate outlives.
const LAST_SECOND: u64 = 253_402_300_799;

/// How long a proof holds, by the server's clock and by its owner's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// When the server will have another certificate: it makes one after two thirds of the life of each. Evidence is not older than this for
    /// anything that is asked.
    pub renewal: SystemTime,
    /// When the owner's endorsement ends, if one was demanded.
    pub end: Option<SystemTime>,
}

impl Term {
    /// Of a certificate with this first and last second since 1970, and an endorsement with this last one.
    pub(crate) fn new((first, last): (u64, u64), endorsed_until: Option<u64>) -> Self {
        let life = last.saturating_sub(first.saturating_add(BACKDATING.as_secs()));
        let moment = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
        Self {
            renewal: moment(last.saturating_sub(life / 3)),
            end: endorsed_until.map(moment),
        }
    }

    /// For how long a connection that was verified at `now` is used: until the server has another certificate, though not shorter than
    /// `least`, because a server may be late with it; and neither longer than `most` nor than the owner's word holds.
    pub fn left(&self, now: SystemTime, least: Duration, most: Duration) -> Duration {
        let until = |moment: SystemTime| moment.duration_since(now).unwrap_or_default();
        let most = self.end.map_or(most, |end| until(end).min(most));
        until(self.renewal).max(least).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_651_200;
    const LEAST: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A certificate made at `NOW` with this many seconds to live.
    fn made(life: u64, endorsed_for: Option<u64>) -> Term {
        let validity = (NOW - BACKDATING.as_secs(), NOW + life);
        Term::new(validity, endorsed_for.map(|seconds| NOW + seconds))
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        for (life, renewed) in [(15, 10), (600, 400), (3000, 2000)] {
            assert_eq!(made(life, None).renewal, at(NOW + renewed), "{life}");
        }
        // Dates that no machine of ours makes, but that a certificate may have.
        for validity in [(0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            assert!(Term::new(validity, Some(u64::MAX)).renewal <= at(LAST_SECOND));
        }
    }

    #[test]
    fn a_connection_is_used_until_the_first_of_its_ends() {
        for (life, endorsed_for, later, most, left) in [
            // The next certificate, by itself and when some of its time has passed.
            (600, None, 0, 600, 400),
            (600, None, 150, 600, 250),
            // The maximum age.
            (600, None, 0, 60, 60),
            (600, None, 0, 2, 2),
            // A server that is late with its next certificate.
            (600, None, 399, 600, 5),
            (600, None, 500, 600, 5),
            // The owner's word, which has no grace.
            (600, Some(100), 0, 600, 100),
            (600, Some(1000), 0, 600, 400),
            (600, Some(402), 400, 600, 2),
            (600, Some(100), 101, 600, 0),
        ] {
            let most = Duration::from_secs(most);
            let found = made(life, endorsed_for).left(at(NOW + later), LEAST, most);
            let case = format!("{life} {endorsed_for:?} {later} {most:?}");
            assert_eq!(found, Duration::from_secs(left), "{case}");
        }
    }
}
