//! The catalogue of attacks: every row has a test, or the reason why it cannot be produced here and the nearest one.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
    /// By tests of these names, here or where the attack is met.
    Tests(&'static [&'static str]),
    /// What cannot be produced here, and the nearest tests.
    Nearest(&'static str, &'static [&'static str]),
}
use Where::{Cases, Nearest, Tests};

/// Every row of the catalogue.
const ROWS: &[(&str, Where)] = &[
    ("M1", Tests(&["m1_a_quote_of_another_certificate"])),
    ("M2", Tests(&["m2_claims_that_contradict_the_registers"])),
    ("M3", Tests(&["m3_claims_altered_after_quoting"])),
    ("M4", Tests(&["m4_report_data_with_a_tail"])),
    ("M5", Tests(&["m5_key_hashes_of_other_algorithms"])),
    ("M6", Tests(&["m6_other_carriers_of_evidence"])),
    (
        "M7",
        Tests(&[
            "a_handshake_not_signed_by_the_certificates_key_is_refused",
            "m7_a_certificate_that_its_key_did_not_sign",
        ]),
    ),
    ("M8", Tests(FRESHNESS)),
    ("M9", Tests(FRESHNESS)),
    ("M10", Tests(FRESHNESS)),
    ("M11", Tests(&["m11_another_genuine_domain"])),
    ("M12", Tests(&["m12_the_clients_own_role"])),
    ("M13", Tests(&["m13_quotes_for_other_purposes"])),
    (
        "M14",
        Tests(&[
            "every_connection_has_a_handshake_of_its_own",
            "a_domain_that_is_not_the_pinned_one_is_not_even_challenged",
            "without_evidence_nothing_is_sent",
        ]),
    ),
    ("M15", Tests(&["m15_dates"])),
    (
        "M16",
        Tests(&[
            "a_sealed_model_is_served_once_its_key_has_come",
            "m16_a_model_that_was_not_there",
        ]),
    ),
    ("C1", Cases),
    ("C2", Cases),
    ("C3", Cases),
    ("C4", Cases),
    ("C5", Cases),
    (
        "C6",
        Tests(&["a_quote_of_sgx_is_refused_before_anything_else"]),
    ),
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
    (
        "C20",
        Tests(&["a_clock_that_went_back_is_noticed_and_forgiven_by_hand"]),
    ),
    ("C21", Cases),
    ("C22", Cases),
    ("C23", Cases),
    ("C24", Cases),
    ("C25", Cases),
    ("C26", Tests(&["bombs_are_refused_in_time_and_memory"])),
    ("C27", Tests(&["certificates_that_are_too_long_or_none"])),
    (
        "C28",
        Tests(&["c28_test_evidence_shown_to_a_production_client"]),
    ),
    (
        "C29",
        Nearest(
            "keys extracted from a platform sign like the platform; a list of platforms is the only defence, and has cases",
            &["every_case_is_answered_as_expected"],
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
    ("P9", Tests(&["p9_p10_other_contents"])),
    ("P10", Tests(&["p9_p10_other_contents"])),
    (
        "P11",
        Tests(&[
            "p11_an_older_release_of_the_model",
            "p11_an_older_manifest",
            "an_older_release_is_refused_after_a_newer_one",
        ]),
    ),
    (
        "P12",
        Tests(&[
            "p12_manifests_that_do_not_count",
            "signed_manifests_count_and_no_others",
        ]),
    ),
    (
        "P13",
        Tests(&["p13_policies_that_say_nothing", "mistakes_are_usage_errors"]),
    ),
    ("P14", Cases),
    ("P15", Cases),
    (
        "P16",
        Tests(&[
            "wrong_keys_are_refused_and_slow_the_next_one_down",
            "only_the_provisioner_may_bring_the_key_where_one_is_named",
            "m13_quotes_for_other_purposes",
        ]),
    ),
    (
        "P17",
        Tests(&[
            "without_fresh_evidence_nothing_new_is_taken_on",
            "a_domain_without_fresh_evidence_is_refused",
            "servers_are_judged_by_certificate_and_challenge",
        ]),
    ),
];

/// Rows M8 to M10: at the verifier, at the client, at the server.
const FRESHNESS: &[&str] = &[
    "m8_m9_m10_answers_for_another_certificate_nonce_or_connection",
    "evidence_of_another_moment_or_connection_is_refused",
    "a_challenge_is_answered_for_this_connection_and_no_other",
];

/// The names of all tests in a folder of the repository.
fn tests_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                tests_in(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let marked = text.split("#[test]\n").skip(1);
            let named = marked.filter_map(|test| test.trim_start().strip_prefix("fn "));
            names.extend(named.filter_map(|test| Some(test.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_row_is_tested() {
    let rows = (1..=16)
        .map(|row| format!("M{row}"))
        .chain((1..=29).map(|row| format!("C{row}")))
        .chain((1..=17).map(|row| format!("P{row}")));
    let listed: Vec<String> = ROWS.iter().map(|(row, _)| (*row).to_owned()).collect();
    assert_eq!(listed, rows.collect::<Vec<_>>());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = BTreeSet::new();
    for folder in ["tools", "guest"] {
        tests_in(&root.join(folder), &mut tests);
    }
    let cases: BTreeSet<&str> = catalogue::cases().map(|case| case.row).collect();
    for (row, place) in ROWS {
        let names = match place {
            Cases => {
                assert!(cases.contains(row), "{row}");
                continue;
            }
            Tests(names) => names,
            Nearest(reason, names) => {
                assert!(!reason.is_empty(), "{row}");
                names
            }
        };
        assert!(!names.is_empty(), "{row}");
        for name in *names {
            assert!(tests.contains(*name), "{row}: {name}");
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
        manifests: vec![ManifestSource::read(release.encode().as_bytes())],
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
