//! A Qwen3 model as its file describes it: hyper-parameters, weights and tokenizer.

mod config;
mod rope;
mod weights;

use alloc::string::String;
use core::fmt;

pub use config::Config;
pub use rope::{Rope, Scaling};
pub use weights::{Layer, Matrix, Weights};

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::Tokenizer;

/// Why a file cannot be used as a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file is malformed, or describes something this engine does not compute.
    Gguf(GgufError),
}

impl From<GgufError> for LoadError {
    fn from(error: GgufError) -> Self {
        Self::Gguf(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}

/// A loaded model. Its matrices are still in the file's bytes; besides them it owns some megabytes at most.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    name: Option<String>,
    config: Config,
    rope: Rope,
    tokenizer: Tokenizer,
    weights: Weights<'a>,
}

impl<'a> Model<'a> {
    /// Reads the model in a GGUF file that lies in memory at a multiple of [`crate::gguf::ALIGNMENT`].
    ///
    /// # Errors
    /// The first thing in the file that is not as it must be; the file may be hostile.
    pub fn load(file: &'a [u8]) -> Result<Self, LoadError> {
        let gguf = Gguf::parse(file)?;
        let config = Config::from_gguf(&gguf)?;
        let name = gguf
            .string("general.name")?
            .filter(|name| !name.is_empty())
            .map(String::from);
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let weights = Weights::from_gguf(&gguf, &config, tokenizer.vocabulary_size())?;
        let rope = Rope::from_gguf(&gguf, &config)?;
        Ok(Self {
            name,
            config,
            rope,
            tokenizer,
            weights,
        })
    }

    /// The name the file gives the model.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The rotary embedding.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The weights.
    pub fn weights(&self) -> &Weights<'a> {
        &self.weights
    }
}
