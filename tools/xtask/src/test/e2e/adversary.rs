//! An adversary as its victims have it: a process at an address, and a file with everything that has reached it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Context as _, Result, ensure};
use crate::guest::Guest;
use crate::pins::Pins;
use crate::process::Process;

/// A running adversary.
pub struct Adversary {
    _process: Process,
    /// Where it takes its victim's place.
    pub address: String,
    capture: PathBuf,
}

impl Adversary {
    /// Puts it between clients and `victim`, with a strategy of `cargo xtask adversary`.
    pub fn start(pins: &Pins, strategy: &str, victim: &Guest, other: &Guest) -> Result<Self> {
        let capture = pins.directory().join(format!("{strategy}.capture"));
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.args(["adversary", "--strategy", strategy, "--pki", pins.pki()]);
        command.args(["--victim", &victim.tcp().to_string()]);
        command.args(["--other", &other.tcp().to_string()]);
        command.arg("--capture").arg(&capture);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut port = String::new();
        if let Some(stdout) = process.child().stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut port)
                .context("hear from the adversary")?;
        }
        ensure!(!port.is_empty(), "the adversary does not listen");
        Ok(Self {
            _process: process,
            address: format!("tcp://127.0.0.1:{}", port.trim()),
            capture,
        })
    }

    /// Whether what has reached it so far contains this.
    pub fn heard(&self, text: &str) -> Result<bool> {
        let bytes = fs::read(&self.capture).context("read the capture")?;
        ensure!(!bytes.is_empty(), "nothing at all reached the adversary");
        Ok(bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes()))
    }

    /// Fails if any of these reached it.
    pub fn heard_none_of(&self, texts: &[&str]) -> Result<()> {
        for text in texts {
            ensure!(!self.heard(text)?, "{text:?} reached the adversary");
        }
        Ok(())
    }
}
