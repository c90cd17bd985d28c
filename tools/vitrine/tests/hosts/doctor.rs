//! `vitrine doctor` on machines made of files, with QEMUs made of scripts.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{READY, good_machine, qemu, quote_service, write};
use serde_json::Value;

/// The doctor's exit code, findings and words.
fn doctor(root: &Path, more: &[&str]) -> (i32, Value, String) {
    let run = |json: &[&str]| {
        let service = format!("unix:{}", root.join("qgs.socket").display());
        Command::new(env!("CARGO_BIN_EXE_vitrine"))
            .env("VITRINE_QEMU", root.join("qemu"))
            .args(["doctor", "--root", root.to_str().unwrap()])
            .args(["--quote-service", &service])
            .args(more)
            .args(json)
            .output()
            .unwrap()
    };
    let (json, text) = (run(&["--json"]), run(&[]));
    assert_eq!(json.status, text.status);
    (
        json.status.code().unwrap(),
        serde_json::from_slice(&json.stdout).unwrap(),
        String::from_utf8(text.stdout).unwrap(),
    )
}

/// State and advice of one check of the only backend asked for.
fn check(findings: &Value, name: &str) -> (String, String) {
    let checks = findings["backends"][0]["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}"));
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("advice"))
}

#[test]
fn a_host_for_trust_domains_is_recognised() {
    let root = good_machine("doctor-good");
    quote_service(&root.join("qgs.socket"));
    let (code, findings, words) = doctor(&root, &["--backend", "tdx"]);
    assert_eq!(code, 0, "{words}");
    let finding = &findings["backends"][0];
    assert_eq!(
        (finding["backend"].as_str(), finding["usable"].as_bool()),
        (Some("tdx"), Some(true))
    );
    for check in finding["checks"].as_array().unwrap() {
        assert_eq!(check["state"], "good", "{check}");
        assert!(check["advice"].is_null(), "{check}");
    }
    assert_eq!(finding["checks"].as_array().unwrap().len(), 7);
    assert!(words.contains("can run here") && !words.contains('→'));
}

#[test]
fn each_thing_missing_is_found_and_has_a_remedy() {
    type Change = fn(&Path);
    let cases: [(&str, Change, &str, &str); 9] = [
        (
            "kernel",
            |root| write(root, "proc/sys/kernel/osrelease", "6.9.1"),
            "bad",
            "6.16",
        ),
        (
            "kernel",
            |root| fs::remove_file(root.join("proc/sys/kernel/osrelease")).unwrap(),
            "bad",
            "6.16",
        ),
        (
            "/dev/kvm",
            |root| fs::remove_file(root.join("dev/kvm")).unwrap(),
            "bad",
            "modprobe kvm_intel",
        ),
        (
            "kvm_intel.tdx",
            |root| write(root, "sys/module/kvm_intel/parameters/tdx", "N\n"),
            "bad",
            "kvm_intel.tdx=1",
        ),
        (
            "kvm_intel.tdx",
            |root| fs::remove_dir_all(root.join("sys/module")).unwrap(),
            "bad",
            "CONFIG_KVM_INTEL_TDX",
        ),
        (
            "qemu",
            |root| drop(qemu(root, "9.2.4", "tdx-guest", READY)),
            "bad",
            "10.1",
        ),
        (
            "qemu",
            |root| fs::remove_file(root.join("qemu")).unwrap(),
            "bad",
            "VITRINE_QEMU",
        ),
        (
            "tdx-guest",
            |root| drop(qemu(root, "10.2.1", "sev-guest", READY)),
            "bad",
            "-object help",
        ),
        (
            "vhost-vsock",
            |root| fs::remove_file(root.join("dev/vhost-vsock")).unwrap(),
            "poor",
            "--tcp",
        ),
    ];
    for (index, (name, change, state, remedy)) in cases.into_iter().enumerate() {
        let root = good_machine(&format!("doctor-{index}"));
        quote_service(&root.join("qgs.socket"));
        change(&root);
        let (code, findings, words) = doctor(&root, &["--backend", "tdx"]);
        let (found, advice) = check(&findings, name);
        assert_eq!(found, state, "{name}: {words}");
        assert!(advice.contains(remedy), "{name}: {advice}");
        assert_eq!(code, i32::from(state == "bad"), "{name}: {words}");
    }
}

#[test]
fn a_quote_service_that_is_not_there_is_bad() {
    let root = good_machine("doctor-qgs");
    let (code, findings, _) = doctor(&root, &["--backend", "tdx"]);
    assert_eq!(code, 1);
    let (state, advice) = check(&findings, "quote service");
    assert_eq!(state, "bad");
    assert!(advice.contains("qgsd"), "{advice}");
    // A leftover of a service that has ended.
    drop(std::os::unix::net::UnixListener::bind(root.join("qgs.socket")).unwrap());
    let (_, findings, _) = doctor(&root, &["--backend", "tdx"]);
    assert_eq!(check(&findings, "quote service").0, "bad");
}

#[test]
fn the_emulator_needs_no_tdx() {
    let root = good_machine("doctor-emulator");
    fs::remove_dir_all(root.join("sys/module")).unwrap();
    let (code, findings, _) = doctor(&root, &["--backend", "emulator"]);
    // Whether children can be traced is this machine's own affair.
    assert_eq!(code == 0, check(&findings, "ptrace").0 == "good");
    assert_eq!(check(&findings, "instructions").0, "good");
    assert_eq!(check(&findings, "huge pages").0, "good");

    write(
        &root,
        "sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size advise never [deny] force",
    );
    write(&root, "proc/cpuinfo", "flags : avx2 fma f16c avx512f");
    let (_, findings, _) = doctor(&root, &["--backend", "emulator"]);
    let (state, advice) = check(&findings, "huge pages");
    assert_eq!(state, "poor");
    assert!(advice.contains("echo never"), "{advice}");
    assert_eq!(check(&findings, "instructions").0, "poor");

    write(
        &root,
        "sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size advise [never] deny force",
    );
    let (_, findings, _) = doctor(&root, &["--backend", "emulator"]);
    assert_eq!(check(&findings, "huge pages").0, "good");
    write(&root, "proc/sys/kernel/osrelease", "5.15.0");
    let (_, findings, _) = doctor(&root, &["--backend", "emulator"]);
    let (state, advice) = check(&findings, "huge pages");
    assert_eq!(state, "poor");
    assert!(advice.contains("Linux 6.1"), "{advice}");

    write(&root, "proc/cpuinfo", "flags : sse2");
    let (code, findings, _) = doctor(&root, &["--backend", "emulator"]);
    assert_eq!((code, &*check(&findings, "instructions").0), (1, "bad"));
}

#[test]
fn without_a_backend_one_that_can_run_is_enough() {
    let root = good_machine("doctor-any");
    let (code, findings, words) = doctor(&root, &[]);
    assert_eq!(code, 0, "{words}");
    let usable: Vec<_> = findings["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["backend"].as_str().unwrap(),
                finding["usable"] == true,
            )
        })
        .collect();
    // There is no quote service.
    assert_eq!(usable[0], ("tdx", false));
    assert_eq!(usable[2], ("qemu", true));
}
