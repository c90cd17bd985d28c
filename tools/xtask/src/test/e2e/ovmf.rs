//! Firmware of which we wrote no line: Debian's `ovmf`, an image with a TDVF descriptor, as a trust domain in the emulator.
//!
//! What it does is read from the trace while it runs: it finds out that it is in a TD, finds the hand-off block good and accepts all memory in
//! it, asks the host through TDVMCALLs, and takes virtualization exceptions. In the end its boot manager starts its shell, on the console.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::{Suite, World};
use crate::failure::{Context as _, Result, ensure};
use crate::interrupt;
use crate::packages::Program;
use crate::process::Process;

const NAME: &str = "e2e/ovmf/boots-as-a-trust-domain";
/// For all of it; a machine that does nothing else takes 20 s.
const LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);
const MEMORY_MIB: u64 = 512;
/// Pages of 4 KiB in a MiB.
const PAGES: u64 = 256;
/// The most pages that the host adds before the start: the hand-off block and the temporary memory of the descriptor.
const ADDED: u64 = 64;

const ACCEPT: &str = "TDCALL MEM.PAGE.ACCEPT";

/// What must happen, in this order, by what its line in the trace begins with, and by how it ends.
const STEPS: &[(&str, &str, &str)] = &[
    (
        "it finds out that it is in a TD",
        "CPUID 0x21.0x0 -> 0x0 0x65746e49 ",
        "",
    ),
    ("it asks what TD it is", "TDCALL VP.INFO", "Success"),
    ("it accepts memory", ACCEPT, "Success"),
    ("it asks the host", "TDVMCALL ", ""),
    (
        "its handler reads why it got a virtualization exception",
        "TDCALL VP.VEINFO.GET",
        "Success",
    ),
];

/// What the boot manager says, and the shell.
const STARTS: &str = "BdsDxe: starting Boot0001 \"EFI Internal Shell\"";
const PROMPT: &str = "Shell> ";

/// Whether the test is asked for.
pub fn wanted(suite: &Suite) -> bool {
    suite.wants(NAME)
}

/// Runs the test.
pub fn run(suite: &mut Suite, world: &World) {
    let image = Path::new(Program::Ovmf.command());
    if wanted(suite) && !image.is_file() {
        return suite.skip(NAME, &format!("{} is not there", image.display()));
    }
    suite.check(NAME, || boots(world, image));
}

fn boots(world: &World, image: &Path) -> Result<()> {
    let path = world.directory.path().join("ovmf.trace");
    let console = world.directory.path().join("ovmf.console");
    let mut command = world.vitrine(&["emulator", "--host-stack", "out-of-tree"]);
    command
        .args(["--firmware-config", "--cpus", "1"])
        .args(["--memory", &format!("{MEMORY_MIB}M"), "--image"])
        .arg(image)
        .arg("--trace")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(File::create(&console).context("create a file")?)
        .stderr(Stdio::null());
    // It must exist before it is read.
    File::create(&path).context("create a file")?;
    let mut emulator = Process::start(&mut command)?;
    let mut trace = BufReader::new(File::open(&path).context("open the trace")?);
    let (started, mut steps, mut accepted) = (Instant::now(), STEPS.iter().peekable(), 0);
    let mut line = String::new();
    while let Some((what, begin, end)) = steps.peek() {
        trace.read_line(&mut line).context("read the trace")?;
        if !line.ends_with('\n') {
            // The rest is not written yet.
            interrupt::check()?;
            let ended = emulator.ended();
            ensure!(
                ended.is_none() && started.elapsed() < LIMIT,
                "before {what}, {:?}: emulator {ended:?}, last {line:?}",
                started.elapsed()
            );
            thread::sleep(POLL);
            continue;
        }
        // Behind the time and the vCPU.
        let event = line.trim_end().splitn(3, ' ').nth(2).unwrap_or_default();
        accepted += u64::from(event.starts_with(ACCEPT) && event.ends_with("Success"));
        if event.starts_with(begin) && event.ends_with(end) {
            steps.next();
        }
        line.clear();
    }
    ensure!(
        (MEMORY_MIB * PAGES - ADDED..MEMORY_MIB * PAGES).contains(&accepted),
        "it accepted {accepted} pages"
    );
    loop {
        let bytes = fs::read(&console).context("read the console")?;
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(STARTS) && text.contains(PROMPT) {
            break;
        }
        interrupt::check()?;
        let ended = emulator.ended();
        ensure!(
            ended.is_none() && started.elapsed() < LIMIT,
            "no shell after {:?}: emulator {ended:?}, console {text:?}",
            started.elapsed()
        );
        thread::sleep(POLL);
    }
    eprintln!(
        "      {accepted} pages accepted, its shell after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
