//! The catalogue of attacks: every row has a test, or the reason why it cannot be produced here and the nearest one.

mod common;

use std::collections::BTreeSet;

use common::domain::{NOW, manifest, pki};
use testpki::Evidence;
use testpki::catalogue::{self, Case, Expected, Given};
use verifier::policy::{ConfigurationPolicy, ModelPolicy};
use verifier::{
    Code, Collateral, ManifestSource, Policy, Report, Scope, TrustAnchor, Verdict, Verifier,
};

/// Where a row is tested.
enum Where {
    /// With the cases of `testpki::catalogue`, below.
    Cases,
    /// By a test of this name in one of the files here.
    Test(&'static str),
    /// Not here, because of this; the nearest test.
    Nearest(&'static str, &'static str),
}
use Where::{Cases, Nearest, Test};

/// Every row of the catalogue.
const ROWS: &[(&str, Where)] = &[
    ("M1", Test("m1_a_quote_of_another_certificate")),
    ("M2", Test("m2_claims_that_contradict_the_registers")),
    ("M3", Test("m3_claims_altered_after_quoting")),
    ("M4", Test("m4_report_data_with_a_tail")),
    ("M5", Test("m5_key_hashes_of_other_algorithms")),
    ("M6", Test("m6_other_carriers_of_evidence")),
    (
        "M7",
        Nearest(
            "possession of the key is shown by the TLS handshake, which has no part in judging bytes",
            "m7_a_certificate_that_its_key_did_not_sign",
        ),
    ),
    (
        "M8",
        Test("m8_m9_m10_answers_for_another_certificate_nonce_or_connection"),
    ),
    (
        "M9",
        Test("m8_m9_m10_answers_for_another_certificate_nonce_or_connection"),
    ),
    (
        "M10",
        Test("m8_m9_m10_answers_for_another_certificate_nonce_or_connection"),
    ),
    ("M11", Test("m11_another_genuine_domain")),
    ("M12", Test("m12_the_clients_own_role")),
    ("M13", Test("m13_quotes_for_other_purposes")),
    (
        "M14",
        Nearest(
            "resumption and early data belong to TLS, which the client and the server refuse in their own tests",
            "m8_m9_m10_answers_for_another_certificate_nonce_or_connection",
        ),
    ),
    ("M15", Test("m15_dates")),
    (
        "M16",
        Nearest(
            "that the guest refuses a second model is the guest's test; the register shows it here",
            "m16_a_model_that_was_not_there",
        ),
    ),
    ("C1", Cases),
    ("C2", Cases),
    ("C3", Cases),
    ("C4", Cases),
    ("C5", Cases),
    ("C6", Cases),
    ("C7", Cases),
    ("C8", Cases),
    ("C9", Cases),
    ("C10", Cases),
    ("C11", Cases),
    ("C12", Cases),
    ("C13", Cases),
    ("C14", Cases),
    ("C15", Cases),
    ("C16", Cases),
    ("C17", Cases),
    ("C18", Cases),
    ("C19", Cases),
    ("C20", Cases),
    ("C21", Cases),
    ("C22", Cases),
    ("C23", Cases),
    ("C24", Cases),
    ("C25", Cases),
    ("C26", Test("bombs_are_refused_in_time_and_memory")),
    ("C27", Test("certificates_that_are_too_long_or_none")),
    (
        "C28",
        Test("c28_test_evidence_shown_to_a_production_client"),
    ),
    (
        "C29",
        Nearest(
            "keys extracted from a platform sign like the platform; a list of platforms is the only defence",
            "every_case_is_answered_as_expected",
        ),
    ),
    ("P1", Cases),
    ("P2", Cases),
    ("P3", Cases),
    ("P4", Cases),
    ("P5", Cases),
    ("P6", Cases),
    ("P7", Cases),
    ("P8", Cases),
    ("P9", Test("p9_p10_other_contents")),
    ("P10", Test("p9_p10_other_contents")),
    ("P11", Test("p11_an_older_release_of_the_model")),
    ("P12", Test("p12_manifests_that_do_not_count")),
    ("P13", Test("p13_policies_that_say_nothing")),
    ("P14", Cases),
    ("P15", Cases),
    (
        "P16",
        Nearest(
            "the protocol of key release is the server's and the provisioning command's",
            "m13_quotes_for_other_purposes",
        ),
    ),
    (
        "P17",
        Nearest(
            "a quote service that is down is the guest's to report; a certificate without evidence is refused here",
            "m6_other_carriers_of_evidence",
        ),
    ),
];

#[test]
fn every_row_is_tested() {
    let rows = (1..=16)
        .map(|row| format!("M{row}"))
        .chain((1..=29).map(|row| format!("C{row}")))
        .chain((1..=17).map(|row| format!("P{row}")));
    let listed: Vec<String> = ROWS.iter().map(|(row, _)| (*row).to_owned()).collect();
    assert_eq!(listed, rows.collect::<Vec<_>>());
    let tests = [
        include_str!("binding.rs"),
        include_str!("catalogue.rs"),
        include_str!("mutations.rs"),
        include_str!("policy.rs"),
    ]
    .concat();
    let cases: BTreeSet<&str> = catalogue::cases().map(|case| case.row).collect();
    for (row, place) in ROWS {
        match place {
            Cases => assert!(cases.contains(row), "{row}"),
            Test(name) => assert!(tests.contains(&format!("fn {name}(")), "{row}: {name}"),
            Nearest(reason, name) => {
                assert!(
                    !reason.is_empty() && tests.contains(&format!("fn {name}(")),
                    "{row}: {name}"
                );
            }
        }
    }
}

/// What the sound scenario is, as far as a policy on platforms can pin it.
fn pins() -> Policy {
    let platform = pki().platform();
    let mut policy = Policy::default();
    policy.tcb.refused_advisories = vec!["INTEL-SA-00828".into()];
    policy.tcb.minimum_cpu_svns = platform.components;
    policy.tcb.minimum_tdx_svns = platform.tee_tcb_svn;
    policy.tcb.minimum_pce_svn = platform.pce_svn;
    policy.tcb.minimum_date = 1_577_836_800;
    policy.tcb.minimum_issue_date = NOW;
    policy.tcb.minimum_evaluation = sound_evaluation();
    policy.platform.mrseam = vec![[0x5e; 48]];
    policy.platform.allowed = vec![platform.instance];
    policy.platform.cached_keys = false;
    policy
}

fn sound_evaluation() -> u32 {
    pki()
        .scenario(NOW)
        .unwrap()
        .tcb_info
        .tcb_evaluation_data_number
}

fn judge(evidence: &Evidence, policy: Policy, scope: Scope, seen: Option<u64>) -> Report {
    let verifier = Verifier {
        policy,
        anchor: TrustAnchor::test(&evidence.root).expect("a root"),
        scope,
        now: evidence.now,
        seen,
    };
    verifier.quote(
        &evidence.quote,
        Collateral::parse(evidence.collateral.to_json().as_bytes()),
    )
}

/// The codes that a row's attacks may be answered with.
fn codes(row: &str) -> &'static [Code] {
    use Code::*;
    match row {
        "C1" => &[QuoteSignature],
        "C2" => &[QeReportSignature, AttestationKey, QuoteSignature],
        "C3" => &[QuoteSignature, QeReportSignature, AttestationKey],
        "C5" => &[QuoteVersion, QuoteKeyType, QuoteVendor, NotTdx],
        "C6" => &[NotTdx],
        "C7" => &[QuoteBody],
        "C8" => &[
            QuoteMalformed,
            QuoteTrailingBytes,
            CertificationData,
            ChainInvalid,
        ],
        "C9" => &[QuoteTrailingBytes, QuoteTooLarge],
        "C10" => &[CertificationData, QuoteMalformed],
        "C11" => &[
            QuoteTooLarge,
            ChainInvalid,
            UntrustedRoot,
            RevocationUnknown,
            QeReportSignature,
        ],
        "C12" => &[UntrustedRoot],
        "C13" => &[CertificateRevoked],
        "C14" => &[CrlInvalid, CrlExpired, RevocationUnknown, UntrustedRoot],
        "C15" => &[
            TcbInfoSignature,
            QeIdentitySignature,
            CollateralMalformed,
            ChainInvalid,
        ],
        "C16" => &[
            FmspcMismatch,
            CollateralKind,
            QeMismatch,
            CollateralMalformed,
        ],
        "C17" => &[PceMismatch],
        "C18" => &[
            CollateralExpired,
            CollateralNotYetValid,
            CollateralMalformed,
        ],
        "C19" => &[ChainCertificateExpired],
        "C20" => &[ClockRolledBack],
        "C21" => &[EvaluationTooOld, IssueDateTooOld],
        "C22" => &[TcbLevelUnmatched, ModuleMismatch, ChainInvalid],
        "C23" => &[QeReportSignature],
        "C24" => &[
            ChainInvalid,
            UntrustedRoot,
            QuoteTooLarge,
            CrlInvalid,
            QuoteMalformed,
        ],
        "C25" => &[CollateralMalformed, CollateralTooLarge, TcbInfoSignature],
        "C29" => &[PlatformNotAllowed],
        "P1" => &[Debug],
        "P2" => &[Profiled, ReservedAttributes, ReservedXfam],
        "P3" => &[SeptVe],
        "P4" => &[Migratable, ServiceTd],
        "P5" => &[TcbStatus],
        "P6" => &[AdvisoryRefused],
        "P7" => &[SvnBelowMinimum, TcbDate],
        "P8" => &[ModuleSigner, ModuleAttributes, ModuleNotAllowed],
        "P14" => &[TcbRevoked],
        "P15" => &[PlatformFlag],
        _ => &[],
    }
}

#[test]
fn the_sound_scenario_is_accepted() {
    let evidence = pki().scenario(NOW).unwrap().build().unwrap();
    for policy in [Policy::default(), pins()] {
        let report = judge(&evidence, policy, Scope::PlatformOnly, None);
        assert_eq!(
            report.verdict,
            Verdict::PlatformGenuine,
            "{:#?}",
            report.checks
        );
    }
}

/// Rows about what runs on a platform have tests of their own.
fn about_platforms(case: &&Case) -> bool {
    !matches!(case.row, "P9" | "P10")
}

#[test]
fn every_case_is_answered_as_expected() {
    let mut wrong = Vec::new();
    for case in catalogue::cases().filter(about_platforms) {
        let name = format!("{} {}", case.row, case.attack);
        let evidence = case.evidence(pki(), NOW).unwrap();
        let (policy, seen) = match case.given {
            Given::Evidence => (Policy::default(), None),
            Given::Pins => (pins(), None),
            Given::Clock => (Policy::default(), Some(NOW)),
        };
        let report = judge(&evidence, policy, Scope::PlatformOnly, seen);
        let expected = match case.expected {
            Expected::Accepted => Verdict::PlatformGenuine,
            Expected::PlatformUntrusted => Verdict::PlatformUntrusted,
            Expected::PolicyUnsatisfied => Verdict::PolicyUnsatisfied,
        };
        assert_eq!(report.verdict, expected, "{name}: {:?}", report.findings);
        if let Some(code) = report.findings.first()
            && !codes(case.row).contains(code)
        {
            wrong.push(format!("{name}: {code}: {:?}", report.checks.last()));
        }
        // What makes the difference is what the verifier was given.
        if case.given != Given::Evidence {
            let report = judge(&evidence, Policy::default(), Scope::PlatformOnly, None);
            assert_eq!(report.verdict, Verdict::PlatformGenuine, "{name}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn p9_p10_other_contents() {
    // Evidence of the sound scenario measures neither configuration nor model, which are findings of their own; an attack adds one.
    let mut release = manifest();
    release.xfam.mask = measurements::BitsHex::of(u64::MAX);
    let sound = pki().scenario(NOW).unwrap();
    release.xfam.value = measurements::BitsHex::of(sound.report.td.xfam);
    let policy = Policy {
        manifests: vec![ManifestSource::read(release.encode().as_bytes(), None)],
        model: ModelPolicy {
            digests: vec![[8; 32]],
            ..ModelPolicy::default()
        },
        configuration: ConfigurationPolicy::default(),
        ..Policy::default()
    };
    let findings = |evidence: &Evidence| {
        let report = judge(evidence, policy.clone(), Scope::Everything, None);
        assert_eq!(report.verdict, Verdict::PolicyUnsatisfied);
        report.findings
    };
    let before = findings(&sound.build().unwrap());
    assert_eq!(before, [Code::ConfigMismatch, Code::ModelMismatch]);
    let mut attacks = 0;
    for case in catalogue::cases().filter(|case| !about_platforms(case)) {
        attacks += 1;
        let after = findings(&case.evidence(pki(), NOW).unwrap());
        let expected = match case.attack {
            "another MRTD" => Code::ProgramMismatch,
            "another RTMR2" => Code::ConfigMismatch,
            "another RTMR3: another model" => Code::ModelMismatch,
            "XFAM without AVX-512" => Code::AttributesMismatch,
            _ => Code::UnexpectedRegister,
        };
        assert!(after.contains(&expected), "{}: {after:?}", case.attack);
        assert!(
            !before.contains(&Code::UnexpectedRegister) || expected != Code::UnexpectedRegister,
            "{}",
            case.attack
        );
    }
    assert!(attacks >= 9, "{attacks}");
}

#[test]
fn c28_test_evidence_shown_to_a_production_client() {
    let evidence = pki().scenario(NOW).unwrap().build().unwrap();
    let verifier = Verifier {
        policy: Policy::default(),
        anchor: TrustAnchor::intel(),
        scope: Scope::PlatformOnly,
        now: NOW,
        seen: None,
    };
    let collateral = Collateral::parse(evidence.collateral.to_json().as_bytes());
    let report = verifier.quote(&evidence.quote, collateral);
    assert_eq!(report.verdict, Verdict::PlatformUntrusted);
    assert_eq!(report.findings, [Code::UntrustedRoot]);
}

/// What users read has every code, and no other.
#[test]
fn every_code_is_explained() {
    let text = include_str!("../../../docs/verification.md");
    let codes = text.split_once("## Codes").unwrap().1;
    for code in Code::ALL {
        assert!(codes.contains(&format!("`{code}`")), "{code}");
    }
    let first_cells = codes.lines().filter_map(|line| line.strip_prefix("| `"));
    for cell in first_cells.filter_map(|line| line.split(" |").next()) {
        for name in cell.split(", ").map(|name| name.trim_matches('`')) {
            assert!(Code::ALL.iter().any(|code| code.name() == name), "{name}");
        }
    }
}
