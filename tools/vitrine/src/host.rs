//! The engine on this machine: the options that size it, and how it gets its file, its kernels and its threads.

mod model_file;
mod workers;

use engine::{EngineOptions, KvFormat};
use kernels::{Isa, Kernels};

use crate::failure::Failure;
pub use model_file::ModelFile;
pub use workers::HostWorkers;

/// How the engine runs on this machine
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Engine (changes speed and memory, never a result unless noted)")]
pub struct HostOptions {
    /// Instruction set of the kernels: scalar, avx2 or avx512 (may change the last bits) [default: the best here]
    #[arg(long)]
    isa: Option<Isa>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Prompt tokens computed at once; 1 takes the path of decoding
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().chunk)]
    chunk: usize,
    /// Longest sequence, in tokens; ends an answer that reaches it
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().context)]
    context: usize,
}

impl HostOptions {
    /// The kernels asked for.
    pub fn kernels(&self) -> Result<&'static Kernels, Failure> {
        let isa = self.isa.unwrap_or_else(Isa::detect);
        Kernels::for_isa(isa).ok_or_else(|| {
            Failure::usage(format!(
                "this processor does not support {isa}; the best it has is {}",
                Isa::detect()
            ))
        })
    }

    /// The threads asked for.
    pub fn workers(&self) -> Result<HostWorkers, Failure> {
        let threads = match self.threads {
            Some(threads) => threads.into(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        HostWorkers::new(threads)
    }

    /// Longest sequence, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// An engine for one sequence, with this format of keys and values.
    pub fn engine_options(&self, kv: KvFormat) -> EngineOptions {
        EngineOptions {
            context: self.context,
            max_sequences: 1,
            queue: 1,
            chunk: self.chunk,
            kv,
            kv_tokens: None,
        }
    }
}

/// Reads a KV format.
pub fn parse_kv(text: &str) -> Result<KvFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "f16" => Ok(KvFormat::F16),
        "q8_0" => Ok(KvFormat::Q8_0),
        _ => Err("write f16 or q8_0".to_owned()),
    }
}
