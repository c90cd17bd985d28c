//! The file of evidence.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Output;

use measurements::{Hex, Metadata, PageOrder, Sha384Hex, mrtd, sha384};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::benchmark::Benchmark;
use crate::doctor::{Finding, Machine};
use crate::failure::{Code, Failure};

/// Names the form of the file.
const SCHEMA: &str = "vitrine-hardware-report/1";

/// Everything that was seen, step by step; what was not reached is absent.
#[derive(Serialize)]
pub struct Evidence {
    schema: &'static str,
    /// Version of this program.
    vitrine: &'static str,
    /// Seconds since 1970.
    created: u64,
    pub machine: Description,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doctor: Option<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// QEMU's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What `vitrine run --json` said when the guest was ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Value>,
    /// The guest's certificate with its evidence, PEM: for anyone to verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<Benchmark>,
    /// The last lines of the guest's console and of QEMU.
    pub console: Vec<String>,
    /// Why not every step was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stop>,
}

/// What kind of machine it is.
#[derive(Default, Serialize)]
pub struct Description {
    kernel: Option<String>,
    processor: Option<String>,
    microcode: Option<String>,
    memory: Option<String>,
}

/// The image, measured here.
#[derive(Serialize)]
pub struct Image {
    bytes: usize,
    sha384: Sha384Hex,
    /// As mainline KVM builds it.
    mrtd: Sha384Hex,
}

/// What `vitrine verify` said.
#[derive(Serialize)]
pub struct Verification {
    pub exit_code: Option<i32>,
    /// Its report, where it made one.
    report: Option<Value>,
    /// Its words to a person.
    words: String,
}

/// Where and why the steps ended.
#[derive(Debug, Serialize)]
pub struct Stop {
    pub step: &'static str,
    #[serde(serialize_with = "exit_code")]
    pub code: Code,
    pub reason: String,
}

fn exit_code<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*code as u8)
}

impl Stop {
    pub fn new(step: &'static str, code: Code, reason: impl Into<String>) -> Self {
        Self {
            step,
            code,
            reason: reason.into(),
        }
    }
}

impl Image {
    /// Reads and measures it; the error is for a person.
    pub fn read(path: &Path) -> Result<Self, String> {
        let image =
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let metadata = Metadata::parse(&image)
            .map_err(|error| format!("{} is no image of a TD: {error}", path.display()))?;
        Ok(Self {
            bytes: image.len(),
            sha384: Hex(sha384(&image)),
            mrtd: Hex(mrtd(&image, &metadata, PageOrder::PageByPage)),
        })
    }
}

impl From<&Output> for Verification {
    fn from(output: &Output) -> Self {
        Self {
            exit_code: output.status.code(),
            report: serde_json::from_slice(&output.stdout).ok(),
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }
}

impl Verification {
    /// The verdict, where there is one.
    fn verdict(&self) -> &str {
        let verdict = self
            .report
            .as_ref()
            .and_then(|report| report.get("verdict"));
        verdict.and_then(Value::as_str).unwrap_or("no verdict")
    }
}

impl Evidence {
    /// Nothing seen yet.
    pub fn new(created: u64) -> Self {
        Self {
            schema: SCHEMA,
            vitrine: env!("CARGO_PKG_VERSION"),
            created,
            machine: Description::default(),
            doctor: None,
            image: None,
            command: None,
            ready: None,
            certificate: None,
            verification: None,
            benchmark: None,
            console: Vec::new(),
            stopped: None,
        }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(self).map_err(Failure::new)?;
        text.push('\n');
        fs::write(path, text)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// The same in a few lines.
    pub fn summary(&self) -> String {
        let mut lines = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{name:<13} {value}");
        };
        if let Some(processor) = &self.machine.processor {
            line("processor", processor.clone());
        }
        if let Some(image) = &self.image {
            line("MRTD", image.mrtd.to_string());
        }
        if let Some(boot) = self.ready.as_ref().and_then(|ready| ready.get("boot_ms")) {
            line("boot", format!("{boot} ms"));
        }
        if let Some(verification) = &self.verification {
            line("verdict", verification.verdict().to_owned());
        }
        if let Some(benchmark) = &self.benchmark {
            line("benchmark", benchmark.to_string());
        }
        lines.trim_end().to_owned()
    }
}

/// What the machine's files say it is.
pub fn describe(machine: &Machine) -> Description {
    let field = |file: &str, name: &str| {
        let text = machine.read(file)?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    Description {
        kernel: machine.read("/proc/sys/kernel/osrelease"),
        processor: field("/proc/cpuinfo", "model name"),
        microcode: field("/proc/cpuinfo", "microcode"),
        memory: field("/proc/meminfo", "MemTotal"),
    }
}
