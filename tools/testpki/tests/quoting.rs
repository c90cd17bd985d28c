//! The quoting enclave quotes what its own platform's module reported, and nothing else.

use tdx::quote::Body;
use tdx::report::TdReport;
use testpki::{Platform, QuoteFormat, QuotingError, TestPki, authenticate};

fn report(pki: &TestPki) -> [u8; 1024] {
    let mut report = pki.platform().report();
    authenticate(&mut report, pki.report_key());
    *report.as_bytes()
}

/// Why the quoting enclave refuses the report after `change`.
fn refusal(change: impl FnOnce(&mut [u8; 1024])) -> QuotingError {
    let pki = TestPki::generate(Platform::default()).unwrap();
    let mut report = report(&pki);
    change(&mut report);
    pki.quoting_enclave()
        .quote(&report, QuoteFormat::V4)
        .unwrap_err()
}

#[test]
fn a_quote_says_what_the_report_says_in_the_size_of_genuine_ones() {
    let pki = TestPki::generate(Platform::default()).unwrap();
    let report = report(&pki);
    for (format, signature_at) in [
        (QuoteFormat::V4, 48 + 584),
        (QuoteFormat::V5Td10, 48 + 6 + 584),
        (QuoteFormat::V5Td15, 48 + 6 + 648),
    ] {
        let quote = pki.quoting_enclave().quote(&report, format).unwrap();
        let length = u32::from_le_bytes(quote[signature_at..][..4].try_into().unwrap());
        assert_eq!(
            signature_at + 4 + length as usize,
            quote.len(),
            "{format:?}"
        );
        let body = Body::find(&quote).unwrap();
        assert_eq!(body.compare(&TdReport::from_bytes(&report)), Ok(()));
    }
}

#[test]
fn every_authenticated_byte_is_under_the_mac() {
    let pki = TestPki::generate(Platform::default()).unwrap();
    let good = report(&pki);
    for at in (3..224).chain(224..256) {
        let mut report = good;
        report[at] ^= 0x10;
        let outcome = pki.quoting_enclave().quote(&report, QuoteFormat::V4);
        assert!(
            matches!(outcome, Err(QuotingError::Mac)),
            "{at}: {outcome:?}"
        );
    }
}

#[test]
fn both_hash_links_are_checked_over_all_their_bytes() {
    let pki = TestPki::generate(Platform::default()).unwrap();
    let good = report(&pki);
    let outcome = |at: usize| {
        let mut report = good;
        report[at] ^= 1;
        pki.quoting_enclave().quote(&report, QuoteFormat::V5Td15)
    };
    for at in 256..495 {
        assert!(
            matches!(outcome(at), Err(QuotingError::TeeTcbInfoHash)),
            "{at}"
        );
    }
    for at in 512..1024 {
        assert!(matches!(outcome(at), Err(QuotingError::TdInfoHash)), "{at}");
    }
}

#[test]
fn other_kinds_of_report_are_refused_by_name() {
    assert!(matches!(
        refusal(|report| report[0] = 0),
        QuotingError::Type(0)
    ));
    assert!(matches!(
        refusal(|report| report[1] = 2),
        QuotingError::Subtype(2)
    ));
    assert!(matches!(
        refusal(|report| report[2] = 9),
        QuotingError::Version(9)
    ));
    let pki = TestPki::generate(Platform::default()).unwrap();
    for size in [0, 1023, 1025] {
        let outcome = pki
            .quoting_enclave()
            .quote(&vec![0x81; size], QuoteFormat::V4);
        assert!(matches!(outcome, Err(QuotingError::Size(s)) if s == size));
    }
}

#[test]
fn another_platforms_report_is_refused() {
    let other = TestPki::generate(Platform::default()).unwrap();
    assert!(matches!(
        refusal(|r| *r = report(&other)),
        QuotingError::Mac
    ));
}
