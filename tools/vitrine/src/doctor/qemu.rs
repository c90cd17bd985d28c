//! What the QEMU at hand is, and whether it can make trust domains.

use std::path::Path;
use std::process::Command;

use super::check::Check;
use super::machine::version;
use crate::run::locate_qemu;

/// The first QEMU with `tdx-guest`.
const FIRST: (u32, u32) = (10, 1);

/// QEMU is here and runs.
pub fn present() -> Check {
    match release() {
        Ok(release) => Check::good("qemu", release),
        Err(check) => check,
    }
}

/// QEMU is new enough for TDX, and was built with it.
pub fn makes_trust_domains() -> Vec<Check> {
    let release = match release() {
        Ok(release) => release,
        Err(check) => return vec![check],
    };
    let number = release.split_ascii_whitespace().find_map(version);
    let of_age = match number >= Some(FIRST) {
        true => Check::good("qemu", release),
        false => Check::bad(
            "qemu",
            release,
            "install QEMU 10.1 or newer, or name one in VITRINE_QEMU",
        ),
    };
    let objects = locate_qemu()
        .ok()
        .and_then(|qemu| output(&qemu, &["-object", "help"]))
        .unwrap_or_default();
    let offers = objects.lines().any(|line| line.trim() == "tdx-guest");
    let object = match offers {
        true => Check::good("tdx-guest", "QEMU offers the object"),
        false => Check::bad(
            "tdx-guest",
            "QEMU does not offer the object",
            "use a QEMU 10.1 or newer that is built with KVM for x86_64 (`-object help` lists tdx-guest)",
        ),
    };
    vec![of_age, object]
}

/// The first line of `--version`.
fn release() -> Result<String, Check> {
    let qemu = locate_qemu()
        .map_err(|_| Check::bad("qemu", "not in PATH", "apt install qemu-system-x86"))?;
    output(&qemu, &["--version"])
        .and_then(|text| text.lines().next().map(str::to_owned))
        .ok_or_else(|| {
            Check::bad(
                "qemu",
                format!("{} does not say its version", qemu.display()),
                "install qemu-system-x86, or name a working QEMU in VITRINE_QEMU",
            )
        })
}

/// What QEMU prints, if it runs and succeeds.
fn output(qemu: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(qemu).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
