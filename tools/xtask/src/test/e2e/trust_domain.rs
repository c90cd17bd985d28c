//! What only a trust domain has to hold: that it costs nothing while it waits, and that nothing private leaves it when it comes to a bad end.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::super::Suite;
use super::{Context, World};
use crate::cpu_time;
use crate::failure::{Context as _, Result, ensure};
use crate::image_step;
use crate::process;

/// How long the idle machine is watched.
const WATCH: Duration = Duration::from_secs(5);
/// Of one CPU, in per cent.
const IDLE: f64 = 3.0;
/// Until a sleeping machine begins with a request. What is measured is until the answer is here, which is later.
const WAKE: Duration = Duration::from_millis(2);
/// How often that is tried at most, and how long the machine sleeps before.
const TRIES: u32 = 100;
const SLEEP: Duration = Duration::from_millis(100);
/// What `guest/src/bin/canary.rs` hides, as text and as a number.
const SECRET_TEXT: &str = "swordfish";
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
/// For a machine that ends as soon as it has begun.
const END: Duration = Duration::from_secs(60);

/// Every way in which the canary ends, by its number of CPUs, and what its last line must begin with.
const ENDS: [(&str, u32, &str); 4] = [
    ("fault", 1, "vector 14, error 0x2, image offset 0x"),
    ("panic", 2, "panic at src/bin/canary.rs:"),
    ("exception", 3, "vector 20, error 0x0, image offset 0x"),
    (
        "fault-elsewhere",
        4,
        "vector 14, error 0x2, image offset 0x",
    ),
];

fn name(end: &str) -> String {
    format!("e2e/canary/{end}")
}

/// Whether any test here is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let wanted = ENDS.iter().filter(|(end, ..)| suite.wants(&name(end)));
    wanted.count() > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    if !wanted(suite) {
        return;
    }
    let path = world.directory.path().join("canary.fd");
    let image = image_step::canary(&world.workspace)
        .and_then(|image| fs::write(&path, image).context("write the canary's image"));
    if let Err(failure) = image {
        return suite.fail("e2e/canary", &failure);
    }
    for (end, cpus, words) in ENDS {
        suite.check(&name(end), || ends_in_silence(world, &path, cpus, words));
    }
}

/// Boots the canary and looks for its secret in everything the host got to see.
fn ends_in_silence(world: &World, image: &Path, cpus: u32, words: &str) -> Result<()> {
    let shared = world.directory.path().join("shared");
    let cpus = cpus.to_string();
    let mut command = world.vitrine(&["emulator", "--cpus", &cpus, "--image"]);
    command.arg(image).arg("--dump-shared").arg(&shared);
    let output = process::output(&mut command, b"", END)?;
    let (console, messages) = (output.stdout, output.stderr);
    let last = console.lines().last().unwrap_or_default();
    ensure!(
        last.strip_prefix("vitrine: failed: ")
            .is_some_and(|reason| reason.starts_with(words)),
        "the last line is {last:?}, not one of {words:?}:\n{console}\n{messages}"
    );
    ensure!(
        messages.contains("reports a fatal error: vitrine: stopped"),
        "the host was not told:\n{messages}"
    );
    let memory = fs::read(&shared).context("read the shared memory")?;
    let number = SECRET.to_le_bytes();
    let digits = format!("{SECRET:x}");
    let decimal = SECRET.to_string();
    for seen in [console.as_bytes(), &memory] {
        for secret in [
            SECRET_TEXT.as_bytes(),
            &number,
            digits.as_bytes(),
            decimal.as_bytes(),
        ] {
            ensure!(
                !seen.windows(secret.len()).any(|bytes| bytes == secret),
                "the host sees {:?}",
                String::from_utf8_lossy(secret)
            );
        }
    }
    Ok(())
}

/// With no request in flight all processes of the machine together take less than [`IDLE`] of one CPU.
pub fn idle_costs_nothing(context: &mut Context) -> Result<()> {
    let root = context.guest.process();
    // What the last request left to do is done by then.
    thread::sleep(Duration::from_secs(1));
    let (before, started) = (cpu_time::of_tree(root)?, Instant::now());
    thread::sleep(WATCH);
    let share =
        (cpu_time::of_tree(root)? - before).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    eprintln!("      idle: {share:.2} % of one CPU");
    ensure!(
        share < IDLE,
        "the idle machine takes {share:.2} % of one CPU, {IDLE} % are allowed"
    );
    Ok(())
}

/// A request on an open connection begins to be served at once, although the machine slept. The best of several tries counts, because this
/// machine has other things to do as well.
pub fn a_request_wakes_it_at_once(context: &mut Context) -> Result<()> {
    let mut client = context.guest.client()?;
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        client.health()?;
        thread::sleep(SLEEP);
        let asked = Instant::now();
        client.health()?;
        best = best.min(asked.elapsed());
        if best < WAKE {
            break;
        }
    }
    let best_ms = best.as_secs_f64() * 1e3;
    eprintln!("      answered {best_ms:.2} ms after asking");
    ensure!(
        best < WAKE,
        "the sleeping machine answers after {best_ms:.2} ms at best"
    );
    Ok(())
}
