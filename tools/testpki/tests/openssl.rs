//! OpenSSL, which we did not write, walks the chains and reads the revocation lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testpki::{Platform, Revoked, TestPki};

/// The window of the lists: OpenSSL judges by the machine's own clock.
const ALWAYS: (u64, u64) = (1_600_000_000, 2_500_000_000);

fn openssl(arguments: &[&str], directory: &Path) -> Option<(bool, String)> {
    let Ok(output) = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
    else {
        assert!(
            std::env::var_os("VITRINE_REQUIRE_ORACLES").is_none(),
            "openssl is not installed"
        );
        eprintln!("SKIPPED: openssl is not installed");
        return None;
    };
    let words = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&words).into_owned(),
    ))
}

/// A PKI in a directory, with its two revocation lists in one file.
fn place(name: &str, revoked: &[Revoked]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may be left from another run.
    let _ = fs::remove_dir_all(&directory);
    let pki = TestPki::generate(Platform::default()).unwrap();
    pki.save(&directory).unwrap();
    let lists = [
        pki.root_crl(revoked, ALWAYS).unwrap(),
        pki.pck_crl(revoked, ALWAYS).unwrap(),
    ];
    let lists = lists.map(|list| pem::encode(&pem::Pem::new("X509 CRL", list)));
    fs::write(directory.join("lists.pem"), lists.concat()).unwrap();
    directory
}

/// OpenSSL's verdict on a certificate, every link checked for revocation.
fn verify(directory: &Path, certificate: &str) -> Option<(bool, String)> {
    let chain = ["-CAfile", "root.pem", "-untrusted", "platform-ca.pem"];
    let lists = [
        "-x509_strict",
        "-crl_check_all",
        "-CRLfile",
        "lists.pem",
        certificate,
    ];
    openssl(&[&["verify"], &chain[..], &lists].concat(), directory)
}

#[test]
fn both_chains_hold_to_the_letter_of_rfc_5280() {
    let directory = place("openssl-sound", &[]);
    for certificate in ["pck.pem", "tcb-signing.pem", "platform-ca.pem"] {
        let Some((sound, words)) = verify(&directory, certificate) else {
            return;
        };
        assert!(sound, "{certificate}: {words}");
    }
}

#[test]
fn revoked_is_revoked() {
    for (revoked, certificate) in [
        (Revoked::Pck, "pck.pem"),
        (Revoked::PlatformCa, "pck.pem"),
        (Revoked::TcbSigning, "tcb-signing.pem"),
    ] {
        let directory = place(&format!("openssl-{revoked:?}"), &[revoked]);
        let Some((sound, words)) = verify(&directory, certificate) else {
            return;
        };
        assert!(
            !sound && words.contains("certificate revoked"),
            "{revoked:?}: {words}"
        );
    }
}

#[test]
fn the_names_say_what_this_is() {
    let directory = place("openssl-names", &[]);
    let Some((_, words)) = openssl(&["x509", "-in", "pck.pem", "-noout", "-text"], &directory)
    else {
        return;
    };
    for part in [
        "Vitrine Test SGX PCK Platform CA",
        "1.2.840.113741.1.13.1",
        "CA:FALSE",
    ] {
        assert!(words.contains(part), "{words}");
    }
}
