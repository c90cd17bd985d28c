//! Sound chains of things a policy does not allow: P1–P10, P14, P15.

use super::Change::{Described, Prepared};
use super::{Case, Given};
use crate::{Error, Platform, QuoteFormat, Scenario, Status};

pub(super) const CASES: &[Case] = &[
    // P1–P4: what the TD is.
    default("P1", "DEBUG", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 0
    }),
    default("P2", "HGS_PLUS_PROF", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 4
    }),
    default("P2", "PERF_PROF", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 5
    }),
    default("P2", "PMT_PROF", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 6
    }),
    default("P2", "a reserved bit among the debug bits", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 7
    }),
    default("P2", "a reserved security bit", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 24
    }),
    default("P2", "a reserved bit above", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 40
    }),
    default("P2", "a reserved XFAM bit", |scenario| {
        scenario.report.td.xfam |= 1 << 60
    }),
    default("P3", "SEPT_VE_DISABLE clear", |scenario| {
        scenario.report.td.attributes.0 &= !(1 << 28)
    }),
    default("P4", "MIGRATABLE", |scenario| {
        scenario.report.td.attributes.0 |= 1 << 29
    }),
    default("P4", "SERVTD_EXT", |scenario| {
        scenario.format = QuoteFormat::V5Td15;
        scenario.report.td.attributes.0 |= 1 << 17;
    }),
    default("P4", "a service TD bound", |scenario| {
        scenario.format = QuoteFormat::V5Td15;
        scenario.report.td.servtd_hash = [9; 48];
    }),
    // P5: what Intel says of the platform.
    default("P5", "platform OutOfDate", |scenario| {
        platform(scenario, Status::OutOfDate)
    }),
    default("P5", "platform SWHardeningNeeded", |scenario| {
        platform(scenario, Status::SWHardeningNeeded)
    }),
    default("P5", "platform ConfigurationNeeded", |scenario| {
        platform(scenario, Status::ConfigurationNeeded)
    }),
    default(
        "P5",
        "platform ConfigurationAndSWHardeningNeeded",
        |scenario| platform(scenario, Status::ConfigurationAndSWHardeningNeeded),
    ),
    default("P5", "platform OutOfDateConfigurationNeeded", |scenario| {
        platform(scenario, Status::OutOfDateConfigurationNeeded)
    }),
    default("P5", "module OutOfDate", |scenario| {
        module(scenario, Status::OutOfDate)
    }),
    default("P5", "quoting enclave OutOfDate", |scenario| {
        quoting_enclave(scenario, Status::OutOfDate)
    }),
    default(
        "P5",
        "the module was updated since the TD's launch",
        relaunch,
    ),
    default(
        "P5",
        "the same, and the platform needs configuration",
        |scenario| {
            relaunch(scenario);
            platform(scenario, Status::ConfigurationNeeded);
        },
    ),
    // P6
    pinned("P6", "an advisory on the platform's level", |scenario| {
        scenario.tcb_info.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00828".into()];
    }),
    pinned("P6", "an advisory on the module's level", |scenario| {
        scenario.tcb_info.tdx_module_identities[0].tcb_levels[0].advisory_ids =
            vec!["INTEL-SA-00828".into()];
    }),
    pinned(
        "P6",
        "an advisory on the quoting enclave's level",
        |scenario| {
            scenario.qe_identity.tcb_levels[0].advisory_ids = vec!["INTEL-SA-00828".into()];
        },
    ),
    // P7: versions below the sound ones that Intel still calls up to date.
    pinned("P7", "an older module", |scenario| {
        scenario.report.tcb.tee_tcb_svn[0] -= 1;
        scenario.report.tcb.tee_tcb_svn_2[0] -= 1;
        scenario.tcb_info.tdx_module_identities[0].tcb_levels[0]
            .tcb
            .isvsvn -= 1;
    }),
    pinned("P7", "an older late microcode in TEE_TCB_SVN", |scenario| {
        scenario.report.tcb.tee_tcb_svn[2] -= 1;
        scenario.report.tcb.tee_tcb_svn_2[2] -= 1;
        scenario.tcb_info.tcb_levels[0].tcb.tdx[2].svn -= 1;
    }),
    Case::new(
        "P7",
        "an older early microcode",
        Prepared(|scenario| older_component(scenario, 0)),
    )
    .policy(Given::Pins),
    Case::new(
        "P7",
        "an older late microcode",
        Prepared(|scenario| older_component(scenario, 1)),
    )
    .policy(Given::Pins),
    pinned("P7", "a level of an earlier date", |scenario| {
        scenario.tcb_info.tcb_levels[0].tcb_date = "2019-01-01T00:00:00Z".into()
    }),
    // P8: the module.
    pinned("P8", "another MRSEAM", |scenario| {
        scenario.report.tcb.mr_seam[0] ^= 1
    }),
    default(
        "P8",
        "a module of another signer, which the TCB info knows",
        |scenario| {
            scenario.report.tcb.mr_signer_seam = [3; 48];
            scenario.tcb_info.tdx_module_identities[0].module.mrsigner = [3; 48];
        },
    ),
    default(
        "P8",
        "a module with an attribute, which the TCB info allows",
        |scenario| {
            scenario.report.tcb.attributes[0] = 1;
            scenario.tcb_info.tdx_module_identities[0].module.attributes[0] = 1;
        },
    ),
    // P9, P10: the program, its configuration and its model.
    pinned("P9", "another MRTD", |scenario| {
        scenario.report.td.mr_td[47] ^= 1
    }),
    pinned("P9", "another RTMR0", |scenario| {
        scenario.report.td.rtmr[0][0] ^= 1
    }),
    pinned("P9", "another RTMR1", |scenario| {
        scenario.report.td.rtmr[1][0] ^= 1
    }),
    pinned("P9", "another RTMR2", |scenario| {
        scenario.report.td.rtmr[2][0] ^= 1
    }),
    pinned("P9", "another MRCONFIGID", |scenario| {
        scenario.report.td.mr_config_id[0] ^= 1
    }),
    pinned("P9", "another MROWNER", |scenario| {
        scenario.report.td.mr_owner[0] ^= 1
    }),
    pinned("P9", "another MROWNERCONFIG", |scenario| {
        scenario.report.td.mr_owner_config[0] ^= 1
    }),
    pinned("P9", "XFAM without AVX-512", |scenario| {
        scenario.report.td.xfam &= !0xe0
    }),
    pinned("P10", "another RTMR3: another model", |scenario| {
        scenario.report.td.rtmr[3][0] ^= 1
    }),
    // P14
    default("P14", "platform Revoked", |scenario| {
        platform(scenario, Status::Revoked)
    }),
    default("P14", "module Revoked", |scenario| {
        module(scenario, Status::Revoked)
    }),
    default("P14", "quoting enclave Revoked", |scenario| {
        quoting_enclave(scenario, Status::Revoked)
    }),
    // P15: the sound platform is dynamic and has SMT, as every genuine one.
    Case::new(
        "P15",
        "platform keys cached",
        Prepared(|scenario| flags(scenario, |platform| platform.cached_keys = true)),
    )
    .policy(Given::Pins),
];

/// Refused by the default platform policy.
const fn default(row: &'static str, attack: &'static str, change: fn(&mut Scenario<'_>)) -> Case {
    Case::new(row, attack, Described(change)).policy(Given::Evidence)
}

/// Refused by a policy that pins what the sound scenario shows.
const fn pinned(row: &'static str, attack: &'static str, change: fn(&mut Scenario<'_>)) -> Case {
    Case::new(row, attack, Described(change)).policy(Given::Pins)
}

fn platform(scenario: &mut Scenario<'_>, status: Status) {
    scenario.tcb_info.tcb_levels[0].tcb_status = status;
}

fn module(scenario: &mut Scenario<'_>, status: Status) {
    scenario.tcb_info.tdx_module_identities[0].tcb_levels[0].tcb_status = status;
}

fn quoting_enclave(scenario: &mut Scenario<'_>, status: Status) {
    scenario.qe_identity.tcb_levels[0].tcb_status = status;
}

/// Launched under a module one version older, which is out of date.
fn relaunch(scenario: &mut Scenario<'_>) {
    scenario.format = QuoteFormat::V5Td15;
    scenario.report.tcb.tee_tcb_svn[0] -= 1;
}

/// A platform with a component one version older, and TCB info that takes it.
fn older_component(scenario: &mut Scenario<'_>, component: usize) -> Result<(), Error> {
    scenario.tcb_info.tcb_levels[0].tcb.sgx[component].svn -= 1;
    let mut platform = scenario.pki.platform().clone();
    platform.components[component] -= 1;
    certify(scenario, &platform)
}

/// A platform with other flags.
fn flags(scenario: &mut Scenario<'_>, change: fn(&mut Platform)) -> Result<(), Error> {
    let mut platform = scenario.pki.platform().clone();
    change(&mut platform);
    certify(scenario, &platform)
}

/// Shows a PCK certificate that says this of the same machine.
fn certify(scenario: &mut Scenario<'_>, platform: &Platform) -> Result<(), Error> {
    let leaf = scenario.pki.pck_certificate(platform)?;
    scenario.chain = scenario.pki.chain_of(&leaf);
    Ok(())
}
