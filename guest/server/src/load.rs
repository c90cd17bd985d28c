//! What the CPU that serves spends its time on. The operator reads it at `/health`, and a benchmark what serving costs beside computing.

use core::time::Duration;

/// Time spent awake, by what it was spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// In the engine's steps, with all CPUs.
    pub(crate) computing: Duration,
    /// On everything else, while the engine waits: devices, TLS, evidence, requests and answers.
    pub(crate) serving: Duration,
    /// Until when time is accounted for; none after a rest, whose end nobody notes.
    accounted: Option<Duration>,
}

impl Load {
    /// What has passed until `now` was serving.
    pub(crate) fn served(&mut self, now: Duration) {
        let passed = self.passed(now);
        self.serving += passed;
    }

    /// What has passed until `now` was computing.
    pub(crate) fn computed(&mut self, now: Duration) {
        let passed = self.passed(now);
        self.computing += passed;
    }

    /// There is nothing to do: what passes until the next call is neither.
    pub(crate) fn rest(&mut self) {
        self.accounted = None;
    }

    fn passed(&mut self, now: Duration) -> Duration {
        let from = self.accounted.replace(now).unwrap_or(now);
        now.saturating_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_not_accounted_for() {
        let at = Duration::from_millis;
        let mut load = Load::default();
        load.served(at(100));
        load.served(at(103));
        load.computed(at(143));
        // What happens between two turns belongs to the second one.
        load.served(at(145));
        load.rest();
        load.served(at(1000));
        load.computed(at(1010));
        assert_eq!((load.serving, load.computing), (at(5), at(50)));
    }
}
