//! The engine on this machine: its CPUs as the engine's threads, its free memory as the room for keys and values.

use engine::{Engine, EngineError, EngineOptions, KvFormat, Model};
use kernels::{Isa, Kernels};
use machine::acceptance::Reserve;
use machine::smp::Team;
use machine::{fatal, heap};
use server::Config;
use server::config::KvPrecision;

/// Memory left for everything that does not grow with the clients' demands.
const RESERVE: usize = 32 << 20;
/// Memory left for the buffers of one connection: network, TLS, headers.
const CONNECTION: usize = 256 << 10;
/// Memory left for one request body: itself, decoded, its tokens.
const BODY_COPIES: usize = 4;

/// Bytes of memory for a model file of `length` bytes, with what its alignment may cost.
pub fn model_memory(length: u64) -> usize {
    const ALIGNMENT: usize = 2 << 20;
    usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(ALIGNMENT)
}

/// The CPUs that compute: the whole team, or its first members.
pub struct Workers {
    team: &'static Team,
    count: usize,
}

impl engine::Workers for Workers {
    fn count(&self) -> usize {
        self.count
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        self.team.run(&|index| {
            if index < self.count {
                task(index);
            }
        });
    }
}

/// An engine as the configuration wants it, with room for as many of its sequences as memory allows. All memory that serving will ever need is
/// accepted here; the reserve ends with it.
///
/// # Errors
/// There is not enough memory for a single sequence, or the model does not go with the configuration.
pub fn engine(
    model: Model<'static>,
    isa: Isa,
    team: &'static Team,
    config: &Config,
    mut reserve: Reserve,
) -> Result<Engine<'static, Workers>, EngineError> {
    let count = match config.model.threads {
        0 => team.count(),
        threads => threads.min(team.count()),
    };
    let context = config.model.context.min(model.config().context_length);
    let mut options = EngineOptions {
        context,
        max_sequences: config.model.max_sequences,
        queue: config.limits.queue,
        kv: match config.model.kv {
            KvPrecision::F16 => KvFormat::F16,
            KvPrecision::Q8_0 => KvFormat::Q8_0,
        },
        ..EngineOptions::default()
    };
    let limits = &config.limits;
    let margin = limits
        .request_bytes
        .saturating_mul(BODY_COPIES)
        .saturating_add(CONNECTION)
        .saturating_mul(limits.connections)
        .saturating_add(RESERVE);
    let room = heap::free_bytes()
        .saturating_add(reserve.bytes())
        .saturating_sub(margin);
    let mut tokens = context.saturating_mul(config.model.max_sequences);
    let needed = loop {
        options.kv_tokens = Some(tokens);
        let needed = model.memory_required(&options, count)?;
        if needed <= room {
            break needed;
        }
        if tokens <= context {
            return Err(EngineError::Memory { needed });
        }
        tokens = (tokens / 2).max(context);
    };
    if let Err(error) = reserve.take(team, needed.saturating_add(margin)) {
        fatal::stop(format_args!("{error}"));
    }
    let kernels = Kernels::for_isa(isa).ok_or(EngineError::Option("isa"))?;
    Engine::new(model, kernels, Workers { team, count }, &options)
}
