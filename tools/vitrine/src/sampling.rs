//! How to choose tokens: the options `chat` and `generate` share, under the names of the API.

/// How to choose tokens
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// At most this many tokens
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// 0 always takes the likeliest token; higher is more varied
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Only the likeliest tokens that make up this probability
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Only this many of the likeliest tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Only tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// The same seed, prompt and parameters give the same answer
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// End the answer before this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

impl From<&Sampling> for client::Sampling {
    fn from(sampling: &Sampling) -> Self {
        Self {
            max_tokens: sampling.max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            seed: sampling.seed,
            stop: sampling.stop.clone(),
        }
    }
}

impl From<&Sampling> for engine::Sampling {
    /// What is not given is as the server has it.
    fn from(sampling: &Sampling) -> Self {
        let default = Self::default();
        Self {
            temperature: sampling.temperature.unwrap_or(default.temperature),
            top_p: sampling.top_p.unwrap_or(default.top_p),
            top_k: sampling.top_k.map_or(default.top_k, |k| k as usize),
            min_p: sampling.min_p.unwrap_or(default.min_p),
            seed: sampling.seed.unwrap_or(default.seed),
            stop: sampling.stop.clone(),
            ..default
        }
    }
}
