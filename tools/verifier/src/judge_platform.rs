//! The policy's judgement of a platform whose chain holds.

use dcap_qvl::TcbStatus;

use crate::code::Code;
use crate::date;
use crate::platform::Platform;
use crate::policy::Policy;
use crate::report::{Table, hex};

/// Judges a platform.
pub(crate) fn platform(table: &mut Table, policy: &Policy, platform: &Platform) {
    tcb(table, policy, platform);
    svns(table, policy, platform);
    module(table, policy, platform);
    identity(table, policy, platform);
}

fn tcb(table: &mut Table, policy: &Policy, platform: &Platform) {
    let policy = &policy.tcb;
    let status = platform.status.to_string();
    let found = match &platform.lag {
        Some(lag) => format!("{status}, {lag}"),
        None => status.clone(),
    };
    if platform.status == TcbStatus::Revoked {
        table.fail(
            Code::TcbRevoked,
            "TCB status",
            policy.statuses.join(" or "),
            found,
        );
    } else {
        table.check(
            policy.statuses.contains(&status),
            Code::TcbStatus,
            "TCB status",
            policy.statuses.join(" or "),
            found,
        );
    }
    table.check(
        platform.tcb_date >= policy.minimum_date,
        Code::TcbDate,
        "TCB date",
        since(policy.minimum_date),
        date::format(platform.tcb_date),
    );
    let refused: Vec<&str> = platform
        .advisories
        .iter()
        .filter(|id| {
            policy
                .refused_advisories
                .iter()
                .any(|refused| refused.eq_ignore_ascii_case(id))
        })
        .map(String::as_str)
        .collect();
    table.check(
        refused.is_empty(),
        Code::AdvisoryRefused,
        "advisories",
        match policy.refused_advisories.is_empty() {
            true => "any".to_owned(),
            false => format!("none of {}", policy.refused_advisories.join(", ")),
        },
        match platform.advisories.is_empty() {
            true => "none".to_owned(),
            false => platform.advisories.join(", "),
        },
    );
    table.check(
        platform.evaluation >= policy.minimum_evaluation,
        Code::EvaluationTooOld,
        "TCB evaluation",
        format!("{} or later", policy.minimum_evaluation),
        platform.evaluation.to_string(),
    );
    table.check(
        platform.issued >= policy.minimum_issue_date,
        Code::IssueDateTooOld,
        "collateral issued",
        since(policy.minimum_issue_date),
        date::format(platform.issued),
    );
}

fn since(date: u64) -> String {
    match date {
        0 => "any time".into(),
        date => format!("{} or later", date::format(date)),
    }
}

fn svns(table: &mut Table, policy: &Policy, platform: &Platform) {
    let policy = &policy.tcb;
    let cpu = platform.pck.cpu_svn;
    table.check(
        cpu.iter()
            .zip(policy.minimum_cpu_svns)
            .all(|(have, least)| *have >= least),
        Code::SvnBelowMinimum,
        "platform SVNs",
        at_least(&policy.minimum_cpu_svns),
        hex(&cpu),
    );
    table.check(
        platform.pck.pce_svn >= policy.minimum_pce_svn,
        Code::SvnBelowMinimum,
        "provisioning enclave SVN",
        format!("{} or later", policy.minimum_pce_svn),
        platform.pck.pce_svn.to_string(),
    );
    for svns in &platform.tdx_svns {
        let least = &policy.minimum_tdx_svns;
        let reached = (svns[1], svns[0]) >= (least[1], least[0])
            && svns
                .iter()
                .zip(least)
                .skip(2)
                .all(|(have, least)| have >= least);
        table.check(
            reached,
            Code::SvnBelowMinimum,
            "TDX SVNs",
            at_least(least),
            hex(svns),
        );
    }
}

fn at_least(svns: &[u8; 16]) -> String {
    match svns {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => "any".into(),
        svns => format!("{} or later", hex(svns)),
    }
}

fn module(table: &mut Table, policy: &Policy, platform: &Platform) {
    let report = &platform.report;
    // The chain holds only for modules that Intel describes. Of those, production modules have zeros here.
    table.check(
        report.mr_signer_seam == [0; 48],
        Code::ModuleSigner,
        "TDX module signer",
        "zero (Intel)",
        hex(&report.mr_signer_seam),
    );
    table.check(
        report.seam_attributes == [0; 8],
        Code::ModuleAttributes,
        "TDX module attributes",
        "zero",
        hex(&report.seam_attributes),
    );
    let allow = &policy.platform.mrseam;
    table.check(
        allow.is_empty() || allow.contains(&report.mr_seam),
        Code::ModuleNotAllowed,
        "TDX module",
        match allow.is_empty() {
            true => "any that Intel signed".to_owned(),
            false => allow
                .iter()
                .map(|digest| hex(digest))
                .collect::<Vec<_>>()
                .join(" or "),
        },
        hex(&report.mr_seam),
    );
}

fn identity(table: &mut Table, policy: &Policy, platform: &Platform) {
    let policy = &policy.platform;
    let pck = &platform.pck;
    for (allowed, flag, name) in [
        (policy.dynamic, pck.dynamic_platform, "dynamic platform"),
        (policy.cached_keys, pck.cached_keys, "cached keys"),
        (policy.smt, pck.smt_enabled, "multithreading"),
    ] {
        let found = match flag {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not said",
        };
        let expected = match allowed {
            true => "any",
            false => "no",
        };
        // A certificate that does not say is not one that says no.
        table.check(
            allowed || flag == Some(false),
            Code::PlatformFlag,
            name,
            expected,
            found,
        );
    }
    let identifiers = [Some(&pck.ppid), pck.platform_instance_id.as_ref()];
    let allow = &policy.allowed;
    let known = allow
        .iter()
        .any(|id| identifiers.iter().flatten().any(|found| ***found == *id));
    table.check(
        allow.is_empty() || known,
        Code::PlatformNotAllowed,
        "platform",
        match allow.is_empty() {
            true => "any".to_owned(),
            false => format!("one of {}", allow.len()),
        },
        identifiers
            .iter()
            .flatten()
            .map(|id| hex(id))
            .collect::<Vec<_>>()
            .join(" / "),
    );
}
