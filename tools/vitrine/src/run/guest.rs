//! A running guest: QEMU and, where there is one, its vsock device, as child processes whose output becomes events.
//!
//! The children live in process groups of their own, so Ctrl-C reaches only this program, which then ends them in order. They end
//! with this value in every case.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::console::{LINE_LIMIT, decode};
use super::vsock::Device;
use crate::failure::Failure;

/// How long a process has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How long the vsock device has to open its socket.
const DEVICE_START: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A line from a process.
    Line { source: Source, text: String },
    /// The guest's console is closed: QEMU has ended or is about to.
    ConsoleClosed,
    /// This program was asked to end.
    Signal,
    /// Nothing within the time given.
    Quiet,
}

/// Which process wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Console,
    Qemu,
    VsockDevice,
}

impl Source {
    /// What stands before a line.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Console => "guest",
            Self::Qemu => "qemu",
            Self::VsockDevice => "vsock",
        }
    }
}

/// The processes of one guest.
pub struct Guest {
    qemu: Child,
    device: Option<(Device, Child)>,
    events: Receiver<Event>,
    /// Sends on what QEMU says, as long as it can say something.
    complaints: Option<JoinHandle<()>>,
}

impl Guest {
    /// Starts the vsock device, waits for its socket, then starts QEMU.
    pub fn start(command: &[OsString], device: Option<Device>) -> Result<Self, Failure> {
        let (sender, events) = channel();
        watch_signals(sender.clone())?;
        let mut device = match device {
            Some(device) => {
                device.clear_stale_sockets()?;
                let mut child = spawn(&device.command())?;
                forward(child.stdout.take(), Source::VsockDevice, &sender);
                forward(child.stderr.take(), Source::VsockDevice, &sender);
                Some((device, child))
            }
            None => None,
        };
        if let Some((device, child)) = &mut device
            && let Err(failure) = wait_for_socket(device, child)
        {
            stop(child);
            device.remove_sockets();
            return Err(failure);
        }
        let mut qemu = match spawn(command) {
            Ok(qemu) => qemu,
            Err(failure) => {
                if let Some((device, child)) = &mut device {
                    stop(child);
                    device.remove_sockets();
                }
                return Err(failure);
            }
        };
        forward(qemu.stdout.take(), Source::Console, &sender);
        let complaints = forward(qemu.stderr.take(), Source::Qemu, &sender);
        Ok(Self {
            qemu,
            device,
            events,
            complaints,
        })
    }

    /// QEMU's process identifier.
    pub fn process(&self) -> u32 {
        self.qemu.id()
    }

    /// The next event, or [`Event::Quiet`].
    pub fn next_event(&self, within: Duration) -> Event {
        match self.events.recv_timeout(within) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Quiet,
            // The thread that watches signals never ends, so this is not reached while the program lives.
            Err(RecvTimeoutError::Disconnected) => Event::ConsoleClosed,
        }
    }

    /// Waits some time for QEMU to end by itself, as it does soon after its console closed. Its status, and what it said last: why it
    /// ended, for the most part.
    pub fn wait(&mut self) -> (Option<ExitStatus>, Vec<String>) {
        let status = wait(&mut self.qemu);
        if let (Some(_), Some(complaints)) = (status, self.complaints.take()) {
            // A thread that panicked has nothing more to say either.
            let _ = complaints.join();
        }
        let lines = self.events.try_iter().filter_map(|event| match event {
            Event::Line {
                source: Source::Qemu,
                text,
            } => Some(text),
            _ => None,
        });
        (status, lines.collect())
    }

    /// Ends the processes; QEMU's status.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let status = stop(&mut self.qemu);
        if let Some((device, mut child)) = self.device.take() {
            stop(&mut child);
            device.remove_sockets();
        }
        status
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a process in its own group, its output piped.
fn spawn(command: &[OsString]) -> Result<Child, Failure> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Failure::new("an empty command"))?;
    Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", program.display())))
}

/// SIGTERM, some time, then SIGKILL. Does nothing to a process that has ended.
fn stop(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may end in this moment; then there is nothing left to signal.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if let Some(status) = wait(child) {
        return Some(status);
    }
    // As above: it may have ended.
    let _ = child.kill();
    child.wait().ok()
}

/// The status of a process that ends within the grace period.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

fn wait_for_socket(device: &Device, child: &mut Child) -> Result<(), Failure> {
    let deadline = Instant::now() + DEVICE_START;
    while !device.qemu.exists() {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::new(format!(
                "vhost-device-vsock ended early ({status})"
            )));
        }
        if Instant::now() > deadline {
            return Err(Failure::new("vhost-device-vsock does not open its socket"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends each line of a process on as an event.
fn forward(
    output: Option<impl Read + Send + 'static>,
    source: Source,
    sender: &Sender<Event>,
) -> Option<JoinHandle<()>> {
    let output = output?;
    let sender = sender.clone();
    Some(thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // A read error means as much as the end: the process is gone.
        while let Ok(1..) = (&mut output).take(LINE_LIMIT).read_until(b'\n', &mut line) {
            let text = decode(&line);
            line.clear();
            if sender.send(Event::Line { source, text }).is_err() {
                return;
            }
        }
        if source == Source::Console {
            // Nobody listens any more once the guest is being stopped.
            let _ = sender.send(Event::ConsoleClosed);
        }
    }))
}

/// Turns the signals that end a program into events.
fn watch_signals(sender: Sender<Event>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(format!("cannot watch signals: {error}")))?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if sender.send(Event::Signal).is_err() {
                return;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    #[test]
    fn lines_arrive_and_the_end_is_noticed() {
        let mut guest = Guest::start(&shell("echo one; echo two >&2; exit 3"), None).unwrap();
        let mut console = Vec::new();
        loop {
            match guest.next_event(Duration::from_secs(10)) {
                Event::Line {
                    source: Source::Console,
                    text,
                } => console.push(text),
                Event::Line { .. } => {}
                Event::ConsoleClosed => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(console, ["one"]);
        assert_eq!(guest.wait().0.and_then(|status| status.code()), Some(3));
    }

    #[test]
    fn last_words_are_heard_whether_the_console_closes_before_them_or_after() {
        for script in [
            "exec >&-; sleep 0.2; echo why >&2; exit 1",
            "echo why >&2; exec 2>&-; sleep 0.2; exit 1",
        ] {
            let mut guest = Guest::start(&shell(script), None).unwrap();
            let mut words = Vec::new();
            loop {
                match guest.next_event(Duration::from_secs(10)) {
                    Event::Line { text, .. } => words.push(text),
                    Event::ConsoleClosed => break,
                    event => panic!("{event:?}"),
                }
            }
            let (status, last) = guest.wait();
            words.extend(last);
            assert_eq!(words, ["why"], "{script}");
            assert_eq!(status.and_then(|status| status.code()), Some(1));
        }
    }

    #[test]
    fn stopping_ends_the_process() {
        let mut guest = Guest::start(&shell("echo up; exec sleep 100"), None).unwrap();
        assert!(matches!(
            guest.next_event(Duration::from_secs(10)),
            Event::Line { .. }
        ));
        let started = Instant::now();
        let status = guest.stop().unwrap();
        assert!(!status.success() && started.elapsed() < GRACE);
    }
}
