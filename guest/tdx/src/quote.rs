//! Quotes: the buffer by which the host is asked for one, and the comparison of what it gives with our own report.
//!
//! A quote is a report that a quoting enclave on the host signed for the world. Its signature is the remote verifier's to check; here only a
//! host is caught that hands over the quote of another TD, or an old one.

use core::fmt;

use crate::report::{Measurement, REPORT, TdReport};

/// The largest buffer that hosts take (QEMU: 128 KiB), in whole pages.
pub const BUFFER: usize = 128 << 10;
/// Bytes of the buffer's header; report or quote follow.
pub const HEADER: usize = 24;
/// The largest quote.
pub const QUOTE_MAX: usize = BUFFER - HEADER;

const VERSION: u64 = 1;
const IN_FLIGHT: u64 = u64::MAX;
const ERROR: u64 = 0x8000_0000_0000_0000;
const UNAVAILABLE: u64 = 0x8000_0000_0000_0001;

/// The header that asks for a quote of a TDREPORT (GHCI specification, GetQuote):
///
/// | bytes | field |
/// |---|---|
/// | 0..8 | version, 1 |
/// | 8..16 | status, written by the host |
/// | 16..20 | length of what is handed in |
/// | 20..24 | length of what the host gives back |
pub fn request_header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&VERSION.to_le_bytes());
    header[16..20].copy_from_slice(&(REPORT as u32).to_le_bytes());
    header
}

/// How far the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is at it.
    InFlight,
    /// The quote is in the buffer, behind the header, this many bytes long; at most [`QUOTE_MAX`].
    Done(usize),
}

/// The host gives no quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The quoting service failed.
    Failed,
    /// There is no quoting service.
    Unavailable,
    /// A status that is not in the specification.
    Status(u64),
    /// A quote that is empty or larger than its buffer.
    Length(u32),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("the host's quoting service failed"),
            Self::Unavailable => f.write_str("the host has no quoting service"),
            Self::Status(status) => write!(f, "the quoting service's status is {status:#x}"),
            Self::Length(length) => write!(f, "the host's quote claims {length} bytes"),
        }
    }
}

impl core::error::Error for HostError {}

/// Reads a private copy of the header, taken once: the host may change the buffer at any time.
///
/// # Errors
/// [`HostError`].
pub fn progress(header: &[u8; HEADER]) -> Result<Progress, HostError> {
    let [
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
        _,
        _,
        _,
        _,
        l0,
        l1,
        l2,
        l3,
    ] = *header;
    match u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]) {
        0 => {}
        IN_FLIGHT => return Ok(Progress::InFlight),
        ERROR => return Err(HostError::Failed),
        UNAVAILABLE => return Err(HostError::Unavailable),
        status => return Err(HostError::Status(status)),
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    match length as usize {
        quote @ 1..=QUOTE_MAX => Ok(Progress::Done(quote)),
        _ => Err(HostError::Length(length)),
    }
}

/// What a quote says of a TD, found in the quote's bytes: version 4, or version 5 with a report of TDX 1.0 or 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// The fields that both have, in order.
    base: &'a [u8; BASE],
    /// What TDX 1.5 adds: TEE_TCB_SVN_2 and MRSERVICETD.
    extension: Option<&'a [u8; EXTENSION]>,
}

const BASE: usize = 584;
const EXTENSION: usize = 64;
const QUOTE_HEADER: usize = 48;
const TDX: u32 = 0x81;
const TD_REPORT_1_0: u16 = 2;
const TD_REPORT_1_5: u16 = 3;

/// The first field in which a quote is not that of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The bytes are not a quote of a TD.
    NotAQuote,
    /// Security versions of the TDX module.
    TeeTcbSvn,
    /// Measurement of the TDX module.
    MrSeam,
    /// Measurement of the module's signer.
    MrSignerSeam,
    /// The module's attributes.
    SeamAttributes,
    /// The TD's attributes.
    TdAttributes,
    /// The TD's extended state.
    Xfam,
    /// MRTD.
    MrTd,
    /// MRCONFIGID.
    MrConfigId,
    /// MROWNER.
    MrOwner,
    /// MROWNERCONFIG.
    MrOwnerConfig,
    /// A runtime-extendable register.
    Rtmr(usize),
    /// REPORTDATA.
    ReportData,
    /// Service TDs.
    MrServiceTd,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAQuote => f.write_str("the host gave something that is not a TD's quote"),
            Self::Rtmr(register) => write!(f, "the host's quote has another RTMR[{register}]"),
            field => write!(f, "the host's quote has another {field:?}"),
        }
    }
}

impl core::error::Error for Difference {}

impl<'a> Body<'a> {
    /// Finds the body of a quote.
    ///
    /// # Errors
    /// [`Difference::NotAQuote`].
    pub fn find(quote: &'a [u8]) -> Result<Self, Difference> {
        Self::parse(quote).ok_or(Difference::NotAQuote)
    }

    fn parse(quote: &'a [u8]) -> Option<Self> {
        let (header, rest) = quote.split_at_checked(QUOTE_HEADER)?;
        let [v0, v1, _, _, t0, t1, t2, t3, ..] = *header else {
            return None;
        };
        if u32::from_le_bytes([t0, t1, t2, t3]) != TDX {
            return None;
        }
        let (extended, rest) = match u16::from_le_bytes([v0, v1]) {
            4 => (false, rest),
            5 => {
                let (descriptor, rest) = rest.split_at_checked(6)?;
                let [k0, k1, ..] = *descriptor else {
                    return None;
                };
                match u16::from_le_bytes([k0, k1]) {
                    TD_REPORT_1_0 => (false, rest),
                    TD_REPORT_1_5 => (true, rest),
                    _ => return None,
                }
            }
            _ => return None,
        };
        let (base, rest) = rest.split_first_chunk()?;
        let extension = if extended {
            Some(rest.first_chunk()?)
        } else {
            None
        };
        Some(Self { base, extension })
    }

    /// REPORTDATA.
    pub fn report_data(&self) -> &'a [u8; 64] {
        match self.base.last_chunk() {
            Some(data) => data,
            None => unreachable!("the body is longer than its last field"),
        }
    }

    /// Whether this quote is of `report`'s TD, in `report`'s state, with `report`'s data: every field that both carry is equal.
    ///
    /// # Errors
    /// The first [`Difference`].
    pub fn compare(&self, report: &TdReport) -> Result<(), Difference> {
        let TdReport { mac, tcb, td, .. } = report;
        let attributes = td.attributes.0.to_le_bytes();
        let xfam = td.xfam.to_le_bytes();
        let [rtmr_0, rtmr_1, rtmr_2, rtmr_3] = &td.rtmr;
        let fields: [(&[u8], Difference); 15] = [
            (&tcb.tee_tcb_svn, Difference::TeeTcbSvn),
            (&tcb.mr_seam, Difference::MrSeam),
            (&tcb.mr_signer_seam, Difference::MrSignerSeam),
            (&tcb.attributes, Difference::SeamAttributes),
            (&attributes, Difference::TdAttributes),
            (&xfam, Difference::Xfam),
            (&td.mr_td, Difference::MrTd),
            (&td.mr_config_id, Difference::MrConfigId),
            (&td.mr_owner, Difference::MrOwner),
            (&td.mr_owner_config, Difference::MrOwnerConfig),
            (rtmr_0, Difference::Rtmr(0)),
            (rtmr_1, Difference::Rtmr(1)),
            (rtmr_2, Difference::Rtmr(2)),
            (rtmr_3, Difference::Rtmr(3)),
            (&mac.report_data, Difference::ReportData),
        ];
        let mut rest = &self.base[..];
        for (expected, difference) in fields {
            let (field, behind) = rest
                .split_at_checked(expected.len())
                .ok_or(Difference::NotAQuote)?;
            if field != expected {
                return Err(difference);
            }
            rest = behind;
        }
        let service: Option<&Measurement> = self.extension.and_then(|bytes| bytes.last_chunk());
        if service.is_some_and(|service| *service != td.servtd_hash) {
            return Err(Difference::MrServiceTd);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A quote of `report` in one of the three forms, by the layouts of Intel's DCAP quote library.
    fn quote(report: &TdReport, version: u16, body_type: u16) -> Vec<u8> {
        let bytes = report.as_bytes();
        let mut quote = Vec::from(version.to_le_bytes());
        quote.extend([2, 0, 0x81, 0, 0, 0]);
        quote.resize(QUOTE_HEADER, 0xee);
        if version == 5 {
            quote.extend(body_type.to_le_bytes());
            quote.extend([0; 4]);
        }
        // TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, attributes; then TDINFO up to RTMR[3]; then REPORTDATA.
        quote.extend(&bytes[264..384]);
        quote.extend(&bytes[512..912]);
        quote.extend(&bytes[128..192]);
        if body_type == TD_REPORT_1_5 {
            quote.extend(&bytes[384..400]);
            quote.extend(&bytes[912..960]);
        }
        quote.extend([0xdd; 100]);
        quote
    }

    fn report() -> TdReport {
        TdReport::from_bytes(&core::array::from_fn(|index| (index * 11 / 3) as u8))
    }

    const FORMS: [(u16, u16); 3] = [(4, 0), (5, TD_REPORT_1_0), (5, TD_REPORT_1_5)];

    #[test]
    fn requests_have_the_layout_that_hosts_read() {
        let header = request_header();
        assert_eq!(header[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header[8..16], [0; 8]);
        assert_eq!(header[16..], [0, 4, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_status_and_length_is_understood() {
        let answer = |status: u64, length: u32| {
            let mut header = request_header();
            header[8..16].copy_from_slice(&status.to_le_bytes());
            header[20..].copy_from_slice(&length.to_le_bytes());
            progress(&header)
        };
        assert_eq!(answer(IN_FLIGHT, 0), Ok(Progress::InFlight));
        assert_eq!(answer(IN_FLIGHT, u32::MAX), Ok(Progress::InFlight));
        assert_eq!(answer(0, 5000), Ok(Progress::Done(5000)));
        assert_eq!(answer(0, QUOTE_MAX as u32), Ok(Progress::Done(QUOTE_MAX)));
        for length in [0, QUOTE_MAX as u32 + 1, u32::MAX] {
            assert_eq!(answer(0, length), Err(HostError::Length(length)));
        }
        assert_eq!(answer(ERROR, 5000), Err(HostError::Failed));
        assert_eq!(answer(UNAVAILABLE, 0), Err(HostError::Unavailable));
        assert_eq!(answer(2, 5000), Err(HostError::Status(2)));
    }

    #[test]
    fn own_quotes_compare_equal_in_every_form() {
        for (version, body_type) in FORMS {
            let quote = quote(&report(), version, body_type);
            let body = Body::find(&quote).expect("a quote");
            assert_eq!(body.compare(&report()), Ok(()));
            assert_eq!(body.report_data(), &report().mac.report_data);
        }
    }

    #[test]
    fn a_change_in_any_field_is_found() {
        let base = quote(&report(), 5, TD_REPORT_1_5);
        let start = QUOTE_HEADER + 6;
        let service = start + BASE + 16;
        for at in (start..start + BASE).chain(service..service + 48) {
            let mut changed = base.clone();
            changed[at] ^= 0x40;
            let body = Body::find(&changed).expect("a quote");
            assert!(body.compare(&report()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn other_things_are_not_quotes() {
        let good = quote(&report(), 4, 0);
        for (at, value) in [(0, 3), (0, 6), (4, 0), (7, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Body::find(&bad), Err(Difference::NotAQuote));
        }
        assert_eq!(
            Body::find(&quote(&report(), 5, 1)),
            Err(Difference::NotAQuote)
        );
        for (version, body_type) in FORMS {
            let whole = quote(&report(), version, body_type);
            for length in 0..whole.len() - 100 {
                assert_eq!(Body::find(&whole[..length]), Err(Difference::NotAQuote));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>, version in 3u16..7) {
            if let Some(start) = bytes.first_chunk_mut() {
                *start = version.to_le_bytes();
            }
            if let Ok(body) = Body::find(&bytes) {
                prop_assert!(body.compare(&report()).is_err());
            }
        }
    }
}
