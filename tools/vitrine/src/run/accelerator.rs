//! Choosing how QEMU runs the guest's instructions, by trying.
//!
//! That `/dev/kvm` opens proves little: under nested virtualisation QEMU may abort on a register the outer hypervisor lacks, and
//! some KVMs emulate a bare machine's code and stop at the first vector instruction. So a few such instructions are run from the
//! reset vector; only a machine whose guest code reports back counts.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

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

/// How QEMU begins when KVM gives up; it then keeps the machine for inspection, for ever.
pub const INTERNAL_ERROR: &str = "KVM internal error";

/// Tried in this order: some nested hosts refuse to set the MSR behind `arch-capabilities` (0x10a).
const KVM_CPUS: [&str; 2] = ["host", "host,-arch-capabilities"];

/// 16-bit code: switch SSE on, use it, report.
const PROBE: [u8; 23] = [
    0x0f, 0x20, 0xe0, // mov eax, cr4
    0x66, 0x0d, 0x00, 0x02, 0x00, 0x00, // or eax, OSFXSR
    0x0f, 0x22, 0xe0, // mov cr4, eax
    0x66, 0x0f, 0x60, 0xc9, // punpcklbw xmm1, xmm1
    0xb0, 0x10, // mov al, 0x10
    0xe6, 0xf4, // out 0xf4, al: isa-debug-exit turns a value v into exit status 2 v + 1
    0xf4, 0xeb, 0xfd, // hlt, and again
];
const PROBE_STATUS: i32 = 0x21;
const PROBE_IMAGE: usize = 64 * 1024;
const PROBE_START: usize = PROBE_IMAGE - 256;
/// The processor starts 16 bytes below the end of the firmware: `jmp` to the start of the program.
const RESET_VECTOR: usize = PROBE_IMAGE - 16;
const RESET_JUMP: [u8; 3] = [0xe9, 0x0d, 0xff];
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
    for (start, code) in [(PROBE_START, &PROBE[..]), (RESET_VECTOR, &RESET_JUMP)] {
        if let Some(place) = image.get_mut(start..start + code.len()) {
            place.copy_from_slice(code);
        }
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
    let words = watch(child.stderr.take());
    let mut last = String::new();
    // QEMU's stderr closes when it ends. On an internal error it says so and then waits to be inspected.
    loop {
        match words.recv_timeout(PROBE_TIME) {
            Ok(line) if line.starts_with(INTERNAL_ERROR) => {
                end(&mut child);
                return Err("it cannot run the guest's instructions".to_owned());
            }
            Ok(line) if last.is_empty() => last = line,
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                return Err(format!(
                    "a trial did not finish in {} s",
                    PROBE_TIME.as_secs()
                ));
            }
        }
    }
    let status = child
        .wait()
        .map_err(|error| format!("QEMU is lost: {error}"))?;
    if status.code() == Some(PROBE_STATUS) {
        return Ok(());
    }
    let cpu = accelerator.cpu();
    Err(format!("QEMU with -cpu {cpu}: {status} {last}")
        .trim_end()
        .to_owned())
}

/// The lines a process writes, until it closes the stream.
fn watch(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, lines) = channel();
    if let Some(stream) = stream {
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    lines
}

/// Ends a trial that has been judged.
fn end(child: &mut Child) {
    // It may end in this moment by itself.
    let _ = child.kill();
    let _ = child.wait();
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
