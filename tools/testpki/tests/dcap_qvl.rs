//! dcap-qvl, a verifier we did not write, judges the evidence.

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use testpki::{Evidence, Platform, QuoteFormat, TestPki};

/// 2026-03-01.
const NOW: u64 = 1_772_323_200;

fn pki() -> TestPki {
    TestPki::generate(Platform::default()).unwrap()
}

/// dcap-qvl's answer, through the JSON form of the collateral.
fn verify(evidence: &Evidence) -> Result<VerifiedReport, String> {
    let collateral: QuoteCollateralV3 =
        serde_json::from_str(&evidence.collateral.to_json()).map_err(|error| error.to_string())?;
    QuoteVerifier::new(evidence.root.clone())
        .verify(&evidence.quote, &collateral, evidence.now)
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn sound_quotes_of_every_format_are_up_to_date_under_the_test_root() {
    let pki = pki();
    for format in [QuoteFormat::V4, QuoteFormat::V5Td10, QuoteFormat::V5Td15] {
        let mut scenario = pki.scenario(NOW).unwrap();
        scenario.format = format;
        scenario.td.report_data = [7; 64];
        let report = verify(&scenario.build().unwrap()).unwrap();
        assert_eq!(report.status, "UpToDate", "{format:?}");
        assert!(report.advisory_ids.is_empty());
        let td = report.report.as_td10().unwrap();
        assert_eq!(td.report_data, [7; 64]);
        assert_eq!(td.rt_mr3, [0; 48]);
    }
}

#[test]
fn nobody_accepts_them_without_being_told_the_root() {
    let pki = pki();
    let evidence = pki.scenario(NOW).unwrap().build().unwrap();
    let collateral: QuoteCollateralV3 =
        serde_json::from_str(&evidence.collateral.to_json()).unwrap();
    let intel = QuoteVerifier::new_prod();
    assert!(intel.verify(&evidence.quote, &collateral, NOW).is_err());
    let other = QuoteVerifier::new(self::pki().root_der());
    assert!(other.verify(&evidence.quote, &collateral, NOW).is_err());
}
