//! Quotes: this TD's reports, signed by the host's quoting service for the world to check.
//!
//! One at a time: [`Quoter::start`] asks, [`Quoter::poll`] looks, neither waits. The host writes its answer to shared memory whenever it likes and may
//! change it at any time, so header and quote are copied once each, and only the copies are looked at. A quote that is not of the report
//! it was asked for is refused here, before anybody sees it.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use tdx::address::{AddressWidth, PAGE};
use tdx::quote::{self, Body, Difference, Progress};
use tdx::report::{ReportData, TdReport};
use tdx::{Hardware, Tdcall, hypercall, leaf, status};

use crate::platform::TrustDomain;
use crate::virtio::{ArenaFull, Clock, SharedArena, SharedBuffer};

/// How long the host gets for a quote. Its own service gives up after 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Why there is no quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteError {
    /// A quote is being made already.
    Busy,
    /// The TDX module gave no report.
    Report(status::Error),
    /// The host did not take the request.
    Refused(hypercall::HostError),
    /// The host's quoting service gave no quote.
    Service(quote::HostError),
    /// The host took longer than 40 seconds.
    Timeout,
    /// The host gave the quote of something else.
    NotOurs(Difference),
}

impl fmt::Display for QuoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("a quote is being made already"),
            Self::Report(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
            Self::Service(error) => error.fmt(f),
            Self::Timeout => f.write_str("the host's quoting service does not answer"),
            Self::NotOurs(difference) => difference.fmt(f),
        }
    }
}

impl core::error::Error for QuoteError {}

/// Gets quotes from the host.
pub struct Quoter<T = Hardware> {
    tdcall: T,
    width: AddressWidth,
    buffer: SharedBuffer,
    clock: Clock,
    pending: Option<Pending>,
}

/// A request that the host took.
struct Pending {
    report: TdReport,
    deadline: Duration,
}

impl Quoter {
    /// A quoter for this machine, with a buffer that it keeps.
    ///
    /// # Errors
    /// The arena has no room.
    pub fn new(
        domain: TrustDomain,
        arena: &mut SharedArena,
        clock: Clock,
    ) -> Result<Self, ArenaFull> {
        Self::with(*domain.tdcall(), domain.width(), arena, clock)
    }
}

impl<T: Tdcall> Quoter<T> {
    fn with(
        tdcall: T,
        width: AddressWidth,
        arena: &mut SharedArena,
        clock: Clock,
    ) -> Result<Self, ArenaFull> {
        Ok(Self {
            tdcall,
            width,
            buffer: arena.allocate(quote::BUFFER, PAGE as usize)?,
            clock,
            pending: None,
        })
    }

    /// A report on this TD as it is now.
    ///
    /// # Errors
    /// [`QuoteError::Report`].
    pub fn report(&self, data: &[u8; 64]) -> Result<TdReport, QuoteError> {
        leaf::report(&self.tdcall, &ReportData(*data)).map_err(QuoteError::Report)
    }

    /// Asks the host for a quote of this TD as it is now, with `data` as its REPORTDATA.
    ///
    /// # Errors
    /// [`QuoteError`] if there will be no quote.
    pub fn start(&mut self, data: &[u8; 64]) -> Result<(), QuoteError> {
        if self.pending.is_some() {
            return Err(QuoteError::Busy);
        }
        let report = self.report(data)?;
        self.buffer.copy_in(0, &quote::request_header());
        self.buffer.copy_in(quote::HEADER, report.as_bytes());
        let address = self.width.share(self.buffer.address(0).0);
        hypercall::get_quote(&self.tdcall, address, quote::BUFFER as u64)
            .map_err(QuoteError::Refused)?;
        let deadline = (self.clock)().saturating_add(TIMEOUT);
        self.pending = Some(Pending { report, deadline });
        Ok(())
    }

    /// The outcome of the last [`Quoter::start`], once: the quote's bytes, or why there are none. `None` while the host is at it.
    pub fn poll(&mut self) -> Option<Result<Vec<u8>, QuoteError>> {
        let Pending { report, deadline } = self.pending.as_ref()?;
        let mut header = [0; quote::HEADER];
        self.buffer.copy_out(0, &mut header);
        let outcome = match quote::progress(&header) {
            Ok(Progress::InFlight) if (self.clock)() < *deadline => return None,
            Ok(Progress::InFlight) => Err(QuoteError::Timeout),
            Ok(Progress::Done(length)) => self.take(length, report),
            Err(error) => Err(QuoteError::Service(error)),
        };
        self.pending = None;
        Some(outcome)
    }

    /// Copies the quote and compares the copy with the report that was asked about.
    fn take(&self, length: usize, report: &TdReport) -> Result<Vec<u8>, QuoteError> {
        let mut quote = vec![0; length];
        self.buffer.copy_out(quote::HEADER, &mut quote);
        Body::find(&quote)
            .and_then(|body| body.compare(report))
            .map_err(QuoteError::NotOurs)?;
        Ok(quote)
    }
}

#[cfg(test)]
mod tests;
