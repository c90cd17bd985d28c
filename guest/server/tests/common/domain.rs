//! A trust domain whose quotes say what they were asked for, when the test lets them.

use std::sync::{Arc, Mutex};

use attestation::{Sha384, fingerprint::Registers, report_data::ReportData};
use server::{QuoteError, TrustDomain};

/// Handles share the state; the test keeps one.
#[derive(Clone, Default)]
pub struct Domain(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Quotes that may still be completed; None for any number.
    allowance: Option<usize>,
    failure: Option<QuoteError>,
    pending: Option<[u8; 64]>,
    requests: Vec<[u8; 64]>,
}

impl Domain {
    /// Completes so many more quotes, and then none; or all again.
    pub fn allow(&self, quotes: Option<usize>) {
        self.0.lock().unwrap().allowance = quotes;
    }

    /// Fails every quote from now on, or none any more.
    pub fn fail(&self, error: Option<QuoteError>) {
        self.0.lock().unwrap().failure = error;
    }

    /// The REPORTDATA of all quotes asked for so far.
    pub fn requests(&self) -> Vec<[u8; 64]> {
        self.0.lock().unwrap().requests.clone()
    }

    /// What all these domains run.
    pub fn registers() -> Registers {
        Registers {
            mrtd: [1; 48],
            rtmr: [[0; 48], [0; 48], [2; 48], [3; 48]],
        }
    }

    /// The hash of what they run.
    pub const COMPILE: Sha384 = [4; 48];

    /// The REPORTDATA in one of their quotes.
    pub fn report_data(quote: &[u8]) -> [u8; 64] {
        let data = quote.strip_prefix(b"quote:").expect("one of our quotes");
        data.try_into().expect("one of our quotes")
    }
}

impl TrustDomain for Domain {
    fn compile(&self) -> Sha384 {
        Self::COMPILE
    }

    fn registers(&mut self) -> Result<Registers, QuoteError> {
        Ok(Self::registers())
    }

    fn start_quote(&mut self, report_data: &ReportData) -> Result<(), QuoteError> {
        let mut state = self.0.lock().unwrap();
        assert_eq!(state.pending, None, "one quote at a time");
        let report_data = *report_data.as_bytes();
        state.requests.push(report_data);
        state.pending = Some(report_data);
        Ok(())
    }

    fn poll_quote(&mut self) -> Option<Result<Vec<u8>, QuoteError>> {
        let mut state = self.0.lock().unwrap();
        match &mut state.allowance {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        let report_data = state.pending.take().expect("a quote was asked for");
        Some(match state.failure {
            Some(error) => Err(error),
            None => Ok([&b"quote:"[..], &report_data].concat()),
        })
    }
}
