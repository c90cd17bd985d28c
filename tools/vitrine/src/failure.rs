//! How a command ends when it does not succeed: a sentence for a person, an exit code for a program.

use core::fmt;

use verifier::Verdict;

/// Documented in `--help`; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command was understood and could not be done.
    Failed = 1,
    /// The command line, or a file it names, is wrong.
    Usage = 2,
    /// It is not shown that a genuine platform, or whoever else must, signed something.
    PlatformUntrusted = 20,
    /// Something does not belong to what was shown with it, or is not what it should be: a register, a manifest.
    EvidenceMismatch = 21,
    /// The evidence is genuine and not what is accepted.
    PolicyUnsatisfied = 22,
    /// The server shows no evidence of a trust domain.
    NoEvidence = 23,
    /// No connection, or one that broke.
    Transport = 30,
    /// Stopped by a signal before it was done.
    Interrupted = 130,
}

impl Code {
    /// The code of a verdict; `None` of a good one.
    pub fn of_verdict(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Accepted | Verdict::PlatformGenuine => None,
            Verdict::PlatformUntrusted => Some(Self::PlatformUntrusted),
            Verdict::EvidenceMismatch => Some(Self::EvidenceMismatch),
            Verdict::PolicyUnsatisfied => Some(Self::PolicyUnsatisfied),
            Verdict::NoEvidence => Some(Self::NoEvidence),
        }
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    message: String,
}

impl Failure {
    /// The command could not be done.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::with_code(Code::Failed, message)
    }

    /// The command line, or a file it names, is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::with_code(Code::Usage, message)
    }

    pub fn with_code(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        if let client::Error::NoEvidence = error {
            return Self::with_code(
                Code::NoEvidence,
                format!(
                    "{error}\nA guest in plain QEMU is not a trust domain and has none. To talk to it during development all the \
                     same, give --insecure-no-tee, and nothing of what is accepted."
                ),
            );
        }
        let code = match &error {
            client::Error::Untrusted(reports) => reports
                .last()
                .and_then(|report| Code::of_verdict(report.verdict))
                .unwrap_or(Code::Failed),
            error if error.is_transport() => Code::Transport,
            _ => Code::Failed,
        };
        let advice = match error {
            client::Error::Connect { .. } => {
                "\nIs the guest up? `vitrine run` prints the address to use; `vitrine health` asks how far it is."
            }
            client::Error::Refused { status: 503, .. } => {
                "\nThe guest is not ready: `vitrine health` says how far it is."
            }
            _ => "",
        };
        Self::with_code(code, format!("{error}{advice}"))
    }
}
