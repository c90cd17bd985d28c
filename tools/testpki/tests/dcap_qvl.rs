//! dcap-qvl, a verifier we did not write, judges the evidence.

use const_oid::ObjectIdentifier;
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use dcap_qvl::{intel, oids};
use testpki::catalogue::{self, Expected};
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
        scenario.report.mac.report_data = [7; 64];
        let report = verify(&scenario.build().unwrap()).unwrap();
        assert_eq!(report.status, "UpToDate", "{format:?}");
        assert!(report.advisory_ids.is_empty());
        let td = report.report.as_td10().unwrap();
        assert_eq!(td.report_data, [7; 64]);
        assert_eq!(td.rt_mr3, [0; 48]);
    }
}

#[test]
fn the_pck_certificate_says_what_the_platform_is() {
    let platform = Platform {
        cached_keys: true,
        smt: false,
        pce_svn: 0x1234,
        components: core::array::from_fn(|index| 0x80 + index as u8),
        ..Platform::default()
    };
    let pki = TestPki::generate(platform.clone()).unwrap();
    let pck = intel::parse_pck_extension_from_pem(pki.pck_chain().as_bytes()).unwrap();
    assert_eq!(pck.ppid, platform.ppid);
    assert_eq!(pck.cpu_svn, platform.components);
    assert_eq!(pck.pce_svn, platform.pce_svn);
    assert_eq!(pck.pce_id, platform.pce_id);
    assert_eq!(pck.fmspc, platform.fmspc);
    assert_eq!(pck.sgx_type, 1);
    assert_eq!(
        pck.platform_instance_id.as_deref(),
        Some(&platform.instance[..])
    );
    assert_eq!(
        [pck.dynamic_platform, pck.cached_keys, pck.smt_enabled],
        [Some(true), Some(true), Some(false)]
    );
    // 1.2.840.113741.1.13.1.2.1 to .16: the components one by one, as INTEGERs.
    for (arc, component) in (1u8..).zip(platform.components) {
        let oid = [oids::TCB.as_bytes(), &[arc]].concat();
        let oid = ObjectIdentifier::from_bytes(&oid).unwrap();
        assert_eq!(pck.get_value(&oid).unwrap(), Some(vec![0, component]));
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

/// Cases that dcap-qvl lets through: a verifier has to look itself.
const UNNOTICED: &[(&str, &str)] = &[
    ("C6", "a valid SGX quote with SGX collateral"),
    ("C9", ""),
    ("C10", "outer certification type"),
    ("C17", ""),
    ("C20", ""),
    ("C25", "TCB info within 100 000 arrays"),
    ("C25", "TCB info with a string of 10 MB"),
];

/// How dcap-qvl words a refusal of each row: that it refuses for the reason the attack gives it, and no other.
const REASONS: &[(&str, &[&str])] = &[
    ("C1", &["ISV enclave report signature is invalid"]),
    (
        "C2",
        &[
            "Signature is invalid for qe_report",
            "QE report hash mismatch",
            "ISV enclave report signature",
        ],
    ),
    (
        "C3",
        &[
            "Signature is invalid for qe_report",
            "ISV enclave report signature",
        ],
    ),
    (
        "C5",
        &[
            "Invalid TEE type",
            "Unsupported",
            "Unknown QE vendor ID",
            "Not enough data",
        ],
    ),
    ("C6", &["SGX TEE quote must have version 3"]),
    ("C7", &["Invalid body size", "Unsupported body type"]),
    (
        "C8",
        &["Failed to decode quote", "Certificate chain is too short"],
    ),
    ("C10", &["Unsupported DCAP PCK cert format"]),
    (
        "C11",
        &[
            "CaUsedAsEndEntity",
            "UnknownIssuer",
            "too short",
            "Too many",
            "Intel extension not found",
        ],
    ),
    ("C12", &["SignatureForPublicKey"]),
    ("C13", &["CertRevoked"]),
    (
        "C14",
        &[
            "Failed to parse",
            "SignatureForPublicKey",
            "UnknownRevocationStatus",
            "CrlExpired",
        ],
    ),
    (
        "C15",
        &[
            "Signature is invalid for",
            "Invalid key length",
            "CaUsedAsEndEntity",
            "issued directly by the root",
        ],
    ),
    (
        "C16",
        &[
            "mismatch",
            "non-TDX TCB info",
            "Unsupported QE Identity",
            "Failed to decode TcbInfo",
        ],
    ),
    ("C18", &["expired", "in the future", "Failed to parse"]),
    ("C19", &["CertExpired", "CertNotValidYet"]),
    (
        "C22",
        &[
            "No matching TCB level",
            "below minimum",
            "No TDX module identity",
            "count mismatch",
            "outside mask",
        ],
    ),
    ("C23", &["Signature is invalid for qe_report"]),
    ("C24", &["Failed to", "more than once", "Too many"]),
    ("C25", &["Failed to decode TcbInfo"]),
    ("P1", &["Debug mode is enabled"]),
    ("P2", &["TD profiling is enabled", "Reserved bits"]),
    ("P3", &["SEPT_VE_DISABLE is not enabled"]),
    (
        "P4",
        &[
            "TD migration is enabled",
            "SERVTD_EXT is enabled",
            "Invalid MR service TD",
        ],
    ),
    ("P14", &["TCB status is invalid: Revoked"]),
];

/// Whether dcap-qvl words the refusal of a row like this.
fn is_reason(row: &str, refusal: &str) -> bool {
    REASONS
        .iter()
        .filter(|(of, _)| *of == row)
        .flat_map(|(_, reasons)| *reasons)
        .any(|reason| refusal.contains(reason))
}

#[test]
fn every_attack_on_the_chain_is_refused_for_what_it_is() {
    let pki = pki();
    let cases = catalogue::cases().filter(|case| case.expected != Expected::PolicyUnsatisfied);
    for case in cases {
        let name = format!("{} {}", case.row, case.attack);
        let unnoticed = UNNOTICED
            .iter()
            .any(|&(row, attack)| case.row == row && case.attack.starts_with(attack));
        let passes = case.expected == Expected::Accepted || unnoticed;
        match verify(&case.evidence(&pki, NOW).unwrap()) {
            Ok(_) => assert!(passes, "{name}: accepted"),
            Err(refusal) => assert!(
                !passes && is_reason(case.row, &refusal),
                "{name}: {refusal}"
            ),
        }
    }
}

/// The chain of each policy case holds. dcap-qvl judges some of them itself; the rest it leaves to a policy.
#[test]
fn every_policy_case_has_a_sound_chain() {
    let pki = pki();
    let cases = catalogue::cases().filter(|case| case.expected == Expected::PolicyUnsatisfied);
    for case in cases {
        let name = format!("{} {}", case.row, case.attack);
        match verify(&case.evidence(&pki, NOW).unwrap()) {
            Ok(report) => {
                assert_eq!(report.status != "UpToDate", case.row == "P5", "{name}");
            }
            Err(refusal) => assert!(is_reason(case.row, &refusal), "{name}: {refusal}"),
        }
    }
}

#[test]
fn all_nine_statuses_but_revoked_can_be_had() {
    let pki = pki();
    let mut statuses: Vec<String> = catalogue::cases()
        .filter(|case| case.row == "P5")
        .map(|case| verify(&case.evidence(&pki, NOW).unwrap()).unwrap().status)
        .collect();
    statuses.sort();
    statuses.dedup();
    assert_eq!(
        statuses,
        [
            "ConfigurationAndSWHardeningNeeded",
            "ConfigurationNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
            "SWHardeningNeeded",
            "TDRelaunchAdvised",
            "TDRelaunchAdvisedConfigurationNeeded",
        ]
    );
}
