//! Genuine evidence, signed by Intel hardware, with verdicts and fields that other programs found.

mod common;

use common::{NOT_A_POLICY_MATTER, genuine_cases, vector, vectors};
use serde_json::Value;
use verifier::{
    Code, Collateral, Outcome, Policy, Report, Scope, TrustAnchor, UntrustedQuote, Verdict,
    Verifier,
};

fn verifier(scope: Scope, now: u64) -> Verifier {
    Verifier {
        policy: Policy::default(),
        anchor: TrustAnchor::intel(),
        scope,
        now,
        seen: None,
    }
}

fn judge(scope: Scope, now: u64, quote: &[u8], collateral: &[u8]) -> Report {
    verifier(scope, now).quote(quote, Collateral::parse(collateral))
}

#[test]
fn every_case_has_the_suggested_verdict() {
    let mut judged = 0;
    for case in genuine_cases() {
        let report = judge(
            Scope::PlatformOnly,
            case.time,
            &case.quote,
            &case.collateral,
        );
        let expected = match &*case.verdict {
            "accept" => Verdict::PlatformGenuine,
            "policy_not_satisfied" => Verdict::PolicyUnsatisfied,
            _ => Verdict::PlatformUntrusted,
        };
        assert_eq!(
            report.verdict, expected,
            "{}: {:#?}",
            case.name, report.checks
        );
        if let (Some(proved), Some(status)) = (&report.proved, &case.tcb_status) {
            assert_eq!(&proved.tcb_status, status, "{}", case.name);
        }
        // Without pins, a good platform is never more than that.
        let whole = judge(Scope::Everything, case.time, &case.quote, &case.collateral);
        assert_ne!(whole.verdict, Verdict::Accepted, "{}", case.name);
        judged += 1;
    }
    assert!(judged == 0 || judged >= 60, "{judged} cases");
}

#[test]
fn fields_are_those_that_another_parser_found() {
    for case in genuine_cases()
        .into_iter()
        .filter(|case| case.verdict == "accept")
    {
        let report = judge(
            Scope::PlatformOnly,
            case.time,
            &case.quote,
            &case.collateral,
        );
        let json = report.json();
        let fields: &Value = &case.fields;
        for (ours, theirs) in [
            ("mrtd", "MRTD"),
            ("rtmr0", "RTMR0"),
            ("rtmr1", "RTMR1"),
            ("rtmr2", "RTMR2"),
            ("rtmr3", "RTMR3"),
            ("attributes", "TDATTRIBUTES"),
            ("xfam", "XFAM"),
            ("mrseam", "MRSEAM"),
            ("mrconfigid", "MRCONFIGID"),
            ("mrowner", "MROWNER"),
            ("mrownerconfig", "MROWNERCONFIG"),
            ("report_data", "REPORTDATA"),
        ] {
            assert_eq!(
                json["measurements"][ours], fields[theirs],
                "{}: {ours}",
                case.name
            );
        }
        assert_eq!(json["trust_anchor"], "Intel SGX Root CA");
    }
}

#[test]
fn how_far_out_of_date_is_said() {
    for case in genuine_cases() {
        let report = judge(
            Scope::PlatformOnly,
            case.time,
            &case.quote,
            &case.collateral,
        );
        if let Some(proved) = &report.proved
            && proved.tcb_status == "OutOfDate"
        {
            let lag = proved.tcb_lag.as_ref().unwrap();
            assert!(
                lag.contains("days behind") && lag.contains("needs"),
                "{}: {lag}",
                case.name
            );
        }
    }
}

/// The same evidence under a root that did not sign it.
#[test]
fn genuine_evidence_does_not_hold_under_another_root() {
    let pki = testpki::TestPki::generate(testpki::Platform::default()).unwrap();
    for case in genuine_cases()
        .into_iter()
        .filter(|case| case.verdict == "accept")
    {
        let mut verifier = verifier(Scope::PlatformOnly, case.time);
        verifier.anchor = TrustAnchor::test(&pki.root_der()).unwrap();
        let report = verifier.quote(&case.quote, Collateral::parse(&case.collateral));
        assert_eq!(report.verdict, Verdict::PlatformUntrusted, "{}", case.name);
        assert_eq!(
            report.findings[0].name(),
            "untrusted-root",
            "{:?}",
            report.checks
        );
    }
}

#[test]
fn a_quote_of_sgx_is_refused_before_anything_else() {
    let Some(quote) = vector("sgx-not-tdx/sgx-v3-phala.bin") else {
        return;
    };
    let collateral = vector("sgx-not-tdx/sgx-v3-phala.collateral.json").unwrap();
    let report = judge(Scope::PlatformOnly, 1_750_762_571, &quote, &collateral);
    assert_eq!(report.verdict, Verdict::PlatformUntrusted);
    assert_eq!(report.findings[0].name(), "not-tdx");
}

/// Quotes without collateral in the set have at least the right form, padding included. One has words behind it, for testing.
#[test]
fn every_quote_has_the_form() {
    let Some(root) = vectors() else {
        return;
    };
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match UntrustedQuote::parse(&std::fs::read(&path).unwrap()) {
            Ok(quote) => {
                assert!(quote.fmspc().is_some(), "{name}");
                assert!(
                    quote.pck_issuer().unwrap().contains("PCK Platform CA"),
                    "{name}"
                );
            }
            Err(code) => {
                assert_eq!(name, "google-spr-e4-50806f");
                assert_eq!(code, Code::QuoteTrailingBytes);
            }
        }
    }
}

/// A refusal for attributes comes from our policy, after the chain: the table says that the chain holds.
#[test]
fn attributes_are_judged_after_the_chain() {
    for case in genuine_cases() {
        if !case.name.starts_with("ita-aztdx") || case.verdict != "policy_not_satisfied" {
            continue;
        }
        let report = judge(
            Scope::PlatformOnly,
            case.time,
            &case.quote,
            &case.collateral,
        );
        let chain = report
            .checks
            .iter()
            .find(|check| check.name == "chain")
            .unwrap();
        assert_eq!(chain.outcome, Outcome::Passed);
        assert!(report.findings.iter().any(|code| code.name() == "sept-ve"));
        assert!(
            !report
                .findings
                .iter()
                .any(|code| NOT_A_POLICY_MATTER.contains(&code.class()))
        );
    }
}
