//! The policy's judgement of what quote and claims say.

use attestation::claims::{Claims, MinimumTcb, Model};
use attestation::events::{UNEXTENDED, configuration_digest, extend, model_digest};
use attestation::fingerprint::Registers;
use dcap_qvl::quote::TDReport10;
use measurements::Manifest;

use crate::code::Code;
use crate::policy::Policy;
use crate::release;
use crate::report::{Table, hex};
use crate::verifier::Scope;

const ZERO: [u8; 48] = [0; 48];

/// The domain's own properties, whatever runs in it. `service_tds` are the hashes of domains that have a say in it.
pub(crate) fn domain(table: &mut Table, report: &TDReport10, service_tds: &[[u8; 48]]) {
    // Intel TDX module ABI, ATTRIBUTES: bits 0 to 7 make a domain untrusted, 17 and 29 give others a say, and these are not defined.
    const DEBUG: u64 = 1;
    const PROFILING: u64 = 0b111 << 4;
    const RESERVED: u64 = 0b111 << 1 | 0x1ff << 7 | 0b1111 << 23 | ((1 << 30) - 1) << 32;
    const SERVTD_EXT: u64 = 1 << 17;
    const SEPT_VE_DISABLE: u64 = 1 << 28;
    const MIGRATABLE: u64 = 1 << 29;
    // XCR0 and IA32_XSS: the highest defined is APX, bit 19.
    const XFAM_RESERVED: u64 = !((1 << 20) - 1);

    let attributes = u64::from_le_bytes(report.td_attributes);
    let mut bits = |mask: u64, value: u64, code, name, expected: &str| {
        let found = format!("ATTRIBUTES {attributes:#x}");
        table.check(attributes & mask == value, code, name, expected, found);
    };
    bits(DEBUG, 0, Code::Debug, "debugging", "off");
    bits(PROFILING, 0, Code::Profiled, "profiling", "off");
    bits(
        RESERVED,
        0,
        Code::ReservedAttributes,
        "reserved attributes",
        "zero",
    );
    bits(
        SEPT_VE_DISABLE,
        SEPT_VE_DISABLE,
        Code::SeptVe,
        "faults for missing pages",
        "disabled",
    );
    bits(MIGRATABLE, 0, Code::Migratable, "migration", "off");
    bits(
        SERVTD_EXT,
        0,
        Code::ServiceTd,
        "service domains in the report",
        "off",
    );
    table.check(
        service_tds.iter().all(|hash| *hash == ZERO),
        Code::ServiceTd,
        "service domains",
        "none",
        match service_tds.iter().find(|hash| **hash != ZERO) {
            Some(hash) => hex(hash),
            None => "none".into(),
        },
    );
    let xfam = u64::from_le_bytes(report.xfam);
    table.check(
        xfam & XFAM_RESERVED == 0,
        Code::ReservedXfam,
        "reserved extended state",
        "zero",
        format!("XFAM {xfam:#x}"),
    );
}

/// Program, configuration and model, by the registers and, where there are claims, by what they say beyond.
pub(crate) fn contents(
    table: &mut Table,
    scope: Scope,
    policy: &Policy,
    report: &TDReport10,
    registers: &Registers,
    claims: Option<&Claims>,
    now: u64,
) {
    release::judge(table, &policy.manifests, &policy.accepted_before, now);
    program(table, policy, report, registers, claims);
    configuration(table, policy, registers, claims);
    match scope {
        Scope::KeyRelease => no_model(table, registers),
        _ => model(table, policy, registers, claims),
    }
}

fn program(
    table: &mut Table,
    policy: &Policy,
    report: &TDReport10,
    registers: &Registers,
    claims: Option<&Claims>,
) {
    let found = hex(&registers.mrtd);
    if policy.manifests.is_empty() {
        table.fail(
            Code::ManifestMissing,
            "program",
            "a manifest to compare with",
            found,
        );
        return;
    }
    let measures = |manifest: &&Manifest| {
        [
            manifest.mrtd.page_by_page.0,
            manifest.mrtd.add_then_extend.0,
        ]
        .contains(&registers.mrtd)
    };
    let Some(manifest) = policy.good_manifests().find(measures) else {
        let expected: Vec<String> = policy
            .good_manifests()
            .map(|manifest| hex(&manifest.mrtd.page_by_page.0))
            .collect();
        table.fail(
            Code::ProgramMismatch,
            "program (MRTD)",
            expected.join(" or "),
            found,
        );
        return;
    };
    table.check(
        true,
        Code::ProgramMismatch,
        "program (MRTD)",
        format!("vitrine {}", manifest.version),
        found,
    );
    if let Some(claims) = claims {
        let expected = manifest.image.guest_sha384.0;
        table.check(
            claims.compile == expected,
            Code::ProgramMismatch,
            "compile hash",
            hex(&expected),
            hex(&claims.compile),
        );
    }
    for (name, expected, found) in [
        ("RTMR[0]", manifest.rtmr0.0, registers.rtmr[0]),
        ("RTMR[1]", manifest.rtmr1.0, registers.rtmr[1]),
        ("MROWNER", ZERO, report.mr_owner),
        ("MROWNERCONFIG", ZERO, report.mr_owner_config),
    ] {
        table.check(
            found == expected,
            Code::UnexpectedRegister,
            name,
            hex(&expected),
            hex(&found),
        );
    }
    // A host that announces a configuration announces the one that was measured.
    let announced = report.mr_config_id;
    table.check(
        announced == ZERO || extend(&UNEXTENDED, &announced) == registers.rtmr[2],
        Code::UnexpectedRegister,
        "MRCONFIGID",
        "zero, or the configuration's digest",
        hex(&announced),
    );
    for (name, condition, bits) in [
        ("ATTRIBUTES", manifest.attributes, report.td_attributes),
        ("XFAM", manifest.xfam, report.xfam),
    ] {
        let bits = u64::from_le_bytes(bits);
        table.check(
            condition.allows(bits),
            Code::AttributesMismatch,
            name,
            format!(
                "{:#x} under {:#x}",
                condition.value.bits(),
                condition.mask.bits()
            ),
            format!("{bits:#x}"),
        );
    }
}

fn configuration(
    table: &mut Table,
    policy: &Policy,
    registers: &Registers,
    claims: Option<&Claims>,
) {
    let pins = &policy.configuration;
    let found = hex(&registers.rtmr[2]);
    // A manifest alone stands for its default configuration.
    let default = ["default".to_owned()];
    let names = match pins.names.is_empty() && pins.canonical.is_empty() && pins.fields.is_empty() {
        true => &default[..],
        false => &pins.names,
    };
    let mut accepted: Vec<[u8; 48]> = pins
        .canonical
        .iter()
        .map(|canonical| extend(&UNEXTENDED, &configuration_digest(canonical)))
        .collect();
    for manifest in policy.good_manifests() {
        let entries = names.iter().filter_map(|name| manifest.configuration(name));
        accepted.extend(entries.map(|entry| entry.rtmr2.0));
    }
    if accepted.is_empty() && pins.fields.is_empty() {
        table.fail(
            Code::ConfigNotPinned,
            "configuration",
            "one named by manifest or --config",
            found,
        );
        return;
    }
    if !accepted.is_empty() {
        let expected: Vec<String> = accepted.iter().map(|rtmr| hex(rtmr)).collect();
        table.check(
            accepted.contains(&registers.rtmr[2]),
            Code::ConfigMismatch,
            "configuration (RTMR[2])",
            expected.join(" or "),
            found,
        );
    }
    let text = claims.map(|claims| String::from_utf8_lossy(&claims.configuration));
    for (name, expected) in &pins.fields {
        let value = text.as_deref().and_then(|text| field(text, name));
        table.check(
            value == Some(expected),
            Code::ConfigMismatch,
            "configuration field",
            format!("{name}={expected}"),
            value.map_or_else(
                || format!("{name} is absent"),
                |value| format!("{name}={value}"),
            ),
        );
    }
}

/// A field of a canonical configuration, which has one `name=value` a line.
fn field<'a>(canonical: &'a str, name: &str) -> Option<&'a str> {
    canonical.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key == name).then_some(value)
    })
}

fn model(table: &mut Table, policy: &Policy, registers: &Registers, claims: Option<&Claims>) {
    let pins = &policy.model;
    let register = registers.rtmr[3];
    let entries: Vec<_> = policy
        .good_manifests()
        .flat_map(|manifest| &manifest.models)
        .filter(|entry| {
            let digests = [
                Some(entry.sha256.0),
                entry.sealed_sha256.map(|digest| digest.0),
            ];
            pins.names.contains(&entry.name)
                || pins.digests.iter().any(|pin| digests.contains(&Some(*pin)))
        })
        .collect();
    let loaded = claims.and_then(|claims| match &claims.model {
        Model::None => None,
        Model::Loaded { identity, version } => Some((identity, *version)),
    });
    if pins.names.is_empty() && pins.digests.is_empty() {
        let found = match loaded {
            Some((identity, _)) => format!("{} sha256:{}", identity.name, hex(&identity.plaintext)),
            None => hex(&register),
        };
        table.fail(
            Code::ModelNotPinned,
            "model",
            "one named by --model-digest or policy",
            found,
        );
        return;
    }
    let listed = entries.iter().any(|entry| entry.rtmr3.0 == register);
    let claimed = loaded.is_some_and(|(identity, _)| {
        let digests = [Some(identity.plaintext), identity.sealed];
        pins.digests.iter().any(|pin| digests.contains(&Some(*pin)))
            && extend(&UNEXTENDED, &model_digest(identity)) == register
    });
    let expected: Vec<String> = pins
        .names
        .iter()
        .cloned()
        .chain(
            pins.digests
                .iter()
                .map(|digest| format!("sha256:{}", hex(digest))),
        )
        .collect();
    let found = match (loaded, register == UNEXTENDED) {
        (_, true) => "none yet".to_owned(),
        (Some((identity, _)), _) => {
            format!("{} sha256:{}", identity.name, hex(&identity.plaintext))
        }
        (None, _) => format!("RTMR[3] {}", hex(&register)),
    };
    table.check(
        listed || claimed,
        Code::ModelMismatch,
        "model (RTMR[3])",
        expected.join(" or "),
        found,
    );
    if pins.minimum_version > 0 {
        let version = loaded.map(|(_, version)| version);
        table.check(
            version.is_some_and(|version| version >= pins.minimum_version),
            Code::ModelRollback,
            "model version",
            format!("{} or later", pins.minimum_version),
            version.map_or_else(
                || "not known without claims".to_owned(),
                |version| version.to_string(),
            ),
        );
    }
}

/// There must be no model: the one whose key is handed over could not take its place.
fn no_model(table: &mut Table, registers: &Registers) {
    let register = registers.rtmr[3];
    let expected = "none yet";
    table.check(
        register == UNEXTENDED,
        Code::ModelMismatch,
        "model (RTMR[3])",
        expected,
        match register == UNEXTENDED {
            true => expected.to_owned(),
            false => hex(&register),
        },
    );
}

/// How long a certificate is valid.
pub(crate) fn certificate(table: &mut Table, policy: &Policy, (from, to): (u64, u64)) {
    let life = to.saturating_sub(from);
    table.check(
        life <= policy.certificate.maximum_life,
        Code::CertificateLife,
        "certificate life",
        format!("{} s at most", policy.certificate.maximum_life),
        format!("{life} s"),
    );
}

/// A policy with the demands of the domain's owner added, the stricter of each counting.
pub(crate) fn stricter(policy: &Policy, minimum: &MinimumTcb) -> Policy {
    let mut policy = policy.clone();
    let tcb = &mut policy.tcb;
    for (own, claimed) in tcb.minimum_cpu_svns.iter_mut().zip(minimum.cpu) {
        *own = (*own).max(claimed);
    }
    let module = |svns: &[u8; 16]| (svns[1], svns[0]);
    if module(&minimum.tdx) > module(&tcb.minimum_tdx_svns) {
        tcb.minimum_tdx_svns[..2].copy_from_slice(&minimum.tdx[..2]);
    }
    for (own, claimed) in tcb.minimum_tdx_svns.iter_mut().zip(minimum.tdx).skip(2) {
        *own = (*own).max(claimed);
    }
    tcb.minimum_evaluation = tcb.minimum_evaluation.max(minimum.evaluation);
    tcb.refused_advisories
        .extend(minimum.refused_advisories.iter().cloned());
    policy
}
