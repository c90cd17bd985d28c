//! Choosing how QEMU runs the guest's instructions, by trying.
//!
//! That `/dev/kvm` opens proves little: under nested virtualisation QEMU may abort on a register the outer hypervisor lacks. So
//! a seven-byte program is run from the reset vector; only a machine whose guest code reports back counts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// KVM if it works here, else TCG
    Auto,
    /// Hardware virtualisation
    Kvm,
    /// QEMU's interpreter: works everywhere, slowly, with AVX2 only
    Tcg,
}

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm { cpu: &'static str },
    Tcg,
}

/// Tried in this order: some nested hosts refuse to set the MSR behind `arch-capabilities` (0x10a).
const KVM_CPUS: [&str; 2] = ["host", "host,-arch-capabilities"];

/// `mov al, 0x10; out 0xf4, al; hlt; jmp back to hlt`: isa-debug-exit turns a value v into exit status 2 v + 1.
const PROBE: [u8; 7] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
const PROBE_STATUS: i32 = 0x21;
/// The processor starts 16 bytes below the end of the firmware.
const RESET_VECTOR: usize = PROBE_IMAGE - 16;
const PROBE_IMAGE: usize = 64 * 1024;
const PROBE_TIME: Duration = Duration::from_secs(10);

impl Accelerator {
    /// Value of `-accel`.
    pub fn accel(self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Value of `-cpu`.
    pub fn cpu(self) -> &'static str {
        match self {
            Self::Kvm { cpu } => cpu,
            Self::Tcg => "max",
        }
    }

    /// Settles a choice on this machine; says so on stderr where it falls back.
    pub fn choose(choice: Choice, qemu: &Path) -> Result<Self, Failure> {
        if choice == Choice::Tcg {
            return Ok(Self::Tcg);
        }
        let mut reason = "/dev/kvm is missing or not yours to open (group kvm)".to_owned();
        if usable(Path::new("/dev/kvm")) {
            for cpu in KVM_CPUS {
                match probe(qemu, Self::Kvm { cpu }) {
                    Ok(()) => return Ok(Self::Kvm { cpu }),
                    Err(error) => reason = error,
                }
            }
        }
        if choice == Choice::Kvm {
            return Err(Failure::new(format!(
                "KVM does not work here: {reason}\nUse --accel tcg, or --accel auto to fall back by itself."
            )));
        }
        eprintln!("KVM does not work here ({reason}); using TCG, which is slow");
        Ok(Self::Tcg)
    }
}

/// Whether a device file opens for reading and writing.
pub fn usable(device: &Path) -> bool {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .is_ok()
}

/// Runs the probe program; the error is a reason for a person.
fn probe(qemu: &Path, accelerator: Accelerator) -> Result<(), String> {
    let mut image = vec![0xf4; PROBE_IMAGE];
    if let Some(start) = image.get_mut(RESET_VECTOR..RESET_VECTOR + PROBE.len()) {
        start.copy_from_slice(&PROBE);
    }
    let path = std::env::temp_dir().join(format!("vitrine-probe-{}.fd", std::process::id()));
    std::fs::write(&path, image)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let outcome = run_probe(qemu, accelerator, &path);
    // Nothing depends on it any more; a leftover in the temporary directory is harmless.
    let _ = std::fs::remove_file(&path);
    outcome
}

fn run_probe(qemu: &Path, accelerator: Accelerator, image: &Path) -> Result<(), String> {
    let mut child = Command::new(qemu)
        .args(["-accel", accelerator.accel(), "-cpu", accelerator.cpu()])
        .args(["-machine", "q35", "-m", "16M", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-serial", "none"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-bios"])
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("QEMU does not start: {error}"))?;
    let deadline = Instant::now() + PROBE_TIME;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => {
                // Already judged; the wait below reaps it.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "a seven-byte guest did not finish in {} s",
                    PROBE_TIME.as_secs()
                ));
            }
        }
    }
    let output = child
        .wait_with_output()
        .map_err(|error| format!("QEMU is lost: {error}"))?;
    if output.status.code() == Some(PROBE_STATUS) {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first = words.lines().next().unwrap_or("no message");
    Err(format!("QEMU with -cpu {}: {first}", accelerator.cpu()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_runs_where_qemu_is_installed() {
        let qemu = Path::new("qemu-system-x86_64");
        match Command::new(qemu).arg("--version").output() {
            Ok(_) => assert_eq!(probe(qemu, Accelerator::Tcg), Ok(())),
            Err(_) => {
                assert!(
                    std::env::var_os("VITRINE_REQUIRE_ORACLES").is_none(),
                    "QEMU is not installed"
                );
                eprintln!("SKIPPED: QEMU is not installed");
            }
        }
    }

    #[test]
    fn a_missing_program_is_a_reason_not_a_panic() {
        let reason = probe(Path::new("/nonexistent/qemu"), Accelerator::Tcg).unwrap_err();
        assert!(reason.contains("does not start"));
    }
}
