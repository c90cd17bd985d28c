//! What only a trust domain has to hold: that it costs nothing while it waits, and that nothing private leaves it when it comes to a bad end.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use client::{ChatRequest, Message, Sampling};
use synthesis::Mix;

use super::super::Suite;
use super::{Context, World};
use crate::cpu_time;
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::{Guest, Setup};
use crate::image_step;
use crate::process;

/// How long the idle machine is watched.
const WATCH: Duration = Duration::from_secs(5);
/// Of one CPU, in per cent.
const IDLE: f64 = 3.0;
/// Until a sleeping machine begins with a request. What is measured is until the answer is here, which is later.
const WAKE: Duration = Duration::from_millis(2);
/// How often that is tried in a round, how long the machine sleeps before, and how many rounds there are at most. A machine that only looked
/// for requests every 25 ms, as this one does beside being woken, would begin that soon in one try of twelve, and in half of a round's never.
const TRIES: usize = 15;
const SLEEP: Duration = Duration::from_millis(60);
const ROUNDS: u32 = 12;
/// What `guest/src/bin/canary.rs` hides, as text and as a number.
const SECRET_TEXT: &str = "swordfish";
/// Of the text repeated with a dash between, every register of 8 bytes holds one of these.
const SECRET_PARTS: [&str; 2] = ["swor", "fish"];
/// What it puts into shared memory.
const PUBLIC_TEXT: &str = "glasshouse";
/// What it lets the host know in registers.
const FAREWELL: &str = " stopped";
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec2;
/// For a machine that ends as soon as it has begun.
const END: Duration = Duration::from_secs(60);

/// One way in which the canary ends.
struct Ending {
    name: &'static str,
    /// By this it is chosen.
    cpus: u32,
    /// What its last line must begin with.
    words: &'static str,
    /// What the emulator tells its own user, who owns the machine: fault, function and instruction, or exit and instruction.
    told: &'static [&'static str],
}

const FAULT: Ending = Ending {
    name: "fault",
    cpus: 1,
    words: "vector 14, error 0x2, image offset 0x",
    told: &[
        "#PF(0x2) at 0x10 for the TD's own handler",
        "canary::page_fault+0x",
        ": mov [10h],al",
        "r15 5ec2e75ec2e75ec2",
    ],
};

const ENDINGS: [Ending; 4] = [
    FAULT,
    Ending {
        name: "panic",
        cpus: 2,
        words: "panic at src/bin/canary.rs:",
        told: &[],
    },
    Ending {
        name: "exception",
        cpus: 3,
        words: "vector 20, error 0x0, image offset 0x",
        told: &[" in al,71h", "#VE reason 30 qualification 0x710048"],
    },
    Ending {
        name: "fault-elsewhere",
        cpus: 4,
        ..FAULT
    },
];

/// The test of when memory is accepted.
const ACCEPTANCE: &str = "e2e/td-acceptance";
/// From the start to a guest that serves.
const READY: Duration = Duration::from_secs(120);

fn name(end: &str) -> String {
    format!("e2e/canary/{end}")
}

/// Whether any test here is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let endings = ENDINGS.iter().map(|ending| name(ending.name));
    let wanted = endings
        .chain([ACCEPTANCE.to_owned()])
        .filter(|name| suite.wants(name));
    wanted.count() > 0
}

/// Whether an image that ends badly is needed.
fn ends_wanted(suite: &Suite) -> bool {
    let mut endings = ENDINGS.iter();
    endings.any(|ending| suite.wants(&name(ending.name)))
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    if !wanted(suite) {
        return;
    }
    suite.check(ACCEPTANCE, || memory_is_accepted_before_serving(world));
    if !ends_wanted(suite) {
        return;
    }
    let canary = match Canary::build(world) {
        Ok(canary) => canary,
        Err(failure) => return suite.fail("e2e/canary", &failure),
    };
    for ending in &ENDINGS {
        suite.check(&name(ending.name), || {
            ends_in_silence(world, &canary, ending)
        });
    }
}

/// The canary's image, and its guest's executable.
struct Canary {
    image: PathBuf,
    guest: PathBuf,
}

impl Canary {
    fn build(world: &World) -> Result<Self> {
        let assembly = image_step::canary(&world.workspace)?;
        let path = |name| world.directory.path().join(name);
        let canary = Self {
            image: path("canary.fd"),
            guest: path("canary"),
        };
        fs::write(&canary.image, assembly.image).context("write the canary's image")?;
        fs::write(&canary.guest, assembly.guest).context("write the canary's executable")?;
        Ok(canary)
    }
}

/// Boots the canary and looks for its secret in everything the host got to see: console, shared memory, registers of calls. In each of the three
/// there is something that must be found, or nothing would be.
fn ends_in_silence(world: &World, canary: &Canary, ending: &Ending) -> Result<()> {
    let path = |name| world.directory.path().join(name);
    let (shared, trace) = (path("shared"), path("trace"));
    let (words, cpus) = (ending.words, ending.cpus.to_string());
    let mut command = world.vitrine(&["emulator", "--cpus", &cpus, "--image"]);
    command
        .arg(&canary.image)
        .arg("--symbols")
        .arg(&canary.guest);
    command.arg("--dump-shared").arg(&shared);
    command.arg("--trace").arg(&trace);
    let output = process::output(&mut command, b"", END)?;
    let (console, messages) = (output.stdout, output.stderr);
    let trace = fs::read_to_string(&trace).context("read the trace")?;
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
    for told in ending.told {
        ensure!(
            trace.contains(told),
            "the emulator's user is not told {told:?}:\n{messages}"
        );
    }
    ensure!(
        ending.told != FAULT.told || FAULT.told.iter().all(|told| messages.contains(told)),
        "the fault is not told without a trace:\n{messages}"
    );
    let memory = fs::read(&shared).context("read the shared memory")?;
    let calls: Vec<HostCall> = trace.lines().filter_map(HostCall::parse).collect();
    let converted: u64 = calls
        .iter()
        .filter(|call| call.name == "MapGPA" && call.succeeded)
        .map(|call| call.values[1])
        .sum();
    ensure!(
        converted > 0 && memory.len() as u64 == converted,
        "{converted} bytes were shared, {} are here",
        memory.len()
    );
    let registers: Vec<u8> = calls
        .iter()
        .flat_map(|call| call.values.iter().flat_map(|value| value.to_le_bytes()))
        .collect();
    ensure!(
        contains(&memory, PUBLIC_TEXT.as_bytes())
            && contains(&registers, FAREWELL.as_bytes())
            && console.contains("about to end"),
        "what must be seen is not"
    );
    ensure!(
        !SECRET_PARTS
            .iter()
            .any(|part| contains(&registers, part.as_bytes())),
        "the host sees text in registers"
    );
    let number = SECRET.to_le_bytes();
    let digits = format!("{SECRET:x}");
    let decimal = SECRET.to_string();
    for seen in [console.as_bytes(), &memory, &registers] {
        for secret in [
            SECRET_TEXT.as_bytes(),
            &number,
            digits.as_bytes(),
            decimal.as_bytes(),
        ] {
            ensure!(
                !contains(seen, secret),
                "the host sees {:?}",
                String::from_utf8_lossy(secret)
            );
        }
    }
    Ok(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A call to the host, from a line of the trace.
struct HostCall<'a> {
    name: &'a str,
    /// What the host saw in registers: R12 to R15, then others.
    values: Vec<u64>,
    succeeded: bool,
}

impl<'a> HostCall<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (_, call) = line.split_once(" TDVMCALL ")?;
        let (asked, answer) = call.split_once(" -> ")?;
        let mut words = asked.split(' ');
        let name = words.next()?;
        let values = words
            .filter_map(|word| u64::from_str_radix(word.split_once("=0x")?.1, 16).ok())
            .collect();
        let succeeded = answer.starts_with("Success");
        Some(Self {
            name,
            values,
            succeeded,
        })
    }

    /// The character that it writes to the console.
    fn character(&self) -> Option<u8> {
        const SERIAL: u64 = 0x3f8;
        match self.values[..] {
            [1, 1, SERIAL, character, ..] if self.name == "IO" => Some(character as u8),
            _ => None,
        }
    }
}

/// All CPUs accept memory, and nothing is accepted once the guest serves: neither while it waits nor for a request.
fn memory_is_accepted_before_serving(world: &World) -> Result<()> {
    const CPUS: u32 = 2;
    let trace = world.directory.path().join("acceptance");
    let path = trace.display().to_string();
    let arguments = ["--strict", "--trace", &path];
    let model = world.model(Mix::Q4KM)?;
    let mut setup = Setup::new(&world.vitrine, &world.image.path, Some(&model), CPUS);
    (setup.backend, setup.emulator) = ("emulator", &arguments);
    let mut guest = Guest::start(&setup)?;
    guest.wait_ready(READY, || {})?;
    let mut client = guest.client()?;
    let model = client.models()?.into_iter().next().map(|model| model.id);
    let request = ChatRequest {
        model: model.ok_or_else(|| Failure::new("no model is offered"))?,
        messages: vec![Message::new("user", "Who is behind the glass?")],
        sampling: Sampling {
            max_tokens: Some(16),
            ..Sampling::default()
        },
        thinking: None,
    };
    for chunk in client.chat_stream(&request)? {
        chunk?;
    }
    guest.stop();
    let trace = fs::read_to_string(&trace).context("read the trace")?;
    let (mut console, mut accepted, mut calls_since) = (String::new(), [0; CPUS as usize], 0);
    for line in trace.lines() {
        let serves = console.contains("vitrine: ready");
        if let Some(call) = HostCall::parse(line) {
            console.extend(call.character().map(char::from));
            calls_since += u32::from(serves);
        } else if line.contains("MEM.PAGE.ACCEPT") {
            ensure!(!serves, "memory is accepted while it serves: {line}");
            let cpu = (0..accepted.len()).find(|cpu| line.contains(&format!(" vcpu{cpu} ")));
            accepted[cpu.ok_or_else(|| Failure::new(format!("whose is {line}?")))?] += 1;
        }
    }
    eprintln!("      calls of PAGE.ACCEPT by each CPU: {accepted:?}");
    ensure!(
        accepted.iter().all(|count| *count > 0),
        "not every CPU accepts memory: {accepted:?}"
    );
    ensure!(calls_since > 0, "nothing is seen of a guest that serves");
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

/// A request on an open connection begins to be served at once, although the machine slept: in more than half of the tries of a round. The
/// best of several rounds counts, because this machine has other things to do as well.
pub fn a_request_wakes_it_at_once(context: &mut Context) -> Result<()> {
    let mut client = context.guest.client()?;
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let mut times = Vec::new();
        for _ in 0..TRIES {
            client.health()?;
            thread::sleep(SLEEP);
            let asked = Instant::now();
            client.health()?;
            times.push(asked.elapsed());
        }
        times.sort();
        best = best.min(times[TRIES / 2]);
        if best < WAKE {
            break;
        }
    }
    let best_ms = best.as_secs_f64() * 1e3;
    eprintln!("      answered {best_ms:.2} ms after asking, in the median of {TRIES} tries");
    ensure!(
        best < WAKE,
        "the sleeping machine answers after {best_ms:.2} ms, in the median of the best of {ROUNDS} times {TRIES} tries"
    );
    Ok(())
}
