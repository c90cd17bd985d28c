//! Attacks on TCB info and QE identity: C15–C18, C20–C22, C29.

use super::Change::{Described, Issued, Prepared, Shown};
use super::{Case, Given};
use crate::tcb::{Module, rfc3339};
use crate::{Evidence, Level, Scenario, Status};

/// Seconds.
const DAY: u64 = 24 * 3600;

pub(super) const CASES: &[Case] = &[
    // C15: not what was signed.
    Case::new(
        "C15",
        "a byte of the TCB info changed",
        Shown(|evidence| {
            evidence.collateral.tcb_info = evidence
                .collateral
                .tcb_info
                .replace("INTEL-SA-00960", "INTEL-SA-00961");
        }),
    ),
    Case::new(
        "C15",
        "a byte of the QE identity changed",
        Shown(|evidence| {
            evidence.collateral.qe_identity =
                evidence.collateral.qe_identity.replace("2024", "2025");
        }),
    ),
    Case::new(
        "C15",
        "TCB info serialised again",
        Shown(|evidence| again(&mut evidence.collateral.tcb_info)),
    ),
    Case::new(
        "C15",
        "QE identity serialised again",
        Shown(|evidence| again(&mut evidence.collateral.qe_identity)),
    ),
    Case::new(
        "C15",
        "TCB info followed by a space",
        Shown(|evidence| evidence.collateral.tcb_info.push(' ')),
    ),
    Case::new(
        "C15",
        "TCB info signature zero",
        Shown(|evidence| evidence.collateral.tcb_info_signature.fill(0)),
    ),
    Case::new(
        "C15",
        "QE identity signature zero",
        Shown(|evidence| evidence.collateral.qe_identity_signature.fill(0)),
    ),
    Case::new(
        "C15",
        "TCB info signature a byte short",
        Shown(|evidence| evidence.collateral.tcb_info_signature.truncate(63)),
    ),
    Case::new(
        "C15",
        "TCB info signature empty",
        Shown(|evidence| evidence.collateral.tcb_info_signature.clear()),
    ),
    Case::new(
        "C15",
        "QE identity signature empty",
        Shown(|evidence| evidence.collateral.qe_identity_signature.clear()),
    ),
    Case::new(
        "C15",
        "both signatures swapped",
        Shown(|evidence| {
            let Evidence { collateral, .. } = evidence;
            std::mem::swap(
                &mut collateral.tcb_info_signature,
                &mut collateral.qe_identity_signature,
            );
        }),
    ),
    Case::new(
        "C15",
        "signed by the platform CA",
        Issued(|evidence, pki| {
            let signature = pki
                .keys
                .platform_ca
                .sign(evidence.collateral.tcb_info.as_bytes())?;
            evidence.collateral.tcb_info_signature = signature.to_vec();
            evidence.collateral.tcb_info_issuer_chain = pki.pck_crl_chain();
            Ok(())
        }),
    ),
    Case::new(
        "C15",
        "signed by the PCK",
        Issued(|evidence, pki| {
            let signature = pki.keys.pck.sign(evidence.collateral.tcb_info.as_bytes())?;
            evidence.collateral.tcb_info_signature = signature.to_vec();
            evidence.collateral.tcb_info_issuer_chain = pki.pck_chain();
            Ok(())
        }),
    ),
    // C16: of something else.
    Case::new(
        "C16",
        "TCB info of another FMSPC",
        Described(|scenario| scenario.tcb_info.fmspc[0] ^= 1),
    ),
    Case::new(
        "C16",
        "TCB info for SGX",
        Described(|scenario| scenario.tcb_info.id = "SGX".into()),
    ),
    Case::new(
        "C16",
        "TCB info of version 2",
        Described(|scenario| scenario.tcb_info.version = 2),
    ),
    Case::new(
        "C16",
        "QE identity for SGX",
        Described(|scenario| scenario.qe_identity.id = "QE".into()),
    ),
    Case::new(
        "C16",
        "QE identity of version 1",
        Described(|scenario| scenario.qe_identity.version = 1),
    ),
    Case::new(
        "C16",
        "QE identity of another signer",
        Described(|scenario| scenario.qe_identity.mrsigner[0] ^= 1),
    ),
    Case::new(
        "C16",
        "QE identity of another product",
        Described(|scenario| scenario.qe_identity.isvprodid = 1),
    ),
    Case::new(
        "C16",
        "TCB info and QE identity swapped",
        Shown(|evidence| {
            let Evidence { collateral, .. } = evidence;
            std::mem::swap(&mut collateral.tcb_info, &mut collateral.qe_identity);
            std::mem::swap(
                &mut collateral.tcb_info_signature,
                &mut collateral.qe_identity_signature,
            );
        }),
    ),
    // C17
    Case::new(
        "C17",
        "TCB info of another PCE",
        Described(|scenario| scenario.tcb_info.pce_id = [1, 0]),
    ),
    // C18
    Case::new(
        "C18",
        "TCB info stale",
        Prepared(|scenario| {
            scenario.tcb_info.issue_date = rfc3339(scenario.now - 60 * DAY)?;
            scenario.tcb_info.next_update = rfc3339(scenario.now - 30 * DAY)?;
            Ok(())
        }),
    ),
    Case::new(
        "C18",
        "TCB info stale for a second",
        Prepared(|scenario| {
            scenario.tcb_info.issue_date = rfc3339(scenario.now - 30 * DAY)?;
            scenario.tcb_info.next_update = rfc3339(scenario.now - 1)?;
            Ok(())
        }),
    ),
    Case::new(
        "C18",
        "QE identity stale",
        Prepared(|scenario| {
            scenario.qe_identity.issue_date = rfc3339(scenario.now - 60 * DAY)?;
            scenario.qe_identity.next_update = rfc3339(scenario.now - 30 * DAY)?;
            Ok(())
        }),
    ),
    Case::new(
        "C18",
        "TCB info issued in the future",
        Prepared(|scenario| {
            scenario.tcb_info.issue_date = rfc3339(scenario.now + DAY)?;
            scenario.tcb_info.next_update = rfc3339(scenario.now + 31 * DAY)?;
            Ok(())
        }),
    ),
    Case::new(
        "C18",
        "QE identity issued in the future",
        Prepared(|scenario| {
            scenario.qe_identity.issue_date = rfc3339(scenario.now + DAY)?;
            scenario.qe_identity.next_update = rfc3339(scenario.now + 31 * DAY)?;
            Ok(())
        }),
    ),
    Case::new(
        "C18",
        "a date that is none",
        Described(|scenario| scenario.tcb_info.next_update = "tomorrow".into()),
    ),
    // C20
    Case::new(
        "C20",
        "all two years old, and so is the clock",
        Prepared(|scenario| {
            *scenario = scenario.pki.scenario(scenario.now - 730 * DAY)?;
            Ok(())
        }),
    )
    .given(Given::Clock),
    // C21: valid, and the easier choice.
    Case::new(
        "C21",
        "TCB info of a lower evaluation number",
        Described(|scenario| scenario.tcb_info.tcb_evaluation_data_number -= 1),
    )
    .policy(Given::Pins),
    Case::new(
        "C21",
        "QE identity of a lower evaluation number",
        Described(|scenario| scenario.qe_identity.tcb_evaluation_data_number -= 1),
    )
    .policy(Given::Pins),
    Case::new(
        "C21",
        "TCB info issued 29 days ago",
        Prepared(|scenario| {
            scenario.tcb_info.issue_date = rfc3339(scenario.now - 29 * DAY)?;
            Ok(())
        }),
    )
    .policy(Given::Pins),
    Case::new(
        "C21",
        "QE identity issued 29 days ago",
        Prepared(|scenario| {
            scenario.qe_identity.issue_date = rfc3339(scenario.now - 29 * DAY)?;
            Ok(())
        }),
    )
    .policy(Given::Pins),
    // C22
    Case::new(
        "C22",
        "no level for the platform's components",
        Described(|scenario| {
            for level in &mut scenario.tcb_info.tcb_levels {
                level.tcb.sgx[0].svn = 0xff;
            }
        }),
    ),
    Case::new(
        "C22",
        "no level for the platform's PCE",
        Described(|scenario| {
            for level in &mut scenario.tcb_info.tcb_levels {
                level.tcb.pce_svn = 0xffff;
            }
        }),
    ),
    Case::new(
        "C22",
        "no level for the module's microcode",
        Described(|scenario| {
            for level in &mut scenario.tcb_info.tcb_levels {
                level.tcb.tdx[2].svn = 0xff;
            }
        }),
    ),
    Case::new(
        "C22",
        "no levels",
        Described(|scenario| scenario.tcb_info.tcb_levels.clear()),
    ),
    Case::new(
        "C22",
        "no level for the quoting enclave",
        Described(|scenario| {
            for level in &mut scenario.qe_identity.tcb_levels {
                level.tcb.isvsvn = 0xffff;
            }
        }),
    ),
    Case::new(
        "C22",
        "no level for the module",
        Described(|scenario| {
            scenario.tcb_info.tdx_module_identities[0].tcb_levels = vec![Level::new(
                crate::ModuleSvn { isvsvn: 0xff },
                Status::UpToDate,
            )];
        }),
    ),
    Case::new(
        "C22",
        "no identity of the module's major version",
        Described(|scenario| scenario.tcb_info.tdx_module_identities.clear()),
    ),
    Case::new(
        "C22",
        "15 components",
        Described(|scenario| {
            scenario.tcb_info.tcb_levels[0].tcb.sgx.pop();
        }),
    ),
    Case::new(
        "C22",
        "a module mask of no bits around set attributes",
        Described(|scenario| {
            scenario.report.tcb.attributes[0] = 2;
            module(scenario).attributes_mask = [0; 8];
        }),
    ),
    // C29: genuine keys in the wrong hands look genuine; only a list of known machines tells.
    Case::new(
        "C29",
        "another machine, as extracted keys would sign for",
        Issued(|evidence, pki| {
            let mut platform = pki.platform().clone();
            platform.ppid[0] ^= 1;
            platform.instance[0] ^= 1;
            evidence.quote = pki
                .sibling(platform)?
                .scenario(evidence.now)?
                .build()?
                .quote;
            Ok(())
        }),
    )
    .policy(Given::Pins),
];

/// Parses and writes a document, which changes its bytes and not what it says.
fn again(document: &mut String) {
    let value: serde_json::Value = serde_json::from_str(document).expect("it is JSON");
    *document = serde_json::to_string_pretty(&value).expect("it is JSON");
}

/// What the TCB info says of the module that runs the TD.
fn module<'s>(scenario: &'s mut Scenario<'_>) -> &'s mut Module {
    &mut scenario.tcb_info.tdx_module_identities[0].module
}
