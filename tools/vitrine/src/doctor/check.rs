//! One thing looked at.

use serde::Serialize;

/// What was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Runs, and something is slower or missing.
    Poor,
    /// Cannot run before this is changed.
    Bad,
}

/// A thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What: stable, for programs.
    pub name: &'static str,
    pub state: State,
    /// How it is, for a person.
    pub found: String,
    /// What to do, unless all is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    /// All is good.
    pub fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Good,
            found: found.into(),
            advice: None,
        }
    }

    /// Runs, and something is slower or missing.
    pub fn poor(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            state: State::Poor,
            advice: Some(advice.into()),
            ..Self::good(name, found)
        }
    }

    /// Cannot run before the advice is followed.
    pub fn bad(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            state: State::Bad,
            ..Self::poor(name, found, advice)
        }
    }
}
