//! The quoting service behind TDVMCALL GetQuote: a TDREPORT goes in, a quote under a *test* root comes out.
//!
//! It plays the VMM's part (the request's header, as mainline QEMU judges it) and the quoting enclave's (the TDREPORT's MAC and hashes).
//! The enclave is that of one platform: the emulated TDX module has to take its security versions from [`QuotingService::platform`]
//! and its MAC key from [`QuotingService::report_key`], or its reports are refused.

use std::fmt;
use std::path::{Path, PathBuf};

use tdx::quote::{BUFFER, HEADER};
use testpki::{Error, Platform, QuoteFormat, QuotingError, TestPki};

/// GetQuote's structure version, and what its status says (`tdx.md` 1.6, from QEMU `tdx-quote-generator.h`).
const VERSION: u64 = 1;
/// The quoting enclave refused.
const ERROR: u64 = 0x8000_0000_0000_0000;
/// The host has no quoting service, or does not reach it.
const UNAVAILABLE: u64 = 0x8000_0000_0000_0001;

/// A request that the VMM does not take: GetQuote ends with INVALID_OPERAND, and the buffer stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOperand;

/// What the VMM writes to the front of the buffer.
#[derive(Debug)]
pub struct Answer {
    /// Header and quote; the header alone where there is no quote.
    pub bytes: Vec<u8>,
    /// Why there is no quote.
    pub refusal: Option<QuotingError>,
}

/// The quoting service of one emulated machine.
pub struct QuotingService {
    pki: TestPki,
    directory: Option<PathBuf>,
    format: QuoteFormat,
    outage: Option<PathBuf>,
}

impl QuotingService {
    /// The service under the test PKI kept in `directory`, which is made there if the directory has none; its collateral is issued anew
    /// at `now` (seconds since 1970).
    pub fn open(directory: &Path, now: u64) -> Result<Self, Error> {
        Ok(Self {
            pki: TestPki::open(directory, now)?,
            directory: Some(directory.to_owned()),
            format: QuoteFormat::V4,
            outage: None,
        })
    }

    /// The service under a root that is forgotten with it: for emulated TDs whose quotes nobody judges.
    pub fn forgotten() -> Result<Self, Error> {
        Ok(Self {
            pki: TestPki::generate(Platform::default())?,
            directory: None,
            format: QuoteFormat::V4,
            outage: None,
        })
    }

    /// Makes quotes of this format instead of version 4.
    pub fn with_format(self, format: QuoteFormat) -> Self {
        Self { format, ..self }
    }

    /// Is down whenever there is a file of this name.
    pub fn with_outage(self, file: PathBuf) -> Self {
        Self {
            outage: Some(file),
            ..self
        }
    }

    /// The security versions that the emulated module reports.
    pub fn platform(&self) -> &Platform {
        self.pki.platform()
    }

    /// The key of the MAC in the emulated module's TDREPORTs.
    pub fn report_key(&self) -> &[u8; 32] {
        self.pki.report_key()
    }

    /// Answers a GetQuote whose shared buffer held `request`, copied once.
    pub fn answer(&self, request: &[u8]) -> Result<Answer, InvalidOperand> {
        let (header, payload) = request
            .split_first_chunk::<HEADER>()
            .ok_or(InvalidOperand)?;
        let (version, input) = (&header[..8], &header[16..20]);
        if request.len() > BUFFER || version != VERSION.to_le_bytes() {
            return Err(InvalidOperand);
        }
        let input = u32::from_le_bytes([input[0], input[1], input[2], input[3]]) as usize;
        let report = payload.get(..input).ok_or(InvalidOperand)?;
        let down = self.outage.as_ref().is_some_and(|file| file.exists());
        let quote = self.pki.quoting_enclave().quote(report, self.format);
        let mut header = *header;
        let (status, quote, refusal) = match quote {
            _ if down => (UNAVAILABLE, Vec::new(), None),
            Ok(quote) if quote.len() <= payload.len() => (0, quote, None),
            // As QEMU: a quote that does not fit is none.
            Ok(_) => (ERROR, Vec::new(), None),
            Err(refusal) => (ERROR, Vec::new(), Some(refusal)),
        };
        header[8..16].copy_from_slice(&status.to_le_bytes());
        header[20..].copy_from_slice(&(quote.len() as u32).to_le_bytes());
        let bytes = [&header[..], &quote].concat();
        Ok(Answer { bytes, refusal })
    }
}

/// Where clients find what they need to judge the quotes.
impl fmt::Display for QuotingService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.directory {
            Some(directory) => write!(
                f,
                "quotes are signed under a test root: {}, with collateral {}",
                TestPki::root_path(directory).display(),
                TestPki::collateral_path(directory).display()
            ),
            None => f.write_str("quotes are signed under a test root that is not kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx::quote::{Body, HostError, Progress, progress, request_header};
    use tdx::report::TdReport;
    use testpki::authenticate;

    fn report(service: &QuotingService) -> TdReport {
        let mut report = service.platform().report();
        report.mac.report_data = [3; 64];
        authenticate(&mut report, service.report_key());
        report
    }

    /// The buffer of a guest that asks for a quote of `report`.
    fn request(report: &TdReport, length: usize) -> Vec<u8> {
        let mut buffer = [&request_header()[..], report.as_bytes()].concat();
        buffer.resize(length, 0);
        buffer
    }

    /// What the guest makes of an answer's header.
    fn seen(answer: &Answer) -> Result<Progress, HostError> {
        progress(answer.bytes.first_chunk().unwrap())
    }

    #[test]
    fn the_guest_gets_a_quote_of_its_own_report() {
        for format in [QuoteFormat::V4, QuoteFormat::V5Td15] {
            let service = QuotingService::forgotten().unwrap().with_format(format);
            let report = report(&service);
            let answer = service.answer(&request(&report, BUFFER)).unwrap();
            let quote = &answer.bytes[HEADER..];
            assert_eq!(seen(&answer), Ok(Progress::Done(quote.len())));
            assert_eq!(Body::find(quote).unwrap().compare(&report), Ok(()));
        }
    }

    #[test]
    fn a_report_of_elsewhere_or_changed_is_refused() {
        let service = QuotingService::forgotten().unwrap();
        let mut changed = report(&service);
        changed.td.rtmr[3][0] ^= 1;
        let elsewhere = report(&QuotingService::forgotten().unwrap());
        for (report, reason) in [(changed, "TDINFO"), (elsewhere, "MAC")] {
            let answer = service.answer(&request(&report, BUFFER)).unwrap();
            assert_eq!(seen(&answer), Err(HostError::Failed));
            assert_eq!(answer.bytes.len(), HEADER);
            assert!(answer.refusal.unwrap().to_string().contains(reason));
        }
    }

    #[test]
    fn a_quote_that_does_not_fit_is_none() {
        let service = QuotingService::forgotten().unwrap();
        let answer = service.answer(&request(&report(&service), 4096 / 2));
        assert_eq!(seen(&answer.unwrap()), Err(HostError::Failed));
    }

    #[test]
    fn during_an_outage_there_are_no_quotes() {
        let file = std::env::temp_dir().join(format!("outage-{}", std::process::id()));
        let service = QuotingService::forgotten()
            .unwrap()
            .with_outage(file.clone());
        let request = request(&report(&service), BUFFER);
        std::fs::write(&file, "").unwrap();
        let answer = service.answer(&request).unwrap();
        assert_eq!(seen(&answer), Err(HostError::Unavailable));
        std::fs::remove_file(&file).unwrap();
        let answer = service.answer(&request).unwrap();
        assert!(matches!(seen(&answer), Ok(Progress::Done(_))));
    }

    #[test]
    fn requests_that_make_no_sense_are_invalid() {
        let service = QuotingService::forgotten().unwrap();
        let good = request(&report(&service), BUFFER);
        let mut other_version = good.clone();
        other_version[0] = 2;
        let mut too_much_input = good.clone();
        too_much_input[16..20].copy_from_slice(&(BUFFER as u32).to_le_bytes());
        for request in [
            other_version,
            too_much_input,
            good[..HEADER - 1].to_vec(),
            [&good[..], &[0]].concat(),
        ] {
            assert_eq!(service.answer(&request).err(), Some(InvalidOperand));
        }
        let mut no_input = good;
        no_input[16..20].fill(0);
        let answer = service.answer(&no_input).unwrap();
        assert!(matches!(answer.refusal, Some(QuotingError::Size(0))));
    }

    #[test]
    fn it_says_where_root_and_collateral_are() {
        let directory = std::env::temp_dir().join(format!("quoting-{}", std::process::id()));
        let service = QuotingService::open(&directory, 1_772_323_200).unwrap();
        let words = service.to_string();
        for name in ["root.pem", "collateral.json"] {
            let path = directory.join(name);
            assert!(path.is_file() && words.contains(path.to_str().unwrap()));
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
