//! How a command ends when it does not succeed: a sentence for a person, what to do included where something can be done.

use core::fmt;

/// Why a command ends early.
#[derive(Debug)]
pub struct Failure {
    message: String,
}

/// The outcome of every step here.
pub type Result<T> = core::result::Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Failure {}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::new(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(format!("JSON that is not understood: {error}"))
    }
}

/// Says what an operating system error interrupted.
pub trait Context<T> {
    /// Puts `doing` before the error: "cannot {doing}: {error}".
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for core::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::new(format!("cannot {doing}: {error}")))
    }
}

/// Fails with the formatted message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::failure::Failure::new(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
